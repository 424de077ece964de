"""How much of everything is kept in memory, as a share of what is kept by default."""

from __future__ import annotations

from typing import Final

USUAL_MB: Final = 400
"""What the process takes at most with the usual bounds, see `docs/performance.md`."""
_FIXED_MB: Final = 100
"""What it takes whatever the bounds: the interpreter and its modules."""
_LEAST: Final = 0.1


class Bounds:
    """Shares what memory there is among caches, generations and pages, and what is under way."""

    def __init__(self, memory_mb: int = USUAL_MB) -> None:
        """`memory_mb` is for the whole process."""
        self._share = max(_LEAST, (memory_mb - _FIXED_MB) / (USUAL_MB - _FIXED_MB))

    def of(self, usual: int) -> int:
        """The bound where `usual` is the one by default."""
        return max(1, int(usual * self._share))

    def part(self, of: int) -> Bounds:
        """So many parts may be kept beside each other: those of one of them."""
        made = Bounds()
        made._share = self._share / of
        return made

    def less(self, configured: int) -> int:
        """The bound where somebody may have `configured` it: with little memory less, and never more."""
        return min(configured, self.of(configured))
