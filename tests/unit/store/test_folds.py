"""Folds: how their transactions are synced, and stores of before folds were planned."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.policy import Policy
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.retention.folds import LOG_BYTES, LOG_ROWS, PART_ROWS, Folds, Plan, Position
from mqtt_im.store.sqlite.tables.files import LOG_FILE, PROJECTION_FILE, open_log, open_projection
from mqtt_im.store.sqlite.tables.log import Log
from tests.support.retention import compact, projections
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
TWO = Policy(retention_messages=2)


def ignore(job: Job) -> None:
    """Nobody waits for the job."""


@pytest.mark.parametrize(("name", "planned", "lazy"), [("full", 2, 1), ("normal", 2, 1), ("off", 0, 0)])
def test_what_is_worked_off_is_lazy_and_nothing_else_is(tmp_path: Path, name: str, planned: int, lazy: int) -> None:
    log_db, projection_db = open_log(tmp_path, name), open_projection(tmp_path)
    connection = cast(sqlite3.Connection, log_db.connection())  # type: ignore[no-untyped-call]

    def synchronous() -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    before = synchronous()
    seen: list[int] = []
    connection.set_trace_callback(lambda text: seen.append(synchronous()) if text.startswith("DELETE FROM") else None)
    folds = Folds(log_db, projection_db)
    connection.execute("INSERT INTO log (lsn, rec) VALUES (1, x'')")
    assert len(list(folds.write_down(1, Plan(gone=[1])))) == 1
    folds.decide(Position(1, 1))
    steps = folds.work_off(Plan(gone=[1]))
    next(steps)
    assert (seen, synchronous()) == ([planned, lazy], before)
    connection.set_trace_callback(None)

    # Where somebody else writes, it fails before it has begun; what is committed next must not be lazy.
    connection.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(tmp_path / LOG_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            next(folds.work_off(Plan(gone=[1])))
    assert synchronous() == before
    with pytest.raises(sqlite3.Error):
        next(folds.work_off(Plan(base=[("INSERT INTO nowhere VALUES (?)", [(1,)])])))
    assert synchronous() == before and not connection.in_transaction
    log_db.close()
    projection_db.close()


def test_rows_of_the_log_go_together_as_far_as_they_weigh_little(tmp_path: Path) -> None:
    log_db, projection_db = open_log(tmp_path, "off"), open_projection(tmp_path)
    large, small = b"x" * (LOG_BYTES // 2), b"x"
    Log(log_db).append([(1, small), (2, large), (3, large), (4, large), (5, small), (6, large), (7, small)], [])
    folds = Folds(log_db, projection_db)
    assert list(folds.work_off(Plan(gone=[1, 2, 3, 4, 5, 6, 7]))) == [[1, 2, 3], [4, 5, 6], [7]]
    many = [(lsn, small) for lsn in range(10, 10 + LOG_ROWS + 1)]
    Log(log_db).append(many, [])
    assert [len(some) for some in folds.work_off(Plan(gone=[lsn for lsn, _ in many]))] == [LOG_ROWS, 1]
    assert Log(log_db).last() == 0
    log_db.close()
    projection_db.close()


def test_parts_of_a_plan_count_once_it_is_decided_and_until_it_is_done(tmp_path: Path) -> None:
    log_db, projection_db = open_log(tmp_path, "off"), open_projection(tmp_path)
    folds = Folds(log_db, projection_db)
    plan = Plan(
        list(range(PART_ROWS * 5 // 2)), {5: b"x"}, [7], [("a", [(1,)]), ("b", [(2,)])], {"item": [(1, 2)], "message": [(3, 4)]}
    )
    assert len(list(folds.write_down(1, plan))) == 3 + 1 + 1 + 2 + 2
    assert folds.plan() is None and folds.position() == (0, 0)
    folds.decide(Position(1, 9))
    assert folds.plan() == plan and folds.position() == (1, 9)

    # One that was left over, as by a crash before it was decided, is part of no other.
    next(folds.write_down(2, Plan(gone=[99])))
    assert folds.plan() == plan
    next(folds.tidy())
    assert folds.plan() is None  # and not a part of it
    list(folds.tidy())
    connection = cast(sqlite3.Connection, log_db.connection())  # type: ignore[no-untyped-call]
    assert connection.execute("SELECT count(*) FROM fold_part").fetchone() == (0,)
    log_db.close()
    projection_db.close()


# Stores of schema 2: each fold was one transaction, and `changes` what the projections had still to change for it.


@pytest.mark.parametrize("folds", ["none", "projected", "missing"])
def test_a_store_of_before_folds_were_planned_opens(tmp_path: Path, folds: str) -> None:
    store = SqliteStore(tmp_path, Limits())
    store.run([AttachJob(Who(user, "pc", 0), ignore) for user in ("ann", "bob")], NOW)
    for number in range(6):
        send = rq.Send(to="bob", id=f"m{number}", body=msgspec.Raw(b"1"))
        store.run([RequestJob(Who("ann", "pc", 0), send, ignore)], NOW + number)
    store.run([CursorsJob([(user, "pc", 6, []) for user in ("ann", "bob")], ignore)], NOW + 10)
    if folds != "none":
        compact(store.engine, TWO, NOW + 10)
    store.engine.flusher.flush()
    number, base = store.engine.folds.position()
    stored = projections(tmp_path)
    store.close()
    with closing(sqlite3.connect(tmp_path / LOG_FILE)) as connection, connection:
        connection.execute("DROP TABLE fold")
        connection.execute("CREATE TABLE fold (number INTEGER PRIMARY KEY, base INTEGER NOT NULL, changes BLOB NOT NULL)")
        if number:
            changes = msgspec.msgpack.encode({"item": [(1, 1)], "floor": [(1, 1)]})
            connection.executemany("INSERT INTO fold VALUES (?, ?, ?)", [(number, base, b""), (number + 1, base, changes)])
        connection.execute("PRAGMA user_version = 2")
    if folds == "projected":
        with closing(sqlite3.connect(tmp_path / PROJECTION_FILE)) as connection, connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'fold'", (str(number + 1),))

    with pytest.raises(StoreError, match="written by an older version of the server; start the server on it once"):
        check(tmp_path)
    store.reopen()
    assert store.engine.folds.position() == ((number + 1, base) if number else (0, 0))
    store.engine.flusher.flush()
    assert projections(tmp_path) == stored
    assert check(tmp_path).problems == []
    assert compact(store.engine, Policy(retention_messages=1), NOW + 20).messages == (1 if number else 5)
    assert _seqs(store.engine) == [6]
    store.close()
    assert check(tmp_path).problems == []


def _seqs(engine: Engine) -> list[Any]:
    conv = engine.state.conv_for("ann:bob")
    return [seq for seq, _ in engine.state.messages(conv, 1, conv.head)]
