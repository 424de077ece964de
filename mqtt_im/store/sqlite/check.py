"""`store check`: the promises, verified on the stored data. Reads only, and works beside a running server.

The log is read from its first row to its last: every conversation's `seq` and every inbox's `pos` must count 1, 2, 3, … without
a gap, but for what retention took (up to the base, see `base.py`), and an `id` must have made one thing only. On the way the
projections are rebuilt in a temporary file, and compared with those on disk at the row up to which these got. What is kept in
memory does not grow with the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final, cast

import msgspec
import peewee

from mqtt_im.core.apply import recipients
from mqtt_im.core.records import Act, AnyRecord
from mqtt_im.disk import lacks_room
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.tools.report import Report

from .checking.comparing import Borrowed, compare
from .checking.ids import find_twice
from .checking.numbers import Numbers
from .loading import LoadingState
from .replay import decoded, replay, without_collecting
from .retention.base import Index, restore
from .retention.folds import Folds
from .tables.files import LOG_FILE, PROJECTION_FILE, open_log, open_projection
from .tables.log import Log
from .tables.models import PROJECTION_MODELS, LogMeta
from .tables.projection import Projection

_CACHE_KIB: Final = 65_536


def check(data_dir: Path, unchanging: bool = False) -> Report:
    """Read everything in `data_dir`. Raises `StoreError` where that is not possible. `unchanging`: see `unchanging.readable`."""
    report = Report()
    stored_db = log_db = None
    try:
        if (data_dir / PROJECTION_FILE).exists():
            stored_db = open_projection(data_dir, readonly=True, unchanging=unchanging)
        log_db = open_log(data_dir, readonly=True, unchanging=unchanging)
        with without_collecting():
            _check(log_db, stored_db, report)
    except (sqlite3.Error, peewee.PeeweeException, msgspec.DecodeError) as error:
        if lacks_room(error):  # nothing else is written
            raise StoreError("there is no room for temporary files: name a folder on another disk (TMPDIR)") from error
        raise StoreError(f"{data_dir}: {error}") from error
    finally:
        for db in (log_db, stored_db):
            if db is not None:
                db.close()
    return report


def _check(log_db: peewee.SqliteDatabase, stored_db: peewee.SqliteDatabase | None, report: Report) -> None:
    epoch, position, fold = "", 0, 0
    if stored_db is not None:
        _check_file(stored_db, PROJECTION_FILE, report)
        _connection(stored_db).execute("BEGIN")  # one snapshot, older than the log's
        epoch, position = Projection(stored_db).position()
        fold = Folds(log_db, stored_db).projected()
    _check_file(log_db, LOG_FILE, report)
    _connection(log_db).execute("BEGIN")
    log, at = Log(log_db), Folds(log_db, log_db).position()
    with log_db.bind_ctx([LogMeta]):
        # Else the server brings them up to date, or makes them anew, at its next start.
        ours = epoch == LogMeta.get_by_id("epoch").value and fold == at.number
    if ours and position > log.last():
        report.add(f"{PROJECTION_FILE}: has row {position} of a log that ends at {log.last()}")
        ours = False
    compared = stored_db if ours else None
    rebuild = _Rebuild(log, log_db, None if compared is None else Borrowed(Projection(compared)))
    numbers = Numbers(report)

    def take(lsn: int, record: AnyRecord, size: int) -> None:
        nonlocal compared
        if compared is not None and lsn > position:
            rebuild.finish()
            compare(_connection(rebuild.db), _connection(compared), report)
            compared = None
        numbers.row(lsn, record)
        rebuild.take(lsn, record, size, numbers)

    try:
        rebuild.restore(numbers)
        numbers.begin(at.base, _connection(rebuild.db))
        replay(decoded(log.after(at.base)), take, rebuild.full, rebuild.flush, rebuild.prefetch)
    except (KeyError, IndexError, ValueError, AssertionError) as error:
        report.add(f"log row {numbers.lsn}: does not follow from those before it ({type(error).__name__}: {error})")
        return
    if compared is None:
        rebuild.flush(rest=True)
    else:
        rebuild.finish()
        compare(_connection(rebuild.db), _connection(compared), report)
    execute = _connection(rebuild.db).execute
    if numbers.ids != execute("SELECT count(*) FROM request").fetchone()[0]:
        find_twice(log, _connection(rebuild.db), report)
    _check_positions(rebuild.db, report)
    report.conversations = execute("SELECT count(*) FROM conv WHERE head > 0").fetchone()[0]
    report.inboxes = execute("SELECT count(*) FROM user WHERE head > 0").fetchone()[0]
    rebuild.db.close()


def _check_positions(db: peewee.SqliteDatabase, report: Report) -> None:
    execute = _connection(db).execute
    for user, device, cursor, head in execute(
        "SELECT u.name, d.device, d.cursor, u.head FROM device d JOIN user u USING (uid) WHERE d.cursor > u.head"
    ):
        report.add(f"device {user}:{device}: its cursor {cursor} is beyond the inbox's head {head}")
    for user, floor, head in execute(
        "SELECT name, floor, head FROM user u"
        " WHERE floor > head OR floor <> coalesce((SELECT min(pos) - 1 FROM item i WHERE i.uid = u.uid), head)"
    ):
        report.add(f"inbox of {user}: its floor {floor} is not where its items begin; its head is {head}")


def _check_file(db: peewee.SqliteDatabase, name: str, report: Report) -> None:
    for (line,) in _connection(db).execute("PRAGMA quick_check(10)"):
        if line != "ok":
            report.add(f"{name}: {line}")


def _connection(db: peewee.SqliteDatabase) -> sqlite3.Connection:
    return cast(sqlite3.Connection, db.connection())  # type: ignore[no-untyped-call]


class _Rebuild:
    """The projections, made anew from the log in a file that only SQLite knows."""

    def __init__(self, log: Log, log_db: peewee.SqliteDatabase, numbering: Borrowed | None) -> None:
        self.db = peewee.SqliteDatabase(
            "file:", uri=True, pragmas={"journal_mode": "off", "synchronous": 0, "cache_size": -_CACHE_KIB}
        )
        self.db.connect()
        with self.db.bind_ctx(PROJECTION_MODELS):
            self.db.create_tables(PROJECTION_MODELS)
        self._log = log
        self._log_db = log_db
        self._projection = Projection(self.db)
        self._numbering = numbering
        self._state = self._begun()

    def _begun(self) -> LoadingState:
        return LoadingState(self._log, self._projection, lambda _: True, lambda _: (), numbering=self._numbering)

    def restore(self, numbers: Numbers) -> None:
        """Everything up to the base."""

        def each(lsn: int, record: AnyRecord, index: Index) -> None:
            numbers.row(lsn, record)
            if isinstance(record, Act):
                numbers.early(lsn, record, recipients(index.conv_for(record.conv), record))

        restore(self._log, self._log_db, self.db, "", each, self._numbering)
        self._state = self._begun()

    def take(self, lsn: int, record: AnyRecord, size: int, numbers: Numbers) -> None:
        """Apply the next row; its recipients are told to `numbers`."""
        state = self._state
        if isinstance(record, Act):
            conv = state.conv_for(record.conv)
            numbers.act(lsn, record, recipients(conv, record), conv.head, lambda name: state.user(name).head)
        state.replay(lsn, record, size)

    def prefetch(self, records: Iterable[AnyRecord]) -> None:
        """Those come next."""
        self._state.prefetch_records(records)

    def full(self) -> bool:
        """Whether so much is in memory that it should be flushed."""
        return self._state.full()

    def flush(self, rest: bool = False) -> None:
        """Everything applied stands in the database, but for users who had a row, unless the `rest` is wanted too."""
        self._state.write(rest)

    def finish(self) -> None:
        """The tables are those of projections that got as far as this."""
        self._state.finish(_connection(self.db), "")
