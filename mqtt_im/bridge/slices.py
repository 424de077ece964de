"""Work for many, done a little in each turn of the loop, so that nobody else waits for all of it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

PER_TURN = 400
"""What is done in one turn, in steps of a few microseconds each."""
_TURN_S = 0.004
"""And so long it takes at most, or one step, where steps cost more than they say."""


class Slices:
    """Pieces of work, one after the other. Each is an iterator that has done a step when it yields what the step cost."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._work: deque[Iterator[int]] = deque()

    def start(self, work: Iterator[int]) -> None:
        """Have this done behind what is there already, beginning with the next turn."""
        self._work.append(work)
        if len(self._work) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        left, end = PER_TURN, self._clock() + _TURN_S
        while self._work and left > 0 and self._clock() < end:
            try:
                left -= next(self._work[0])
            except StopIteration:
                self._work.popleft()
            except BaseException:
                self._work.popleft()  # a mistake of ours costs this piece alone
                if self._work:
                    asyncio.get_running_loop().call_soon(self._turn)
                raise
        if self._work:
            asyncio.get_running_loop().call_soon(self._turn)
