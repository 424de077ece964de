"""Who gets a plain message: an index over filters, and one over retained topics. No lookup walks over all of them.

What a subscription's options mean is nothing to this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

Subscriber = TypeVar("Subscriber")


class _Node(Generic[Subscriber]):
    """One level of the wildcard filters' tree."""

    __slots__ = ("children", "here", "multi")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Subscriber]] = {}
        self.here: dict[Subscriber, int] = {}
        """Subscribers whose filter ends here."""
        self.multi: dict[Subscriber, int] = {}
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
        if "+" not in topic_filter and "#" not in topic_filter:
            return _enter(self._exact.setdefault(topic_filter, {}), subscriber, options)
        node = self._root
        levels = topic_filter.split("/")
        for level in levels:
            if level == "#":
                return _enter(node.multi, subscriber, options)
            node = node.children.setdefault(level, _Node())
        return _enter(node.here, subscriber, options)

    def remove(self, topic_filter: str, subscriber: Subscriber) -> bool:
        """Unsubscribe; nothing happens where it was not subscribed, which is what this returns."""
        if "+" not in topic_filter and "#" not in topic_filter:
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
            return node.here.pop(subscriber, None) is not None
        if levels[depth] == "#":
            return node.multi.pop(subscriber, None) is not None
        child = node.children.get(levels[depth])
        if child is None:
            return False
        found = self._remove(child, levels, depth + 1, subscriber)
        if child.empty:
            del node.children[levels[depth]]
        return found

    def match(self, topic: str) -> dict[Subscriber, list[int]]:
        """Everybody whose filters match `topic`, once each, with the options of all that do."""
        found = {subscriber: [options] for subscriber, options in self._exact.get(topic, {}).items()}
        if self._root.empty:
            return found
        levels = topic.split("/")
        # MQTT-4.7.2-1: a first level with `$` is not matched by a wildcard.
        nodes = [self._root]
        if not topic.startswith("$"):
            _merge(found, self._root.multi)
        for depth, level in enumerate(levels):
            below: list[_Node[Subscriber]] = []
            for node in nodes:
                if (child := node.children.get(level)) is not None:
                    below.append(child)
                if (depth or not topic.startswith("$")) and (child := node.children.get("+")) is not None:
                    below.append(child)
            for node in below:
                _merge(found, node.multi)
            nodes = below
            if not nodes:
                return found
        for node in nodes:
            _merge(found, node.here)
        return found


def _enter(subscribers: dict[Subscriber, int], subscriber: Subscriber, options: int) -> bool:
    is_new = subscriber not in subscribers
    subscribers[subscriber] = options
    return is_new


def _merge(found: dict[Subscriber, list[int]], more: dict[Subscriber, int]) -> None:
    for subscriber, options in more.items():
        if subscriber in found:
            found[subscriber].append(options)
        else:
            found[subscriber] = [options]


class _Branch:
    __slots__ = ("children", "topic")

    def __init__(self) -> None:
        self.children: dict[str, _Branch] = {}
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
            branch = branch.children.setdefault(level, _Branch())
        branch.topic = topic

    def discard(self, topic: str) -> None:
        """Take a topic out, if it is in."""
        path: list[tuple[_Branch, str]] = []
        branch = self._root
        for level in topic.split("/"):
            if level not in branch.children:
                return
            path.append((branch, level))
            branch = branch.children[level]
        branch.topic = None
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.children or child.topic is not None:
                return
            del parent.children[level]

    def match(self, topic_filter: str) -> Iterator[str]:
        """Every topic that the filter matches."""
        return self._match(self._root, topic_filter.split("/"), 0)

    def _match(self, branch: _Branch, levels: list[str], depth: int) -> Iterator[str]:
        if depth == len(levels):
            if branch.topic is not None:
                yield branch.topic
            return
        level = levels[depth]
        if level == "#":
            yield from self._below(branch, depth)
        elif level == "+":
            for name, child in branch.children.items():
                if depth or not name.startswith("$"):
                    yield from self._match(child, levels, depth + 1)
        elif (found := branch.children.get(level)) is not None:
            yield from self._match(found, levels, depth + 1)

    def _below(self, branch: _Branch, depth: int) -> Iterator[str]:
        """`#` stands for its parent level too (MQTT-4.7.1-2)."""
        pending = [(branch, depth)]
        while pending:
            branch, depth = pending.pop()
            if branch.topic is not None:
                yield branch.topic
            pending += ((child, 1) for name, child in branch.children.items() if depth or not name.startswith("$"))
