"""The connections that users have at other nodes: how many one user may have is a limit of all nodes together.

Each node tells the others at once who comes and who goes, and all of it to whoever has come or may have missed something. So
connections that come to several nodes within a few milliseconds may be more than may be, by as many as come at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mqtt_im.cluster import Neighbours
from mqtt_im.transport.embedded.sessions.session import Key, is_nameless

AT_ONCE: Final = 100
"""Connections that are told of in one piece."""


class Places:
    """Of one node among several. Lives on the event loop."""

    def __init__(self, keys: Callable[[], list[Key]], neighbours: Neighbours) -> None:
        """`keys` are the connections here."""
        self._keys = keys
        self._neighbours = neighbours
        self._elsewhere: dict[str, set[tuple[int, str]]] = {}
        """User → node and name of each connection."""
        neighbours.on("place", self._told)
        neighbours.on("places", self._told_all)
        neighbours.on_joined.append(self._joined)
        neighbours.on_left.append(self._forget)

    def elsewhere(self, key: Key) -> int:
        """How many connections the user has at other nodes, but for this one, which leaves its place there."""
        user, name = key
        return sum(other != name or is_nameless(name) for _, other in self._elsewhere.get(user, ()))

    def changed(self, key: Key, *, there: bool) -> None:
        """The user has, or has no more, a connection of this name at this node."""
        self._neighbours.tell("place", *key, there)

    def _joined(self, node: int) -> None:
        keys = self._keys()
        for start in range(0, max(1, len(keys)), AT_ONCE):
            self._neighbours.tell("places", keys[start : start + AT_ONCE], start == 0, to=node)

    def _told(self, node: int, fields: list[Any]) -> None:
        user, name, there = fields
        if there:
            self._elsewhere.setdefault(user, set()).add((node, name))
        elif user in self._elsewhere:
            self._elsewhere[user].discard((node, name))
            if not self._elsewhere[user]:
                del self._elsewhere[user]

    def _told_all(self, node: int, fields: list[Any]) -> None:
        keys, begins = fields
        if begins:
            self._forget(node)
        for user, name in keys:
            self._told(node, [user, name, True])

    def _forget(self, node: int) -> None:
        for user, places in list(self._elsewhere.items()):
            for place in [place for place in places if place[0] == node]:
                self._told(node, [user, place[1], False])
