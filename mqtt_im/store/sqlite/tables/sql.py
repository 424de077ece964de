"""What the statements on both files have in common: rolling back, checkpoints, many rows or keys in one statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_LOOKUP_SIZES = (256, 64, 16, 4, 1)
_PARAMETERS = 96
"""Of a statement that writes many rows."""
CHUNK = 500
"""Parameters of one `IN (…)`; far below SQLite's own limit."""


class Connected(Protocol):
    """A peewee database, or what stands for one."""

    def connection(self) -> Any:
        """What executes statements, as `sqlite3.Connection` does."""


@cache
def of_many(statement: str) -> tuple[str, int]:
    """The statement for more than one row, and for how many."""
    before, values, after = statement.partition("VALUES (")
    if not values or "?" not in after:
        return statement, 1
    row, _, rest = after.partition(")")
    size = max(1, _PARAMETERS // row.count("?"))
    return before + "VALUES " + ", ".join([f"({row})"] * size) + rest, size


def in_parts(keys: Sequence[T], repeat: bool = True) -> Iterator[tuple[int, Sequence[T]]]:
    """The keys in parts of few sizes, so that few statements are ever prepared: the size and the part.

    The last part is filled up with its own last key, where it does not matter that one is looked up twice.
    """
    start, left = 0, len(keys)
    while left > 0:
        if repeat:
            size = next((size for size in reversed(_LOOKUP_SIZES) if size >= left), _LOOKUP_SIZES[0])
        else:
            size = next(size for size in _LOOKUP_SIZES if size <= left)
        part = keys[start : start + size]
        if len(part) < size:
            part = [*part, *[part[-1]] * (size - len(part))]
        yield size, part
        start += size
        left -= size


def roll_back(connection: sqlite3.Connection) -> None:
    """The transaction, if one is open, has left nothing."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:  # where writing fails, SQLite may have done so by itself
            if connection.in_transaction:
                raise


def checkpoint(connection: sqlite3.Connection, mode: str) -> bool:
    """Whether all of the write-ahead file was copied into the database's own. Waits for nobody: messages would wait too."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        busy, written, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience:d}")
    return not busy and written == copied
