"""Who elsewhere is to get a plain message: what other nodes have subscribed, and kept sessions, wherever their clients are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mqtt_im.mqtt.topics import split_share
from mqtt_im.transport.embedded.sessions.routing import Subscriptions
from mqtt_im.transport.embedded.sessions.session import Key


class Remote:
    """A kept session with plain filters."""

    __slots__ = ("filters", "id", "key")

    def __init__(self, key: Key, session_id: str, filters: dict[str, int]) -> None:
        self.key = key
        self.id = session_id
        self.filters = filters


class Members:
    """Of a shared subscription: the nodes with clients that have it, and the kept sessions that do."""

    __slots__ = ("kept", "nodes", "turn")

    def __init__(self) -> None:
        self.nodes: set[int] = set()
        self.kept: dict[Remote, int] = {}
        """With the options of their subscription; whose turn is next stands first."""
        self.turn = 0


class Elsewhere:
    """Indices; all that they hold is told from outside."""

    def __init__(self, owns: Callable[[str], bool]) -> None:
        """`owns`: whether a filter is no plain one."""
        self._owns = owns
        self._index: Subscriptions[Remote] = Subscriptions()
        self._nodes: Subscriptions[int] = Subscriptions()
        self._shares: Subscriptions[str] = Subscriptions()
        self._members: dict[str, Members] = {}
        """By the text of their subscription."""
        self.filters: dict[int, set[str]] = {}
        """What other nodes have subscribed; only those that serve clients are there."""
        self.kept: dict[str, Remote] = {}
        """By id."""

    # Nodes.

    def subscribe(self, node: int, filters: Iterable[str]) -> None:
        """The node has these filters too."""
        known = self.filters.setdefault(node, set())
        for topic_filter in filters:
            known.add(topic_filter)
            if topic_filter.startswith("$share/"):
                self._group(topic_filter).nodes.add(node)
            else:
                self._nodes.add(topic_filter, node, 0)

    def unsubscribe(self, node: int, filters: Iterable[str]) -> None:
        """The node does not have these filters any more."""
        known = self.filters.setdefault(node, set())
        for topic_filter in filters:
            known.discard(topic_filter)
            if topic_filter in self._members:
                self._members[topic_filter].nodes.discard(node)
                self._tidy(topic_filter)
            else:
                self._nodes.remove(topic_filter, node)

    def forget(self, node: int) -> None:
        """The node serves no clients."""
        self.unsubscribe(node, list(self.filters.get(node, ())))
        del self.filters[node]

    def nodes(self, topic: str) -> list[int]:
        """The nodes with a subscription that matches."""
        return list(self._nodes.match(topic))

    # Kept sessions.

    def put(self, remote: Remote) -> None:
        """The session has these filters."""
        self.drop(remote.id)
        self.kept[remote.id] = remote
        for topic_filter, options in remote.filters.items():
            if self._owns(topic_filter):
                continue
            if topic_filter.startswith("$share/"):
                self._group(topic_filter).kept[remote] = options
            else:
                self._index.add(topic_filter, remote, options)

    def drop(self, session_id: str) -> None:
        """There is no such session, or it has no plain filters."""
        remote = self.kept.pop(session_id, None)
        if remote is None:
            return
        for topic_filter in remote.filters:
            if topic_filter in self._members:
                self._members[topic_filter].kept.pop(remote, None)
                self._tidy(topic_filter)
            else:
                self._index.remove(topic_filter, remote)

    def sessions(self, topic: str) -> dict[Remote, list[int]]:
        """The kept sessions that are to get a message, with the options of their subscriptions."""
        return self._index.match(topic)

    # Shared subscriptions.

    def shares(self, topic: str) -> list[str]:
        """The shared subscriptions that match."""
        return list(self._shares.match(topic))

    def choose(self, text: str, qos: int, *, here: bool, at_home: Callable[[Key], object]) -> int | Remote | None:
        """Whose turn it is: 0: somebody's here, a node, or a kept session whose client is at none; None: nobody's.

        `here`: whether a client of this node is a member. `at_home`: whether a session has its client here.
        """
        members = self._members.get(text)
        if members is None:
            return 0 if here else None
        places = ([0] if here else []) + sorted(members.nodes)
        if places:
            members.turn += 1
            return places[members.turn % len(places)]
        for remote, options in list(members.kept.items()) if qos else ():
            if options & 3 and at_home(remote.key) is None:
                members.kept[remote] = members.kept.pop(remote)
                return remote
        return None

    def _group(self, text: str) -> Members:
        if text not in self._members:
            self._members[text] = Members()
            self._shares.add(split_share(text)[1], text, 0)
        return self._members[text]

    def _tidy(self, text: str) -> None:
        members = self._members[text]
        if not members.nodes and not members.kept:
            del self._members[text]
            self._shares.remove(split_share(text)[1], text)
