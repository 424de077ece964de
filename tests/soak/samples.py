"""What is measured of the server's process, and when it has grown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

import psutil

from mqtt_im.testing import ServerProcess

GROWTH: Final = {"rss_mib": (1.10, 8.0), "fds": (1.25, 16.0), "tasks": (1.25, 16.0), "threads": (1.0, 1.0)}
"""By figure: how many times the first quarter's median the last one's may be, or by how much more, whichever is larger."""


class Sample(NamedTuple):
    """The server at one moment."""

    at_s: float
    rss_mib: float
    fds: int
    tasks: int
    threads: int
    connected: int
    uplinks: int
    malformed: int

    @classmethod
    def take(cls, server: ServerProcess, at_s: float) -> Sample:
        """Raises `OSError` where the server does not answer."""
        process = psutil.Process(server.pid)
        metrics = _totals(server.get("/metrics")[1])
        return cls(
            at_s,
            process.memory_info().rss / 2**20,
            process.num_fds(),
            int(metrics["mqtt_im_tasks"]),
            process.num_threads(),
            int(metrics.get("mqtt_im_connections", 0)),
            int(metrics.get("mqtt_im_uplinks_total", 0)),
            int(metrics.get("mqtt_im_malformed_packets_total", 0)),
        )

    def row(self) -> str:
        """One line of the table."""
        return (
            f"{self.at_s:7.0f} {self.rss_mib:9.1f} {self.fds:6d} {self.tasks:6d} {self.threads:8d} {self.connected:10d} "
            f"{self.uplinks:9d} {self.malformed:10d}"
        )


HEAD: Final = f"{'s':>7} {'RSS MiB':>9} {'fds':>6} {'tasks':>6} {'threads':>8} {'connected':>10} {'uplinks':>9} {'malformed':>10}"


def _totals(text: str) -> dict[str, float]:
    """Each metric, summed over its labels."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def grown(samples: Sequence[Sample]) -> list[str]:
    """A line for each figure that is larger in the last quarter of the samples than it may be."""
    quarter = max(1, len(samples) // 4)
    lines = []
    for figure, (factor, more) in GROWTH.items():
        before, after = (
            statistics.median(float(getattr(sample, figure)) for sample in part)
            for part in (samples[:quarter], samples[-quarter:])
        )
        if after > max(before * factor, before + more):
            lines.append(f"{figure} has grown from {before:g} to {after:g}")
    return lines
