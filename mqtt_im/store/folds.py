"""Folds: the transactions by which retention takes rows out of the log, and how the projections follow them.

A fold commits in the log first: rows are gone, the base (`base.py`) has what they left behind, and a row of `fold` says what
that means for the projections. These commit it after, with the fold's number. Where a crash comes in between, the changes are
made at the next start; where they are not there any more, the projections are made anew.

Raises what `sqlite3` raises.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import peewee

Changes = dict[str, list[tuple[Any, ...]]]
"""Rows that are gone from the projections, by table, and the new `floor` of users: the parameters of `_STATEMENTS`."""

_STATEMENTS: Final = {
    "item": "DELETE FROM item WHERE uid = ? AND pos = ?",
    "message": "DELETE FROM message WHERE cid = ? AND seq = ?",
    "mention": "DELETE FROM mention WHERE cid = ? AND uid = ? AND seq = ?",
    "amended": "DELETE FROM amended WHERE cid = ? AND seq = ?",
    "request": "DELETE FROM request WHERE uid = ? AND id = ? AND lsn = ?",
    "packet": "DELETE FROM packet WHERE user = ? AND device = ? AND session = ? AND packet = ? AND lsn = ?",
    "keyed": "DELETE FROM keyed WHERE sender = ? AND conv = ? AND key = ? AND lsn = ?",
    "floor": "UPDATE user SET floor = ? WHERE uid = ?",
}
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(Changes).decode


class Position(NamedTuple):
    """The last fold's number, and the log row as of which the base is; 0 and 0 where nothing was ever folded."""

    number: int
    base: int


class Folds:
    """Both files' side of folding, on the connections of their owner."""

    def __init__(self, log_db: peewee.SqliteDatabase, projection_db: peewee.SqliteDatabase) -> None:
        self._log: sqlite3.Connection = log_db.connection()  # type: ignore[no-untyped-call]
        self._projection: sqlite3.Connection = projection_db.connection()  # type: ignore[no-untyped-call]

    def position(self) -> Position:
        """Where the log stands."""
        row = self._log.execute("SELECT number, base FROM fold ORDER BY number DESC LIMIT 1").fetchone()
        return Position(*row) if row else Position(0, 0)

    def projected(self) -> int:
        """The number of the last fold that the projections have."""
        row = self._projection.execute("SELECT value FROM meta WHERE key = 'fold'").fetchone()
        return int(row[0]) if row else 0

    def catch_up(self) -> bool:
        """The projections have every fold; False where their changes are not known any more."""
        last, have = self.position().number, self.projected()
        missing = self._log.execute("SELECT number, changes FROM fold WHERE number > ? ORDER BY number", (have,)).fetchall()
        if [number for number, changes in missing if changes] != list(range(have + 1, last + 1)):
            return False
        for number, changes in missing:
            self.begin()
            self.change(_unpack(changes))
            self.commit(number)
        return True

    def rows(self, after: int, upto: int, limit: int) -> list[tuple[int, bytes]]:
        """The log's rows after `after`, up to `upto`, in order, at most `limit`."""
        return self._log.execute(
            "SELECT lsn, rec FROM log WHERE lsn > ? AND lsn <= ? ORDER BY lsn LIMIT ?", (after, upto, limit)
        ).fetchall()

    # The projections' transaction.

    def begin(self) -> None:
        """The projections' transaction begins; no bulk write may be under way."""
        self._projection.execute("BEGIN IMMEDIATE")

    def change(self, changes: Changes) -> None:
        """What a fold takes is gone, and floors are as it says."""
        for table, rows in changes.items():
            self._projection.executemany(_STATEMENTS[table], rows)

    def risen_floors(self, uids: Iterable[int]) -> list[tuple[int, int]]:
        """`(floor, uid)` of those users of whom more items are gone from the bottom of the inbox than before."""
        query = """
            SELECT coalesce((SELECT min(pos) - 1 FROM item i WHERE i.uid = u.uid), head) AS risen, uid
            FROM user u WHERE uid = ? AND risen > floor"""
        return [row for uid in uids for row in self._projection.execute(query, (uid,))]

    def commit(self, number: int) -> None:
        """The projections have the fold `number`."""
        self._projection.execute("REPLACE INTO meta (key, value) VALUES ('fold', ?)", (str(number),))
        self._projection.execute("COMMIT")

    # The log's transaction.

    def fold(
        self,
        position: Position,
        changes: Changes,
        gone: Sequence[int],
        rewritten: Sequence[tuple[bytes, int]],
        base: Iterable[tuple[str, Sequence[Sequence[Any]]]],
    ) -> None:
        """On disk: log rows are gone or rewritten, the base has its new rows, and the projections' changes are noted."""
        execute, many = self._log.execute, self._log.executemany
        execute("BEGIN IMMEDIATE")
        try:
            many("DELETE FROM log WHERE lsn = ?", [(lsn,) for lsn in gone])
            many("UPDATE log SET rec = ? WHERE lsn = ?", rewritten)
            for statement, rows in base:
                many(statement, rows)
            execute("INSERT INTO fold (number, base, changes) VALUES (?, ?, ?)", (*position, _pack(changes)))
            execute("COMMIT")
        except BaseException:
            if self._log.in_transaction:
                execute("ROLLBACK")
            raise

    # Durability.

    def settle(self) -> bool:
        """The projections' file has everything for sure, and changes need not be kept; False where a reader stood in the way."""
        if not _checkpoint(self._projection):
            return False
        self._log.execute("DELETE FROM fold WHERE number < (SELECT max(number) FROM fold)")
        self._log.execute("UPDATE fold SET changes = x''")
        return True

    def scour(self) -> bool:
        """What was removed is gone from both write-ahead files too; False where a reader stood in the way."""
        return _checkpoint(self._projection) and _checkpoint(self._log)


def _checkpoint(connection: sqlite3.Connection) -> bool:
    # Without waiting for readers: messages would wait too.
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience:d}")
    return not busy
