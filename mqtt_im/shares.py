"""How much of everything is kept in memory, as a share of what is kept of it in 400 MB."""

from __future__ import annotations

from typing import Final

USUAL_MB: Final = 400
"""What the usual bounds are made for, those that modules write down; by default there is less."""
DEFAULT_MB: Final = 300
"""What there is where nobody has configured it: what can be configured beside it is made for that."""
_FIXED_MB: Final = 100
"""What it takes whatever the bounds: the interpreter and its modules."""
_LEAST: Final = 0.1


def _share(memory_mb: int) -> float:
    return max(_LEAST, (memory_mb - _FIXED_MB) / (USUAL_MB - _FIXED_MB))


class Bounds:
    """Shares what memory there is among caches, generations and pages, and what is under way."""

    def __init__(self, memory_mb: int = USUAL_MB) -> None:
        """`memory_mb` is for the whole process."""
        self._share = _share(memory_mb)

    def of(self, usual: int) -> int:
        """The bound where `usual` is the one in `USUAL_MB`."""
        return max(1, int(usual * self._share))

    def part(self, of: int) -> Bounds:
        """So many parts may be kept beside each other: those of one of them."""
        made = Bounds()
        made._share = self._share / of
        return made

    def less(self, configured: int) -> int:
        """The bound where somebody may have `configured` it: with less memory than by default less, and never more."""
        return max(1, min(configured, round(configured * self._share / _share(DEFAULT_MB))))
