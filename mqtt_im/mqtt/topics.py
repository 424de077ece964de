"""MQTT topics and filters: what they may look like, and which of them match (MQTT-4.7, MQTT5-4.8.2)."""

from __future__ import annotations

from typing import Final

_MAX_BYTES: Final = 65_535
_SHARE: Final = "$share/"


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


def split_share(topic_filter: str) -> tuple[str, str]:
    """The group and the filter of a shared subscription; an empty group and the filter itself where it is none."""
    if not topic_filter.startswith(_SHARE):
        return "", topic_filter
    group, _, rest = topic_filter[len(_SHARE) :].partition("/")
    return group, rest


def valid_share(topic_filter: str) -> bool:
    """Whether a filter that may be shared is well formed: a name without wildcards, then a filter (MQTT5-4.8.2-1, -2)."""
    if not topic_filter.startswith(_SHARE):
        return valid_filter(topic_filter)
    group, rest = split_share(topic_filter)
    return bool(group) and "+" not in group and "#" not in group and valid_filter(rest)
