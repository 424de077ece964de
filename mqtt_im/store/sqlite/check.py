"""`store check`: the promises, verified on the stored data. Reads only, and works beside a running server.

The log is read from its first row to its last: every conversation's `seq` and every inbox's `pos` must count 1, 2, 3, … without
a gap, but for what retention took (up to the base, see `base.py`), and an `id` must have made one thing only. On the way the
projections are rebuilt in a temporary file, and compared with those on disk at the row up to which these got. What is kept in
memory does not grow with the store.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import peewee

from mqtt_im.core.apply import recipients
from mqtt_im.core.records import Act, AnyRecord, Gone, GroupChange, Message, decode
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
_CACHE_KIB: Final = 131_072
_SLICE_ROWS: Final = 5_000

# Each table with its rows in one order, by names, since internal numbers may differ between two rebuilds.
_TABLES: Final = {
    "user": f"SELECT name, {USER} FROM user ORDER BY 1",
    "conv": f"SELECT name, {CONV} FROM conv ORDER BY 1",
    "member": """
        SELECT u.name, c.name, grp, ord, role, active, read, delivered, spans, last, latest
        FROM user u CROSS JOIN member m ON m.uid = u.uid CROSS JOIN conv c ON c.cid = m.cid ORDER BY 1, 2""",
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

    numbers = _Numbers(report, rebuild.ids)

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
        replay(decoded(rebuild.log.after(at.base)), take, rebuild.full, rebuild.flush, rebuild.prefetch)
    except (KeyError, IndexError, ValueError, AssertionError) as error:
        report.add(f"log row {numbers.lsn}: does not follow from those before it ({type(error).__name__}: {error})")
        return
    rebuild.flush()
    if comparable and stored_db is not None:
        _compare(rebuild.db, stored_db, report)
    rebuild.ids.check(rebuild.log, report)
    _check_positions(rebuild.db, report)
    execute = _connection(rebuild.db).execute
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


class _Numbers:
    """Counts along: what each number must be, given those before it."""

    def __init__(self, report: Report, ids: _Ids) -> None:
        self.report = report
        self.lsn = 0
        """The row that was read last."""
        self._ids = ids
        self._seqs: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        """Numbers that rows up to the base have given out; later ones go on from the entities."""
        self._whole = False
        self._ts = 0

    def begin(self, base: int, seqs: dict[str, int], positions: dict[str, int]) -> None:
        """Up to row `base` rows may be missing, and from here on none; so far numbers were given out up to these."""
        for counters, given in ((self._seqs, seqs), (self._positions, positions)):
            for key, number in counters.items():
                if number > given.get(key, 0):
                    self.report.add(f"base: {key} has numbers up to {given.get(key, 0)}, the log has {number}")
        self._seqs.clear()
        self._positions.clear()
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
            self._ids.add(lsn, act.by, act.id)

    def early(self, lsn: int, record: Act, names: list[str]) -> None:
        """The numbers that a row up to the base gave out, to the inboxes of `names`."""
        seqs, positions = self._seqs, self._positions
        self.act(lsn, record, names, seqs.get(record.conv, 0), [positions.get(name, 0) for name in names])
        if isinstance(record, Message | GroupChange):
            seqs[record.conv] = record.seq
        positions.update(zip(names, record.pos, strict=False))

    def act(self, lsn: int, record: Act, names: list[str], head: int, heads: list[int]) -> None:
        """The numbers that the row gave out, where its conversation and the inboxes of `names` had come so far before it."""
        if isinstance(record, GroupChange) and not record.pos:
            pass
        elif isinstance(record, Message | GroupChange):
            self.report.messages += 1
            self._follows(head, record.seq, f"log row {lsn}: seq {record.seq} of {record.conv}")
        elif self._whole and record.seq > head:
            self.report.add(f"log row {lsn}: speaks of message {record.seq} of {record.conv}, which was not sent yet")
        if len(names) != len(record.pos):
            self.report.add(f"log row {lsn}: {len(record.pos)} items for {len(names)} recipients")
        for name, pos, before in zip(names, record.pos, heads, strict=False):
            self.report.items += 1
            self._follows(before, pos, f"log row {lsn}: pos {pos} of {name}")

    def _follows(self, before: int, number: int, what: str) -> None:
        if number != before + 1 if self._whole else number <= before:
            self.report.add(f"{what}: {before + 1} was next")


class _Ids:
    """Which rows have which `id`: by a digest, in a table, since there may be millions of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._fresh: list[tuple[int, int]] = []
        connection.execute("CREATE TABLE used (digest INTEGER, lsn INTEGER)")

    def add(self, lsn: int, user: str, request_id: str) -> None:
        """The row was made by this request."""
        digest = hashlib.blake2b(f"{user} {request_id}".encode(), digest_size=8).digest()
        self._fresh.append((int.from_bytes(digest, signed=True), lsn))

    def flush(self) -> None:
        """Nothing is in memory."""
        self._connection.executemany("INSERT INTO used VALUES (?, ?)", self._fresh)
        self._fresh.clear()

    def check(self, log: Log, report: Report) -> None:
        """Each `id` has made one thing. A change to a group may take several rows: a leaving owner, and who takes over."""
        self.flush()
        twice = "SELECT digest, lsn FROM used WHERE digest IN (SELECT digest FROM used GROUP BY 1 HAVING count(*) > 1) ORDER BY 2"
        seen: dict[tuple[str, str | None], tuple[int, str]] = {}
        for _, lsn in self._connection.execute(twice).fetchall():
            data = log.get(lsn)
            found = None if data is None else decode(data)
            act = found.act if isinstance(found, Gone) else found
            if not isinstance(act, Act):
                continue
            first, kind = seen.setdefault((act.by, act.id), (lsn, f"{type(act).__name__} {act.conv}"))
            if first != lsn and (not isinstance(act, GroupChange) or kind != f"GroupChange {act.conv}"):
                report.add(f"log row {lsn}: id {act.id!r} of {act.by} was used by row {first} already")


