"""`store check` on PostgreSQL finds what somebody has changed or deleted by hand, in each table, and names it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Raw

from mqtt_im.copying.moving import copy_store
from mqtt_im.core.rules import Who
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import WrongDatabase
from mqtt_im.postgres.meta import ADDED, read
from mqtt_im.postgres.nodes import leave
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob, PullJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.postgres.check import check, check_within
from mqtt_im.store.postgres.kept import kept_by
from mqtt_im.store.postgres.tables import TABLES
from mqtt_im.store.sqlite.check import check as check_folder
from tests.support.pgstore import PostgresStore
from tests.support.postgres import Cluster, new_database

NOW = 1_700_000_000_000
USERS = ["ann", "bob", "cat", "dan"]


def fill(store: PostgresStore) -> None:
    """A row in every table."""
    store.run([AttachJob(Who(user, "pc", 0), lambda _: None) for user in USERS], NOW)

    def ask(user: str, request: rq.Request, packet: int = 0) -> None:
        who = Who(user, "pc", 0, token="made", packet=("session", packet, False) if packet else None)
        job = RequestJob(who, request, lambda _: None)
        store.run([job], NOW)
        assert job.refusal is None, job.refusal

    ask("ann", rq.GroupCreate(id="g", group="#all", name="All", members=["bob", "cat"]))
    for number in range(70):  # more than two chunks
        ask("ann", rq.Send(id=f"i{number}", to="bob", body=Raw(b"1")))
    ask("ann", rq.Send(to="bob", body=Raw(b"1")), packet=7)
    ask("ann", rq.Send(id="m", to="#all", body=Raw(b"1"), mentions=["bob"]))
    ask("ann", rq.GroupCreate(id="b", group="#large", members=["bob", "cat", "dan"]))
    ask("ann", rq.Send(id="l", to="#large", body=Raw(b"1")))
    store.run([PullJob(["bob"], "", lambda _: None)], NOW)
    ask("ann", rq.Send(id="k", to="bob", body=Raw(b"1"), key="k"))
    ask("ann", rq.Edit(id="e", conv="ann:bob", seq=3, body=Raw(b"2")))
    ask("bob", rq.React(id="a", conv="ann:bob", seq=4, emoji="x"))
    ask("ann", rq.Recall(id="r", conv="ann:bob", seq=5))
    ask("bob", rq.Read(conv="ann:bob", seq=9))
    store.run([CursorsJob([("bob", "pc", 20, [])], lambda _: None)], NOW)


@pytest.fixture(scope="module")
def database(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with new_database(postgres) as url:
        store = PostgresStore(url, Path(tmp_path_factory.mktemp("node")), online=USERS, most_at_once=3)
        fill(store)
        yield store.database
        store.close()


def problems(database: Database, *statements: str) -> list[str]:
    """What is found where these have changed something; then all is as it was."""
    with database.connect("test") as connection, connection.transaction(force_rollback=True):
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount > 0, statement
        return check_within(connection).problems


ANN, BOB = (f"(SELECT uid FROM im_user WHERE name = '{name}')" for name in ("ann", "bob"))
DIRECT = f"a = {ANN} AND b = {BOB}"

DAMAGES = [
    ("im_user", "DELETE FROM im_user WHERE name = 'bob'", r"table chunk names user \d+, who is not there"),
    ("im_user", "UPDATE im_user SET head = head - 1 WHERE name = 'bob'", "inbox of bob: its head is"),
    (
        "im_user",
        "UPDATE im_user SET floor = 3 WHERE name = 'bob'",
        "inbox of bob: item 1 is there, though items up to 3 are gone",
    ),
    ("im_user", "UPDATE im_user SET tail = substr(tail, 1, length(tail) - 8) WHERE name = 'bob'", "inbox of bob: its head is"),
    ("im_user", "UPDATE im_user SET tail = 'odd' WHERE name = 'bob'", "inbox of bob: can't be read: 3 bytes from item"),
    ("im_user", "UPDATE im_user SET settings = 'odd' WHERE name = 'bob'", "table im_user: settings of bob can't be read"),
    ("im_user", "UPDATE im_user SET joined = 5 WHERE name = 'cat'", "user cat: is in 5 groups by the own row, and in 2"),
    ("im_user", "UPDATE im_user SET acked = 1000 WHERE name = 'bob'", "inbox of bob: its head is .* is 1000"),
    ("chunk", f"DELETE FROM chunk WHERE uid = {BOB} AND first = 33", "is not item 33 in the inbox of bob"),
    ("chunk", "UPDATE chunk SET refs = substr(refs, 9) || substr(refs, 1, 8)", "inbox of .*: item .* is log row .*, after row"),
    ("direct", f"DELETE FROM direct WHERE {DIRECT}", r"table log names conversation \d+, which is not there"),
    ("direct", f"UPDATE direct SET head = head + 1 WHERE {DIRECT}", "conversation ann:bob: its head is 73"),
    (
        "direct",
        f"UPDATE direct SET lsn = 1 WHERE {DIRECT}",
        "table direct: the newest message of conversation .* said to be log row 1",
    ),
    ("direct", f"UPDATE direct SET parts = 'odd' WHERE {DIRECT}", "table direct: parts of .* can't be read"),
    ("direct", f"UPDATE direct SET b_read = 500 WHERE {DIRECT}", "its head is 72, and somebody has read or got message 500"),
    ("grp", "DELETE FROM grp", r"table member names conversation \d+, which is not there"),
    ("grp", "UPDATE grp SET size = 9", "group #all: has 9 members by its own row, and 3"),
    ("grp", "UPDATE grp SET head = 1", "conversation #all: its head is 1"),
    ("grp", "UPDATE grp SET name = '#other' WHERE name = '#all'", "by its columns, and in #all by its record"),
    ("member", f"DELETE FROM member WHERE uid = {BOB}", "group #all: bob is in it by its log, and not by table member"),
    ("member", f"UPDATE member SET active = false WHERE uid = {BOB}", "user bob: is in 2 groups by the own row, and in 0"),
    ("member", "UPDATE member SET spans = 'odd'", "table member: spans of .* can't be read"),
    ("member", "UPDATE member SET read = 50", "its head is 2, and somebody has read or got message 50"),
    ("device", f"UPDATE device SET cursor = 1000 WHERE uid = {BOB}", r"inbox of bob: .*\(device 'pc'\) is 1000"),
    ("device", f"UPDATE device SET uid = 1000 WHERE uid = {BOB}", "table device names user 1000, who is not there"),
    ("log", "DELETE FROM log WHERE seq = 7", "is log row .*, which is not there"),
    ("log", "UPDATE log SET seq = seq + 1000 WHERE seq = 7", "is message 1007 by its columns, and 7 by its record"),
    ("log", f"UPDATE log SET by = {BOB} WHERE seq = 7", "by its columns, and by ann by its record"),
    ("log", "UPDATE log SET idh = NULL WHERE seq = 7", "a repeat of id 'i6' of ann would not be known"),
    ("log", "UPDATE log SET rec = 'nonsense' WHERE seq = 7", "can't be read"),
    (
        "log",
        "UPDATE log SET rec = (SELECT rec FROM log WHERE seq = 8) WHERE seq = 7",
        "is message 7 by its columns, and 8 by its record",
    ),
    ("amended", "DELETE FROM amended WHERE seq = 3", "changes a message of which table amended does not know"),
    ("amended", "UPDATE amended SET recalled = false", "changes a message of which table amended does not know"),
    ("amended", "UPDATE amended SET seq = seq + 500", "table amended is about conversation .*, message 503, which is not there"),
    ("amended", "UPDATE amended SET reactions = 'odd' WHERE seq = 4", "table amended: reactions of .* can't be read"),
    ("change", "DELETE FROM change WHERE seq = 4", "changes a message, which table change has not counted"),
    ("change", "UPDATE change SET seq = seq + 500", "table change is about conversation .*, message 50., which is not there"),
    ("mention", "DELETE FROM mention", "mentions bob, which table mention does not have"),
    ("mention", "UPDATE mention SET seq = 90", "table mention is about conversation .*, message 90"),
    ("packet", "UPDATE packet SET lsn = 5", "table packet names log row 5, which is not there"),
    ("packet", "UPDATE packet SET uid = 1000", "table packet names user 1000, who is not there"),
    ("told", "DELETE FROM told WHERE act = 1", "1 items for 4 recipients"),
    ("member", "UPDATE member SET pulled = 0 WHERE pulled = 1", "has 1 items of large groups, and is to have 0"),
    ("member", "UPDATE member SET pulled = 2 WHERE pulled = 1", "has taken 2 of 1"),
    ("told", "UPDATE told SET lsn = 5 WHERE act = 1", "as number 1, log row 5, which is not there"),
    ("told", "UPDATE told SET act = act + 100", "has told .* by its own row, and .* in table told"),
    ("keyed", "DELETE FROM keyed", "has the key 'k', which table keyed does not have"),
    ("keyed", "UPDATE keyed SET lsn = 5", "table keyed names log row 5, which is not there"),
]


def test_a_store_of_an_older_release_is_read_before_a_node_of_this_one_has_started(postgres: Cluster, tmp_path: Path) -> None:
    with new_database(postgres) as url:
        store = PostgresStore(url, tmp_path, online=USERS, most_at_once=3)
        fill(store)
        store.close()
        with store.database.connect("test") as connection:
            leave(connection, store.me)
            for table, column, _ in ADDED:
                if table == "device":
                    connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}".encode())
        kept = kept_by(store.database, "ann")
        assert kept is not None and kept.devices == 1
        assert check(store.database).problems == []
        copy_store(url, str(tmp_path / "copy"), lambda _: lambda _: None)
    assert check_folder(tmp_path / "copy").problems == []


def test_nothing_is_found_where_nothing_was_done(database: Database) -> None:
    assert problems(database) == []
    assert {table for table, _, _ in DAMAGES} == set(TABLES)


def test_what_the_store_says_of_itself_is_missed(database: Database) -> None:
    assert problems(database, "DELETE FROM meta WHERE key = 'searched'") == [
        "table meta: searched is missing; searches find nothing new"
    ]
    for key in ("epoch", "schema"):
        with database.connect("test") as connection, connection.transaction(force_rollback=True):
            connection.execute("DELETE FROM meta WHERE key = %s", (key,))
            with pytest.raises(WrongDatabase, match=f"table meta is damaged: {key} is missing"):
                read(database, connection)


@pytest.mark.parametrize(("statement", "told"), [damage[1:] for damage in DAMAGES], ids=[damage[1] for damage in DAMAGES])
def test_damage_is_found_and_named(database: Database, statement: str, told: str) -> None:
    found = problems(database, statement)
    assert any(re.search(told, problem) for problem in found), "\n".join(found) or "nothing was found"
