"""Stock clients that know nothing of this server: paho, mosquitto_pub and mosquitto_sub."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from mqtt_im.testing import ServerProcess
from tests.support.raw import PATIENCE_S, eventually
from tests.system.conftest import Clients, Name


class Paho:
    """A paho client as its documentation writes one: network loop in a thread, callbacks, automatic reconnect."""

    def __init__(self, port: int, user: str, device: str, *, clean: bool = False, transport: Any = "tcp") -> None:
        self.user = user
        self.received: queue.Queue[dict[str, Any]] = queue.Queue()
        self.connected = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=device, clean_session=clean, protocol=paho.MQTTv311, transport=transport
        )
        if transport == "websockets":
            self.client.ws_set_options(path="/mqtt")
        self.client.username_pw_set(user)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda *_: self.connected.clear()
        self.client.on_message = self._on_message
        self.up = f"im/v1/{user}/{device}/up"
        self.filter = f"im/v1/{user}/#"
        self.client.connect("127.0.0.1", port, keepalive=30)
        self.client.loop_start()

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        client.subscribe(self.filter, qos=1)
        self.connected.set()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/down"):
            self.received.put(json.loads(message.payload))

    def send(self, to: str, body: Any, **fields: Any) -> None:
        """Publish at QoS 1; paho repeats it until it is acknowledged."""
        self.client.publish(self.up, json.dumps({"op": "send", "to": to, "body": body, **fields}), qos=1)

    def next(self, op: str) -> dict[str, Any]:
        while True:
            data = self.received.get(timeout=PATIENCE_S)
            if data["op"] == op:
                return data

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


MakePaho = Callable[..., Paho]


@pytest.fixture
def make_paho() -> Iterator[MakePaho]:
    made: list[Paho] = []

    def make(*arguments: Any, **options: Any) -> Paho:
        made.append(Paho(*arguments, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def mosquitto_pub(port: int, user: str, to: str, body: str) -> None:
    """One message with the command line client; returns when it was acknowledged."""
    request = json.dumps({"op": "send", "to": to, "body": body})
    subprocess.run(
        ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-u", user, "-i", "pub", "-q", "1", "-t", f"im/v1/{user}/pub/up",
         "-m", request], check=True, timeout=PATIENCE_S,
    )  # fmt: skip


class Sub:
    """`mosquitto_sub -c`: a kept session; its lines are read as they come."""

    def __init__(self, port: int, user: str, output: Path) -> None:
        self.output = output
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-u", user, "-i", "phone", "-c", "-q", "1",
                 "-t", f"im/v1/{user}/down"], stdout=file, stderr=file,
            )  # fmt: skip

    def bodies(self) -> list[str]:
        """What has come, in order; a repeat after a crash is recognised by its pos and must be the same."""
        seen: dict[int, str] = {}
        for line in self.output.read_text("utf-8").splitlines():
            if line.startswith("{") and (item := json.loads(line))["op"] == "msg":
                assert seen.setdefault(item["pos"], item["body"]) == item["body"]
        assert list(seen) == list(range(1, len(seen) + 1))
        return list(seen.values())

    def until(self, expected: list[str]) -> None:
        eventually(lambda: self.bodies() == expected, f"{expected} at mosquitto_sub")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)


def test_mosquitto_pub_to_mosquitto_sub_offline_and_back(im: Clients, name: Name, tmp_path: Path) -> None:
    alice, bob = name("alice"), name("bob")
    port, output = im.server.mqtt_port, tmp_path / "bob"
    mosquitto_pub(port, alice, bob, "before he ever connected")
    with Sub(port, bob, output) as sub:
        sub.until(["before he ever connected"])
        mosquitto_pub(port, alice, bob, "live")
        sub.until(["before he ever connected", "live"])
    mosquitto_pub(port, alice, bob, "while away 1")
    mosquitto_pub(port, alice, bob, "while away 2")
    with Sub(port, bob, output) as sub:
        sub.until(["before he ever connected", "live", "while away 1", "while away 2"])


def test_two_stock_clients_with_the_server_killed_in_between(own_server: ServerProcess, tmp_path: Path) -> None:
    """The whole story: one is offline in between, the server is killed in between, nothing is lost or doubled."""
    port, output = own_server.mqtt_port, tmp_path / "bob"
    with Sub(port, "bob", output) as sub:
        mosquitto_pub(port, "alice", "bob", "1")
        sub.until(["1"])
        own_server.restart(kill=True)
        mosquitto_pub(port, "alice", "bob", "2")  # bob's client reconnects by itself
        sub.until(["1", "2"])
    mosquitto_pub(port, "alice", "bob", "3")
    own_server.restart(kill=True)
    mosquitto_pub(port, "alice", "bob", "4")
    with Sub(port, "bob", output) as sub:
        sub.until(["1", "2", "3", "4"])


@pytest.mark.parametrize(("transport", "listener"), [("tcp", "mqtt"), ("websockets", "websocket"), ("websockets", "http")])
def test_paho_chats(im: Clients, name: Name, make_paho: MakePaho, transport: str, listener: str) -> None:
    port = getattr(im.server, f"{listener}_port")
    alice = make_paho(port, name("alice"), "phone", transport=transport)
    bob = make_paho(port, name("bob"), "phone", transport=transport)
    assert alice.connected.wait(PATIENCE_S)
    assert bob.connected.wait(PATIENCE_S)
    for number in range(20):
        alice.send(bob.user, number, id=f"m{number}")
    for number in range(20):
        assert alice.next("sent")["seq"] == number + 1
        got = bob.next("msg")
        assert (got["pos"], got["seq"], got["body"], got["from"]) == (number + 1, number + 1, number, alice.user)
    bob.send(alice.user, "answer")
    assert alice.next("msg")["body"] == "answer"


def test_paho_over_kills(own_server: ServerProcess, make_paho: MakePaho) -> None:
    """It queues, reconnects and repeats by itself; what arrives is whole, in order and without repeats (by pos)."""
    alice = make_paho(own_server.mqtt_port, "alice", "phone")
    bob = make_paho(own_server.mqtt_port, "bob", "phone")
    assert alice.connected.wait(PATIENCE_S)
    assert bob.connected.wait(PATIENCE_S)
    for part in range(3):
        for number in range(part * 20, part * 20 + 20):
            alice.send("bob", number, id=f"m{number}")
        own_server.restart(kill=True)
    by_pos: dict[int, dict[str, Any]] = {}
    while len(by_pos) < 60:
        item = bob.next("msg")
        assert by_pos.setdefault(item["pos"], item) == item
    assert [by_pos[pos]["body"] for pos in sorted(by_pos)] == list(range(60))
    assert sorted(by_pos) == list(range(1, 61))


def test_paho_without_ids_over_a_kill(own_server: ServerProcess, make_paho: MakePaho) -> None:
    """No id: a PUBLISH repeated with DUP in the kept session is the same message."""
    alice = make_paho(own_server.mqtt_port, "alice", "phone")
    assert alice.connected.wait(PATIENCE_S)
    for number in range(30):
        alice.send("bob", number)
    own_server.restart(kill=True)
    eventually(alice.connected.is_set, "the reconnect")
    alice.send("bob", "last")
    bob = make_paho(own_server.mqtt_port, "bob", "phone")
    seen: dict[int, Any] = {}
    while "last" not in seen.values():
        item = bob.next("msg")
        seen[item["pos"]] = item["body"]
    assert [seen[pos] for pos in sorted(seen)] == [*range(30), "last"]
