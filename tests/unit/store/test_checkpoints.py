"""Checkpoints of the projections, beside the commits."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import cast
from unittest.mock import patch

import pytest

from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.delivering import AttachJob
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.sqlite import checkpoints
from mqtt_im.store.sqlite.checkpoints import Checkpoints
from mqtt_im.store.sqlite.files import PROJECTION_FILE, open_projection
from mqtt_im.store.sqlite.retention import folds as retention_folds
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
