"""The log's statements, as SQL on peewee's connection; used by one thread alone.

Measured: peewee's `Model.create` tops out near 10,000 rows a second, `executemany` near 70,000.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter

from .sql import CHUNK, Connected, checkpoint, roll_back

_INSERT_ROWS = 64
_LARGE_BYTES = 128 * 1024
"""A statement with more bytes than that writes its rows one by one: SQLite keeps what the last call of each has bound."""
_INSERT = "INSERT INTO log (lsn, rec) VALUES (?, ?)"
_INSERTS = ["INSERT INTO log (lsn, rec) VALUES " + ",".join(["(?, ?)"] * size) for size in range(_INSERT_ROWS + 1)]
"""By their number of rows."""


class Log:
    """The log's statements. Raises what `sqlite3` raises."""

    def __init__(self, db: Connected) -> None:
        self._conn: sqlite3.Connection = db.connection()

    def append(self, rows: Sequence[tuple[int, bytes]], rewrites: Sequence[tuple[bytes, int]]) -> None:
        """Rows are on disk, and rewritten ones have their new content, as one transaction.

        `sqlite3` lets go of the interpreter's lock in each step, and has to wait for it after: few long statements are
        faster beside a busy event loop than many short ones.
        """
        execute = self._conn.execute
        self._check_idle()
        if len(rows) <= _INSERT_ROWS and not rewrites and _bytes(rows) <= _LARGE_BYTES:
            execute(_INSERTS[len(rows)], list(chain.from_iterable(rows)))  # a transaction of its own
            return
        execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(rows), _INSERT_ROWS):
                part = rows[start : start + _INSERT_ROWS]
                if _bytes(part) <= _LARGE_BYTES:
                    execute(_INSERTS[len(part)], list(chain.from_iterable(part)))
                else:
                    self._conn.executemany(_INSERT, part)
            if rewrites:
                self._conn.executemany("UPDATE log SET rec = ? WHERE lsn = ?", rewrites)
            execute("COMMIT")
        except BaseException:
            roll_back(self._conn)
            raise

    def _check_idle(self) -> None:
        if self._conn.in_transaction:  # what is written in it would not be on disk yet
            raise sqlite3.OperationalError("a transaction was left open")

    def probe(self) -> None:
        """A write has reached the disk."""
        self.note("probe", "")

    def note(self, key: str, value: str) -> None:
        """The store says this of itself, on disk."""
        self._conn.execute("REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def last(self) -> int:
        """The newest row; 0 in an empty log."""
        return int(self._conn.execute("SELECT coalesce(max(lsn), 0) FROM log").fetchone()[0])

    def get(self, lsn: int) -> bytes | None:
        """The content of one row."""
        row = self._conn.execute("SELECT rec FROM log WHERE lsn = ?", (lsn,)).fetchone()
        return row[0] if row else None

    def get_many(self, lsns: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Those of these rows that exist, with their contents."""
        for start in range(0, len(lsns), CHUNK):
            part = lsns[start : start + CHUNK]
            marks = ",".join("?" * len(part))
            yield from self._conn.execute(f"SELECT lsn, rec FROM log WHERE lsn IN ({marks})", part)

    def after(self, lsn: int) -> Iterable[tuple[int, bytes]]:
        """Every row after `lsn`, in order."""
        return self._conn.execute("SELECT lsn, rec FROM log WHERE lsn > ? ORDER BY lsn", (lsn,))

    def part(self, lsn: int, limit: int) -> list[tuple[int, bytes]]:
        """The next rows after `lsn`, in order, at most `limit`."""
        return self._conn.execute("SELECT lsn, rec FROM log WHERE lsn > ? ORDER BY lsn LIMIT ?", (lsn, limit)).fetchall()

    def checkpoint(self) -> bool:
        """Whether what was rewritten or deleted is gone from the write-ahead file too; see `checkpoint`."""
        return checkpoint(self._conn, "TRUNCATE")


def _bytes(rows: Sequence[tuple[int, bytes]]) -> int:
    return sum(map(len, map(itemgetter(1), rows)))
