"""MQTT topics and filters: the rules of MQTT-4.7, and the four topics that are ours (PROTOCOL §2)."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_BYTES = 65_535


def valid_topic(topic: str) -> bool:
    """Whether a PUBLISH may name this topic: not empty, no wildcard, no NUL (MQTT-3.3.2-2, MQTT-4.7.3-1, -2)."""
    return (
        len(topic) > 0
        and "+" not in topic
        and "#" not in topic
        and "\0" not in topic
        and (topic.isascii() or len(topic.encode()) <= _MAX_BYTES)
    )


def valid_filter(topic_filter: str) -> bool:
    """Whether a SUBSCRIBE may carry this filter: wildcards stand alone in a level, `#` last (MQTT-4.7.1-2, -3)."""
    if not topic_filter or "\0" in topic_filter:
        return False
    levels = topic_filter.split("/")
    for index, level in enumerate(levels):
        if level in ("+", "#"):
            if level == "#" and index != len(levels) - 1:
                return False
        elif "+" in level or "#" in level:
            return False
    return True


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter matches a valid topic, `$` topics only by filters that begin so (MQTT-4.7.2-1)."""
    if topic_filter == topic:
        return True
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    pattern, name = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(pattern):
        if level == "#":
            return True
        if index >= len(name) or level not in ("+", name[index]):
            return False
    return len(pattern) == len(name)


def overlap(a: str, b: str) -> bool:
    """Whether some topic is matched by both filters."""
    left, right = a.split("/"), b.split("/")
    if "$" in (left[0][:1], right[0][:1]) and (left[0][:1] in ("+", "#") or right[0][:1] in ("+", "#")):
        return False
    for index in range(max(len(left), len(right))):
        one = left[index] if index < len(left) else None
        other = right[index] if index < len(right) else None
        if one == "#" or other == "#":
            return True
        if one is None or other is None:
            return False
        if one != other and "+" not in (one, other):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics under one prefix, which has no slash at its end."""

    prefix: str

    def up(self, user: str, device: str) -> str:
        """Where a device publishes its requests."""
        return f"{self.prefix}/{user}/{device}/up"

    def user_down(self, user: str) -> str:
        """Where all of a user's devices get items and events."""
        return f"{self.prefix}/{user}/down"

    def device_down(self, user: str, device: str) -> str:
        """Where one device gets replies."""
        return f"{self.prefix}/{user}/{device}/down"

    def presence(self, user: str) -> str:
        """Where a user's presence is retained."""
        return f"{self.prefix}/{user}/presence"

    def presence_of(self, topic: str) -> str | None:
        """The user whose presence topic this is; None where it is none."""
        rest = topic[len(self.prefix) + 1 :] if self.owns(topic) else ""
        user, _, last = rest.partition("/")
        return user if last == "presence" and "+" not in user and user != "#" else None

    def owns(self, topic: str) -> bool:
        """Whether a topic or filter begins with the prefix, and so is ours alone."""
        return topic.startswith(self.prefix) and (len(topic) == len(self.prefix) or topic[len(self.prefix)] == "/")
