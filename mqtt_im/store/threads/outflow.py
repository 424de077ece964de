"""What was committed for many and has not been offered to all of them yet: while that is much, further jobs for many wait.

Else the ledger would commit more than the loop can tell, which all have to pass whose messages go to one or two, and all of it
would be in memory. What counts is what the server itself has still to do: who does not read, or reads slowly, holds up nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

MOST: Final = 1_000
"""Packets of `PACKET_BYTES` that may be left to be offered when the next job for many is done."""
PACKET_BYTES: Final = 4096
PATIENCE_S: Final = 1.0
"""Where there is so much for so long, one of them is next, and then the next one after as long again."""


def packets(size: int) -> int:
    """As how many an item of so many bytes counts."""
    return 1 + size // PACKET_BYTES


class Outflow:
    """The loop counts, the ledger's thread asks."""

    def __init__(self, wake: Callable[[], None], clock: Callable[[], float] = monotonic) -> None:
        """`wake` is called on the loop when what the ledger's thread was told to wait for is over."""
        self._wake = wake
        self._clock = clock
        self._left = 0
        self._awaited = False
        self._until: float | None = None
        self._over = False

    # On the loop.

    def add(self, count: int) -> None:
        """So much more is to be offered."""
        self._left += count

    def done(self, count: int) -> None:
        """So much of it was."""
        self._left -= count
        if self._awaited and self._left <= MOST:
            self._awaited = False
            self._wake()

    def stop(self) -> None:
        """Nobody is told any more: no job waits from now on."""
        self._over = True

    # On the ledger's thread.

    def full(self) -> bool:
        """Whether a job for many has to wait; `wait_s` tells how long at most. It need not while one is `overdue`."""
        if self._left <= MOST or self._over:
            self._until = None
            return False
        now = self._clock()
        if self._until is None:
            self._until = now + PATIENCE_S
        elif now >= self._until:
            return False
        self._awaited = True
        return self._left > MOST  # it may be over since: then nobody calls

    @property
    def overdue(self) -> bool:
        """Whether there is too much still, and a job for many need not wait all the same, until one has `passed`."""
        return self._until is not None and self._clock() >= self._until

    def passed(self) -> None:
        """A job for many was done: the next one waits."""
        self._until = None

    def wait_s(self) -> float:
        """Seconds until one of them is done in any case."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())
