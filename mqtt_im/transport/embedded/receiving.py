"""Packets of a logged-in client that are not hot: plain publishes, QoS 2, subscriptions, DISCONNECT."""

from __future__ import annotations

from typing import Final

from mqtt_im.mqtt import encode, packets
from mqtt_im.mqtt.framing import (
    CONNECT,
    DISCONNECT,
    FIRST_BYTES,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    wrong_first_byte,
)
from mqtt_im.mqtt.reasons import Malformed
from mqtt_im.transport.embedded import subscribing
from mqtt_im.transport.embedded.limits import PerMinute
from mqtt_im.transport.embedded.peer import Peer
from mqtt_im.transport.embedded.sessions import persistence as sql
from mqtt_im.transport.embedded.sessions.plain import PlainMessage
from mqtt_im.transport.embedded.sessions.session import Session

_MAX_UNRELEASED: Final = 4096
"""QoS 2 publishes that a client may leave without PUBREL before it is disconnected."""


def publish(connection: Peer, first: int, body: bytes) -> None:
    """A PUBLISH that is not the hot case."""
    if first not in FIRST_BYTES:
        raise wrong_first_byte(first)
    packet = packets.publish(first, body)
    topic, packet_id, payload = packet.topic, packet.packet_id, packet.payload
    hub = connection.hub
    qos = first >> 1 & 3
    uplink = bool(connection.device) and topic == hub.topics.up(connection.user, connection.device)
    if qos == 2 and _seen(connection, packet_id):
        return
    token = connection.token(encode.short(PUBREC if qos == 2 else PUBACK, packet_id)) if qos else 0
    if uplink:
        if qos == 2:
            if connection.twos is None:
                connection.twos = {}
            connection.twos[token] = packet_id
        hub.handler.uplink(connection, payload, token, packet_id, bool(first & 0x08))
    elif not hub.access.may_publish(topic):
        _forbidden(connection, token, topic)
    else:
        message = PlainMessage(topic, payload, qos, bool(first & 0x01))
        if hub.plugins.filter_topics:
            connection.start(_publish_filtered(connection, token, packet_id, message))
        else:
            _publish_plain(connection, token, packet_id, message)


def _seen(connection: Peer, packet_id: int) -> bool:
    """Answer a QoS 2 PUBLISH that was received before and not released, without handling it again (MQTT-4.3.3-2)."""
    session = connection.own_session
    answer = encode.short(PUBREC, packet_id)
    if connection.waits_for(answer):
        return True
    if session.received is None or packet_id not in session.received:
        if session.received is not None and len(session.received) >= _MAX_UNRELEASED:
            raise Malformed("too_many_unreleased")
        return False
    connection.acknowledge(connection.token(answer))
    return True


def _publish_plain(
    connection: Peer, token: int, packet_id: int, message: PlainMessage, targets: dict[Session, int] | None = None
) -> None:
    hub, session = connection.hub, connection.own_session
    hub.count("plain_messages")
    twice = message.qos == 2
    if twice:
        _remember(session, packet_id)
        if session.kept:
            hub.ground.store.write(sql.RECEIVED, session.id, packet_id)

    def done(ok: bool) -> None:
        if ok:
            connection.acknowledge(token)
            return
        if twice and session.received is not None:
            session.received.discard(packet_id)
        connection.fail(token)

    hub.plain.publish(message, done if token else None, durable=twice and session.kept, targets=targets)


async def _publish_filtered(connection: Peer, token: int, packet_id: int, message: PlainMessage) -> None:
    """The same where amqtt's plugins have a say in who publishes and who receives."""
    hub = connection.hub
    if await hub.plugins.may_publish(connection, message.topic):
        targets = await hub.plugins.who_may_receive(hub.plain.subscribers(message.topic), message.topic)
        if not connection.closed or not token:
            _publish_plain(connection, token, packet_id, message, targets)
    else:
        _forbidden(connection, token, message.topic)


def _forbidden(connection: Peer, token: int, topic: str) -> None:
    """A PUBLISH to a closed topic is acknowledged and dropped; who does it often is disconnected."""
    hub = connection.hub
    hub.count("forbidden_publishes")
    hub.log.note("forbidden", connection.address, "%s may not publish to %r: dropped", connection, topic)
    if connection.forbidden is None:
        connection.forbidden = PerMinute()
    if connection.forbidden.add(hub.clock()) > hub.limits.forbidden_publishes_per_minute:
        connection.end("forbidden_publishes")
    elif token and not connection.closed:
        connection.acknowledge(token)


def beyond_rate(connection: Peer, first: int, body: bytes, wait: float) -> bool:
    """Refuse an uplink that has waited too long for its turn; False where the packet is no uplink and waits on."""
    if first not in FIRST_BYTES:
        raise wrong_first_byte(first)
    packet = packets.publish(first, body)
    topic, packet_id, payload = packet.topic, packet.packet_id, packet.payload
    hub = connection.hub
    if not connection.device or topic != hub.topics.up(connection.user, connection.device):
        return False
    token = connection.token(encode.short(PUBACK, packet_id)) if packet_id else 0
    hub.handler.rate_limited(connection, payload, token, wait)
    return True


def uplink_received(connection: Peer, token: int, packet_id: int) -> None:
    """An uplink at QoS 2 has its answer: a repeat of it is recognised from now on, whatever happens."""
    session = connection.own_session
    _remember(session, packet_id)
    if not session.kept:
        connection.acknowledge(token)
        return
    hub = connection.hub
    hub.ground.store.write(sql.RECEIVED, session.id, packet_id)
    hub.ground.store.committed(lambda ok: connection.acknowledge(token) if ok else connection.fail(token))


def _remember(session: Session, packet_id: int) -> None:
    if session.received is None:
        session.received = set()
    session.received.add(packet_id)


def puback(connection: Peer, packet_id: int) -> None:
    """PUBACK of a plain message."""
    connection.hub.plain.acknowledged(connection.own_session, packet_id)


def other(connection: Peer, first: int, body: bytes) -> None:
    """Any packet but PUBLISH, PUBACK and PINGREQ."""
    if first == SUBSCRIBE:
        connection.start(subscribing.subscribe(connection, *packets.subscribe(body)[:2]))
    elif first == UNSUBSCRIBE:
        connection.start(subscribing.unsubscribe(connection, *packets.unsubscribe(body)))
    elif first == PUBREC:
        connection.hub.plain.received(connection.own_session, packets.acknowledgement(body, "PUBREC")[0])
    elif first == PUBREL:
        _release(connection, packets.acknowledgement(body, "PUBREL")[0])
    elif first == PUBCOMP:
        connection.hub.plain.completed(connection.own_session, packets.acknowledgement(body, "PUBCOMP")[0])
    elif first == DISCONNECT:
        packets.disconnect(body)
        connection.will = None  # MQTT-3.14.4-3
        connection.end("disconnect")
    elif first == CONNECT:
        raise Malformed("second_connect")  # MQTT-3.1.0-2
    else:
        raise wrong_first_byte(first)


def _release(connection: Peer, packet_id: int) -> None:
    """PUBREL: the identifier is free again; PUBCOMP says so, for a kept session once that is on disk."""
    hub, session = connection.hub, connection.own_session
    answer = encode.short(PUBCOMP, packet_id)
    if session.received is None or packet_id not in session.received:
        connection.answer(answer)
        return
    session.received.discard(packet_id)
    if not session.kept:
        connection.answer(answer)
        return

    def done(ok: bool) -> None:
        if ok and not connection.closed:
            connection.answer(answer)

    hub.ground.store.write(sql.RELEASED, session.id, packet_id)
    hub.ground.store.committed(done)
