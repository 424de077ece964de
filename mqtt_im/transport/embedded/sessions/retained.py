"""What is retained on plain topics, and until when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mqtt_im.transport.embedded.sessions import persistence as sql
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.routing import TopicTree


@dataclass(frozen=True, slots=True)
class RetainedMessage:
    """The last retained message of a topic."""

    payload: bytes
    qos: int
    properties: bytes = b""
    expires: int = 0
    """Ms since 1970; 0: never."""


class Retained:
    """By topic, in memory and on disk."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._messages: dict[str, RetainedMessage] = {}
        self._tree = TopicTree()
        self._expiring: set[str] = set()
        """Topics whose message has an end."""
        self.told: Callable[[str, bytes, int], None] = lambda *_: None
        """Is told topic, payload and QoS of what is retained now; an empty payload says that nothing is any more."""

    def restore(self, rows: Iterable[tuple[str, int, bytes, bytes, int]]) -> None:
        """Take over what was found on disk."""
        for topic, qos, payload, properties, expires in rows:
            self._put(topic, RetainedMessage(payload, qos, properties, expires))

    def _put(self, topic: str, message: RetainedMessage) -> None:
        self._messages[topic] = message
        self._tree.add(topic)
        if message.expires:
            self._expiring.add(topic)
        else:
            self._expiring.discard(topic)

    def _drop(self, topic: str) -> bool:
        if self._messages.pop(topic, None) is None:
            return False
        self._tree.discard(topic)
        self._expiring.discard(topic)
        if not topic.startswith("$"):
            self._ground.store.write(sql.UNRETAIN, topic)
        return True

    def keep(self, topic: str, message: RetainedMessage) -> bool:
        """Keep the last message of a topic; an empty one removes it (MQTT-3.3.1-10). Returns whether the disk has to know."""
        ground, durable = self._ground, not topic.startswith("$")
        if not message.payload:
            if not self._drop(topic):
                return False
        elif durable and topic not in self._messages and self._full:
            ground.count("plain_dropped")
            ground.log.note("retained", "", "a message on %r is not retained: there are %d already", topic, len(self._messages))
            return False
        else:
            self._put(topic, message)
            if durable:
                row = (topic, message.qos, message.payload, message.properties, message.expires)
                ground.store.write(sql.RETAIN, *row)
        self.told(topic, message.payload, message.qos)
        return durable

    @property
    def _full(self) -> bool:
        most = self._ground.limits.max_retained_messages
        if len(self._messages) >= most:
            for topic in list(self._expiring):
                self.get(topic)  # which drops it, if its time is over
        return len(self._messages) >= most

    def get(self, topic: str) -> RetainedMessage | None:
        """What is retained on a topic, if it has not expired."""
        message = self._messages.get(topic)
        if message is not None and message.expires and message.expires <= time.time() * 1000:
            self._drop(topic)
            return None
        return message

    def matching(self, topic_filter: str) -> Iterator[str]:
        """The topics with a retained message that a filter matches."""
        return self._tree.match(topic_filter)

    @property
    def messages(self) -> Mapping[str, RetainedMessage]:
        """All of it."""
        return self._messages
