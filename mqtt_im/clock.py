"""Two times: the wall clock's, which people read, and a steady one, which real time alone moves.

Whatever ends after a while (a time to live, an edit window, a session, a wait between two attempts) is measured by the steady
time, so that a clock that is set makes it neither longer nor shorter. While the process lives, that is what the machine has
counted since it booted, suspension included. Over a restart it goes on from a *mark*, which says how all clocks stood at one
moment: what has passed since is what the wall clock says or what the machine has counted, whichever is more. So things end
rather too early than too late.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

STEP_MS: Final = 500
"""The wall clock was set where it has moved by so much more or less than real time."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Times(NamedTuple):
    """One moment, by each clock, and by how much the wall clock is `ahead` of the steady time."""

    wall: int
    steady: int
    ahead: int


class Mark(msgspec.Struct, array_like=True):
    """How the clocks stood at one moment, in ms. `boot` names what `counted` was counted from, "" where nobody knows.

    Where the steady time is that of several nodes, the mark is `shared`.
    """

    steady: int
    wall: int
    counted: int
    boot: str
    shared: bool = False


def _counted() -> float:
    # Linux' CLOCK_MONOTONIC stands still while the machine is suspended.
    number = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if number is None else time.clock_gettime(number)


def _boot() -> str:
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return ""


class Clock:
    """Every time of a server. All of its times are ms since 1970; both agree where nobody has ever set the wall clock.

    May be asked from any thread.
    """

    def __init__(
        self,
        wall: Callable[[], float] = lambda: time.time(),  # noqa: PLW0108 - looked up each time, so that it can be replaced
        counted: Callable[[], float] = _counted,
        boot: str | None = None,
    ) -> None:
        """`wall` and `counted` are in seconds."""
        self._wall = wall
        self._counted = counted
        self._boot = _boot() if boot is None else boot
        self._base = int((wall() - counted()) * 1000)
        """Of the steady time, above what was counted."""
        self._ahead = 0
        self._shared = False

    def resume(self, mark: bytes | None) -> None:
        """Go on from a mark of a former process; None where there is none. Nobody has been told the steady time yet."""
        if mark is None:
            return
        try:
            last = msgspec.json.decode(mark, type=Mark)
        except msgspec.DecodeError:
            return
        self._shared = last.shared
        passed = self.wall() - last.wall
        if last.boot and last.boot == self._boot:
            passed = max(passed, self._count() - last.counted)
        self._base = last.steady + max(0, passed) - self._count()

    def mark(self) -> bytes:
        """What `resume` of the next process takes."""
        return msgspec.json.encode(Mark(self.steady(), self.wall(), self._count(), self._boot))

    def wall(self) -> int:
        """What time it is, as far as the machine knows."""
        return int(self._wall() * 1000)

    def told(self) -> int:
        """What people and programs are told that time is: what the machine knows, and among several nodes what all agree on."""
        return self.steady() if self._shared else self.wall()

    def steady(self) -> int:
        """The steady time. It never goes back."""
        return self._base + self._count()

    def now(self) -> Times:
        """All of it. `ahead` changes only where the wall clock was set."""
        ahead = self._ahead
        wall, steady = self.wall(), self.steady()
        if abs(wall - steady - ahead) > STEP_MS:
            ahead = self._ahead = wall - steady
        # Its own, since another thread that has looked before the clock was set may write what it saw just now.
        return Times(wall, steady, ahead)

    def _count(self) -> int:
        return int(self._counted() * 1000)
