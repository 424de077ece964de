"""What clients do not read, of all connections of a user, or of an address: how much of it counts as held for them.

What others have sent somebody is not that one's fault: a full write buffer, what was gathered, and a packet. So much is free for
each user, however many connections stand still.
"""

from __future__ import annotations

from typing import Final, Protocol

FREE: Final = 256 * 1024
"""Bytes that wait for a user's clients and count as held for none of them."""


class Reader(Protocol):
    """A connection."""

    @property
    def party(self) -> str:
        """Whose it is."""


class Unread:
    """Counts what waits for clients that do not read."""

    def __init__(self) -> None:
        self._waiting: dict[Reader, tuple[str, int]] = {}
        self._parties: dict[str, int] = {}

    def changed(self, connection: Reader, size: int) -> int:
        """So much waits for this one now; returns how much of it counts, beside what waits for others of the same party."""
        party, former = self._waiting.pop(connection, ("", 0))
        if former:
            self._parties[party] -= former
            if not self._parties[party]:
                del self._parties[party]
        if not size:
            return 0
        party = connection.party
        self._waiting[connection] = party, size
        left = self._parties[party] = self._parties.get(party, 0) + size
        return min(size, max(0, left - FREE))
