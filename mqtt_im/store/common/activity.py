"""The order of a user's conversations, for states that don't keep it."""

from __future__ import annotations

from typing import Any

from mqtt_im.core.model import FOREVER, Conv, Member, User, marked_of
from mqtt_im.core.state import OneByOne


class ByActivity(OneByOne):
    """`_active` of a state finds conversations of a user with the activity of each, which is 0 where there is nothing to read.

    There are at least those `limit` whose activity is the latest between `above` and `below`.
    """

    def latest(self: Any, user: User, below: int, limit: int) -> list[tuple[int, Conv]]:
        """See `interface.State`."""
        found = [(lsn, conv) for lsn, conv in self._active(user, 0, below, limit) if 0 < lsn < below]
        return sorted(found, key=lambda entry: -entry[0])[:limit]

    def later(self: Any, user: User, above: int, name: str, limit: int) -> list[tuple[int, Conv]]:
        """See `interface.State`."""
        found = [(lsn, conv) for lsn, conv in self._active(user, above, FOREVER, FOREVER) if lsn > above and conv.name > name]
        return sorted(found, key=lambda entry: entry[1].name)[:limit]

    def marked(self, conv: Conv) -> list[tuple[str, Member]]:
        """See `interface.State`."""
        return marked_of(conv)
