"""Plain topics: publishing to whoever subscribed, at QoS 0, 1 and 2, and what is retained.

What a PUBACK, PUBREC or SUBACK promises to a kept session is committed before it leaves: a message is first a row of
each kept session that is to get it at QoS 1 or 2, and is sent to those when the row is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mqtt_im.mqtt import encode
from mqtt_im.mqtt.framing import PUBREL
from mqtt_im.transport.embedded.sessions import persistence as sql
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.routing import Subscriptions, TopicTree
from mqtt_im.transport.embedded.sessions.session import RELEASED, SENT, Message, Session

Done = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class PlainMessage:
    """One PUBLISH on a plain topic."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Retained:
    """The last retained message of a topic."""

    payload: bytes
    qos: int


class Plain:
    """Routes plain messages. One object for all connections."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.on_retained: Callable[[str, bytes, int], None] = lambda *_: None
        """Is told topic, payload and QoS of what is retained now; an empty payload says that nothing is any more."""
        self._index: Subscriptions[Session] = Subscriptions()
        self._retained: dict[str, Retained] = {}
        self._tree = TopicTree()

    # Subscriptions

    def is_plain(self, topic_filter: str) -> bool:
        """Whether a granted filter stands in this index."""
        return not self._ground.access.topics.owns(topic_filter)

    def subscribe(self, session: Session, topic_filter: str, qos: int) -> None:
        """Put one filter into the index; the session's own record is the caller's."""
        self._index.add(topic_filter, session, qos)

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        """Take one filter out of the index."""
        self._index.remove(topic_filter, session)

    def subscribe_all(self, session: Session) -> None:
        """Put all plain filters of a session in, and count them there."""
        session.plain = 0
        for topic_filter, qos in session.filters.items():
            if self.is_plain(topic_filter):
                self.subscribe(session, topic_filter, qos)
                session.plain += 1

    def unsubscribe_all(self, session: Session) -> None:
        """Take all plain filters of a session out."""
        if session.plain:
            for topic_filter in filter(self.is_plain, session.filters):
                self.unsubscribe(session, topic_filter)
            session.plain = 0

    # Publishing

    def publish(
        self,
        message: PlainMessage,
        done: Done | None = None,
        *,
        durable: bool = False,
        targets: dict[Session, int] | None = None,
    ) -> None:
        """Hand a message to every subscriber (or to `targets` alone), and keep it where it is to be retained.

        `done` is called when its acknowledgement may leave: at once, or when what must survive has been committed; `durable`
        says that the caller has written something of that kind.
        """
        ground = self._ground
        topic = message.topic.encode()
        kept: list[tuple[Session, Message]] = []
        for session, granted in (self._index.match(message.topic) if targets is None else targets).items():
            qos = min(message.qos, granted)
            if session.catch_up is not None and message.retain:
                session.catch_up.pop(message.topic, None)
            if qos == 0:
                if session.connection is not None:
                    session.connection.publish_plain(topic, message.payload)
            elif session.connection is None and not ground.limits.max_queued_messages:
                ground.count("plain_dropped")
            else:
                queued = session.need_outbox(ground.limits).create(topic, message.payload, qos, retain=False)
                if session.kept:
                    self._enqueue(session, queued)
                    kept.append((session, queued))
                else:
                    self._ready(session, queued)
        if message.retain and self.retain(message) and message.qos:
            durable = True
        if not kept and not durable:
            if done is not None:
                done(True)
            return

        def committed(ok: bool) -> None:
            for session, queued in kept if ok else ():
                self._ready(session, queued)
            if done is not None:
                done(ok)

        ground.store.committed(committed)

    def subscribers(self, topic: str) -> dict[Session, int]:
        """Everybody who is to get a message on `topic`, with the QoS granted."""
        return self._index.match(topic)

    def _enqueue(self, session: Session, message: Message) -> None:
        row = (message.seq, message.qos, message.retain, message.stage, message.topic.decode(), message.payload)
        self._ground.store.write(sql.ENQUEUE, session.id, *row)

    def _ready(self, session: Session, message: Message) -> None:
        if session.outbox is None:
            return  # the session was discarded meanwhile
        for dropped in session.outbox.ready(message):
            self._ground.count("plain_dropped")
            if session.kept:
                self._ground.store.write(sql.DEQUEUE, session.id, dropped.seq)
        self.pump(session)

    # Retained messages

    def restore_retained(self, rows: Iterable[tuple[str, int, bytes]]) -> None:
        """Take over what was found on disk."""
        for topic, qos, payload in rows:
            self._retained[topic] = Retained(payload, qos)
            self._tree.add(topic)

    def retain(self, message: PlainMessage) -> bool:
        """Keep the last message of a topic; an empty one removes it (MQTT-3.3.1-10). Returns whether the disk has to know."""
        ground, topic = self._ground, message.topic
        durable = not topic.startswith("$")
        if not message.payload:
            if self._retained.pop(topic, None) is None:
                return False
            self._tree.discard(topic)
            if durable:
                ground.store.write(sql.UNRETAIN, topic)
        elif durable and topic not in self._retained and len(self._retained) >= ground.limits.max_retained_messages:
            ground.count("plain_dropped")
            ground.log.note("retained", "", "a message on %r is not retained: there are %d already", topic, len(self._retained))
            return False
        else:
            self._retained[topic] = Retained(message.payload, message.qos)
            self._tree.add(topic)
            if durable:
                ground.store.write(sql.RETAIN, topic, message.qos, message.payload)
        self.on_retained(topic, message.payload, message.qos)
        return durable

    @property
    def retained(self) -> Mapping[str, Retained]:
        """What is retained, by topic."""
        return self._retained

    def want_retained(self, session: Session, topic_filter: str, qos: int) -> None:
        """Have `pump` send what is retained for a filter that was subscribed just now (MQTT-3.3.1-6), once a topic."""
        is_open = self._ground.access.plain.is_open
        for topic in self._tree.match(topic_filter):
            if is_open(topic):
                if session.catch_up is None:
                    session.catch_up = {}
                session.catch_up[topic] = max(qos, session.catch_up.get(topic, 0))

    # One client's stream

    def resume(self, session: Session) -> None:
        """Send again what was in flight, with DUP and its packet identifier, in the old order (MQTT-4.4.0-1); then go on."""
        connection = session.connection
        if connection is None or session.outbox is None:
            return
        for packet_id, message in session.outbox.in_flight.items():
            if message.stage == RELEASED:
                connection.answer(encode.short(PUBREL, packet_id))
            else:
                connection.publish_plain(message.topic, message.payload, message.qos, packet_id, message.retain, dup=True)
        self.pump(session)

    def pump(self, session: Session) -> None:
        """Send what the window and the write buffer have room for."""
        connection = session.connection
        while connection is not None and connection.writable and not connection.closed:
            message = session.outbox.next() if session.outbox is not None else None
            if message is not None:
                connection.publish_plain(message.topic, message.payload, message.qos, message.packet_id, message.retain)
                if session.kept:
                    self._ground.store.write(sql.SET_STAGE, SENT, session.id, message.seq)
            elif session.catch_up is None or not self._send_one_retained(session, session.catch_up):
                return

    def _send_one_retained(self, session: Session, waiting: dict[str, int]) -> bool:
        """Take the next retained message; False where there is no room for it, or none."""
        if not waiting:
            session.catch_up = None
            return False
        topic, granted = next(iter(waiting.items()))
        retained = self._retained.get(topic)
        qos = 0 if retained is None else min(granted, retained.qos)
        if retained is not None and qos:
            outbox = session.need_outbox(self._ground.limits)
            if not outbox.has_room:
                return False
            message = outbox.create(topic.encode(), retained.payload, qos, retain=True)
            if session.kept:
                self._enqueue(session, message)
            outbox.ready(message)
        elif retained is not None and session.connection is not None:
            session.connection.publish_plain(topic.encode(), retained.payload, retain=True)
        del waiting[topic]
        return True

    def acknowledged(self, session: Session, packet_id: int) -> None:
        """PUBACK of a plain message."""
        if session.outbox is not None:
            self._finished(session, session.outbox.acknowledged(packet_id))

    def completed(self, session: Session, packet_id: int) -> None:
        """PUBCOMP of a plain message."""
        if session.outbox is not None:
            self._finished(session, session.outbox.completed(packet_id))

    def _finished(self, session: Session, message: Message | None) -> None:
        if message is not None:
            if session.kept:
                self._ground.store.write(sql.DEQUEUE, session.id, message.seq)
            self.pump(session)

    def received(self, session: Session, packet_id: int) -> None:
        """PUBREC of a plain message: PUBREL follows, for a kept session once it is on disk that the client has the message."""
        message = session.outbox.received(packet_id) if session.outbox is not None else None

        def release(ok: bool) -> None:
            if ok and session.connection is not None:
                session.connection.answer(encode.short(PUBREL, packet_id))

        if message is None or not session.kept:
            release(True)
        else:
            self._ground.store.write(sql.SET_STAGE, RELEASED, session.id, message.seq)
            self._ground.store.committed(release)
