"""What happens to nodes when something is wrong with their database, or in front of it: the rows of docs/cluster.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mqtt_im.app import Server
from mqtt_im.cluster.bus import Bus
from mqtt_im.config import load
from mqtt_im.testing import HOST, ServerProcess, free_ports
from tests.support.im import ImClient
from tests.support.jumps import WallClock
from tests.support.nodes import Nodes, new_nodes, unharmed_nodes
from tests.support.postgres import Cluster, new_database
from tests.support.proxy import Fault, ProxyThread
from tests.support.raw import Closed, Refused, eventually
from tests.support.web import Web

pytestmark = pytest.mark.slow


def inbox(client: ImClient) -> list[Any]:
    """What all messages of the user say, in order."""
    bodies: list[Any] = []
    while (page := client.ask("sync", after=len(bodies), limit=500).data)["items"]:
        bodies += [item["body"] for item in page["items"]]
    return bodies


class Writer:
    """Sends one message after the other to `bob` over one node, each until it is acknowledged."""

    def __init__(self, node: ServerProcess, user: str) -> None:
        self.acknowledged: list[str] = []
        self._node = node
        self._user = user
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                with ImClient(self._node.mqtt_port, self._user) as client:
                    client.sign_in()
                    while not self._stop.is_set():
                        client.confirmed("send", to="bob", body=f"{self._user} {number}", id=f"m{number}")
                        self.acknowledged.append(f"{self._user} {number}")
                        number += 1
            except (OSError, Closed, Refused):
                self._stop.wait(0.05)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_nodes_go_on_by_themselves_when_the_standby_is_promoted(own_postgres: Cluster) -> None:
    """With a synchronous standby nothing that was acknowledged is lost."""
    standby = own_postgres.standby()
    own_postgres.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    own_postgres.execute("SELECT pg_reload_conf()")
    sync = "SELECT sync_state FROM pg_stat_replication"
    eventually(lambda: own_postgres.execute(sync) == [("sync",)], "a synchronous standby")
    hosts = f"{HOST}:{own_postgres.port},{HOST}:{standby.port}"
    url = f"postgresql://postgres@{hosts}/{own_postgres.create()}"
    with ExitStack() as undo:
        undo.callback(standby.close)
        nodes = Nodes(url, undo)
        for _ in range(3):
            nodes.start()
        with ExitStack() as writing:
            writers = [writing.enter_context(Writer(node, f"user{number}")) for number, node in enumerate(nodes.all)]
            eventually(lambda: all(len(writer.acknowledged) >= 20 for writer in writers), "messages")
            own_postgres.kill()
            before = [len(writer.acknowledged) for writer in writers]
            standby.promote()
            eventually(
                lambda: all(len(writer.acknowledged) > count + 20 for writer, count in zip(writers, before, strict=True)),
                "every node goes on at the other host",
            )
        bodies = inbox(nodes.online(0, "bob"))
        for writer in writers:
            mine = [body for body in bodies if body.startswith(writer._user)]
            assert mine[: len(writer.acknowledged)] == writer.acknowledged  # none lost, none doubled, in order


def test_a_node_that_is_cut_off_from_the_database_sends_its_clients_away(postgres: Cluster) -> None:
    """Nothing answers, and nobody says so: for the others it is dead, and what it still has in hand is never committed."""
    with new_nodes(postgres, 1) as nodes, ProxyThread(postgres.port) as line:
        here = nodes.url
        nodes.url = here.replace(str(postgres.port), str(line.port))
        cut_off = nodes.start()
        alice, bob = nodes.online(0, "alice"), nodes.online(1, "bob", clean=False)
        alice.say("bob", 1)
        bob.wait("msg", body=1)
        line.set_fault(Fault.half_open())
        line.stall()
        bob.request("send", id="late", to="alice", body="never")
        eventually(lambda: not cut_off.ready(), "it says that it is not ready")
        with pytest.raises(Refused, match="3"):
            nodes.client(1, "carl")
        alice.say("bob", 2)  # the other one is not held up
        eventually(lambda: "a node is gone" in nodes.all[0].log(), "it is declared dead")
        bob.until_closed()
        bob = nodes.client(0, "bob", clean=False)
        assert bob.session_present
        bob.wait("msg", body=2)
        line.set_fault(Fault())
        line.cut()
        eventually(cut_off.ready, "it is a node again")
        nodes.online(1, "carl").say("bob", 3)
        bob.wait("msg", body=3)
        assert not [item for item in bob.items if item["body"] == "never"]


_FOREIGN = "CREATE TABLE orders (id int)"
_NEWER = (
    "CREATE TABLE meta (key text, value text); INSERT INTO meta VALUES ('program', 'mqtt-im'), ('epoch', 'e'), ('schema', '9')"
)


@pytest.mark.parametrize(
    ("before", "change", "told"),
    [
        ("", ("/test_", "/nowhere_"), "does not exist"),
        ("", ("postgres@", "guest_of_nodes@"), "must own the database, or be granted CREATE"),
        (_FOREIGN, ("", ""), "it holds tables of another program (orders); give mqtt-im a database of its own"),
        (_NEWER, ("", ""), "made by a newer version (schema 9, this one knows 2)"),
    ],
    ids=["no-database", "no-rights", "another-program", "newer"],
)
def test_what_waiting_does_not_mend_ends_the_start_in_one_line(
    postgres: Cluster, database: str, before: str, change: tuple[str, str], told: str
) -> None:
    if before:
        postgres.execute(before, database.rpartition("/")[2])
    with postgres.role("guest_of_nodes"):
        node = ServerProcess({"store.url": database.replace(*change)})
        with node._temporary:
            ended = node.command("serve")
    assert ended.returncode == 1, ended
    lines = [line for line in ended.stderr.splitlines() if "mqtt-im:" in line]
    assert len(ended.stderr.splitlines()) == len(lines) == 1 and told in lines[0], ended.stderr


def test_commands_leave_tables_of_a_newer_release_alone(postgres: Cluster, database: str) -> None:
    postgres.execute(_NEWER, database.rpartition("/")[2])
    node = ServerProcess({"store.url": database})
    with node._temporary:
        for command in (("user", "add", "alice"), ("user", "list"), ("hooks", "list"), ("store", "check")):
            ended = node.command(*command)
            assert (ended.returncode, ended.stdout) == (1, "") and ended.stderr.count("\n") == 1, ended
            assert "made by a newer version" in ended.stderr


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (("/test_", "/nowhere_"), 1, "does not exist"),
        (("127.0.0.1:", "127.0.0.1:9"), 2, "store.url: a port is a number"),
        (("postgres@", "postgres@a b"), 2, "store.url: expected postgresql://"),
    ],
    ids=["no-database", "no-port", "no-url"],
)
def test_commands_say_once_what_is_wrong_with_the_url(database: str, change: tuple[str, str], code: int, told: str) -> None:
    node = ServerProcess({"store.url": database.replace(*change)})
    with node._temporary:
        for command in (("user", "list"), ("user", "add", "alice"), ("store", "check")):
            ended = node.command(*command)
            assert ended.returncode == code and ended.stderr.count("\n") == 1, ended
            assert told in ended.stderr and ended.stderr.count("database ") <= 1 + ("does not exist" in told), ended


def test_a_start_that_has_joined_and_gets_no_further_connection_can_be_stopped(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Event()

    def refused(_: Bus, __: object) -> None:
        tried.set()
        raise psycopg.OperationalError("too many connections")

    monkeypatch.setattr(Bus, "_serve", refused)
    caplog.set_level(logging.INFO)
    binds = [f"mqtt.bind={HOST}:{free_ports(1)[0]}", "websocket.bind=", "http.bind=", "auth.mode=open"]
    config = load(None, [f"data_dir={tmp_path}", f"store.url={database}", *binds])

    async def run() -> None:
        server = Server(config)
        running = asyncio.create_task(server.run())
        await asyncio.to_thread(tried.wait)
        server.request_stop()
        await running

    asyncio.run(run())
    assert "stopped before the database was there" in caplog.text


@contextmanager
def _pool(postgres: Cluster, mode: str, folder: Path) -> Iterator[int]:
    """The port of a pgbouncer in this mode."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    assert program is not None, "tools/need-haproxy installs it"
    (port,) = free_ports(1)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={HOST} port={postgres.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = 20\nignore_startup_parameters = extra_float_digits\n"
    )
    settings.chmod(0o644)
    command = [program, "-q", *([] if os.geteuid() else ["-u", "postgres"]), str(settings)]
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_pool_must_be_in_session_mode(postgres: Cluster, tmp_path: Path) -> None:
    with new_database(postgres) as url:
        for mode in ("transaction", "statement"):
            with _pool(postgres, mode, tmp_path) as port:
                node = ServerProcess({"store.url": url.replace(str(postgres.port), str(port))})
                with node._temporary:
                    ended = node.command("serve")
                assert ended.returncode == 1
                (line,) = ended.stderr.splitlines()
                assert "a pool in transaction mode stands in between; use one in session mode, or none" in line
        with _pool(postgres, "session", tmp_path) as port, ExitStack() as undo:
            nodes = Nodes(url.replace(str(postgres.port), str(port)), undo)
            nodes.start()
            nodes.online(0, "alice").say("alice", 1)
            assert nodes.all[0].stop() == 0, nodes.all[0].log()