class _Rebuild:
    """The projections, made anew from the log in a file that only SQLite knows."""

    def __init__(self, log_db: peewee.SqliteDatabase) -> None:
        self.db = peewee.SqliteDatabase(
            "file:", uri=True, pragmas={"journal_mode": "off", "synchronous": 0, "cache_size": -_CACHE_KIB}
        )
        self.db.connect()
        self.ids = _Ids(_connection(self.db))
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
                numbers.early(lsn, record, recipients(index.conv_for(record.conv), record))

        restore(self.log, self._log_db, self.db, "", each)
        self._state = ProjectedState(self.log, self._projection, lambda _: True, lambda *_: False)
        execute = _connection(self.db).execute
        seqs = dict(execute("SELECT name, head FROM conv"))
        numbers.begin(self.at.base, seqs, dict(execute("SELECT name, head FROM user WHERE head > 0")))

    def take(self, lsn: int, record: AnyRecord, size: int, numbers: _Numbers) -> None:
        """Apply the next row; its recipients are told to `numbers`."""
        state = self._state
        if isinstance(record, Act):
            conv = state.conv_for(record.conv)
            names = recipients(conv, record)
            numbers.act(lsn, record, names, conv.head, [state.user(name).head for name in names])
        state.replay(lsn, record, size)

    def prefetch(self, records: Iterable[AnyRecord]) -> None:
        """Those come next."""
        self._state.prefetch_records(records)

    def full(self) -> bool:
        """Whether so much is in memory that it should be flushed."""
        return len(self._state.live.records) >= _FLUSH_ROWS

    def flush(self) -> None:
        """Everything applied stands in the database."""
        write_all(self._state, self._projection, "", self._state.live.last, _SLICE_ROWS)
        self.ids.flush()


def _compare(made: peewee.SqliteDatabase, stored: peewee.SqliteDatabase, report: Report) -> None:
    """Tell the first difference of each table."""
    for table, query in _TABLES.items():
        rows: Iterator[tuple[Any, Any]] = zip_longest(_connection(made).execute(query), _connection(stored).execute(query))
        for right, found in rows:
            if right != found:
                report.add(f"{PROJECTION_FILE}: table {table} has {found}, the log says {right}")
                break
