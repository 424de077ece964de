"""Plain messages on their way to one client: its window, what is retained, and what it acknowledges."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from mqtt_im.mqtt import encode
from mqtt_im.mqtt import properties as props
from mqtt_im.mqtt.framing import PUBREL
from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.message import identifiers
from mqtt_im.transport.embedded.sessions.retained import Retained
from mqtt_im.transport.embedded.sessions.session import RELEASED, SENT, Message, Receiver, Session

AT_ONCE: Final = 200
"""Messages that one session is sent, or has dropped, in one turn of the loop: what has expired, or is too large for its client,
fills no buffer, and there may be thousands."""


class Streams:
    """The streams of all sessions. One object for all connections."""

    def __init__(self, ground: Ground, retained: Retained) -> None:
        self._ground = ground
        self._retained = retained
        self._later: set[Session] = set()
        """Those who go on in the next turn of the loop."""

    def enqueue(self, session: Session, message: Message) -> None:
        """Write a message into a kept session's queue."""
        self._ground.store.write(sql.ENQUEUE, *self.row(session, message))

    @staticmethod
    def row(session: Session, message: Message) -> tuple[object, ...]:
        """A message of a kept session as `tables.ENQUEUE` takes it."""
        what = (message.qos, message.retain, message.stage, message.topic.decode(), message.payload)
        return (session.id, message.seq, *what, message.properties, message.expires, message.share)

    def ready(self, session: Session, message: Message) -> None:
        """A message may be sent, as soon as there is room for it."""
        if session.outbox is None:
            return  # the session was discarded meanwhile
        for dropped in session.outbox.ready(message):
            self._ground.count("plain_dropped")
            if session.kept:
                self._ground.store.write(sql.DEQUEUE, session.id, dropped.seq)
        self.pump(session)

    def want(self, session: Session, topic: str, options: int) -> None:
        """Have `pump` send what is retained on a topic, if it is open: once, whatever filters match it (MQTT-3.3.1-6)."""
        if self._ground.access.plain.is_open(topic):
            if session.catch_up is None:
                session.catch_up = OrderedDict()
            before = session.catch_up.get(topic, 0)
            session.catch_up[topic] = options & ~3 | max(options & 3, before & 3)

    def resume(self, session: Session) -> None:
        """Send again what was in flight, with DUP and its packet identifier, in the old order (MQTT-4.4.0-1); then go on."""
        if session.connection is None or session.outbox is None:
            return
        session.outbox.again.clear()
        session.outbox.again.extend(session.outbox.in_flight.values())
        self.pump(session)

    def withdraw(self, session: Session, is_refused: Callable[[str], bool]) -> None:
        """What waits for the session on topics that are refused now is not handed out."""
        if session.outbox is None:
            return
        for message in session.outbox.withdraw(lambda topic: is_refused(topic.decode())):
            self._ground.count("plain_dropped")
            if not session.kept:
                continue
            if message.stage == RELEASED:
                self._ground.store.write(sql.SET_STAGE, RELEASED, session.id, message.seq)
            else:
                self._ground.store.write(sql.DEQUEUE, session.id, message.seq)

    def pump(self, session: Session) -> None:
        """Send what the window, the client and the write buffer have room for: at most `AT_ONCE`, and the rest in later turns."""
        connection, outbox = session.connection, session.outbox
        left = 0 if session in self._later else AT_ONCE
        while connection is not None and connection.writable and not connection.closed and session.asking is None:
            if not left:
                self._go_on_later(session)
                return
            left -= 1
            if outbox is None or connection.room <= 0:
                message = None
            elif outbox.again:
                self._send_again(session, connection, outbox.again.popleft())
                continue
            else:
                message = outbox.next()
            if message is not None:
                self._send(session, connection, message)
            elif session.catch_up is None or not self._send_one_retained(session, session.catch_up):
                return
            outbox = session.outbox

    def _go_on_later(self, session: Session) -> None:
        def go_on() -> None:
            self._later.discard(session)
            self.pump(session)

        if session not in self._later:
            self._later.add(session)
            asyncio.get_running_loop().call_soon(go_on)

    def _send_again(self, session: Session, connection: Receiver, message: Message) -> None:
        packet_id = message.packet_id
        if session.outbox is None or session.outbox.in_flight.get(packet_id) is not message:
            return
        if message.stage == RELEASED:
            connection.occupy(packet_id)
            connection.answer(encode.short(PUBREL, packet_id))
            return
        properties = self.with_expiry(message.properties, message.expires)
        if not connection.publish_plain(
            message.topic, message.payload, message.qos, packet_id, message.retain, dup=True, properties=properties
        ):
            self._skip(session, message)

    def _send(self, session: Session, connection: Receiver, message: Message) -> None:
        """Send a message for the first time, unless its time is over (MQTT5-3.3.2-5)."""
        if message.expires and message.expires <= self._ground.clock.steady():
            self._ground.count("plain_expired")
            self._skip(session, message)
            return
        properties = self.with_expiry(message.properties, message.expires)
        if not connection.publish_plain(
            message.topic, message.payload, message.qos, message.packet_id, message.retain, properties=properties
        ):
            # Larger than the client takes: as if it had been sent and acknowledged (MQTT5-3.1.2-25).
            self._ground.count("plain_dropped")
            self._skip(session, message)
        elif session.kept:
            self._ground.store.write(sql.SET_STAGE, SENT, session.id, message.seq)

    def with_expiry(self, properties: bytes, expires: int) -> bytes:
        """With what is left of the Message Expiry Interval, in seconds (MQTT5-3.3.2-6)."""
        return props.one(props.MESSAGE_EXPIRY, self._ground.left(expires)) + properties if expires else properties

    def _skip(self, session: Session, message: Message) -> None:
        """Take a message out of flight without its client."""
        if session.outbox is not None:
            session.outbox.forget(message)
            if session.kept:
                self._ground.store.write(sql.DEQUEUE, session.id, message.seq)

    def _send_one_retained(self, session: Session, waiting: OrderedDict[str, int]) -> bool:
        """Take the next retained message; False where there is no room for it, or none."""
        if not waiting:
            session.catch_up = None
            return False
        topic, options = next(iter(waiting.items()))
        retained = self._retained.get(topic)
        qos = 0 if retained is None else min(options & 3, retained.qos)
        connection = session.connection
        if retained is not None and qos:
            outbox = session.need_outbox(self._ground.limits, self._ground.room)
            if not outbox.has_room or (connection is not None and connection.room <= 0):
                return False
            properties = identifiers([options]) + retained.properties
            message = outbox.create(topic.encode(), retained.payload, qos, True, properties, retained.expires)
            if session.kept:
                self.enqueue(session, message)
            outbox.ready(message)
        elif retained is not None and connection is not None:
            properties = self.with_expiry(identifiers([options]) + retained.properties, retained.expires)
            connection.publish_plain(topic.encode(), retained.payload, retain=True, properties=properties)
        del waiting[topic]
        return True

    def acknowledged(self, session: Session, packet_id: int) -> None:
        """PUBACK of a plain message, whatever its reason code."""
        if session.outbox is not None:
            self._finished(session, session.outbox.acknowledged(packet_id))

    def completed(self, session: Session, packet_id: int) -> None:
        """PUBCOMP of a plain message."""
        if session.outbox is not None:
            self._finished(session, session.outbox.completed(packet_id))

    def refused(self, session: Session, packet_id: int) -> None:
        """PUBREC of a plain message that says that its client does not want it: it is over (MQTT5-4.3.3-4)."""
        if session.outbox is not None:
            self._finished(session, session.outbox.refused(packet_id))

    def _finished(self, session: Session, message: Message | None) -> None:
        if message is not None:
            if session.kept:
                self._ground.store.write(sql.DEQUEUE, session.id, message.seq)
            self.pump(session)

    def knows(self, session: Session, packet_id: int) -> bool:
        """Whether a message with this packet identifier is in flight."""
        return session.outbox is not None and packet_id in session.outbox.in_flight

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
