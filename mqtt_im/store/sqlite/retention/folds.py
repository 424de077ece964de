"""Folds: how retention takes rows out of the log, and how the base and the projections follow.

A fold is planned first: everything that is to be done is written down, a part at a time, and one row of `fold` says that it
counts, in a transaction of its own. From then on it is as if it were done; who reads the log looks into the plan too (`Plan`).
Then it is worked off in small transactions, in between other work; all of it may be done twice, so after a crash it is simply
done from the beginning. In the log's file that is lazy: a power cut may take back what was done, and never the plan. The next
fold is planned when this one is done and the projections' file has it for sure; where a reader of that file stands in the way
for long, a power cut costs a rebuild.

Raises what `sqlite3` raises.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import peewee

from mqtt_im.core.gone import without_packet
from mqtt_im.core.records import AnyRecord, decode, encode
from mqtt_im.store.sqlite.replay import Row
from mqtt_im.store.sqlite.state.bulks import Bulk, slices
from mqtt_im.store.sqlite.tables.sql import checkpoint, roll_back

T = TypeVar("T")

SLICE_ROWS: Final = 400
"""Rows of the projections that one transaction changes."""
LOG_ROWS: Final = 1_000
"""Rows of the log's file that one transaction changes: the fewer transactions, the fewer times a page is written …"""
LOG_BYTES: Final = 512 << 10
"""… but for rows of the log no more than of about so many bytes together, since each is overwritten."""

_STATEMENTS: Final = {
    # Messages first: what is not there can't be edited any more, so nothing new comes to stand in `amended`.
    "message": "DELETE FROM message WHERE cid = ? AND seq = ?",
    "item": "DELETE FROM item WHERE uid = ? AND pos = ?",
    "mention": "DELETE FROM mention WHERE cid = ? AND uid = ? AND seq = ?",
    "request": "DELETE FROM request WHERE uid = ? AND id = ? AND lsn = ?",
    "packet": "DELETE FROM packet WHERE user = ? AND device = ? AND session = ? AND packet = ? AND lsn = ?",
    "keyed": "DELETE FROM keyed WHERE sender = ? AND conv = ? AND key = ? AND lsn = ?",
    # After the log's rows: as long as a message can be found by its row, what became of it is shown too.
    "amended": "DELETE FROM amended WHERE cid = ? AND seq = ?",
    "change": "DELETE FROM change WHERE cid = ? AND seq = ?",
}
AMENDED: Final = ("amended", "change")
GONE: Final = "gone"
"""What users keep no more: both counts as they are from then on, and the uid."""
INDEXES: Final = tuple(table for table in _STATEMENTS if table not in AMENDED)
"""The tables that point into the log; they forget a row before it goes."""
_NORMAL, _FULL = 1, 2
_LOOKED_AT: Final = 100
"""Rows of the log whose size is looked up at once."""
PART_ROWS: Final = 4_000
"""Rows of a plan that one transaction writes down."""
TIDIED_PARTS: Final = 20
"""Parts of a plan that one transaction takes away."""
_FLOORS: Final = """
    SELECT coalesce((SELECT min(pos) - 1 FROM item i WHERE i.uid = u.uid), head) AS risen, uid
    FROM user u WHERE uid = ? AND risen > floor"""
_SET_GONE: Final = "UPDATE user SET gone = ?, gone_bytes = ? WHERE uid = ?"
_SET_FLOOR: Final = "UPDATE user SET floor = ? WHERE uid = ?"

Rows = list[tuple[Any, ...]]


class Position(NamedTuple):
    """The last fold's number, and the log row as of which the base is; 0 and 0 where nothing was ever folded."""

    number: int
    base: int


