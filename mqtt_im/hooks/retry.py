"""When a webhook that failed is tried again. Pure: time and chance come in as arguments. Times are milliseconds."""

from __future__ import annotations

from typing import Final

FIRST_WAIT_MS: Final = 1_000
LONGEST_WAIT_MS: Final = 3_600_000
LONGEST_PAUSE_MS: Final = 60_000


def wait(failures: int, chance: float, longest: int = LONGEST_WAIT_MS) -> int:
    """How long to wait after so many failures in a row: 1 s, 2 s, 4 s, … at most `longest`.

    `chance` (0 to 1) makes it up to a quarter shorter or longer, so that what failed together does not come back together.
    """
    doubled: int = FIRST_WAIT_MS << min(failures - 1, 30)
    return int(min(longest, doubled) * (0.75 + chance / 2))


class Circuit:
    """Whether a receiver is worth trying. While it fails as a whole, one attempt at a time looks whether it is back."""

    def __init__(self) -> None:
        self.failures = 0
        """Attempts in a row that found the receiver out of order."""
        self._paused_until = 0

    def slots(self, now: int, free: int, under_way: int) -> int:
        """How many attempts may begin now, where the sender has room for `free` and `under_way` are not over."""
        if not self.failures:
            return free
        return 1 if now >= self._paused_until and not under_way else 0

    def pause(self, now: int) -> int:
        """After how many ms it may be worth asking for `slots` again, where there are none."""
        return self._paused_until - now if self._paused_until > now else FIRST_WAIT_MS

    def works(self) -> bool:
        """The receiver has answered; True where it had been out of order."""
        was_out, self.failures = self.failures > 0, 0
        return was_out

    def fails(self, now: int, chance: float, asked: int) -> bool:
        """The receiver is out of order, and has asked for a pause of `asked` ms, 0 for none; True where that is news."""
        if now < self._paused_until:  # an attempt that began before the one that told so was over
            return False
        self.failures += 1
        self._paused_until = now + max(wait(self.failures, chance, LONGEST_PAUSE_MS), asked)
        return self.failures == 1
