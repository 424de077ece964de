"""Projections made anew from the log: in parts, and as they were."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
TABLES = {
    "user": "SELECT name, head, floor, acked, registered, sent, sent_bytes, joined, made, settings FROM user ORDER BY 1",
    "item": "SELECT name, pos, lsn FROM item JOIN user USING (uid) ORDER BY 1, 2",
    "member": "SELECT u.name, c.name, ord, role, active, read, delivered, spans, last FROM member m"
    " JOIN user u USING (uid) JOIN conv c USING (cid) ORDER BY 1, 2",
}
ORDERS = "SELECT u.name, c.name, m.active, m.latest FROM member m JOIN user u USING (uid) JOIN conv c USING (cid) ORDER BY 1, 2"


def ask(store: SqliteStore, user: str, request: rq.Request) -> None:
    job = RequestJob(Who(user, "pc", 0), request, lambda _: None)
    store.run([job], NOW)
    assert job.refusal is None


def fill(store: SqliteStore) -> None:
    """What moves a conversation in the order of `convs`, and what does not, early and late."""

    def say(user: str, to: str) -> None:
        ask(store, user, rq.Send(to=to, body=Raw(b"1")))

    say("ann", "bob")
    say("ann", "cat")
    say("ann", "dan")  # once, and never again
    say("eve", "eve")
    ask(store, "ann", rq.GroupCreate(id="g", group="#all", members=["bob", "cat"]))
    ask(store, "ann", rq.GroupCreate(id="h", group="#quiet", members=["dan"]))
    ask(store, "ann", rq.GroupCreate(id="m", group="#many", members=[f"m{number}" for number in range(12)]))
    say("m1", "#many")
    store.run([AttachJob(Who("ann", "pc", 0), lambda _: None)], NOW)  # whose number is asked for while her row is written
    say("m1", "m2")
    say("m2", "#many")
    say("bob", "ann")
    ask(store, "cat", rq.Block(id="b", user="ann"))
    say("ann", "cat")  # which cat never sees
    say("bob", "#all")
    ask(store, "cat", rq.GroupLeave(id="l", group="#all"))
    say("bob", "#all")  # nor this
    ask(store, "bob", rq.Read(conv="ann:bob", seq=1))
    say("fay", "bob")
    ask(store, "fay", rq.Read(conv="bob:fay", seq=1))  # the part of one who has it, in a conversation that is new
    say("ann", "bob")
    say("eve", "eve")


def orders(folder: Path) -> list[Any]:
    return rows_of(folder, ORDERS)


def rows_of(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / PROJECTION_FILE)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize(("users", "members", "groups"), [(0, 0, 0), (3, 0, 60), (3, 3, 1_000), (100, 100, 1_000)])
@pytest.mark.parametrize("names", [1 << 22, 2, 1])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 100])
def test_the_order_of_conversations_is_as_it_was_in_however_many_parts(
    tmp_path: Path, rows: int, names: int, users: int, members: int, groups: int
) -> None:
    store = SqliteStore(tmp_path, Limits(drop_blocked=True))
    fill(store)
    store.close()
    before, tables = orders(tmp_path), {name: rows_of(tmp_path, query) for name, query in TABLES.items()}
    assert len({latest for *_, latest in before}) > 5
    with (
        patch("mqtt_im.store.sqlite.loading.ROWS", rows),
        patch.multiple("mqtt_im.store.sqlite.loading", USERS=users, MEMBERS=members, NAMES=groups),
        patch("mqtt_im.store.sqlite.replay.LOOK", 1),
        patch("mqtt_im.store.sqlite.replay.AT_ONCE", 2),
        patch("mqtt_im.store.sqlite.loading._NAMES", names),
        patch("mqtt_im.store.sqlite.state.entities.MAX_CACHED", 1),
    ):
        assert check(tmp_path).problems == []
        store.reopen(lose_projection=True)
        store.close()
        assert orders(tmp_path) == before
        assert {name: rows_of(tmp_path, query) for name, query in TABLES.items()} == tables
        assert check(tmp_path).problems == []