def test_clocks_an_hour_apart_are_one_time(postgres: Cluster, tmp_path: Path) -> None:
    """Times are the database's, so they grow within a conversation whichever node stores it. Nodes without a name make one."""
    clocks = [WallClock(tmp_path / name) for name in ("slow", "fast")]
    for clock, ahead in zip(clocks, (-3600, 3600), strict=True):
        clock.set(ahead)
    with new_database(postgres) as url, ExitStack() as undo:
        nodes = [
            undo.enter_context(ServerProcess({"store.url": url, "limits.drain_s": 1}, environment=clock.environment))
            for clock in clocks
        ]
        clients = [undo.enter_context(ImClient(node.mqtt_port, "alice", f"d{number}")) for number, node in enumerate(nodes)]
        for client in clients:
            client.sign_in().listen().must("hello")  # it is registered
        times = [clients[number % 2].say("alice", number)["ts"] for number in range(10)]
        assert times == sorted(times) and abs(times[-1] / 1000 - time.time()) < 600
        for client in clients:
            client.until(lambda client=client: len(client.items) == 10, "all items")  # type: ignore[misc]
            assert [item["ts"] for item in client.items] == times
        guest = undo.enter_context(ImClient(nodes[1].mqtt_port, "bob", "phone"))
        guest.sign_in().listen().say("alice", "hi")
        assert clients[0].subscribe(guest.presence_topic) == [1]
        guest.disconnect()

        def states() -> list[dict[str, Any]]:
            return [json.loads(p.payload) for p in clients[0].plain if p.topic == guest.presence_topic]

        clients[0].until(lambda: states() and states()[-1]["state"] == "offline", "offline")
        assert abs(states()[-1]["last_seen"] / 1000 - time.time()) < 600
        for node in nodes:
            with Web(node.http_port) as web:
                assert abs(web.login("alice").must("hello")["ts"] / 1000 - time.time()) < 600
            kept = json.loads((Path(str(node.config["data_dir"])) / "node").read_text())["name"]
            assert kept.endswith(f":{node.mqtt_port}")
            node.restart()
            # It was started twice, and has kept its name.
            eventually(lambda node=node: node.log().count(" info    ready ") == 2, "its line in the log")  # type: ignore[misc]
            lines = [line for line in node.log().splitlines() if " info " in line or " warning " in line]
            assert {line.rpartition("node=")[2] for line in lines} == {kept}


