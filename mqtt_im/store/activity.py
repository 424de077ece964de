"""The order of a user's conversations, for states that look at all of them to find it."""

from __future__ import annotations

from typing import Any

from mqtt_im.core.model import Conv, Member, User, marked_of
from mqtt_im.core.state import OneByOne


class ByActivity(OneByOne):
    """`_activity` of a state finds all conversations in which the user may read something, with the activity of each."""

    def latest(self: Any, user: User, below: int, limit: int) -> list[tuple[int, Conv]]:
        """See `interface.State`."""
        found = [(lsn, conv) for lsn, conv in self._activity(user) if lsn < below]
        return sorted(found, key=lambda entry: -entry[0])[:limit]

    def later(self: Any, user: User, above: int, name: str, limit: int) -> list[tuple[int, Conv]]:
        """See `interface.State`."""
        found = [(lsn, conv) for lsn, conv in self._activity(user) if lsn > above and conv.name > name]
        return sorted(found, key=lambda entry: entry[1].name)[:limit]

    def marked(self, conv: Conv) -> list[tuple[str, Member]]:
        """See `interface.State`."""
        return marked_of(conv)
