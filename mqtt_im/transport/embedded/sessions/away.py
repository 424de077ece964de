"""What kept sessions in memory weigh whose clients are away, and which of them goes first where that is too much."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from mqtt_im.transport.embedded.sessions.holding import weight_of
from mqtt_im.transport.embedded.sessions.session import Key

SHARE: Final = 8
"""One user's sessions may weigh so many times less than all together."""
_SESSION_BYTES: Final = 800


def weight(filters: Mapping[str, int]) -> int:
    """About how many bytes a session with these filters takes; what waits in its queue is bounded by itself."""
    return _SESSION_BYTES + sum(map(weight_of, filters))


class Away:
    """The longest unseen go first: those of a user who has more than a share, else those of all."""

    def __init__(self, most: int) -> None:
        """`most` bytes, of all together."""
        self._most = most
        self._weights: OrderedDict[Key, int] = OrderedDict()
        """Those that have been away longest come first."""
        self._users: dict[str, OrderedDict[Key, int]] = {}
        self._of_users: dict[str, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._weights)

    def add(self, key: Key, size: int) -> None:
        """The client of this session is away from now on."""
        self.drop(key)
        user = key[0]
        self._weights[key] = size
        self._users.setdefault(user, OrderedDict())[key] = size
        self._of_users[user] = self._of_users.get(user, 0) + size
        self.bytes += size

    def drop(self, key: Key) -> None:
        """The session is not in memory any more, or its client is there."""
        size = self._weights.pop(key, 0)
        if not size:
            return
        user = key[0]
        self.bytes -= size
        self._of_users[user] -= size
        own = self._users[user]
        del own[key]
        if not own:
            del self._users[user], self._of_users[user]

    def too_much(self, user: str) -> Key | None:
        """The session that has to go, after one of this user's was added; None where all may stay."""
        if self._of_users.get(user, 0) > self._most // SHARE:
            return next(iter(self._users[user]))
        return next(iter(self._weights)) if self.bytes > self._most else None