@pytest.fixture
def small(postgres: Cluster) -> Iterator[tuple[str, Path]]:
    """A database on a disk of its own of 48 MB, and its folder."""
    folder = Path(tempfile.mkdtemp(prefix="mqtt-im-small-", dir="/tmp"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], check=False).returncode:
        folder.rmdir()
        pytest.skip("nothing can be mounted here: that takes root")
    try:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        postgres.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
        name = postgres.create()
        postgres.execute(f"ALTER DATABASE {name} SET TABLESPACE small")
        yield postgres.url(name), folder
        postgres.drop(name)
        postgres.execute("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def fill(file: Path) -> None:
    """Nothing more can be written beside this file."""
    with file.open("wb", buffering=0) as target, contextlib.suppress(OSError):
        while True:
            target.write(b"x" * 65_536)


def test_a_full_disk_at_the_database_loses_nothing(small: tuple[str, Path]) -> None:
    url, folder = small
    with ExitStack() as undo:
        nodes = Nodes(url, undo)
        node = nodes.start()
        alice = nodes.online(0, "alice")
        for number in range(5):
            alice.say("bob", number)
        filler = folder / "filler"
        fill(filler)
        sent = 5
        while (answer := alice.ask("send", to="bob", body=[sent, "x" * 4_000], id=f"m{sent}")).op == "sent":
            sent += 1
        assert (answer["code"], answer["retry"]) == ("unavailable", True)
        eventually(lambda: not node.ready(), "it is not ready")
        assert "the database has no room" in node.log()
        filler.unlink()
        eventually(node.ready, "it goes on by itself")
        alice = nodes.online(0, "alice")
        assert alice.say("bob", [sent, ""], id=f"m{sent}")["seq"] == sent + 1
        bodies = inbox(nodes.online(0, "bob"))
        assert [body if isinstance(body, int) else body[0] for body in bodies] == list(range(sent + 1))
        assert node.stop() == 0
        assert node.command("store", "check").returncode == 0


def test_a_taken_over_connection_writes_nothing_more(postgres: Cluster) -> None:
    """Whatever the older connection had sent is committed before the new one's CONNACK, or never."""
    with unharmed_nodes(postgres, 2, **{"limits.requests_per_second": 100_000, "limits.max_inflight": 500}) as nodes:
        older = nodes.client(0, "alice")
        for turn in range(6):
            for number in range(100):
                older.request("send", id=f"{turn} {number}", to="bob", body=number)
            newer = nodes.online(1 - turn % 2, "alice")
            marker = newer.say("bob", "marker")["seq"]
            with contextlib.suppress(Closed):
                older.request("send", id=f"{turn} late", to="bob", body="late")
            older.until_closed()
            history = newer.ask("history", conv="alice:bob", limit=500)
            assert (history["items"][-1]["seq"], history["items"][-1]["body"]) == (marker, "marker")
            older = newer


def test_a_node_has_at_most_six_connections(postgres: Cluster, tmp_path: Path) -> None:
    everything = {
        "mqtt.plain_topics": ["news/#"],
        "auth.mode": "accounts",
        "files.url": f"file://{tmp_path}",
        "hooks.url": "http://127.0.0.1:9/",
        "hooks.secret": "s" * 32,
        "push.url": "http://127.0.0.1:9/",
        "push.secret": "s" * 32,
        "store.retention_messages": 3,
    }
    with new_nodes(postgres, 1, **everything) as nodes:
        node = nodes.all[0]
        assert node.command("user", "add", "alice", "--password-stdin", stdin="correct horse\n").returncode == 0
        most = 0

        def count() -> int:
            ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mqtt-im n1 %'"
            return int(postgres.execute(ours)[0][0])

        for turn in range(30):
            client = nodes.client(0, "alice", f"d{turn % 4}", password="correct horse", clean=turn % 2 == 0)
            client.subscribe("news/#", client.user_down, client.device_down)
            client.publish("news/1", b"x", retain=turn % 3 == 0)
            client.say("alice", f"words {turn}")
            client.ask("search", query="words")
            client.ask("history", conv="alice:alice")
            most = max(most, count())
            client.close()
        names = postgres.execute("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'mqtt-im%'")
        assert 3 <= most <= 6, names
