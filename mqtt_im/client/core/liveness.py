"""Is the line alive, and how often must it be asked? Everything that decides it lives in this file.

| the line | means |
|---|---|
| something is unanswered, and no byte has come for max(4 × round trip, 2 s) + bytes under way ÷ rate | half open: gone |
| nothing was sent or came for the ping interval | PINGREQ |
| a PINGRESP has come after such a silence | silent lines last that long: the interval grows by half, up to the keep-alive |
| the line was lost at a ping | back to the interval that lasted |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FLOOR_S: Final = 2.0
ROUND_TRIPS: Final = 4
FIRST_INTERVAL_S: Final = 60.0
GROWTH: Final = 1.5
BACKGROUND: Final = 2
"""In the background, pings are so many times rarer."""
_FIRST_RATE: Final = 4_000.0
"""Bytes a second that any line is believed to carry until it was measured."""
_LEAST_RATE: Final = 100.0
_LEAST_SAMPLE: Final = 2_000
"""Bytes under way that make a sample of the rate worth something."""


@dataclass(frozen=True, slots=True)
class Path:
    """What was learnt about an address; `interval` lasted, one of `broke` did not (seconds; 0: none did not)."""

    interval: float = FIRST_INTERVAL_S
    broke: float = 0.0
    rate: float = 0.0
    """Bytes a second; 0: not measured."""


class Liveness:
    """One connection. `keepalive` is what CONNECT says, in seconds; 0: no pings."""

    def __init__(self, now: float, path: Path, keepalive: float) -> None:
        self.path = path
        self.background = False
        self.round_trip = 0.0
        """Smoothed, in seconds; 0: not measured."""
        self._keepalive = keepalive
        self._heard = now
        self._sent = now
        self._sizes: dict[object, tuple[float, int, int]] = {}
        """Of what is unanswered: when it was sent, its bytes, and the bytes under way with it."""
        self._under_way = 0
        self._ping: float | None = None
        """How long the line had been silent when the PINGREQ left that is unanswered."""

    def capped(self, keepalive: float) -> None:
        """The server allows less (MQTT 5, Server Keep Alive)."""
        self._keepalive = keepalive

    @property
    def interval(self) -> float:
        """Seconds of silence after which a PINGREQ is due; infinity where there are none."""
        if not self._keepalive:
            return math.inf
        return min(self.path.interval * (BACKGROUND if self.background else 1), self._keepalive)

    def sent(self, now: float, key: object, size: int) -> None:
        """Something left that the server answers."""
        self._under_way += size
        self._sizes[key] = now, size, self._under_way
        self._sent = now

    def wrote(self, now: float) -> None:
        """Something left that has no answer."""
        self._sent = now

    def heard(self, now: float) -> None:
        """Bytes have come."""
        self._heard = now

    def answered(self, now: float, key: object) -> None:
        """The answer has come."""
        at, size, queued = self._sizes.pop(key, (now, 0, 0))
        self._under_way -= size
        took = max(now - at, 1e-4)
        if queued >= _LEAST_SAMPLE:
            measured = queued / took
            rate = measured if not self.path.rate else 0.75 * self.path.rate + 0.25 * measured
            self.path = Path(self.path.interval, self.path.broke, rate)
        elif size:
            self.round_trip = took if not self.round_trip else 0.875 * self.round_trip + 0.125 * took

    def pinged(self, now: float) -> None:
        """A PINGREQ left."""
        self._ping = now - max(self._heard, self._sent)
        self.sent(now, "ping", 2)

    def ponged(self, now: float) -> None:
        """Its PINGRESP has come: the path has kept the line over that silence."""
        self.answered(now, "ping")
        silence, self._ping = self._ping, None
        if silence is None or silence < self.interval * 0.9:
            return
        grown = min(self.path.interval * GROWTH, self._keepalive)
        if not self.path.broke or grown < self.path.broke:
            self.path = Path(max(grown, self.path.interval), self.path.broke, self.path.rate)

    def ping_due(self) -> float:
        """When the next PINGREQ is due."""
        if self._sizes:
            return math.inf
        # The server counts what it hears of us alone (MQTT-3.1.2-24), the path counts both ways.
        return min(max(self._heard, self._sent) + self.interval, self._sent + (self._keepalive or math.inf))

    def dead_at(self) -> float:
        """When the line is given up unless bytes come; infinity where no answer is owed."""
        if not self._sizes:
            return math.inf
        oldest = next(iter(self._sizes.values()))[0]
        rate = max(self.path.rate or _FIRST_RATE, _LEAST_RATE)
        patience = max(ROUND_TRIPS * self.round_trip, FLOOR_S) + self._under_way / rate
        return max(oldest, self._heard) + patience

    def lost(self) -> Path:
        """The line is given up: what was learnt, for the next time."""
        interval, broke, rate = self.path.interval, self.path.broke, self.path.rate
        if self._ping is not None and self._ping >= FIRST_INTERVAL_S * 0.9:
            broke = min(broke or math.inf, max(interval, self._ping))
            interval = max(FIRST_INTERVAL_S, interval / GROWTH)
        if self._sizes and self._under_way >= _LEAST_SAMPLE:
            rate = max((rate or _FIRST_RATE) / 4, _LEAST_RATE)  # perhaps it was slow, and not dead
        return Path(interval, broke, rate)
