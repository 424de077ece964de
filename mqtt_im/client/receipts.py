"""Who was delivered and has read what, as far as it concerns what this client has sent."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from mqtt_im.protocol.names import is_group, members_of_direct

from .outgoing import Outgoing


class Receipts:
    """Knows the marks of the conversations in which somebody still holds an `Outgoing` message."""

    def __init__(self, user: str) -> None:
        self._user = user
        self._followed: dict[str, weakref.WeakSet[Outgoing]] = {}
        self._marks: dict[str, dict[str, list[int]]] = {}
        """Conversation → user → delivered, read."""
        self._members: dict[str, frozenset[str]] = {}
        """Of groups, who else is in it, as it was last asked."""

    def follow(self, outgoing: Outgoing) -> None:
        """A message was sent: whoever holds it will be told."""
        assert outgoing.conv is not None
        self._followed.setdefault(outgoing.conv, weakref.WeakSet()).add(outgoing)
        self._tell(outgoing.conv)

    def conversations(self) -> set[str]:
        """Where something is followed that was not read by all yet."""
        for conv, followed in list(self._followed.items()):
            if not any(outgoing.state != "read" for outgoing in followed):
                self._followed.pop(conv)
                self._marks.pop(conv, None)
                self._members.pop(conv, None)
        return set(self._followed)

    def needs_members(self, conv: str) -> bool:
        """Whether it is a group whose members are not known."""
        return is_group(conv) and conv in self._followed and conv not in self._members

    def members(self, conv: str, members: Iterable[str]) -> None:
        """Who is in a group."""
        self._members[conv] = frozenset(members) - {self._user}
        self._tell(conv)

    def changed(self, conv: str) -> None:
        """Somebody has joined or left."""
        self._members.pop(conv, None)

    def mark(self, conv: str, by: str, delivered: object, read: object) -> None:
        """A receipt, or what `convs` says."""
        if conv not in self._followed or not isinstance(by, str):
            return
        marks = self._marks.setdefault(conv, {}).setdefault(by, [0, 0])
        if isinstance(read, int):
            marks[1] = max(marks[1], read)
        marks[0] = max(marks[0], marks[1], delivered if isinstance(delivered, int) else 0)
        self._tell(conv)

    def _others(self, conv: str) -> frozenset[str] | None:
        both = members_of_direct(conv)
        return self._members.get(conv) if both is None else frozenset(both) - {self._user}

    def _tell(self, conv: str) -> None:
        others = self._others(conv)
        if others is None:
            return
        marks = self._marks.get(conv, {})
        delivered = min((marks.get(other, (0, 0))[0] for other in others), default=2**53)
        read = min((marks.get(other, (0, 0))[1] for other in others), default=2**53)
        for outgoing in list(self._followed.get(conv, ())):
            if outgoing.seq is None:
                continue
            if outgoing.seq <= read:
                outgoing.become("read")
            elif outgoing.seq <= delivered:
                outgoing.become("delivered")
