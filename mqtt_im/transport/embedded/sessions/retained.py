"""What is retained on plain topics, and until when."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.routing import LEVEL_BYTES, TopicTree

FEW_LEVELS: Final = 8
"""Levels of a topic that are not counted beside it."""
_FEW_ENDS: Final = 64
"""So many ends that are none any more are not worth a look at all of them."""


@dataclass(frozen=True, slots=True)
class RetainedMessage:
    """The last retained message of a topic."""

    payload: bytes
    qos: int
    properties: bytes = b""
    expires: int = 0
    """Ms since 1970; 0: never."""

    def weight(self, topic: str) -> int:
        """Bytes that it takes as what is retained on this topic, of those that are bounded; the server's own are not."""
        if topic.startswith("$"):
            return 0
        beyond = max(0, topic.count("/") - FEW_LEVELS)
        return len(topic) + len(self.payload) + len(self.properties) + LEVEL_BYTES * beyond


class Retained:
    """By topic, in memory and on disk."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._messages: dict[str, RetainedMessage] = {}
        self._tree = TopicTree()
        self._most = ground.bounds.less(ground.limits.max_retained_bytes)
        self._bytes = 0
        """Of all that clients have left here."""
        self._ends: list[tuple[int, str]] = []
        """A heap of when messages end, and on which topic; which of them are others by now is found out when they are due."""
        self.told: Callable[[str, bytes, int], None] = lambda *_: None
        """Is told topic, payload and QoS of what is retained now; an empty payload says that nothing is any more."""
        self.written: Callable[[str], None] = lambda _: None
        """Is told each topic of which the disk will know something else with the next transaction."""

    def restore(self, rows: Iterable[tuple[str, int, bytes, bytes, int]]) -> None:
        """Take over what was found on disk."""
        for topic, qos, payload, properties, expires in rows:
            self._put(topic, RetainedMessage(payload, qos, properties, expires))

    def _put(self, topic: str, message: RetainedMessage) -> None:
        self._bytes += self._grown(topic, message)
        self._messages[topic] = message
        self._tree.add(topic)
        if message.expires:
            heapq.heappush(self._ends, (message.expires, topic))
            if len(self._ends) > 2 * len(self._messages) + _FEW_ENDS:
                self._ends = [(there.expires, name) for name, there in self._messages.items() if there.expires]
                heapq.heapify(self._ends)

    def _grown(self, topic: str, message: RetainedMessage) -> int:
        """How many bytes more there are with this message in the place of the one before it."""
        former = self._messages.get(topic)
        return message.weight(topic) - (0 if former is None else former.weight(topic))

    def _drop(self, topic: str) -> bool:
        former = self._messages.pop(topic, None)
        if former is None:
            return False
        self._bytes -= former.weight(topic)
        self._tree.discard(topic)
        return True

    def differ(self, topics: Iterable[str], rows: Iterable[tuple[str, int, bytes, bytes, int]]) -> None:
        """The database, which other nodes write too, has these rows of these topics, or of all of them (`""`)."""
        found = {topic: RetainedMessage(payload, qos, properties, expires) for topic, qos, payload, properties, expires in rows}
        asked = {topic for topic in self._messages if topic[0] != "$"} if "" in topics else set(topics)
        for topic in asked - found.keys():
            if self._drop(topic):
                self.told(topic, b"", 0)
        for topic, message in found.items():
            if self._messages.get(topic) != message:
                self._put(topic, message)
                self.told(topic, message.payload, message.qos)

    def keep(self, topic: str, message: RetainedMessage) -> bool:
        """Keep the last message of a topic; an empty one removes it (MQTT-3.3.1-10). Returns whether the disk has to know."""
        ground, durable = self._ground, not topic.startswith("$")
        if not message.payload:
            if not self._drop(topic):
                return False
            if durable:
                ground.store.write(sql.UNRETAIN, topic)
        elif durable and self._is_full(topic, message):
            ground.count("plain_dropped")
            ground.log.note("retained", "", "a message on %.200r is not retained: there are too many already", topic)
            return False
        else:
            self._put(topic, message)
            if durable:
                row = (topic, message.qos, message.payload, message.properties, message.expires)
                ground.store.write(sql.RETAIN, *row)
        if durable:
            self.written(topic)
        self.told(topic, message.payload, message.qos)
        return durable

    def _is_full(self, topic: str, message: RetainedMessage) -> bool:
        """Whether there is no room for this, once as much of what has expired is gone as it needs."""
        limits = self._ground.limits

        def full() -> bool:
            many = topic not in self._messages and len(self._messages) >= limits.max_retained_messages
            grown = self._grown(topic, message)
            return many or (grown > 0 and self._bytes + grown > self._most)

        now = self._ground.clock.steady()
        while full():
            if not self._ends or self._ends[0][0] > now:
                return True
            self.get(heapq.heappop(self._ends)[1])  # which drops it, unless it is another one by now
        return False

    def get(self, topic: str) -> RetainedMessage | None:
        """What is retained on a topic, if it has not expired."""
        message = self._messages.get(topic)
        if message is not None and message.expires and message.expires <= self._ground.clock.steady():
            self._drop(topic)
            if not topic.startswith("$"):
                self._ground.store.write(sql.UNRETAIN_EXPIRED, topic, message.expires)
            return None
        return message

    def walk(self, topic_filter: str) -> Iterator[str | None]:
        """The topics with a retained message that a filter matches; see `TopicTree.walk`."""
        return self._tree.walk(topic_filter)

    @property
    def messages(self) -> Mapping[str, RetainedMessage]:
        """All of it."""
        return self._messages
