"""`store check`: the promises, verified on the stored data. Reads only, and works beside a running server.

The log is read from its first row to its last: every conversation's `seq` and every inbox's `pos` must count 1, 2, 3, … without
a gap, but for what retention took (up to the base, see `base.py`), and an `id` must have made one thing only. On the way the
projections are rebuilt in memory, and compared with those on disk at the row up to which these got.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import peewee

from mqtt_im.core.apply import recipients
from mqtt_im.core.records import Act, AnyRecord, Gone, GroupChange, Message
from mqtt_im.protocol.errors import StoreError

from .flusher import write_all
from .hot import Log, Projection
from .models import LOG_FILE, PROJECTION_FILE, PROJECTION_MODELS, LogMeta, open_log, open_projection
from .replay import decoded, replay
from .retention.base import Index, restore
from .retention.folds import Folds
from .rows import AMENDED, CONV, USER
from .state import ProjectedState

MAX_PROBLEMS: Final = 100
"""Problems that are told; a broken store would have no end of them."""
_FLUSH_ROWS: Final = 20_000
_SLICE_ROWS: Final = 5_000

# Each table with its rows in one order, by names, since internal numbers may differ between two rebuilds.
_TABLES: Final = {
    "user": f"SELECT name, {USER} FROM user ORDER BY 1",
    "conv": f"SELECT name, {CONV} FROM conv ORDER BY 1",
    "member": """
        SELECT c.name, u.name, grp, ord, role, active, read, delivered, spans, last, latest
        FROM member JOIN conv c USING (cid) JOIN user u USING (uid) ORDER BY 1, 2""",
    "device": """
        SELECT name, device, cursor, app, n, created, seen FROM device JOIN user USING (uid) ORDER BY 1, 2""",
    "item": "SELECT name, pos, lsn FROM item JOIN user USING (uid) ORDER BY 1, 2",
    "message": """
        SELECT c.name, m.seq, m.lsn, u.name
        FROM message m JOIN conv c USING (cid) LEFT JOIN user u ON u.uid = m.by ORDER BY 1, 2""",
    "mention": """
        SELECT c.name, m.seq, u.name
        FROM mention m JOIN conv c USING (cid) LEFT JOIN user u USING (uid) ORDER BY 1, 2, 3""",
    "amended": f"SELECT name, seq, {AMENDED} FROM amended JOIN conv USING (cid) ORDER BY 1, 2",
    "change": """
        SELECT c.name, seq, u.name, count FROM change JOIN conv c USING (cid) JOIN user u USING (uid) ORDER BY 1, 2, 3""",
    "request": "SELECT name, id, lsn FROM request JOIN user USING (uid) ORDER BY 1, 2",
    "packet": "SELECT user, device, session, packet, lsn FROM packet ORDER BY 1, 2, 3, 4",
    "keyed": "SELECT sender, conv, key, lsn FROM keyed ORDER BY 1, 2, 3",
}


class Report(msgspec.Struct):
    """What was read, and what is wrong with it; `problems` is empty where every promise holds."""

    rows: int = 0
    messages: int = 0
    items: int = 0
    conversations: int = 0
    inboxes: int = 0
    problems: list[str] = msgspec.field(default_factory=list)

    def add(self, problem: str) -> None:
        """Note a problem."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def check(data_dir: Path) -> Report:
    """Read everything in `data_dir`. Raises `StoreError` where that is not possible."""
    report = Report()
    stored_db = log_db = None
    try:
        if (data_dir / PROJECTION_FILE).exists():
            stored_db = open_projection(data_dir, readonly=True)
        log_db = open_log(data_dir, readonly=True)
        _check(log_db, stored_db, report)
    except (sqlite3.Error, peewee.PeeweeException, msgspec.DecodeError) as error:
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
    rebuild = _Rebuild(log_db)
    at = rebuild.at
    with log_db.bind_ctx([LogMeta]):
        # Else the server brings them up to date, or makes them anew, at its next start.
        comparable = epoch == LogMeta.get_by_id("epoch").value and fold == at.number
    if comparable and position > rebuild.log.last():
        report.add(f"{PROJECTION_FILE}: has row {position} of a log that ends at {rebuild.log.last()}")
        comparable = False

    numbers = _Numbers(report)

    def take(lsn: int, record: AnyRecord, size: int) -> None:
        nonlocal comparable
        if comparable and lsn > position and stored_db is not None:
            rebuild.flush()
            _compare(rebuild.db, stored_db, report)
            comparable = False
        numbers.row(lsn, record)
        rebuild.take(lsn, record, size, numbers)

    try:
        rebuild.restore(numbers)
        replay(decoded(rebuild.log.after(at.base)), take, rebuild.full, rebuild.flush)
    except (KeyError, IndexError, ValueError, AssertionError) as error:
        report.add(f"log row {numbers.lsn}: does not follow from those before it ({type(error).__name__}: {error})")
        return
    rebuild.flush()
    if comparable and stored_db is not None:
        _compare(rebuild.db, stored_db, report)
    _check_positions(rebuild.db, report)
    rebuild.db.close()
    report.conversations, report.inboxes = len(numbers.seqs), len(numbers.positions)


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


