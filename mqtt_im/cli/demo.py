"""`mqtt-im demo`: the whole story in one terminal, with a server of its own, stock MQTT clients and a real SIGKILL."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import typer
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from mqtt_im.protocol.errors import MqttImError

PATIENCE_S: Final = 30.0
BURST: Final = 300


class Person:
    """A user with one device: paho's client, nothing of ours. Collects the messages that arrive."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self.texts: list[str] = []
        self.positions: list[int] = []
        self.acknowledged = 0
        self.connections = 0
        self._address = host, port
        self._changed = threading.Condition()
        self._requests = 0
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="phone", clean_session=False)
        self._client.username_pw_set(name)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def come(self) -> None:
        """Connect; the device is subscribed when this returns."""
        connections = self.connections
        self._client.connect(*self._address)
        self._client.loop_start()
        self.wait(lambda: self.connections > connections, f"{self.name} could not connect")

    def go(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, to: str, text: str) -> None:
        """Send a message. paho repeats it until the server has acknowledged it, and its id makes repeats harmless."""
        self._requests += 1
        request = {"op": "send", "id": f"demo-{self._requests}", "to": to, "body": text}
        self._client.publish(f"im/v1/{self.name}/phone/up", json.dumps(request), qos=1)

    def wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Return when the condition holds. Raises `MqttImError` with `otherwise` after `PATIENCE_S`."""
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE_S):
                raise MqttImError("demo", otherwise)

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe(f"im/v1/{self.name}/down", qos=1)
        self._note(connections=1)

    def _on_message(self, _client: Client, _userdata: Any, packet: MQTTMessage) -> None:
        item = json.loads(packet.payload)
        with self._changed:
            pos = item.get("pos")  # events such as receipts have none; a known one is a repeat after the server has died
            if pos is not None and pos not in self.positions:
                self.positions.append(pos)
                if item["op"] == "msg":
                    self.texts.append(item["body"])
            self._changed.notify_all()

    def _on_publish(self, *_: Any) -> None:
        self._note(acknowledged=1)

    def _note(self, acknowledged: int = 0, connections: int = 0) -> None:
        with self._changed:
            self.acknowledged += acknowledged
            self.connections += connections
            self._changed.notify_all()


def demo() -> None:
    """Show the whole story over real MQTT: chat, a device that goes offline, a server that is killed, nothing lost."""
    from mqtt_im.testing import ServerFailed

    try:
        _story()
    except ServerFailed as error:
        raise MqttImError("demo", str(error)) from error


def _story() -> None:
    from mqtt_im.testing import ServerProcess

    start = time.monotonic()
    _tell("A server starts, in a process and a temporary folder of its own.")
    with contextlib.ExitStack() as ending:
        server = ending.enter_context(ServerProcess({"limits.requests_per_second": 100_000}))
        alice, bob = (Person(name, server.host, server.mqtt_port) for name in ("alice", "bob"))
        for person in (alice, bob):
            ending.callback(person.go)
            person.come()
        _chat(alice, bob)
        _away(alice, bob)
        _killed(alice, bob, server.kill, server.start)
    _tell(f"Nothing was lost, doubled or out of order. That took {time.monotonic() - start:.1f} s.")


def _chat(alice: Person, bob: Person) -> None:
    _tell("alice and bob connect with a stock MQTT client (paho), and chat:")
    alice.say("bob", "Hello Bob")
    bob.wait(lambda: bob.texts == ["Hello Bob"], "bob did not get the message")
    bob.say("alice", "Hello Alice")
    alice.wait(lambda: alice.texts == ["Hello Alice"], "alice did not get the answer")
    _tell(f"  alice → bob    {bob.texts[0]}")
    _tell(f"  bob → alice    {alice.texts[0]}")


def _away(alice: Person, bob: Person) -> None:
    bob.go()
    bob.texts.clear()
    missed = ["Are you there?", "I'll write it down for you.", "See you!"]
    acknowledged = alice.acknowledged
    for text in missed:
        alice.say("bob", text)
    alice.wait(lambda: alice.acknowledged >= acknowledged + len(missed), "the server did not acknowledge the messages")
    _tell(f"bob's phone goes offline, and alice sends {len(missed)} messages. Then it comes back, and finds what it missed:")
    bob.come()
    bob.wait(lambda: len(bob.texts) >= len(missed), "bob did not get what he missed")
    for text in bob.texts:
        _tell(f"  alice → bob    {text}")
    if bob.texts != missed:
        raise MqttImError("demo", "that is not what alice sent")


def _killed(alice: Person, bob: Person, kill: Callable[[], None], restart: Callable[[], None]) -> None:
    bob.texts.clear()
    acknowledged = alice.acknowledged
    burst = [f"number {number}" for number in range(1, BURST + 1)]
    _tell(f"Now alice sends {BURST} messages at once, and the server is killed (SIGKILL) in the middle of them.")
    for text in burst[: BURST // 2]:
        alice.say("bob", text)
    alice.wait(lambda: alice.acknowledged > acknowledged + BURST // 10, "the server did not acknowledge the messages")
    kill()
    _tell(f"  killed: {alice.acknowledged - acknowledged} messages were acknowledged, {len(bob.texts)} had reached bob")
    for text in burst[BURST // 2 :]:
        alice.say("bob", text)
    restart()
    _tell("  the server is back; both clients reconnect by themselves")
    bob.wait(lambda: len(bob.texts) >= BURST, "bob did not get all messages")
    _tell(f"  bob has {len(bob.texts)} messages, from {bob.texts[0]!r} to {bob.texts[-1]!r}")
    if bob.texts != burst or bob.positions != list(range(1, len(bob.positions) + 1)):
        raise MqttImError("demo", "these are not the messages that alice sent, in their order")


def _tell(line: str) -> None:
    typer.echo(line)
