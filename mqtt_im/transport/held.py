"""What connections make the server hold: bounded in bytes, and who has most of it gives way first.

Nobody is refused because others have sent much: who comes finds room, at the cost of the party (the user, or the address where
that is not known yet) for whose connections most is held.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from mqtt_im.shares import Bounds

USUAL_BYTES: Final = 32 << 20
"""Of all connections together, as far as it is in memory."""
USUAL_SMALL_BYTES: Final = 8 * 1024
_LEAST_SMALL_BYTES: Final = 2 * 1024
"""The heads of browsers are smaller."""

_SHARES: Final = 16


class Holder(Protocol):
    """A connection."""

    held: int
    """Bytes that are held for it."""

    @property
    def party(self) -> str:
        """Whose it is."""


_Some = TypeVar("_Some", bound=Holder)


class Held(Generic[_Some]):
    """Counts what is held for connections, and says which of them are to give way."""

    def __init__(self, bounds: Bounds) -> None:
        """`bounds` give a share of what the process may take."""
        self.most = bounds.of(USUAL_BYTES)
        self.small = max(_LEAST_SMALL_BYTES, bounds.of(USUAL_SMALL_BYTES))
        """Who has so much at most gives way only when nobody has more."""
        self.bytes = 0
        self._some: dict[_Some, None] = {}
        """Those for which anything is held, the longest held ones first."""

    def changed(self, connection: _Some, size: int) -> Sequence[_Some]:
        """So much more or less is held for this connection, whose `held` says so already; these have to give way."""
        self.bytes += size
        if not connection.held:
            self._some.pop(connection, None)
            return ()
        self._some.setdefault(connection)
        return self._too_much() if size > 0 and self.bytes > self.most else ()

    def share(self, most: int, least: int) -> int:
        """How much may come to be held for one connection at once: `most`, less where a half is held already, or `least`."""
        return max(least, min(most, (self.most // 2 - self.bytes) // _SHARES))

    def _too_much(self) -> Sequence[_Some]:
        """So many that a quarter is free afterwards, since all have to be looked at to find them."""
        going: list[_Some] = []
        left = self._go(self.bytes, (one for one in self._some if one.held > self.small), going)
        if left > self.most:
            self._go(left, (one for one in self._some if one.held <= self.small), going)
        return going

    def _go(self, left: int, some: Iterable[_Some], going: list[_Some]) -> int:
        """Of these so many go that of all, who have `left`, three quarters of the bound are left; returns what really is."""
        of: dict[str, deque[_Some]] = {}
        sums: dict[str, int] = {}
        for connection in some:
            of.setdefault(connection.party, deque()).append(connection)
            sums[connection.party] = sums.get(connection.party, 0) + connection.held
        parties = [(-size, party) for party, size in sums.items()]
        heapq.heapify(parties)
        while left > self.most * 3 // 4 and parties:
            size, party = parties[0]
            connection = of[party].popleft()
            left -= connection.held
            going.append(connection)
            if of[party]:
                heapq.heapreplace(parties, (size + connection.held, party))
            else:
                heapq.heappop(parties)
        return left
