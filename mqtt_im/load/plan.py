"""What is to be done, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mqtt_im.load.figures import percentile
from mqtt_im.load.local import Used

Workload = Literal["direct", "group", "idle", "storm", "catchup", "plain"]

PERCENTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One load."""

    workload: Workload
    pairs: int = 50
    """Pairs of a sender and a recipient; in `group` members, in `idle` and `storm` connections."""
    inflight: int = 20
    """Messages of a sender on their way."""
    rate: float = 0.0
    """Messages a second of all senders together; 0: as many as `inflight` allows."""
    seconds: float = 10.0
    names: str = "bench-"
    """What the users' names begin with."""

    def senders(self) -> list[str]:
        """The names of so many users."""
        return [f"{self.names}a{number}" for number in range(self.pairs)]

    def recipients(self) -> list[str]:
        """The names of as many others."""
        return [f"{self.names}b{number}" for number in range(self.pairs)]


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a load had come; a list of them is a run over time."""

    at_s: float
    """Since the measuring began."""
    count: int
    latencies: int
    """How many of the samples were there."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a load has shown."""

    unit: str
    """What is counted."""
    count: int
    used: Used
    """While it was measured."""
    latency_of: str
    latencies: Sequence[float]
    """Seconds, in the order in which they were measured."""
    moments: Sequence[Moment] = ()
    """Empty where nothing went on over time."""
    pid: int | None = None
    """Of the server, where it is on this machine."""
    memory_bytes: int | None = None
    """Of the server, at the end."""
    extra: dict[str, float] = field(default_factory=dict)
    """Figures of this workload alone."""
    hints: list[str] = field(default_factory=list)
    """What else one should know to make sense of the figures."""

    @property
    def per_second(self) -> float:
        """How many a second."""
        return self.count / self.used.wall_s

    def latency_ms(self) -> dict[str, float]:
        """p50, p99, p99.9 and the longest."""
        ordered = sorted(self.latencies)
        found = {name: percentile(ordered, share) * 1000 for name, share in PERCENTILES}
        return {**found, "max": (ordered[-1] if ordered else 0.0) * 1000}
