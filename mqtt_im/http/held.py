"""What has come of requests that are not answered: bounded in bytes, and who has most of it gives way first.

Nobody is refused because others have sent much: who comes finds room, at the cost of the party (the user, or the address where
that is not known yet) that holds most, whose longest held requests go.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, Protocol, TypeVar

from mqtt_im.shares import Bounds

USUAL_BYTES: Final = 32 << 20
"""Of all requests together, as far as they are in memory."""
USUAL_SMALL_BYTES: Final = 8 * 1024
_LEAST_SMALL_BYTES: Final = 2 * 1024
"""The heads of browsers are smaller."""


class Holder(Protocol):
    """A connection."""

    held: int
    """Bytes of what has come for its request, as far as they are in memory."""
    party: str


_Some = TypeVar("_Some", bound=Holder)


class Held(Generic[_Some]):
    """Counts what connections hold, and says which of them are to give way."""

    def __init__(self, bounds: Bounds) -> None:
        """`bounds` give a share of what the process may take."""
        self.most = bounds.of(USUAL_BYTES)
        self.small = max(_LEAST_SMALL_BYTES, bounds.of(USUAL_SMALL_BYTES))
        """So much of a request is kept all the same."""
        self.bytes = 0
        self._large: dict[_Some, None] = {}
        """Those with more than `small`, the longest held ones first."""

    def changed(self, connection: _Some, size: int) -> Sequence[_Some]:
        """This connection, whose `held` says so already, holds so much more or less; these have to give way."""
        self.bytes += size
        if connection.held <= self.small:
            if self._large:
                self._large.pop(connection, None)
            return ()
        self._large.setdefault(connection)
        return self._too_much() if size > 0 and self.bytes > self.most else ()

    def _too_much(self) -> Sequence[_Some]:
        """So many that a quarter is free afterwards, since all have to be looked at to find them."""
        of: dict[str, deque[_Some]] = {}
        sums: dict[str, int] = {}
        for connection in self._large:
            of.setdefault(connection.party, deque()).append(connection)
            sums[connection.party] = sums.get(connection.party, 0) + connection.held
        parties = [(-size, party) for party, size in sums.items()]
        heapq.heapify(parties)
        left, going = self.bytes, []
        while left > self.most * 3 // 4 and parties:
            size, party = parties[0]
            connection = of[party].popleft()
            left -= connection.held
            going.append(connection)
            if of[party]:
                heapq.heapreplace(parties, (size + connection.held, party))
            else:
                heapq.heappop(parties)
        return going
