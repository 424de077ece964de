"""What very many sessions are to get, handed out a little in each turn of the loop, so that nobody else waits for all of it.

Each session gets what comes to it in the order in which it came: whoever hands it something else calls `catch_up` before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final, Generic, TypeVar

CROWD: Final = 100
"""So many are served at once, and no more."""
_TURN_S: Final = 0.003
MOST: Final = 50_000
"""So many wait at most; beyond that the oldest are served at once."""

S = TypeVar("S")
W = TypeVar("W")


class Crowds(Generic[S, W]):
    """What waits to be handed out, the oldest first."""

    def __init__(self, give: Callable[[S, W], None]) -> None:
        """`give` hands a session something."""
        self._give = give
        self._crowds: deque[tuple[dict[S, W], Callable[[], None] | None]] = deque()
        self._waiting = 0
        self._running = False

    def start(self, crowd: dict[S, W], ended: Callable[[], None] | None = None) -> None:
        """Each of these sessions gets what stands there, in this turn of the loop or in later ones; then `ended` is called."""
        self._crowds.append((crowd, ended))
        self._waiting += len(crowd)
        while self._waiting > MOST and self._crowds[0][0] is not crowd:
            self._serve(self._crowds[0][0])
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._turn)

    def catch_up(self, session: S) -> None:
        """The session has got all that was to be handed to it."""
        for crowd, _ in self._crowds:
            if (what := crowd.pop(session, None)) is not None:
                self._waiting -= 1
                self._give(session, what)

    def finish(self) -> None:
        """Nothing waits."""
        while self._crowds:
            self._serve(self._crowds[0][0])

    def _serve(self, crowd: dict[S, W]) -> None:
        while crowd:
            self._serve_one(crowd)
        self._end_first()

    def _end_first(self) -> None:
        _, ended = self._crowds.popleft()
        if ended is not None:
            ended()

    def _serve_one(self, crowd: dict[S, W]) -> None:
        session, what = crowd.popitem()
        self._waiting -= 1
        self._give(session, what)

    def _turn(self) -> None:
        self._running = bool(self._crowds)
        if self._running:
            asyncio.get_running_loop().call_soon(self._turn)
        left, end = CROWD, perf_counter() + _TURN_S
        while self._crowds and left and perf_counter() < end:
            crowd, _ = self._crowds[0]
            if crowd:
                self._serve_one(crowd)
                left -= 1
            if not crowd:
                self._end_first()
