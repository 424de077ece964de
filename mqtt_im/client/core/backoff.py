"""When to connect again. Everything that decides it lives in this file.

| after | the next try comes |
|---|---|
| a connection that was online for `STEADY_S` | within a second, evenly spread, so that not all come at once after a restart |
| each further failure | after a random part of 1, 2, 4, … up to 60 seconds (exponential, full jitter) |
| `retry_after` of the server | not before that |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_S: Final = 1.0
CAP_S: Final = 60.0
STEADY_S: Final = 10.0


class Backoff:
    """Counts failures; `chance` gives a number from 0 up to 1."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._failures = 0
        self._online_since: float | None = None
        self._not_before = 0.0

    def online(self, now: float) -> None:
        """`welcome` has come."""
        self._online_since = now

    def failed(self, now: float) -> float:
        """A connection ended, or did not come about: seconds to wait before the next try."""
        if self._online_since is not None and now - self._online_since >= STEADY_S:
            self._failures = 0
        self._online_since = None
        # The first two draw from one second: the spread reconnect, and the back-off's own first step.
        span = min(CAP_S, FIRST_S * 2.0 ** max(0, self._failures - 1))
        self._failures = min(self._failures + 1, 32)
        return max(self._chance() * span, self._not_before - now)

    def not_before(self, at: float) -> None:
        """The server has asked not to be tried before this."""
        self._not_before = max(self._not_before, at)

    def reset(self) -> None:
        """The network has changed: begin anew."""
        self._failures = 0
        self._not_before = 0.0
