"""Large publishes that were taken in and have no answer yet: bounded in bytes, of all users together.

Above the bound each user has one of them at a time, and the others wait where they are: in the socket. So a disk that does not
keep up, or somebody who sends much at once, fills no memory, and nobody stands still.
"""

from __future__ import annotations

from typing import Final

LARGE: Final = 4096
"""A publish with more bytes is counted: how many others there may be is bounded for each connection."""
USUAL_BYTES: Final = 8 << 20
"""Of all users, above which there is one for each; and twice of that there never is. Each is in memory about four times."""


class UnderWay:
    """Counts them by user."""

    def __init__(self, most: int = USUAL_BYTES) -> None:
        """`most` bytes."""
        self.most = most
        self.bytes = 0
        self._parties: dict[str, int] = {}

    def add(self, party: str, size: int) -> None:
        """So many bytes more, or below 0 less, are under way for somebody."""
        self.bytes += size
        left = self._parties.get(party, 0) + size
        if left:
            self._parties[party] = left
        else:
            self._parties.pop(party, None)

    def full(self, party: str) -> bool:
        """Whether the next one has to wait."""
        return self.bytes >= self.most and (party in self._parties or self.bytes >= 2 * self.most)