class Plan(msgspec.Struct, array_like=True):
    """What is to be done for a fold."""

    gone: list[int] = []
    """Log rows."""
    rewritten: dict[int, bytes] = {}
    """Log rows with what stands in them from now on."""
    unpacked: list[int] = []
    """Log rows of messages that lose their `packet`. They may be recalled meanwhile, so it is said what to do, not what comes."""
    base: list[tuple[str, Rows]] = []
    """Statements on the base's tables, with their rows."""
    changes: dict[str, Rows] = {}
    """Rows of the projections that are gone, by table: the parameters of `_STATEMENTS`."""

    def parts(self) -> Iterator[Plan]:
        """The same in several, of at most `PART_ROWS` each, to be done in this order."""
        for gone in _parts(self.gone, PART_ROWS):
            yield Plan(gone=gone)
        for rewritten in _parts(list(self.rewritten.items()), PART_ROWS):
            yield Plan(rewritten=dict(rewritten))
        for unpacked in _parts(self.unpacked, PART_ROWS):
            yield Plan(unpacked=unpacked)
        for statement, rows in self.base:
            for some in _parts(rows, PART_ROWS):
                yield Plan(base=[(statement, some)])
        for table, rows in self.changes.items():
            for some in _parts(rows, PART_ROWS):
                yield Plan(changes={table: some})

    def add(self, other: Plan) -> None:
        """What comes after it is to be done too."""
        self.gone += other.gone
        self.rewritten.update(other.rewritten)
        self.unpacked += other.unpacked
        self.base += other.base
        for table, rows in other.changes.items():
            self.changes.setdefault(table, []).extend(rows)

    def seen(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
        """The log's rows as they are once it is done."""
        gone, unpacked = set(self.gone), set(self.unpacked)
        for lsn, former in rows:
            if lsn not in gone:
                data = self.rewritten.get(lsn, former)
                record: AnyRecord = decode(data)
                yield lsn, without_packet(record) if lsn in unpacked else record, len(data)


_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(Plan).decode


class Folds:
    """Both files' side of folding, on the connections of their owner."""

    def __init__(self, log_db: peewee.SqliteDatabase, projection_db: peewee.SqliteDatabase) -> None:
        self._log: sqlite3.Connection = log_db.connection()  # type: ignore[no-untyped-call]
        self._projection: sqlite3.Connection = projection_db.connection()  # type: ignore[no-untyped-call]

    def position(self) -> Position:
        """Where the log stands."""
        row = self._log.execute("SELECT number, base FROM fold ORDER BY number DESC").fetchone()
        return Position(*row) if row else Position(0, 0)

    def plan(self) -> Plan | None:
        """The last fold's, where it may not be done yet."""
        row = self._log.execute("SELECT number, plan FROM fold ORDER BY number DESC").fetchone()
        if row is None or not row[1]:
            return None
        plan = Plan()
        for (part,) in self._log.execute("SELECT plan FROM fold_part WHERE number = ? ORDER BY id", (row[0],)):
            plan.add(_unpack(part))
        plan.add(_unpack(row[1]))
        return plan

    def projected(self) -> int:
        """The number of the last fold that the projections have."""
        row = self._projection.execute("SELECT value FROM meta WHERE key = 'fold'").fetchone()
        return int(row[0]) if row else 0

    def rows(self, after: int, upto: int, limit: int) -> list[tuple[int, bytes]]:
        """The log's rows after `after`, up to `upto`, in order, at most `limit`."""
        return self._log.execute(
            "SELECT lsn, rec FROM log WHERE lsn > ? AND lsn <= ? ORDER BY lsn LIMIT ?", (after, upto, limit)
        ).fetchall()

    # A fold.

    def write_down(self, number: int, plan: Plan) -> Iterator[None]:
        """Each step writes down a part of what the fold `number` is going to do; none of it counts yet."""
        for part in plan.parts():
            with _transaction(self._log, _NORMAL):
                self._log.execute("INSERT INTO fold_part (number, plan) VALUES (?, ?)", (number, _pack(part)))
            yield

    def decide(self, position: Position) -> None:
        """On disk: what was written down will be done, and counts as done."""
        # For sure, also where messages may be lost in a power cut: the projections change from here on, and must be able to tell.
        with _transaction(self._log, _FULL):
            self._log.execute("DELETE FROM fold")
            self._log.execute("INSERT INTO fold (number, base, plan) VALUES (?, ?, ?)", (*position, _pack(Plan())))

    def project(self, plan: Plan, tables: Sequence[str]) -> Iterator[Rows]:
        """Each step takes rows out of these projections, and tells which. No bulk write may be under way at a step."""
        for table in tables:
            for some in _parts(sorted(plan.changes.get(table, ()))):
                with _transaction(self._projection):
                    self._projection.executemany(_STATEMENTS[table], some)
                yield some

    def raise_floors(self, plan: Plan) -> Iterator[Rows]:
        """Each step raises the floors of some users, and tells `(floor, uid)` of each; after everything else is projected."""
        uids = sorted({uid for uid, _ in plan.changes.get("item", ())})
        for some in _parts(uids):
            floors: Rows = [row for uid in some for row in self._projection.execute(_FLOORS, (uid,))]
            with _transaction(self._projection):
                self._projection.executemany(_SET_FLOOR, floors)
            yield floors

    def count_gone(self, plan: Plan) -> Iterator[Rows]:
        """Each step says of some users what they keep no more, and tells its rows."""
        for some in _parts(sorted(plan.changes.get(GONE, ()), key=lambda row: row[2])):
            with _transaction(self._projection):
                self._projection.executemany(_SET_GONE, some)
            yield some

    def projected_now(self, number: int) -> None:
        """The projections have the fold `number`."""
        self._projection.execute("REPLACE INTO meta (key, value) VALUES ('fold', ?)", (str(number),))

    def work_off(self, plan: Plan) -> Iterator[list[int]]:
        """Each step changes some rows of the log's file, and tells which of the log are not as they were."""
        for some in self._by_size(sorted([*plan.gone, *plan.rewritten])):  # a message goes with its edits, or before them
            with _transaction(self._log, _NORMAL):
                self._log.executemany("DELETE FROM log WHERE lsn = ?", [(lsn,) for lsn in some if lsn not in plan.rewritten])
                self._rewrite([(plan.rewritten[lsn], lsn) for lsn in some if lsn in plan.rewritten])
            yield some
        for some in _parts(plan.unpacked):
            with _transaction(self._log, _NORMAL):
                self._rewrite([(encode(without_packet(decode(data))), lsn) for lsn, data in self._read(some)])
            yield some
        for statement, rows in slices(_bulks(plan.base), LOG_ROWS):
            with _transaction(self._log, _NORMAL):
                self._log.executemany(statement, rows)
            yield []

    def _by_size(self, lsns: Sequence[int]) -> Iterator[list[int]]:
        """Rows of the log in parts of at most `LOG_ROWS` and about `LOG_BYTES`, one at least."""
        some: list[int] = []
        size = 0
        for few in _parts(lsns, _LOOKED_AT):
            marks = ",".join("?" * len(few))
            sizes = dict(self._log.execute(f"SELECT lsn, length(rec) FROM log WHERE lsn IN ({marks})", few))  # noqa: S608
            for lsn in few:
                some.append(lsn)
                size += sizes.get(lsn, 0)
                if size >= LOG_BYTES or len(some) >= LOG_ROWS:
                    yield some
                    some, size = [], 0
        if some:
            yield some

    def _rewrite(self, rows: list[tuple[bytes, int]]) -> None:
        self._log.executemany("UPDATE log SET rec = ? WHERE lsn = ?", rows)

    def _read(self, lsns: list[int]) -> Iterator[tuple[int, bytes]]:
        for lsn in lsns:
            yield from self._log.execute("SELECT lsn, rec FROM log WHERE lsn = ?", (lsn,)).fetchall()

    def finish(self) -> None:
        """In the log's file everything planned is done."""
        plan = self.plan()
        if plan is not None:
            for _ in self.work_off(plan):
                pass

    def catch_up(self) -> bool:
        """The projections have every fold; False where they lack what is not known any more."""
        number, plan = self.position().number, self.plan()
        if plan is not None and self.projected() == number - 1:
            for _ in chain(self.project(plan, (*INDEXES, *AMENDED)), self.raise_floors(plan), self.count_gone(plan)):
                pass
            self.projected_now(number)
        return self.projected() == number

    # Durability.

    def settle(self) -> bool:
        """The projections' file has everything for sure, and no plan is needed any more; False where a reader is in the way."""
        if not checkpoint(self._projection, "PASSIVE"):
            return False
        self._log.execute("UPDATE fold SET plan = x'' WHERE plan <> x''")
        return True

    def tidy(self) -> Iterator[None]:
        """Each step takes away a part of a plan that is done, or was never decided; from the first on none is known."""
        self._log.execute("UPDATE fold SET plan = x'' WHERE plan <> x''")
        for some in _parts(self._log.execute("SELECT id FROM fold_part").fetchall(), TIDIED_PARTS):
            with _transaction(self._log, _NORMAL):
                self._log.executemany("DELETE FROM fold_part WHERE id = ?", some)
            yield

    def scour(self) -> bool:
        """What was removed is gone from both write-ahead files too; False where a reader is in the way."""
        return checkpoint(self._projection, "TRUNCATE") and checkpoint(self._log, "TRUNCATE")


def _bulks(base: Sequence[tuple[str, Rows]]) -> list[Bulk]:
    def rows_of(rows: Rows) -> Callable[[], Rows]:
        return lambda: rows

    return [(statement, rows_of(rows)) for statement, rows in base]


def _parts(rows: Sequence[T], size: int | None = None) -> Iterator[list[T]]:
    size = size or SLICE_ROWS
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


@contextmanager
def _transaction(connection: sqlite3.Connection, synchronous: int | None = None) -> Iterator[None]:
    """What is done inside is one transaction, which leaves nothing where an exception ends it.

    `synchronous`: other than usual. What is committed with `_NORMAL` may be taken back by a power cut, as long as nothing was
    committed with `_FULL` after it, which syncs all that stands in the write-ahead file.
    """
    (usual,) = connection.execute("PRAGMA synchronous").fetchone()
    other = usual and synchronous is not None  # off stays off
    if other:
        connection.execute(f"PRAGMA synchronous = {synchronous:d}")
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise
    finally:
        if other:  # whatever has failed: messages are committed on this connection
            connection.execute(f"PRAGMA synchronous = {usual:d}")
