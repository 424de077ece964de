"""Who gets a plain message: an index over filters, and one over retained topics. No lookup walks over all of them.

What a subscription's options mean is nothing to this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

Subscriber = TypeVar("Subscriber")

LEVEL_BYTES: Final = 240
"""Of one level in one of the trees, about."""


class _Node(Generic[Subscriber]):
    """One level of the wildcard filters' tree. Most have nothing but one child, so what is not there takes no memory."""

    __slots__ = ("children", "here", "multi")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Subscriber]] | None = None
        self.here: dict[Subscriber, int] | None = None
        """Subscribers whose filter ends here."""
        self.multi: dict[Subscriber, int] | None = None
        """Subscribers whose filter ends with `#` below here."""

    @property
    def empty(self) -> bool:
        return not (self.children or self.here or self.multi)


class Subscriptions(Generic[Subscriber]):
    """Filters with their subscribers and options: a dict for exact filters, a tree for those with wildcards."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[Subscriber, int]] = {}
        self._root: _Node[Subscriber] = _Node()

    def add(self, topic_filter: str, subscriber: Subscriber, options: int) -> bool:
        """Subscribe, or change the options of what is subscribed (MQTT-3.8.4-3); whether it was not subscribed before."""
        if not has_wildcards(topic_filter):
            return _enter(self._exact.setdefault(topic_filter, {}), subscriber, options)
        node = self._root
        for level in topic_filter.split("/"):
            if level == "#":
                if node.multi is None:
                    node.multi = {}
                return _enter(node.multi, subscriber, options)
            if node.children is None:
                node.children = {}
            node = node.children.setdefault(level, _Node())
        if node.here is None:
            node.here = {}
        return _enter(node.here, subscriber, options)

    def remove(self, topic_filter: str, subscriber: Subscriber) -> bool:
        """Unsubscribe; nothing happens where it was not subscribed, which is what this returns."""
        if not has_wildcards(topic_filter):
            subscribers = self._exact.get(topic_filter)
            if subscribers is None:
                return False
            found = subscribers.pop(subscriber, None) is not None
            if not subscribers:
                del self._exact[topic_filter]
            return found
        return self._remove(self._root, topic_filter.split("/"), 0, subscriber)

    def _remove(self, node: _Node[Subscriber], levels: list[str], depth: int, subscriber: Subscriber) -> bool:
        if depth == len(levels):
            return node.here is not None and node.here.pop(subscriber, None) is not None
        if levels[depth] == "#":
            return node.multi is not None and node.multi.pop(subscriber, None) is not None
        child = node.children.get(levels[depth]) if node.children is not None else None
        if child is None or node.children is None:
            return False
        found = self._remove(child, levels, depth + 1, subscriber)
        if child.empty:
            del node.children[levels[depth]]
        return found

    def match(self, topic: str) -> dict[Subscriber, list[int]]:
        """Everybody whose filters match `topic`, once each, with the options of all that do."""
        return self.look(topic)[0]

    def look(self, topic: str) -> tuple[dict[Subscriber, list[int]], int]:
        """The same, and how many places of the tree were looked at for it."""
        found = {subscriber: [options] for subscriber, options in self._exact.get(topic, {}).items()}
        if self._root.empty:
            return found, 0
        levels = topic.split("/")
        # MQTT-4.7.2-1: a first level with `$` is not matched by a wildcard.
        nodes, looked = [self._root], 0
        if not topic.startswith("$"):
            _merge(found, self._root.multi)
        for depth, level in enumerate(levels):
            below: list[_Node[Subscriber]] = []
            for node in nodes:
                if node.children is None:
                    continue
                if (child := node.children.get(level)) is not None:
                    below.append(child)
                if (depth or not topic.startswith("$")) and (child := node.children.get("+")) is not None:
                    below.append(child)
            looked += len(nodes)
            for node in below:
                _merge(found, node.multi)
            nodes = below
            if not nodes:
                return found, looked
        for node in nodes:
            _merge(found, node.here)
        return found, looked


def has_wildcards(topic_filter: str) -> bool:
    """Whether a filter has any, and so stands in the tree."""
    return "+" in topic_filter or "#" in topic_filter


def _enter(subscribers: dict[Subscriber, int], subscriber: Subscriber, options: int) -> bool:
    is_new = subscriber not in subscribers
    subscribers[subscriber] = options
    return is_new


def _merge(found: dict[Subscriber, list[int]], more: dict[Subscriber, int] | None) -> None:
    for subscriber, options in more.items() if more is not None else ():
        if subscriber in found:
            found[subscriber].append(options)
        else:
            found[subscriber] = [options]


class _Branch:
    __slots__ = ("children", "topic")

    def __init__(self) -> None:
        self.children: dict[str, _Branch] | None = None
        self.topic: str | None = None
        """The whole topic, where one ends here."""


class TopicTree:
    """A set of topics that answers which of them a filter matches."""

    def __init__(self) -> None:
        self._root = _Branch()

    def add(self, topic: str) -> None:
        """Put a topic in."""
        branch = self._root
        for level in topic.split("/"):
            if branch.children is None:
                branch.children = {}
            branch = branch.children.setdefault(level, _Branch())
        branch.topic = topic

    def discard(self, topic: str) -> None:
        """Take a topic out, if it is in."""
        path: list[tuple[dict[str, _Branch], str]] = []
        branch = self._root
        for level in topic.split("/"):
            if branch.children is None or level not in branch.children:
                return
            path.append((branch.children, level))
            branch = branch.children[level]
        branch.topic = None
        for children, level in reversed(path):
            child = children[level]
            if child.children or child.topic is not None:
                return
            del children[level]

    def match(self, topic_filter: str) -> Iterator[str]:
        """Every topic that the filter matches."""
        return (topic for topic in self.walk(topic_filter) if topic is not None)

    def walk(self, topic_filter: str) -> Iterator[str | None]:
        """The same, and None for each place of the tree that was looked at and matches nothing by itself."""
        levels = topic_filter.split("/")
        pending = [(self._root, 0)]
        while pending:
            branch, depth = pending.pop()
            level = levels[depth] if depth < len(levels) else ""
            if depth == len(levels) or level == "#":  # `#` stands for its parent level too (MQTT-4.7.1-2)
                yield branch.topic
                if depth == len(levels):
                    continue
            else:
                yield None
            children = branch.children
            if children is None:
                continue
            if level == "#":
                pending += ((child, depth) for name, child in children.items() if branch is not self._root or name[:1] != "$")
            elif level == "+":
                pending += ((child, depth + 1) for name, child in children.items() if depth or name[:1] != "$")
            elif (child := children.get(level)) is not None:
                pending.append((child, depth + 1))