class _Numbers:
    """Counts along: what each number must be, given those before it."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.seqs: dict[str, int] = {}
        self.positions: dict[str, int] = {}
        self.lsn = 0
        """The row that was read last."""
        self._whole = False
        self._ts = 0
        self._requests: dict[tuple[str, str], tuple[int, str]] = {}

    def begin(self, base: int, seqs: dict[str, int], positions: dict[str, int]) -> None:
        """Up to row `base` rows may be missing, and from here on none; so far numbers were given out up to these."""
        for counters, given in ((self.seqs, seqs), (self.positions, positions)):
            for key, number in counters.items():
                if number > given.get(key, 0):
                    self.report.add(f"base: {key} has numbers up to {given.get(key, 0)}, the log has {number}")
        self.seqs, self.positions = dict(seqs), dict(positions)
        self._whole = True
        self.lsn = base

    def row(self, lsn: int, record: AnyRecord) -> None:
        """The next row of the log."""
        if self._whole and lsn != self.lsn + 1:
            self.report.add(f"log: row {lsn} follows row {self.lsn}")
        if record.ts < self._ts:
            self.report.add(f"log row {lsn}: its time lies before that of the row before it")
        self.lsn, self._ts = lsn, max(self._ts, record.ts)
        self.report.rows += 1
        act = record.act if isinstance(record, Gone) else record
        if isinstance(act, Act) and act.id is not None:
            self._request(lsn, act.by, act.id, act)

    def _request(self, lsn: int, user: str, request_id: str, record: Act) -> None:
        # A change to a group may take several rows, such as a leaving owner and the one who takes over.
        first, kind = self._requests.setdefault((user, request_id), (lsn, f"{type(record).__name__} {record.conv}"))
        if first != lsn and (not isinstance(record, GroupChange) or kind != f"GroupChange {record.conv}"):
            self.report.add(f"log row {lsn}: id {request_id!r} of {user} was used by row {first} already")

    def act(self, lsn: int, record: Act, names: list[str]) -> None:
        """The numbers that the row gave out, to the inboxes of `names`."""
        if isinstance(record, GroupChange) and not record.pos:
            self.seqs[record.conv] = record.seq
        elif isinstance(record, Message | GroupChange):
            self.report.messages += 1
            self._follows(self.seqs, record.conv, record.seq, f"log row {lsn}: seq {record.seq} of {record.conv}")
        elif self._whole and record.seq > self.seqs.get(record.conv, 0):
            self.report.add(f"log row {lsn}: speaks of message {record.seq} of {record.conv}, which was not sent yet")
        if len(names) != len(record.pos):
            self.report.add(f"log row {lsn}: {len(record.pos)} items for {len(names)} recipients")
        for name, pos in zip(names, record.pos, strict=False):
            self.report.items += 1
            self._follows(self.positions, name, pos, f"log row {lsn}: pos {pos} of {name}")

    def _follows(self, counters: dict[str, int], key: str, number: int, what: str) -> None:
        expected = counters.get(key, 0) + 1
        if number != expected if self._whole else number < expected:
            self.report.add(f"{what}: {expected} was next")
        counters[key] = number


class _Rebuild:
    """The projections, made anew from the log in memory."""

    def __init__(self, log_db: peewee.SqliteDatabase) -> None:
        self.db = peewee.SqliteDatabase(":memory:")
        self.db.connect()
        with self.db.bind_ctx(PROJECTION_MODELS):
            self.db.create_tables(PROJECTION_MODELS)
        self.log = Log(log_db)
        self.at = Folds(log_db, self.db).position()
        self._log_db = log_db
        self._projection = Projection(self.db)
        self._state = ProjectedState(self.log, self._projection, lambda _: True, lambda *_: False)

    def restore(self, numbers: _Numbers) -> None:
        """Everything up to the base."""

        def each(lsn: int, record: AnyRecord, index: Index) -> None:
            numbers.row(lsn, record)
            if isinstance(record, Act):
                numbers.act(lsn, record, recipients(index.conv_for(record.conv), record))

        restore(self.log, self._log_db, self.db, "", each)
        self._state = ProjectedState(self.log, self._projection, lambda _: True, lambda *_: False)
        execute = _connection(self.db).execute
        seqs = dict(execute("SELECT name, head FROM conv"))
        numbers.begin(self.at.base, seqs, dict(execute("SELECT name, head FROM user WHERE head > 0")))

    def take(self, lsn: int, record: AnyRecord, size: int, numbers: _Numbers) -> None:
        """Apply the next row; its recipients are told to `numbers`."""
        self._state.take(lsn, record, size)
        if isinstance(record, Act):
            numbers.act(lsn, record, recipients(self._state.conv_for(record.conv), record))

    def full(self) -> bool:
        """Whether so much is in memory that it should be flushed."""
        return len(self._state.live.records) >= _FLUSH_ROWS

    def flush(self) -> None:
        """Everything applied stands in the database."""
        write_all(self._state, self._projection, "", self._state.live.last, _SLICE_ROWS)


def _compare(made: peewee.SqliteDatabase, stored: peewee.SqliteDatabase, report: Report) -> None:
    """Tell the first difference of each table."""
    for table, query in _TABLES.items():
        rows: Iterator[tuple[Any, Any]] = zip_longest(_connection(made).execute(query), _connection(stored).execute(query))
        for right, found in rows:
            if right != found:
                report.add(f"{PROJECTION_FILE}: table {table} has {found}, the log says {right}")
                break
