"""What the bridge needs of the configuration, and how it counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from mqtt_im.shares import USUAL_MB


class BridgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds, as `limits` in the configuration has them."""

    max_inflight: int = 64
    max_packet_bytes: int = 262_144
    max_body_bytes: int = 65_536
    requests_per_second: int = 200
    max_page: int = 500
    memory_mb: int = USUAL_MB


class Counters(Protocol):
    """`metrics.Metrics`, as far as the bridge counts."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add `amount` to a counter of `metrics.COUNTERS`."""

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram of `metrics.HISTOGRAMS`."""

    def observer(self, name: str) -> Callable[[float], None]:
        """`observe` of one histogram."""

    def cell(self, name: str, **labels: str) -> list[float]:
        """The counter itself, a list of one number."""


class Counter(Protocol):
    """`Counters.count` alone."""

    def __call__(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add `amount` to a counter of `metrics.COUNTERS`."""
