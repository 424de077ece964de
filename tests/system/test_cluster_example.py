"""config/cluster, piece by piece and without containers: PostgreSQL with its standby, three nodes, and HAProxy before them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from mqtt_im.mqtt import properties as props
from mqtt_im.testing import HOST, ServerProcess, free_ports
from tests.support import packets, packets5
from tests.support.im import ImClient, direct
from tests.support.im5 import Im5
from tests.support.postgres import Cluster, program
from tests.support.raw import Closed, Refused, eventually
from tests.support.web import Web

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[2] / "config" / "cluster"
TOKEN = "an-admin-token"


def _as_postgres(*command: str) -> list[str]:
    return [*command] if os.geteuid() else ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]


def _path() -> str:
    return os.pathsep.join([str(Path(program("postgres")).parent), os.environ["PATH"]])


@contextmanager
def _standby(primary: Cluster, folder: Path) -> Iterator[int]:
    """The port of the standby that standby.sh runs."""
    (port,) = free_ports(1)
    data = folder / "standby"
    data.mkdir(mode=0o700)
    if not os.geteuid():
        shutil.chown(data, "postgres", "postgres")
    environment = {**os.environ, "PATH": _path(), "PGDATA": str(data), "PRIMARY_HOST": HOST, "PRIMARY_PORT": str(primary.port)}
    like_the_primary = [f"--{name}={primary.settings[name]}" for name in ("max_connections", "max_wal_senders")]
    command = _as_postgres("/bin/sh", str(FOLDER / "standby.sh"), "-p", str(port), "-k", str(data), *like_the_primary)
    with (folder / "standby.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=data)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(60)


def _node_config() -> dict[str, Any]:
    read = tomllib.loads((FOLDER / "node.toml").read_text("utf-8"))
    found: dict[str, Any] = {}
    for section, value in read.items():
        if isinstance(value, dict):
            found.update({f"{section}.{key}": entry for key, entry in value.items()})
        else:
            found[section] = value
    return found


@contextmanager
def _haproxy(nodes: list[ServerProcess], mqtt_port: int, http_port: int, folder: Path) -> Iterator[None]:
    found = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert found is not None, "tools/need-haproxy installs it"
    text = (FOLDER / "haproxy.cfg").read_text("utf-8")
    text = text.replace("maxconn 100000", "maxconn 1000")  # which the limit of open files here allows
    text = text.replace("bind :1883", f"bind {HOST}:{mqtt_port}").replace("bind :80", f"bind {HOST}:{http_port}")
    for number, node in enumerate(nodes, 1):
        text = text.replace(f"n{number}:1883", f"{HOST}:{node.mqtt_port} port {node.http_port}")
        text = text.replace(f"n{number}:8080", f"{HOST}:{node.http_port}")
    assert not re.search(r"\bn\d:", text), text
    (folder / "haproxy.cfg").write_text(text)
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([found, "-db", "-f", str(folder / "haproxy.cfg")], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Example:
    """Everything of the example, at work."""

    def __init__(self, undo: ExitStack, primary: Cluster, folder: Path) -> None:
        self._undo = undo
        passwords = {"IM_PASSWORD": "a", "STANDBY_PASSWORD": "b", "PGDATA": str(primary.data)}
        where = {"PGHOST": HOST, "PGPORT": str(primary.port), "PATH": _path()}
        subprocess.run(["/bin/sh", str(FOLDER / "primary.sh")], env={**os.environ, **passwords, **where}, check=True)
        self.standby = undo.enter_context(_standby(primary, folder))
        follows = "SELECT sync_state FROM pg_stat_replication WHERE application_name = 'walreceiver'"
        eventually(lambda: primary.execute(follows), "a standby")
        primary.execute("SELECT pg_reload_conf()")  # as a start of the primary does
        eventually(lambda: primary.execute(follows) == [("sync",)], "a synchronous one")
        self.mqtt_port, self.http_port = free_ports(2)
        url = f"postgresql://im:a@{HOST}:{primary.port},{HOST}:{self.standby}/im"
        self.nodes: list[ServerProcess] = []
        for number in (1, 2, 3):
            own = {"store.url": url, "cluster.node": f"n{number}", "cluster.server_reference": f"{HOST}:{self.mqtt_port}"}
            here = {"data_dir": str(folder / f"n{number}"), "limits.drain_s": 2, "auth.admin_token": TOKEN}
            config = {**_node_config(), **own, **here, "http.trusted_proxies": [HOST]}
            for key in ("mqtt.bind", "http.bind"):
                del config[key]  # free ports
            self.nodes.append(undo.enter_context(ServerProcess(config)))
        undo.enter_context(_haproxy(self.nodes, self.mqtt_port, self.http_port, folder))
        answers: list[object] = []

        def knows() -> bool:
            answers[:] = [self._answer() for _ in range(6)]
            return answers == [200] * 6

        log = folder / "haproxy.log"
        eventually(knows, lambda: f"HAProxy knows its nodes: {answers}; it says {log.read_text()[-2_000:]}")

    def _answer(self) -> object:
        """Of a node behind HAProxy: the status that says whether it is ready, or why there is none."""
        try:
            with Web(self.http_port) as web:
                return web.ask("GET", "/health/ready").status
        except OSError as error:
            return error

    def online(self, user: str, device: str = "phone", source: str = HOST) -> ImClient:
        """A client that came through HAProxy from that address, as soon as it is let in."""

        def come() -> ImClient | None:
            client = ImClient(self.mqtt_port, user, device, source=source)
            try:
                client.sign_in(clean=False)
                return client if client.session_present else client.listen()
            except (Closed, Refused, OSError):
                client.close()
                return None

        client = eventually(come, "a node lets it in")
        assert client is not None
        self._undo.callback(client.close)
        return client

    def connections(self) -> dict[str, tuple[str, str]]:
        """User → node and address."""
        for node in self.nodes:
            if node.running:
                with Web(node.http_port, TOKEN) as admin:
                    found = admin.ask("GET", "/api/v1/admin/connections").data["connections"]
                    return {entry["user"]: (entry["node"], entry["address"]) for entry in found}
        raise AssertionError("no node runs")

    def node_of(self, user: str) -> ServerProcess:
        """Where the user's client is."""
        return self.nodes[int(self.connections()[user][0][1:]) - 1]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can get into."""
    with tempfile.TemporaryDirectory(prefix="mqtt-im-example-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_the_example_works_as_a_whole(own_postgres: Cluster, folder: Path) -> None:
    with ExitStack() as undo:
        example = Example(undo, own_postgres, folder)

        # Clients come to all nodes, from their own addresses, over MQTT, WebSocket and HTTP.
        clients = [example.online(f"user{number}", source=f"127.0.0.{number + 2}") for number in range(6)]
        found = example.connections()
        assert {node for node, _ in found.values()} == {"n1", "n2", "n3"}
        assert [found[f"user{number}"][1] for number in range(6)] == [f"127.0.0.{number + 2}" for number in range(6)]
        for number, client in enumerate(clients):
            client.say(f"user{(number + 1) % 6}", f"from {number}")
        for number, client in enumerate(clients):
            client.wait("msg", body=f"from {(number - 1) % 6}")
        browser = paho.Client(CallbackAPIVersion.VERSION2, client_id="tab", transport="websockets")
        browser.ws_set_options(path="/mqtt")
        browser.username_pw_set("browser", "x")
        browser.connect(HOST, example.http_port)
        browser.loop_start()
        eventually(browser.is_connected, "MQTT over WebSocket through HAProxy")
        browser.disconnect()
        browser.loop_stop()

        # A node is killed: its clients are let in elsewhere, and have what was said meanwhile.
        gone = example.node_of("user0")
        gone.kill()
        clients[0].until_closed()
        clients[1].close()
        clients[1] = example.online("user1")
        clients[1].say("user0", "while you were away")
        clients[0] = example.online("user0")
        assert clients[0].session_present
        clients[0].wait("msg", body="while you were away")

        # A rolling restart: who speaks MQTT 5 is told where to go.
        five = undo.enter_context(Im5(example.mqtt_port, "five"))
        node = example.node_of("five")
        node.signal(signal.SIGTERM)
        farewell = five.until(lambda: five._take(packets.DISCONNECT))
        given = dict(packets5.read_properties(farewell.body, 1)[0])
        assert (farewell.body[0], given[props.SERVER_REFERENCE]) == (0x9C, f"{HOST}:{example.mqtt_port}")
        assert node.wait() == 0
        undo.enter_context(Im5(example.mqtt_port, "five"))
        last = example.node_of("five")
        assert last not in (gone, node)

        # The primary dies, and its standby is promoted.
        own_postgres.kill()
        with psycopg.connect(f"postgresql://postgres@{HOST}:{example.standby}/postgres", autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 60)")
        eventually(last.ready, "the last node goes on")
        example.online("user2").say("user3", "after all")
        example.online("user3").wait("msg", body="after all")


class Talker(threading.Thread):
    """Sends one message after the other through HAProxy, each again until it has its PUBACK, and reads its own inbox."""

    def __init__(self, example: Example, user: str, peer: str) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.bodies: dict[int, Any] = {}
        """Of the messages from `peer`, by `pos`, as often as they came."""
        self._port = example.mqtt_port
        self._user, self._peer = user, peer
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                with ImClient(self._port, self._user) as client:
                    try:
                        self._talk(client.sign_in(clean=False))
                    finally:
                        self._note(client)
            except (OSError, Closed, Refused):
                time.sleep(0.05)

    def _talk(self, client: ImClient) -> None:
        if not client.session_present:
            client.listen()
        while not self.stopping.is_set():
            client.confirmed("send", to=self._peer, body=self.sent, id=f"m{self.sent}")
            self.sent += 1

    def _note(self, client: ImClient) -> None:
        for item in client.items:
            if item.op == "msg" and item["from"] == self._peer:
                assert self.bodies.setdefault(item["pos"], item["body"]) == item["body"]


def test_a_rolling_restart_loses_nothing(own_postgres: Cluster, folder: Path) -> None:
    """As an upgrade does it: each node in turn, while people write."""
    with ExitStack() as undo:
        example = Example(undo, own_postgres, folder)
        pairs = [(f"user{number}", f"user{number ^ 1}") for number in range(6)]
        for user, _ in pairs:
            example.online(user)
        talkers = [Talker(example, *pair) for pair in pairs]
        for talker in talkers:
            talker.start()
        try:
            for node in example.nodes:
                before = [talker.sent for talker in talkers]
                assert node.stop() == 0
                node.start()
                enough = lambda before=before: all(t.sent > b + 10 for t, b in zip(talkers, before, strict=True))  # noqa: E731
                eventually(enough, "everybody goes on")
        finally:
            for talker in talkers:
                talker.stopping.set()
            for talker in talkers:
                talker.join()
        for talker, (user, peer) in zip(talkers, pairs, strict=True):
            client = example.online(user)
            other = talkers[pairs.index((peer, user))]
            history: list[Any] = []
            while page := client.ask("history", conv=direct(user, peer), after=len(history), limit=500)["items"]:
                history += page
            assert [item["seq"] for item in history] == list(range(1, len(history) + 1))
            for who, sender in ((user, talker), (peer, other)):
                bodies = [item["body"] for item in history if item["from"] == who]
                assert bodies[: sender.sent] == list(range(sender.sent)), who  # none lost, none doubled, in order
                assert len(bodies) <= sender.sent + 1
            found = [body for _, body in sorted(talker.bodies.items())]
            assert found == list(range(len(found))), sorted(talker.bodies.items())[:10]
