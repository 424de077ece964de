"""A few places that many parties want, so shared out that no party's many keep out another's one."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedPlaces:
    """`count` places. A party has at most three quarters of those that no other party has; parties that wait take turns."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        """Who waits, by party; the party whose turn is next comes first."""

    @asynccontextmanager
    async def place(self, party: str) -> AsyncIterator[None]:
        """A place is the party's, once there is one for it, for as long as the context lasts."""
        await self._enter(party)
        try:
            yield
        finally:
            self._leave(party)

    async def _enter(self, party: str) -> None:
        if party not in self._lines and self._may_have(party):
            self._give(party)
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(party, deque()).append(given)
        try:
            await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self._leave(party)  # it was given when nobody waited for it any more
            raise

    def _may_have(self, party: str) -> bool:
        held = self._held[party]
        return self._free > 0 and held + 1 <= max(1, (held + self._free) * 3 // 4)

    def _give(self, party: str) -> None:
        self._free -= 1
        self._held[party] += 1

    def _leave(self, party: str) -> None:
        self._free += 1
        self._held[party] -= 1
        if not self._held[party]:
            del self._held[party]
        for waiting in list(self._lines):
            if not self._free:
                return
            self._serve(waiting)

    def _serve(self, party: str) -> None:
        """The first of this party who still waits has a place, where there is one for it."""
        line = self._lines[party]
        while line and line[0].done():
            line.popleft()
        if line and self._may_have(party):
            line.popleft().set_result(None)
            self._give(party)
            self._lines.move_to_end(party)
        if not line:
            del self._lines[party]
