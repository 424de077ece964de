"""What is told with a fault, so that it can be explained the first time: a device's last packets, and what the servers did."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

LINES = 150
"""Of each side, the last ones."""
TOLD = 3
"""Faults with which that is told; those behind them follow from these more often than not."""


class Trail:
    """One device's."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES)

    def note(self, connection: int, what: str) -> None:
        """The device has sent or received this."""
        self._lines.append(f"{time.monotonic():.4f} connection {connection} {what}")

    def text(self, name: str, files: list[Path]) -> str:
        """The device's lines, and those of the servers' deliveries of this device (`tests.support.jumping.deliveries`)."""
        parts = ["    the device:", *(f"      {line}" for line in self._lines)]
        for number, file in enumerate(files):
            found: deque[str] = deque(maxlen=LINES)
            if file.exists():
                with file.open(encoding="utf-8") as lines:
                    found.extend(line.rstrip() for line in lines if f" {name} " in line)
            parts += [f"    server {number}:", *(f"      {line}" for line in found)]
        return "\n".join(parts)
