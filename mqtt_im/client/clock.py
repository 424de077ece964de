"""Time for the client: seconds that go on while the machine sleeps, and never back, whatever is done to the wall clock."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Seconds since the machine was started, or since some other moment where the system has no such clock."""
    return time.clock_gettime(_BOOTTIME) if _BOOTTIME is not None else time.monotonic()


def boot() -> str:
    """Which start of the machine `now` counts from; empty where that can't be told."""
    if _BOOTTIME is not None:
        with contextlib.suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def elapsed(made: float, made_up: float, made_boot: str, this_boot: str) -> float:
    """Seconds since a moment that was written down as wall clock, `now()` and `boot()`.

    The wall clock counts only where the machine was started in between, and never backwards.
    """
    if made_boot and made_boot == this_boot:
        return max(0.0, now() - made_up)
    return max(0.0, time.time() - made)
