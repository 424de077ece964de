"""Who may publish and subscribe to what (PROTOCOL §2), without asking anybody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final

from mqtt_im.mqtt.topics import matches, split_share
from mqtt_im.protocol.names import is_user
from mqtt_im.protocol.topics import Topics

MAX_LEVELS: Final = 128
"""Levels of a plain topic or filter; deeper ones are closed, so that no tree of them grows with a single packet."""

_REMEMBERED: Final = 256
"""Characters of a topic that is remembered to be open or closed: thousands of 64 KB would be hundreds of megabytes."""


class Claim(Enum):
    """What a filter asks for."""

    OWN = "own"
    """Topics of one's own user: granted, and yields what the device may read."""
    PRESENCE = "presence"
    """The presence of another user: the bridge knows who may watch whom."""
    PLAIN = "plain"
    """Plain topics, of which some are open."""
    SHARED = "shared"
    """A share of something under the prefix: there is none (PROTOCOL §7)."""
    NOTHING = "nothing"
    """Something of others, or nothing that is open: refused."""


@dataclass(slots=True)
class Rights:
    """What a device's filters yield under the prefix, with the highest QoS granted; -1 is nothing."""

    user_qos: int = -1
    device_qos: int = -1
    watched: dict[str, int] = field(default_factory=dict)
    """Users whose presence is subscribed → QoS."""


class PlainTopics:
    """`mqtt.plain_topics`: the last entry that matches a topic decides; a topic that none matches is closed."""

    def __init__(self, topics: Topics, entries: Iterable[str]) -> None:
        self._topics = topics
        self._entries = [(not entry.startswith("!"), entry.removeprefix("!")) for entry in entries]
        self._known = lru_cache(4096)(self._is_open)

    def is_open(self, topic: str) -> bool:
        """Whether a topic is open as plain MQTT. Nothing under the prefix ever is."""
        return self._known(topic) if len(topic) <= _REMEMBERED else self._is_open(topic)

    def _is_open(self, topic: str) -> bool:
        if self._topics.owns(topic) or topic.count("/") >= MAX_LEVELS:
            return False
        return next((opens for opens, entry in reversed(self._entries) if matches(entry, topic)), False)

    def may_yield(self, topic_filter: str) -> bool:
        """Whether the filter can match an open topic.

        It errs on the side of granting where only several closing entries together close all that it matches.
        """
        levels = topic_filter.split("/")
        if len(levels) > MAX_LEVELS:
            return False
        for index, (opens, entry) in enumerate(self._entries):
            common = _intersection(levels, entry.split("/")) if opens else None
            if common is None or self._topics.owns("/".join(common)):
                continue
            later = self._entries[index + 1 :]
            if not any(_covers(closed.split("/"), common) for reopens, closed in later if not reopens):
                return True
        return False


def _intersection(a: list[str], b: list[str]) -> list[str] | None:
    """The filter that matches what both match; None where that is nothing."""
    if a[0][:1] in ("+", "#"):
        a, b = b, a
    if a[0].startswith("$") and b[0] in ("+", "#"):
        return None  # MQTT-4.7.2-1
    common: list[str] = []
    for depth in range(max(len(a), len(b)) + 1):
        one = a[depth] if depth < len(a) else None
        other = b[depth] if depth < len(b) else None
        if one == "#":
            return common + b[depth:]
        if other == "#":
            return common + a[depth:]
        if one is None or other is None:
            return common if one is other else None
        if one == "+":
            common.append(other)
        elif other in ("+", one):
            common.append(one)
        else:
            return None
    return common


def _covers(wide: list[str], narrow: list[str]) -> bool:
    """Whether every topic that `narrow` matches is matched by `wide`."""
    if narrow and narrow[0].startswith("$") and wide[0] in ("+", "#"):
        return False
    for depth, level in enumerate(wide):
        if level == "#":
            return True
        if depth >= len(narrow) or narrow[depth] == "#" or level not in ("+", narrow[depth]):
            return False
    return len(wide) == len(narrow)


class Access:
    """The rules for one prefix and one set of open plain topics."""

    def __init__(self, topics: Topics, plain_topics: Iterable[str]) -> None:
        self.topics = topics
        self.plain = PlainTopics(topics, plain_topics)

    def claim(self, topic_filter: str, user: str, device: str) -> Claim:
        """What a valid filter asks for; `device` is empty for a plain client, which has nothing under the prefix."""
        topics = self.topics
        if topic_filter.startswith("$share/"):
            _, topic_filter = split_share(topic_filter)
            if topics.owns(topic_filter):
                return Claim.SHARED
        if not topics.owns(topic_filter) or topic_filter == topics.prefix:
            return Claim.PLAIN if self.plain.may_yield(topic_filter) else Claim.NOTHING
        if not device:
            return Claim.NOTHING
        if topic_filter.startswith(f"{topics.prefix}/{user}/"):
            return Claim.OWN
        other = topics.presence_of(topic_filter)
        return Claim.PRESENCE if other is not None and is_user(other) else Claim.NOTHING

    def may_publish(self, topic: str) -> bool:
        """Whether clients may publish plain messages on this topic; those with `$` are the server's."""
        return not topic.startswith("$") and self.plain.is_open(topic)

    def is_down(self, topic_filter: str, user: str, device: str) -> bool:
        """Whether a filter of one's own matches one of the device's down topics."""
        topics = self.topics
        return matches(topic_filter, topics.user_down(user)) or matches(topic_filter, topics.device_down(user, device))

    def rights(self, filters: Mapping[str, int], user: str, device: str) -> Rights:
        """What these granted filters yield to the device; those of plain topics count for nothing here."""
        topics = self.topics
        rights = Rights()
        own = f"{topics.prefix}/{user}/"
        user_down, device_down, presence = topics.user_down(user), topics.device_down(user, device), topics.presence(user)
        for topic_filter, options in filters.items():
            qos = options & 3
            if topic_filter.startswith(own):
                if matches(topic_filter, user_down):
                    rights.user_qos = max(rights.user_qos, qos)
                if matches(topic_filter, device_down):
                    rights.device_qos = max(rights.device_qos, qos)
                if matches(topic_filter, presence):
                    rights.watched[user] = max(rights.watched.get(user, 0), qos)
            elif (other := topics.presence_of(topic_filter)) is not None:
                rights.watched[other] = max(rights.watched.get(other, 0), qos)
        return rights
