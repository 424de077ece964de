"""HTTP's part of each turn of the loop: so many steps, in which addresses take turns.

However many connections send requests, what else the loop does waits for a few of them, never for one of each connection.
Who asks for the server's health waits for nobody else, two in each turn.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

PER_TURN: Final = 8
"""Steps in one turn of the loop. Each is to take in what has come on one connection, and to begin a request."""
_URGENT_PER_TURN: Final = 2


class Turns:
    """Steps of all connections."""

    def __init__(self) -> None:
        self._left = PER_TURN
        self._running = False
        self._lines: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        """Those that wait, by address; the next step is the first address's."""
        self._urgent: deque[Callable[[], None]] = deque()
        """Those that come before them."""

    def take(self, address: str, step: Callable[[], None], *, urgent: bool = False) -> bool:
        """Do the step now, where there is time for it and nobody waits, else in its turn; whether it was done."""
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._turn)
        if urgent:
            self._urgent.append(step)
            return False
        if self._lines or not self._left:
            self._lines.setdefault(address, deque()).append(step)
            return False
        self._left -= 1
        step()
        return True

    def _turn(self) -> None:
        self._left = PER_TURN
        for _ in range(min(_URGENT_PER_TURN, len(self._urgent))):
            self._left -= 1
            self._urgent.popleft()()
        while self._lines and self._left:
            self._left -= 1
            address, line = self._lines.popitem(last=False)
            step = line.popleft()
            if line:
                self._lines[address] = line  # at the end: the next address has its turn first
            step()
        self._running = bool(self._lines or self._urgent) or self._left < PER_TURN
        if self._running:
            asyncio.get_running_loop().call_soon(self._turn)
