"""Checkpoints of the projections, beside the commits."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.sqlite import checkpoints, flusher
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.checkpoints import Checkpoints
from mqtt_im.store.sqlite.retention import folds as retention_folds
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE, open_projection
from tests.support.store import SqliteStore

PAGES = 50


def _write(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("INSERT INTO request (uid, id, lsn) VALUES (?, ?, 1)", (number, "x" * 4000 * PAGES))


def test_what_is_large_is_copied_and_the_file_begins_anew(tmp_path: Path) -> None:
    db = open_projection(tmp_path)
    connection = cast(sqlite3.Connection, db.connection())  # type: ignore[no-untyped-call]
    wal = tmp_path / f"{PROJECTION_FILE}-wal"
    with patch.multiple(checkpoints, ENOUGH_BYTES=4096 * PAGES, _KEPT_BYTES=4096 * 4):
        beside = Checkpoints(db)
        beside.look()
        assert not beside.busy  # there is nothing to do
        beside.wait()
        _write(connection, 1)
        large = wal.stat().st_size
        beside.look()
        beside.wait()
        assert not beside.busy
        connection.execute("DELETE FROM meta")
        connection.execute("INSERT INTO meta (key, value) VALUES ('epoch', 'x')")
        assert wal.stat().st_size <= 4096 * 5 < large  # so everything was copied, and nobody waited for it
        assert connection.execute("SELECT count(*) FROM request").fetchone() == (1,)
    db.close()


def test_what_fails_is_told_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    db = open_projection(tmp_path)
    connection = cast(sqlite3.Connection, db.connection())  # type: ignore[no-untyped-call]
    with patch.object(checkpoints, "ENOUGH_BYTES", 4096):
        beside = Checkpoints(db)
        _write(connection, 1)
        with patch.object(checkpoints, "checkpoint", side_effect=sqlite3.OperationalError("disk I/O error")) as tried:
            beside.look()
            beside.wait()
        assert tried.call_count == 1 and "disk I/O error; it is tried again" in caplog.text
        with patch.object(checkpoints, "checkpoint") as tried:
            beside.look()
            beside.wait()
        assert tried.call_count == 1
    db.close()


def test_nothing_more_is_written_while_much_is_being_copied(tmp_path: Path) -> None:
    """So the file can begin anew, and no commit has to copy it; where far too much is in memory nobody waits for that."""
    copied = threading.Event()
    sizes: dict[str, Any] = {"ENOUGH_BYTES": 4096, "MUCH_BYTES": 4096}
    with (
        patch.multiple(checkpoints, **sizes),
        patch.object(checkpoints, "checkpoint", side_effect=lambda *_: copied.wait()),
        patch.multiple(flusher, FLUSH_ROWS=5, FLUSH_AFTER_S=0.0),
    ):
        store = SqliteStore(tmp_path, Limits())
        engine = store.engine

        def say(first: int) -> bool:
            sends = [rq.Send(id=f"{number}", to="bob", body=Raw(b"1")) for number in range(first, first + 5)]
            store.run([RequestJob(Who("ann", "pc", 0), send, lambda _: None) for send in sends], 1)
            engine.side_work(1)
            return engine.flusher.writing

        say(0)
        engine.flusher.flush()
        assert engine.checkpoints.behind()
        assert not say(5)
        assert engine.flusher.full() and engine.crowded
        assert engine.flusher.pause() == flusher.HELD_S
        with patch("mqtt_im.store.threads.gathering.HEAVY", -1):
            gathering = store.ledger.gathering
            gathering.submit([RequestJob(Who("ann", "pc", 0), rq.Send(id="a", to="bob", body=Raw(b"1")), lambda _: None)])
            assert not gathering.gather(engine, False)
            assert (gathering.pause(engine, False) or 0) > 0, "the thread rests while it may do nothing of what waits"
        assert not say(10)
        assert say(15)
        copied.set()
        engine.flusher.flush()
        engine.checkpoints.wait()
        assert say(20)
        store.close()
    assert check(tmp_path).problems == []


@pytest.mark.parametrize("at_start", [False, True])
def test_who_writes_waits_where_the_file_would_grow_for_ever(tmp_path: Path, at_start: bool) -> None:
    """A disk may copy less than comes: what is in memory is written, but not before what is in the file is copied."""
    copied = threading.Event()
    sizes: dict[str, Any] = {"ENOUGH_BYTES": 4096, "MUCH_BYTES": 4096, "MOST_BYTES": 4096}
    waited: list[bool] = []

    def wait(beside: Checkpoints) -> None:
        waited.append(beside.busy)
        copied.set()
        join(beside)

    join = Checkpoints.wait
    with (
        patch.multiple(checkpoints, **sizes),
        patch.object(checkpoints, "checkpoint", side_effect=lambda *_: copied.wait()),
        patch.object(Checkpoints, "wait", wait),
        patch.multiple(flusher, FLUSH_ROWS=5, FLUSH_AFTER_S=0.0),
    ):
        store = SqliteStore(tmp_path, Limits())
        engine = store.engine
        for number in range(20):
            if number == 5:
                engine.flusher.flush()
                assert engine.checkpoints.behind() and not waited
            send = rq.Send(id=f"{number}", to="bob", body=Raw(b"1"))
            store.run([RequestJob(Who("ann", "pc", 0), send, lambda _: None)], 1)
        if at_start:  # of a log of which the projections have nothing
            engine.flusher.set_aside()
        else:
            engine.side_work(1)
        assert engine.flusher.writing and waited == [True]
        store.close()


@pytest.mark.parametrize("how", ["done", "failed"])
def test_while_a_pass_runs_generations_are_written_only_when_they_are_full(tmp_path: Path, how: str) -> None:
    store = SqliteStore(tmp_path, Limits())
    store.run([AttachJob(Who("ann", "pc", 0), lambda _: None)], 1)
    engine, ended = store.engine, list[Removed | StoreError]()
    engine.retain(Policy(retention_messages=1), 2, ended.append)
    with patch.object(retention_folds.Folds, "settle", side_effect=lambda: how == "done"):
        patient = [engine.flusher.patient]
        while not patient[-1]:
            engine.side_work(0)
            patient.append(engine.flusher.patient)
        if how == "failed":
            engine.abandon("the store can't commit")
        while not ended:
            engine.side_work(0)
    assert isinstance(ended[0], Removed if how == "done" else StoreError)
    assert not engine.flusher.patient
    store.close()
