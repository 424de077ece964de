"""Work for many, done a little in each turn of the loop, so that nobody else waits for all of it.

However many kinds of such work there are, they share what one turn of the loop has for them, and take turns. Where turns are
long, that is less (`pacing.Share`); and while the ledger does what holds up everybody, next to nothing: of two threads one runs
at a time, so that it would take twice as long.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from mqtt_im.logs import RateLimited
from mqtt_im.pacing import Share

T = TypeVar("T")

PER_TURN = 400
"""What is done in one turn, in steps of a few microseconds each."""
_TURN_S = 0.004
"""And so long it takes at most, or one step, where steps cost more than they say."""
_AT_ONCE = 100
"""What one line does before the next one has its turn."""
_GIVING_WAY_S = 0.004
"""Between two turns of such work while it gives way …"""
_LITTLE = 1 / 8
"""… and what it does in each of them."""

_log = RateLimited(logging.getLogger(__name__))


def surely(act: Callable[[T], int], one: T) -> int:
    """`act` for one of many; what it has cost. A mistake of ours with one costs that one alone, and is told in the log."""
    try:
        return act(one)
    except Exception as error:  # noqa: BLE001 - told in the log
        _log.exception("a mistake has met one of many", error)
        return 1


class Line:
    """Pieces of work, one after the other. Each is an iterator that has done a step when it yields what the step cost."""

    def __init__(self, begun: Callable[[Line], None]) -> None:
        """`begun` is called when there is something to do."""
        self._begun = begun
        self.work: deque[Iterator[int]] = deque()

    def start(self, work: Iterator[int]) -> None:
        """Have this done behind what is there already, beginning with the next turn."""
        self.work.append(work)
        if len(self.work) == 1:
            self._begun(self)

    def step(self) -> int:
        """A step of the first piece of work was done, or it is over; what that cost."""
        try:
            return next(self.work[0])
        except StopIteration:
            self.work.popleft()
            return 0
        except Exception as error:  # noqa: BLE001 - told in the log
            _log.exception("a piece of work for many was given up", error)
            self.work.popleft()
            return 1


class Slices:
    """What one loop does of such work."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, give_way: Callable[[], bool] = lambda: False) -> None:
        """`give_way` tells whether another thread does what everybody waits for."""
        self._clock = clock
        self._give_way = give_way
        self._share = Share(clock)
        self._busy: deque[Line] = deque()
        """Lines with something to do, the next one first."""

    def line(self) -> Line:
        """A further kind of work."""
        return Line(self._begun)

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._busy)

    def _begun(self, line: Line) -> None:
        self._busy.append(line)
        if len(self._busy) == 1:
            self._share.begin()
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        part = self._share.next()
        if self._give_way():
            part = min(part, _LITTLE)
        left, end = int(PER_TURN * part), self._clock() + _TURN_S * part
        while self._busy and left > 0 and self._clock() < end:
            left -= self._some(min(left, _AT_ONCE), end)
        if not self._busy:
            return
        loop = asyncio.get_running_loop()
        if self._give_way():
            loop.call_later(_GIVING_WAY_S, self._go_on)
        else:
            loop.call_soon(self._turn)

    def _go_on(self) -> None:
        self._share.begin()
        self._turn()

    def _some(self, most: int, end: float) -> int:
        """What the first line has done; another one is the first now."""
        line, done = self._busy.popleft(), 0
        while line.work and done < most and self._clock() < end:
            done += line.step()
        if line.work:
            self._busy.append(line)
        return done
