"""What plain subscriptions weigh in memory, all together and of each user, and for whom there is room for more."""

from __future__ import annotations

from typing import Final

from mqtt_im.shares import Bounds
from mqtt_im.transport.embedded.sessions.routing import LEVEL_BYTES, has_wildcards

MOST: Final = 64 << 20
"""Bytes of all together. Above it only who has little may have more."""
MOST_OF_ONE: Final = 8 << 20
"""Bytes of one user's."""
LITTLE: Final = 64 << 10
_FILTER_BYTES: Final = 500
"""Of a filter that stands in the index, beside its text, which is there twice."""


def weight_of(topic_filter: str) -> int:
    """About how many bytes a subscription takes."""
    # Only with wildcards does it stand in the tree.
    levels = topic_filter.count("/") if has_wildcards(topic_filter) else 0
    return _FILTER_BYTES + 2 * len(topic_filter) + LEVEL_BYTES * levels


class Holding:
    """Counts them. Nobody's sessions are counted one by one, since everybody may be nobody."""

    def __init__(self, bounds: Bounds) -> None:
        """`bounds` give a share of what the process may take."""
        self._most, self._most_of_one = bounds.of(MOST), bounds.of(MOST_OF_ONE)
        self._users: dict[str, int] = {}
        self.bytes = 0

    def add(self, user: str, topic_filter: str) -> None:
        """It is subscribed."""
        self._change(user, weight_of(topic_filter))

    def drop(self, user: str, topic_filter: str) -> None:
        """It is not subscribed any more."""
        self._change(user, -weight_of(topic_filter))

    def _change(self, user: str, size: int) -> None:
        self.bytes += size
        left = self._users.get(user, 0) + size
        if left:
            self._users[user] = left
        else:
            self._users.pop(user, None)

    def has_room(self, user: str, topic_filter: str) -> bool:
        """Whether the user may have one more."""
        own, size = self._users.get(user, 0), weight_of(topic_filter)
        return own + size <= LITTLE or (own + size <= self._most_of_one and self.bytes + size <= self._most)
