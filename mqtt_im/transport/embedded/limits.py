"""Counting what clients do, so that none of them does too much of it. Time comes in as an argument, in seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from mqtt_im.config.peers import network_of
from mqtt_im.logs import Flood

FAR_BEYOND_S: Final = 10.0
"""A request that has waited so long for its turn is refused instead of delayed further."""


class Count(Protocol):
    """Adds to the counter `name` of `mqtt_im.metrics`, with its labels."""

    def __call__(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count."""


class PerMinute:
    """Counts events in windows of a minute, each of which starts with its first event."""

    __slots__ = ("count", "since")

    def __init__(self) -> None:
        self.count = 0
        self.since = 0.0

    def add(self, now: float) -> int:
        """Count one; returns how many there were in this window."""
        if not self.count or now - self.since >= 60.0:
            self.since, self.count = now, 0
        self.count += 1
        return self.count


class Quiet:
    """A log that no client can fill: `burst` lines of each kind in `period` seconds, from each address."""

    def __init__(
        self, log: logging.Logger, clock: Callable[[], float], count: Count, burst: int = 20, period: float = 10.0
    ) -> None:
        """`count` is told of each line that was left out, as `log_lines_suppressed`."""
        self._log = log
        self._clock = clock
        self._count = count
        self._flood = Flood(burst, period)

    def note(self, kind: str, source: str, message: str, *arguments: object) -> None:
        """Log one line of this kind that `source`, an address, has caused, or count it for the summary that comes later."""
        held_back = self._flood.admit(kind, network_of(source), self._clock())
        if held_back is None:
            self._count("log_lines_suppressed")
            return
        if held_back:
            self._log.info("%d more lines of the kind %r from %s were left out", held_back, kind, source or "all")
        self._log.info(message, *arguments)
