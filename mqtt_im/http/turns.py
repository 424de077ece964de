"""HTTP's part of each turn of the loop: so many steps, and so much time, in which addresses take turns.

However many connections send requests, what else the loop does waits for a few of them, never for one of each connection; and
for fewer where turns are long, be it by what these requests set off (`pacing.Share`).
Who asks for the server's health waits for nobody else, two in each turn; one of the others has its step in each all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from mqtt_im.pacing import Share

PER_TURN: Final = 8
"""Steps in one turn of the loop. Each is to take in what has come on one connection, and to begin a request."""
TURN_S: Final = 0.004
"""Of the loop's thread, in which they are begun: a head of three thousand fields takes twice that by itself."""
_URGENT_PER_TURN: Final = 2

Step = Callable[[], None]


class _Lines:
    """Steps that wait, in a line for each address; the addresses take turns."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, OrderedDict[Step, None]] = OrderedDict()
        """The next step is the first address's."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def put(self, address: str, step: Step) -> None:
        """The step waits behind those of its address."""
        self._lines.setdefault(address, OrderedDict())[step] = None

    def take(self) -> Step:
        """The next one; there is one."""
        address, line = self._lines.popitem(last=False)
        step, _ = line.popitem(last=False)
        if line:
            self._lines[address] = line  # at the end: the next address has its turn first
        return step

    def drop(self, address: str, step: Step) -> None:
        """The step does not wait any more, where it does."""
        line = self._lines.get(address)
        if line is not None:
            line.pop(step, None)
            if not line:
                del self._lines[address]


class Turns:
    """Steps of all connections, each of which has one that waits at most."""

    def __init__(self, clock: Callable[[], float] = time.thread_time, share: Share | None = None) -> None:
        """`clock` counts seconds of the loop's thread."""
        self._clock = clock
        self._share = share or Share()
        self._left = PER_TURN
        self._until = 0.0
        self._running = False
        self._waiting, self._urgent = _Lines(), _Lines()
        """Those that wait, and those that come before them."""

    def take(self, address: str, step: Step, *, urgent: bool = False) -> bool:
        """Do the step now, where there is time for it and nobody waits, else in its turn; whether it was done."""
        if not self._running:
            self._running = True
            self._share.begin()
            self._until = self._clock() + TURN_S * self._share.part
            asyncio.get_running_loop().call_soon(self._turn)
        if urgent:
            self._urgent.put(address, step)
            return False
        if self._waiting or not self._has_time():
            self._waiting.put(address, step)
            return False
        self._left -= 1
        step()
        return True

    def drop(self, address: str, step: Step) -> None:
        """The step is not done: its connection is gone, and is not to be kept, with what has come, until its turn."""
        self._waiting.drop(address, step)
        self._urgent.drop(address, step)

    def _has_time(self) -> bool:
        return self._left > 0 and self._clock() < self._until

    def _turn(self) -> None:
        part = self._share.next()
        self._left = most = max(1, int(PER_TURN * part))
        self._until = self._clock() + TURN_S * part
        try:
            for _ in range(_URGENT_PER_TURN):
                if self._urgent:
                    self._left -= 1
                    self._urgent.take()()
            is_first = True
            while self._waiting and (is_first or self._has_time()):
                is_first = False
                self._left -= 1
                self._waiting.take()()
        finally:  # also where a mistake has met one of them: all others would wait for ever
            self._running = bool(self._waiting or self._urgent) or self._left < most
            if self._running:
                asyncio.get_running_loop().call_soon(self._turn)
