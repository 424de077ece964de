"""`mqtt-im store copy`: clients go on exactly once on the other side; what is killed or refused leaves things as they were."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.hooks.encryption import new_key
from mqtt_im.hooks.webpush import KEY_NAME
from mqtt_im.postgres.connecting import Database
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.postgres.check import check
from mqtt_im.store.sqlite.check import check as check_folder
from mqtt_im.testing import ServerFailed, ServerProcess, Value
from tests.support.im import ImClient
from tests.support.postgres import Cluster
from tests.support.raw import Refused, eventually
from tests.support.store import SqliteStore
from tests.system.conftest import Clients

pytestmark = pytest.mark.slow

CONFIG: dict[str, Value] = {"auth.mode": "accounts", "limits.failed_logins_per_minute": 1000}
PASSWORD = "the same everywhere"


def copy(source: str | Path, target: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments(source, target), check=False, capture_output=True, text=True, timeout=120)


def arguments(source: str | Path, target: str | Path) -> list[str]:
    return [sys.executable, "-m", "mqtt_im", "store", "copy", "--from", str(source), "--to", str(target)]


def on(server: ServerProcess, user: str, clients: list[ImClient], **options: Any) -> ImClient:
    client = ImClient(server.mqtt_port, user)
    clients.append(client)
    client.sign_in(**{"password": PASSWORD, **options})
    return client if client.session_present else client.listen()


@pytest.fixture
def clients() -> Iterator[list[ImClient]]:
    made: list[ImClient] = []
    yield made
    for client in made:
        client.close()


def test_clients_go_on_in_postgresql_and_back_in_sqlite(database: str, tmp_path: Path, clients: list[ImClient]) -> None:
    """INV-1 to INV-4 over two moves, the first one after a SIGKILL: accounts, sessions, cursors, ids and counters are there."""
    with ServerProcess(CONFIG) as server:
        for user in ("alice", "bob"):
            server.command("user", "add", user, "--password-stdin", stdin=PASSWORD + "\n")
        bob, alice = on(server, "bob", clients, clean=False), on(server, "alice", clients)
        epoch = alice.must("hello")["epoch"]
        alice.must("group.create", id="g", group="#g", members=["bob"])
        for number in range(40):
            alice.say("bob" if number % 2 else "#g", number, id=f"m{number}")
        bob.received(41)
        bob.confirmed("read", conv="alice:bob", seq=5)
        bob.must("react", id="r", conv="alice:bob", seq=5, emoji="+")
        bob.disconnect()
        for number in range(40, 60):
            alice.say("bob", number, id=f"m{number}")
        before = alice.must("convs")["convs"]
        server.kill()
        (server.data_dir / KEY_NAME).write_bytes(key := new_key())
        assert copy(server.data_dir, database).returncode == 0
    assert check(Database(database)).problems == []

    with ServerProcess(CONFIG | {"store.url": database}) as server:
        bob, alice = on(server, "bob", clients, clean=False), on(server, "alice", clients)
        assert bob.session_present
        assert alice.must("hello")["epoch"] not in (epoch, "")
        alice.request("send", to="bob", body=59, id="m59")
        alice.wait("sent", id="m59", dup=True)  # the item of the first one may come again before
        assert alice.must("convs")["convs"] == before
        alice.say("bob", 60)
        assert [item["body"] for item in bob.drain() if item.op == "msg" and item["from"] == "alice"] == list(range(40, 61))
        with pytest.raises(Refused):
            on(server, "bob", clients, password="another one")
        bob.disconnect()
        alice.say("bob", 61)
        assert server.stop() == 0
    folder = tmp_path / "back"
    assert copy(database, folder).returncode == 0
    assert check_folder(folder).problems == []
    assert (folder / KEY_NAME).read_bytes() == key

    with ServerProcess(CONFIG | {"data_dir": str(folder)}) as server:
        bob, alice = on(server, "bob", clients, clean=False), on(server, "alice", clients)
        assert alice.ask("send", to="bob", body=61, id="m59").op == "error"
        alice.say("bob", 62)
        assert [item["body"] for item in bob.drain() if item.op == "msg" and item["from"] == "alice"] == [61, 62]
        assert [item["seq"] for item in alice.must("history", conv="alice:bob", after=0)["items"]] == list(range(1, 44))
        assert server.stop() == 0


def test_no_copy_is_made_of_what_is_in_use_or_to_where_something_is(database: str, tmp_path: Path) -> None:
    with ServerProcess() as one, ServerProcess({"store.url": database, "cluster.node": "n1"}) as node:
        for server in (one, node):
            im = Clients(server)
            im.online("alice").say("bob", "hi")
            im.close()
        other = tmp_path / "other"
        cases: list[tuple[str | Path, Path, str]] = [
            (one.data_dir, tmp_path / "free", "in use by another server"),
            (database, other, "in use by n1; stop every node first"),
            (tmp_path / "nothing", other, "there is no such file"),
        ]
        for source, target, problem in cases:
            refused = copy(source, target)
            assert refused.returncode == 1 and refused.stderr.count("\n") == 1 and problem in refused.stderr, refused
        one.stop()
        refused = copy(one.data_dir, database)
        assert refused.returncode == 1 and "in use by n1" in refused.stderr, refused
        node.stop()
        for refused in (copy(one.data_dir, database), copy(database, one.data_dir)):
            assert refused.returncode == 1 and "holds a store" in refused.stderr, refused
        assert not other.exists() and not (tmp_path / "free").exists()
        assert check(Database(database)).messages == check_folder(one.data_dir).messages == 1


@pytest.fixture
def much(tmp_path: Path) -> Path:
    """A folder with so many messages that a copy can be killed."""
    folder = tmp_path / "much"
    folder.mkdir()
    store = SqliteStore(folder)
    for start in range(0, 12_000, 500):
        sends = [rq.Send(id=str(number), to=f"u{number % 7}", body=Raw(b'"hi"')) for number in range(start, start + 500)]
        store.run(
            [RequestJob(Who(f"u{index % 5}", "pc", 0), send, lambda _: None) for index, send in enumerate(sends)],
            1_700_000_000_000,
        )
    store.close()
    return folder


def test_a_copy_that_is_killed_leaves_the_database_as_it_was(postgres: Cluster, database: str, much: Path) -> None:
    """Nothing of it is there, and it can be made again."""
    name = database.rpartition("/")[2]

    locks = "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database WHERE mode = 'RowExclusiveLock' AND datname = "

    def at_work() -> bool:
        return bool(postgres.execute(f"{locks}'{name}'"))

    with subprocess.Popen(arguments(much, database)) as child:
        eventually(at_work, "rows are written", 60)
        child.kill()
    eventually(
        lambda: not postgres.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name)[0][0], "nothing is left"
    )
    assert copy(much, database).returncode == 0
    assert check(Database(database)).messages == check_folder(much).messages == 12_000


def test_a_copy_that_is_killed_leaves_a_folder_in_which_no_server_starts(database: str, much: Path, tmp_path: Path) -> None:
    """Until it was made again, or what it has left was deleted."""
    assert copy(much, database).returncode == 0
    back = tmp_path / "back"
    with subprocess.Popen(arguments(database, back)) as child:
        eventually((back / "restoring" / "made" / "mqtt-im.db").exists, "files are made", 60)
        child.kill()
    with pytest.raises(ServerFailed, match="was not finished; run it again"), ServerProcess({"data_dir": str(back)}):
        pass
    assert copy(database, back).returncode == 0
    report = check_folder(back)
    assert (report.messages, report.problems) == (12_000, [])
