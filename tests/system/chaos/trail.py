"""What is told with a fault, so that it can be explained the first time: a device's last packets, and what the servers did."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

LINES = 150
"""Of each side, the last ones …"""
ABOUT = 50
"""… and before them so many that name the `pos` which the fault is about."""
KEPT = 5_000
_ABOUT = re.compile(r"\bpos (\d+)|\b(user\d+\.d\d+\.\d+)\b")
TOLD = 3
"""Devices of which that is told, for the first fault of each."""


class Trail:
    """One device's."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT)

    def note(self, connection: int, what: str) -> None:
        """The device has sent or received this."""
        self._lines.append(f"{time.monotonic():.4f} connection {connection} {what}")

    def text(self, name: str, fault: str, files: list[Path]) -> str:
        """The device's lines, and those of the servers' deliveries of this device (`tests.support.jumping.deliveries`)."""
        about = _ABOUT.search(fault)
        named = about[1] or about[2] if about is not None else ""
        parts = [f"{name}: {fault}", "    the device:", *_chosen(self._lines, named)]
        for number, file in enumerate(files):
            parts.append(f"    server {number}:")
            if file.exists():
                with file.open(encoding="utf-8") as lines:
                    parts += _chosen((line.rstrip() for line in lines if f" {name} " in line), named)
        return "\n".join(parts)


def _chosen(lines: Iterable[str], about: str) -> list[str]:
    last: deque[str] = deque(maxlen=LINES)
    before: deque[str] = deque(maxlen=ABOUT)
    named = re.compile(rf"\b{re.escape(about)}\b") if about else None
    for line in lines:
        if len(last) == LINES and named is not None and named.search(last[0]):
            before.append(last[0])
        last.append(line)
    return [f"      {line}" for line in (*before, *last)]
