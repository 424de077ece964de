"""`store check` beside other internal numbers and after retention; it sorts nothing, so keeps nothing that grows with a store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.policy import Policy
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.checking import comparing, numbers
from mqtt_im.store.sqlite.tables.files import LOG_FILE, PROJECTION_FILE
from tests.support.retention import DAY, compact
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path, Limits(), has_account=lambda name: not name.startswith("nobody"))
    yield store
    store.close()


def ask(store: SqliteStore, now: int, *requests: tuple[str, rq.Request]) -> None:
    store.run([RequestJob(Who(user, "pc", 0), request, lambda _: None) for user, request in requests], now)


def fill(store: SqliteStore) -> None:
    """Some messages of ann's, after requests that are refused and take internal numbers all the same."""
    for number in range(3):
        ask(store, NOW, (f"late{number}", rq.Send(to=f"nobody{number}", body=Raw(b"1"))))
    ask(store, NOW, *(("ann", rq.Send(id=f"i{number}", to="bob", body=Raw(b"1"), mentions=["bob"])) for number in range(5)))
    ask(store, NOW, ("cat", rq.GroupCreate(id="g", group="#all", members=["ann", "bob"])))
    ask(store, NOW + 40 * DAY, ("bob", rq.Send(id="last", to="ann", body=Raw(b"2"))), ("cat", rq.Send(to="#all", body=Raw(b"3"))))


def hold_back(store: SqliteStore) -> None:
    """The base has moved past messages that are kept, since bob's device has not acknowledged them."""
    store.run([AttachJob(Who("bob", "pc", 0), lambda _: None)], NOW)
    fill(store)
    assert compact(store.engine, Policy(retention_days=30), NOW + 41 * DAY).messages == 0
    assert store.engine.folds.position().base > 0


def break_it(folder: Path, file: str, statement: str) -> list[str]:
    with closing(sqlite3.connect(folder / file)) as connection, connection:
        assert connection.execute(statement).rowcount > 0
    return check(folder).problems


def test_other_internal_numbers_are_no_difference(store: SqliteStore, tmp_path: Path) -> None:
    fill(store)
    store.close()
    assert check(tmp_path).problems == []
    with closing(sqlite3.connect(tmp_path / PROJECTION_FILE)) as connection:
        assert connection.execute("SELECT min(uid) FROM user").fetchone()[0] > 1  # a rebuild begins with 1


@pytest.mark.parametrize("compacted", [False, True])
def test_a_difference_is_told_by_name(store: SqliteStore, tmp_path: Path, compacted: bool) -> None:
    fill(store)
    if compacted:
        assert compact(store.engine, Policy(retention_days=30), NOW + 41 * DAY).messages == 6
    store.close()
    assert check(tmp_path).problems == []
    (found,) = break_it(
        tmp_path, PROJECTION_FILE, "UPDATE member SET read = 9 WHERE uid = (SELECT uid FROM user WHERE name = 'cat')"
    )
    assert "table member has ('cat', '#all'," in found
    assert found.index(", 9, ") < found.index("the log says ('cat', '#all',")


def test_a_row_that_is_nobodys_is_found(store: SqliteStore, tmp_path: Path) -> None:
    fill(store)
    store.close()
    (found,) = break_it(tmp_path, PROJECTION_FILE, "INSERT INTO item (uid, pos, lsn) VALUES (1000, 1, 1)")
    assert found.endswith("table item has (1000, 1, 1), the log says None")


def test_numbers_that_retention_has_left_are_checked(store: SqliteStore, tmp_path: Path) -> None:
    hold_back(store)
    store.close()
    assert check(tmp_path).problems == []
    found = break_it(tmp_path, LOG_FILE, "UPDATE log SET rec = (SELECT rec FROM log WHERE lsn = 2) WHERE lsn = 3")
    assert any("1 of the numbers up to row" in problem for problem in found)
    assert any("id 'i0' of ann was used by row 2 already" in problem for problem in found)


def test_a_base_that_lacks_numbers_is_found(store: SqliteStore, tmp_path: Path) -> None:
    hold_back(store)
    store.close()
    assert "base: ann:bob has numbers up to 1, the log has 2" in break_it(tmp_path, LOG_FILE, "UPDATE conv SET head = 1")


def test_nothing_is_sorted(store: SqliteStore, tmp_path: Path) -> None:
    """What is sorted is kept, in memory or in a file, however large the store is."""
    fill(store)
    store.close()
    queries = [*comparing.queries().values(), numbers._SEQS, numbers._POSITIONS]
    with closing(sqlite3.connect(tmp_path / PROJECTION_FILE)) as connection:
        for query in queries:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert not any("TEMP B-TREE" in step for *_, step in plan), query
