"""One server on PostgreSQL, with real clients: it is killed, and so is its database."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from mqtt_im.testing import ServerProcess
from tests.support.faults import assert_no_fault
from tests.support.postgres import Cluster, new_database
from tests.support.raw import Closed, Refused, eventually
from tests.system.conftest import Clients


@pytest.fixture
def server(database: str) -> Iterator[ServerProcess]:
    with ServerProcess({"store.url": database}) as server:
        yield server
        server.stop()
        assert_no_fault(server.log())
        assert "every inbox holds what the log says" in server.command("store", "check").stdout


@pytest.fixture
def im(server: ServerProcess) -> Iterator[Clients]:
    clients = Clients(server)
    yield clients
    clients.close()


def test_what_was_acknowledged_is_there_after_a_kill(server: ServerProcess, im: Clients) -> None:
    """INV-1 to INV-4: numbers go on, ids are remembered, and who was away gets everything once."""
    im.online("bob").disconnect()
    alice = im.online("alice")
    for number in range(100):
        alice.say("bob", number, id=f"m{number}")
    server.restart(kill=True)
    alice = im.online("alice")
    alice.request("send", to="bob", body=99, id="m99")
    alice.wait("sent", id="m99", dup=True)  # the item of the first one may come again before: that she had it was not on disk
    alice.must("group.create", id="g", group="#g", members=["bob"])
    alice.say("#g", "all")
    items = im.online("bob").drain()
    assert [item["pos"] for item in items] == list(range(1, 103))
    assert [item["body"] for item in items if "body" in item] == [*range(100), "all"]
    assert [item["seq"] for item in items[:100]] == list(range(1, 101))


def test_what_no_column_of_text_takes_costs_nobody_a_batch(im: Clients) -> None:
    """A NUL is refused where it would be kept, and looked for in vain elsewhere; the store never fails over it."""
    alice = im.online("alice")
    alice.must("group.create", group="#g", members=["bob"])
    assert alice.ask("send", to="bob", body=1, key="\0").data["code"] == "bad_field"
    assert alice.ask("group.rename", group="#g", name="a\0").data["code"] == "bad_field"
    assert alice.ask("group.create", group="#h", name="\0", members=["bob"]).data["code"] == "bad_field"
    assert alice.ask("send", to="bob", body=1, files=["a\0"]).data["code"] == "not_found"
    assert alice.must("search", query="a\0b")["items"] == []
    assert alice.ask("convs", after="\0").data["code"] == "bad_field"
    assert alice.ask("group.info", group="#g", after="a\0").data["code"] == "bad_field"
    alice.say("bob", {"a\0": "\0"}, id="a\0")
    assert im.online("bob").wait("msg", id="a\0")["body"] == {"a\0": "\0"}


def test_a_database_that_is_killed_and_comes_back(own_postgres: Cluster) -> None:
    """No PUBACK while nothing can be stored; when the database is back, the server goes on by itself."""
    with new_database(own_postgres) as url, ServerProcess({"store.url": url}) as server:
        im = Clients(server)
        im.online("alice").say("bob", "before", id="1")
        own_postgres.kill()
        with pytest.raises((Closed, Refused)):
            im.online("alice").confirmed("send", to="bob", body="during", id="2")
        eventually(lambda: not server.ready(), "the server says that it can't store anything")
        own_postgres.start()

        def works() -> bool:
            try:
                return im.online("alice").ask("send", to="bob", body="during", id="2").op == "sent"
            except (Closed, Refused, ConnectionError):
                return False

        eventually(works, "it goes on without a restart")
        assert [item["body"] for item in im.online("bob").drain()] == ["before", "during"]
        im.close()
        server.stop()
        assert_no_fault(server.log())


def test_words_are_found_and_a_recall_takes_them_away(server: ServerProcess, im: Clients) -> None:
    alice, bob = im.online("alice"), im.online("bob")
    sent = alice.say("bob", "meet at the harbour")
    alice.say("bob", "or not")
    assert [item["body"] for item in bob.ask("search", query="harbour").data["items"]] == ["meet at the harbour"]
    alice.must("recall", id="r", conv="alice:bob", seq=sent["seq"])
    assert bob.ask("search", query="harbour").data["items"] == []
    with psycopg.connect(str(server.config["store.url"]), autocommit=True) as connection:
        connection.execute("DELETE FROM word")
        assert bob.ask("search", query="not").data["items"] == []
        connection.execute("UPDATE meta SET value = '' WHERE key = 'searched'")
    alice.say("bob", "once more")
    found = [item["body"] for item in bob.ask("search", query="not").data["items"]]
    assert found == ["or not"]  # the index was made anew


def test_retention_and_the_commands(database: str) -> None:
    """`store compact` takes what every device has got; `store backup` names what does that here."""
    with ServerProcess({"store.url": database, "store.retention_messages": 3}) as server:
        im = Clients(server)
        bob, alice = im.online("bob"), im.online("alice")
        for number in range(10):
            alice.say("bob", number)
        bob.received(10)
        im.close()
        server.stop()
        done = server.command("store", "compact")
        assert done.returncode == 0 and done.stdout.startswith("Removed 7 messages"), done
        assert server.command("store", "check").returncode == 0
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("UPDATE direct SET head = head + 1")
        damaged = server.command("store", "check")
        assert damaged.returncode == 1 and "conversation alice:bob: its head is 11" in damaged.stderr, damaged
        upgraded = server.command("store", "upgrade")
        assert upgraded.returncode == 0 and "(schema 2; nothing was to do)" in upgraded.stdout, upgraded
        backup = server.command("store", "backup", "file")
        assert backup.returncode == 2 and "pg_dump" in backup.stderr
