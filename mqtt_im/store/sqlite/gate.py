"""The gate between the ledger's thread, which changes what is in memory, and the reader's, which looks at it.

The ledger's thread holds it while it changes anything in memory, and never while it waits for the disk. The reader holds it while
it looks, and never while a statement of its own runs (`Yielding`). So each sees the other's work whole, and waits for the other
no longer than that computes.

What is in memory may be of a batch that is not on disk yet. The reader must not tell of that: it goes by `committed`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from mqtt_im.store.common.rendered import About

_FETCHED: Final = 256
"""Rows that are fetched at a time."""
_PATIENCE_S: Final = 0.01
"""So long the next batch waits for a reader who has waited for the last one."""
_CHANGES: Final = 256
"""Changes that are remembered for a reader who has not looked since …"""
_NAMED: Final = 20_000
"""… as far as they name no more rows and messages together: some megabytes."""

Change = tuple[tuple[int, ...], tuple[About, ...]]
"""Log rows, and messages."""


class Gate:
    """As a context, for the ledger's thread: nobody looks meanwhile. It goes before the reader."""

    def __init__(self) -> None:
        self._lock = threading.Condition(threading.RLock())
        self._wanted = False
        self._depth = 0
        self._behind = 0
        self.committed = 0
        """The newest log row that is on disk."""
        self.moves = 0
        """See `move`."""
        self.changes = 0
        """How often something that was in the log before was changed."""
        self._changed: deque[Change] = deque()
        self._named = 0
        """Rows and messages in there."""

    def __enter__(self) -> None:
        self._wanted = True
        self._lock.acquire()
        self._wanted = False
        if self._behind and not self._depth:
            self._lock.wait_for(lambda: not self._behind, _PATIENCE_S)
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._lock.release()

    def move(self) -> None:
        """Generations have changed places, or the state was read anew: whoever looks begins again. Inside the gate."""
        self.moves += 1
        self._lock.notify_all()

    def change(self, lsns: Iterable[int], messages: Iterable[About]) -> None:
        """These rows of the log, and what became of these messages, are no longer how they were. Inside the gate."""
        self.changes += 1
        change = tuple(lsns), tuple(messages)
        self._changed.append(change)
        self._named += _names(change)
        while len(self._changed) > _CHANGES or self._named > _NAMED:
            self._named -= _names(self._changed.popleft())

    def changed_since(self, changes: int) -> list[Change] | None:
        """What was changed after so many changes; None where that is not known any more. Inside the gate."""
        known = len(self._changed) - (self.changes - changes)
        return None if known < 0 else list(self._changed)[known:]

    def commit(self, lsn: int) -> None:
        """Everything up to this row is on disk."""
        self.committed = lsn
        if self._behind:
            with self._lock:
                self._lock.notify_all()

    # The reader.

    def enter(self) -> None:
        """The reader may look."""
        while self._wanted:
            time.sleep(0)
        self._lock.acquire()

    def leave(self) -> None:
        """The reader does not look any more."""
        self._lock.release()

    def wait(self, lsn: int, seconds: float) -> None:
        """This row is on disk, or will never be, or so many seconds are over; inside the gate, which is open meanwhile."""
        moves = self.moves
        self._behind += 1
        try:
            self._lock.wait_for(lambda: self.committed >= lsn or self.moves != moves, seconds)
        finally:
            self._behind -= 1
            if not self._behind:
                self._lock.notify_all()


def _names(change: Change) -> int:
    return len(change[0]) + len(change[1])


class Yielding:
    """A connection of the reader, whose statements run with the gate open; after each, `check` is called with it closed.

    With `snapshot` all of them until `end` see one moment, that of the first.
    """

    def __init__(self, connection: sqlite3.Connection, gate: Gate, check: Callable[[], None], snapshot: bool = False) -> None:
        self._connection = connection
        self._gate = gate
        self._check = check
        self._snapshot = snapshot
        self.keep = False
        """Whether the gate stays closed instead."""

    def connection(self) -> Yielding:
        """Itself, as a peewee database has it."""
        return self

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Rows:
        """As `sqlite3.Connection.execute`; the first rows are fetched at once, the others when they are asked for."""
        with self._open():
            if self._snapshot and not self._connection.in_transaction:
                self._connection.execute("BEGIN")
            cursor = self._connection.execute(statement, parameters)
            rows = cursor.fetchmany(_FETCHED)
        self._check()
        return Rows(rows, self._more(cursor) if len(rows) == _FETCHED else iter(()))

    def end(self) -> None:
        """The snapshot is over."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _more(self, cursor: sqlite3.Cursor) -> Iterator[Any]:
        rows = [None] * _FETCHED
        while len(rows) == _FETCHED:
            with self._open():
                rows = cursor.fetchmany(_FETCHED)
            self._check()
            yield from rows

    @contextmanager
    def _open(self) -> Iterator[None]:
        if self.keep:
            yield
            return
        self._gate.leave()
        try:
            yield
        finally:
            self._gate.enter()


class Rows:
    """The rows of a statement."""

    def __init__(self, first: list[Any], rest: Iterator[Any]) -> None:
        self._first = first
        self._rest = rest

    def fetchone(self) -> Any:
        """The first row; None where there is none."""
        return self._first[0] if self._first else None

    def fetchall(self) -> list[Any]:
        """All rows."""
        return [*self._first, *self._rest]

    def __iter__(self) -> Iterator[Any]:
        yield from self._first
        yield from self._rest
