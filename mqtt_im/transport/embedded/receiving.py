"""Packets of a logged-in client that are not hot: plain publishes, QoS 2, properties, subscriptions, DISCONNECT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from mqtt_im.core import costs
from mqtt_im.mqtt import V5, encode, packets, reasons
from mqtt_im.mqtt import properties as props
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
from mqtt_im.transport.api import FIRST_PLAIN_PACKET_ID, Extra
from mqtt_im.transport.embedded import subscribing
from mqtt_im.transport.embedded.limits import PerMinute
from mqtt_im.transport.embedded.peer import TOPIC_ALIASES, Peer
from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.keeping import Promise
from mqtt_im.transport.embedded.sessions.message import PlainMessage
from mqtt_im.transport.embedded.sessions.session import Session
from mqtt_im.transport.embedded.sessions.sharing import Group
from mqtt_im.transport.under_way import LARGE

_Decoded = TypeVar("_Decoded")

_FEW_PROPERTIES: Final = 20
"""User Properties of a publish that cost nothing beside it."""
_LONG_ACKNOWLEDGEMENT: Final = 64
"""Bytes: what stands behind the reason is taken apart, and nobody needs it."""
_MAX_UNRELEASED: Final = 4096
"""QoS 2 publishes that a client may leave without PUBREL before it is disconnected; of MQTT 5 its Receive Maximum."""


def publish(connection: Peer, first: int, body: bytes) -> None:
    """A PUBLISH that is not the hot case."""
    packet = _decode(connection, first, body)
    topic, packet_id = packet.topic, packet.packet_id
    hub = connection.hub
    qos = first >> 1 & 3
    if qos == 2 and _seen(connection, packet_id):
        return
    token = connection.token(encode.short(PUBREC if qos == 2 else PUBACK, packet_id)) if qos else 0
    if _is_uplink(connection, topic):
        if qos == 2:
            if connection.twos is None:
                connection.twos = {}
            connection.twos[token] = packet_id
        hub.handler.uplink(connection, packet.payload, token, packet_id, bool(first & 0x08), _extra(packet))
    elif not hub.access.may_publish(topic):
        _forbidden(connection, token, topic)
    else:
        expiry = packet.properties.get(props.MESSAGE_EXPIRY) if packet.properties is not None else None
        message = PlainMessage(topic, packet.payload, qos, bool(first & 0x01), packet.handed_on, hub.ground.expires_at(expiry))
        if hub.plugins.filter_topics:
            connection.start(_publish_filtered(connection, token, packet_id, message))
        else:
            _publish_plain(connection, token, packet_id, message)


def _decode(connection: Peer, first: int, body: bytes) -> packets.Publish:
    """The PUBLISH, with its topic where an alias stands for it (MQTT5-3.3.2.3.4)."""
    if first not in FIRST_BYTES:
        raise wrong_first_byte(first)
    packet = packets.publish(first, body, connection.version)
    if packet.properties is not None and len(found := packet.properties.get(props.USER_PROPERTY, ())) > _FEW_PROPERTIES:
        connection.charge(len(found) / costs.PARTS)
    number = packet.properties.get(props.TOPIC_ALIAS) if packet.properties is not None else None
    if number is None:
        return packet
    if number > TOPIC_ALIASES:
        raise Malformed("topic_alias")
    if connection.incoming_aliases is None:
        connection.incoming_aliases = {}
    if packet.topic:
        connection.keep(len(packet.topic) - len(connection.incoming_aliases.get(number, "")))
        connection.incoming_aliases[number] = packet.topic
        return packet
    if number not in connection.incoming_aliases:
        raise Malformed("no_topic")
    topic = connection.incoming_aliases[number]
    return packets.Publish(topic, packet.packet_id, packet.payload, packet.properties, packet.handed_on)


def _is_uplink(connection: Peer, topic: str) -> bool:
    return bool(connection.device) and topic == connection.hub.topics.up(connection.user, connection.device)


def _extra(packet: packets.Publish) -> Extra | None:
    found = packet.properties
    if not found:
        return None
    return Extra(
        found.get(props.CORRELATION_DATA),
        found.get(props.MESSAGE_EXPIRY),
        found.get(props.RESPONSE_TOPIC),
        bool(found.get(props.PAYLOAD_FORMAT)),
    )


def _seen(connection: Peer, packet_id: int) -> bool:
    """Answer a QoS 2 PUBLISH that was received before and not released, without handling it again (MQTT-4.3.3-2)."""
    session = connection.own_session
    answer = encode.short(PUBREC, packet_id)
    if connection.waits_for(answer):
        return True
    if session.received is None or packet_id not in session.received:
        unreleased = len(session.received) if session.received is not None else 0
        if unreleased >= _MAX_UNRELEASED:
            raise Malformed("too_many_unreleased")
        if connection.version == V5 and unreleased + connection.waiting >= connection.max_pending:
            raise Malformed("receive_maximum")
        return False
    connection.acknowledge(connection.token(answer))
    return True


def _publish_plain(
    connection: Peer,
    token: int,
    packet_id: int,
    message: PlainMessage,
    targets: dict[Session | Group, list[int]] | None = None,
) -> None:
    hub, session = connection.hub, connection.own_session
    hub.count("plain_messages")
    twice = message.qos == 2
    promise = None
    if twice:
        _remember(session, packet_id)
        if session.kept:
            promise = Promise(session, (sql.RECEIVED, (session.id, packet_id)))

    size = message.size if token and message.size > LARGE else 0
    if size:
        connection.under_way(size)

    def done(ok: bool) -> None:
        if size:
            connection.under_way(-size)
        if ok:
            connection.acknowledge(token)
            return
        if twice and session.received is not None:
            session.received.discard(packet_id)
        if connection.version == V5:
            connection.refuse(token, reasons.UNSPECIFIED, "unavailable: it could not be stored; send it again later")
        else:
            connection.fail(token)

    reach = hub.plain.publish(message, done if token else None, promise=promise, targets=targets, publisher=session)
    connection.charge(costs.of_plain(*reach, message.size))


async def _publish_filtered(connection: Peer, token: int, packet_id: int, message: PlainMessage) -> None:
    """The same where amqtt's plugins have a say in who publishes and who receives."""
    hub = connection.hub
    if await hub.plugins.may_publish(connection.user, connection.key, message.topic):
        targets = await hub.plugins.who_may_receive(hub.plain.subscribers(message.topic), message.topic)
        if not connection.closed or not token:
            _publish_plain(connection, token, packet_id, message, targets)
    else:
        _forbidden(connection, token, message.topic)


def _forbidden(connection: Peer, token: int, topic: str) -> None:
    """A PUBLISH to a closed topic is acknowledged (of MQTT 5: refused) and dropped; who does it often is disconnected."""
    hub = connection.hub
    hub.count("forbidden_publishes")
    hub.log.note("forbidden", connection.address, "%s may not publish to %.200r: dropped", connection, topic)
    if connection.forbidden is None:
        connection.forbidden = PerMinute()
    if connection.forbidden.add(hub.clock()) > hub.limits.forbidden_publishes_per_minute:
        connection.end("forbidden_publishes")
    elif token and not connection.closed:
        connection.refuse(token, reasons.NOT_AUTHORISED, "forbidden: nobody may publish to this topic from here")


def beyond_rate(connection: Peer, first: int, body: bytes, wait: float) -> bool:
    """Refuse an uplink that has waited too long for its turn; False where the packet is no uplink and waits on."""
    packet = _decode(connection, first, body)
    if not _is_uplink(connection, packet.topic):
        return False
    answer = PUBREC if first & 0x04 else PUBACK
    token = connection.token(encode.short(answer, packet.packet_id)) if packet.packet_id else 0
    connection.hub.handler.rate_limited(connection, packet.payload, token, wait, bool(first & 0x08), _extra(packet))
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
    _meter_unknown(connection, packet_id)
    connection.hub.plain.streams.acknowledged(connection.own_session, packet_id)


def _meter_unknown(connection: Peer, packet_id: int) -> None:
    """Count an acknowledgement of a plain message that was not sent, or is over."""
    if not connection.hub.plain.streams.knows(connection.own_session, packet_id):
        connection.meter(connection.hub.clock())


def puback5(connection: Peer, body: bytes) -> None:
    """PUBACK of MQTT 5, of an item, a reply or a plain message; with a code of 0x80 or more it counts as one all the same."""
    if len(body) == 2:
        packet_id, code = body[0] << 8 | body[1], 0
        if not packet_id:
            raise Malformed("packet_id_zero")
    else:
        packet_id, code = _acknowledgement(connection, body, "PUBACK")
    _note(connection, code)
    again = connection.vacate(packet_id)
    if packet_id >= FIRST_PLAIN_PACKET_ID:
        puback(connection, packet_id)
    elif connection.device and not connection.hub.handler.acked(connection, (packet_id,)):
        connection.meter(connection.hub.clock())
    if again:
        connection.room_again()


def _acknowledgement(connection: Peer, body: bytes, packet: str) -> tuple[int, int]:
    """See `packets.acknowledgement`. One with much in it counts as many that nothing waited for."""
    if len(body) >= _LONG_ACKNOWLEDGEMENT:
        connection.meter(connection.hub.clock(), len(body) // _LONG_ACKNOWLEDGEMENT)
    return packets.acknowledgement(body, packet, connection.version)


def _note(connection: Peer, code: int) -> None:
    if code >= reasons.FIRST_ERROR:
        connection.hub.count("refused_by_clients", code=f"0x{code:02X}")
        source = connection.address
        connection.hub.log.note("refused_by_client", source, "%s did not want a message: reason 0x%02X", connection, code)


def _fits(connection: Peer, filters: int) -> None:
    """Raises `Malformed` where the client would not take the answer to so many filters (MQTT5-3.1.2-24)."""
    if connection.max_packet and encode.suback5_size(filters) > connection.max_packet:
        raise Malformed("answer_too_large")


def _decoded(connection: Peer, decode: Callable[[bytes, int], _Decoded], body: bytes) -> _Decoded:
    """What the packet says. Raises `Malformed`, which may be found out at its end: the next login of the user pays for it."""
    try:
        return decode(body, connection.version)
    except Malformed:
        connection.charge(costs.of_nonsense(len(body)))
        raise


def other(connection: Peer, first: int, body: bytes) -> None:
    """Any packet but PUBLISH, PUBACK and PINGREQ."""
    version = connection.version
    if first == SUBSCRIBE:
        asked = _decoded(connection, packets.subscribe, body)
        _fits(connection, len(asked[1]))
        subscribing.pay(connection, [topic_filter for topic_filter, _ in asked[1]])
        at_once = not subscribing.waits(connection, asked[1])
        connection.start(subscribing.subscribe(connection, *asked), at_once=at_once)
    elif first == UNSUBSCRIBE:
        packet_id, unwanted = _decoded(connection, packets.unsubscribe, body)
        _fits(connection, len(unwanted))
        subscribing.pay(connection, unwanted)
        connection.start(subscribing.unsubscribe(connection, packet_id, unwanted))
    elif first == PUBREC:
        _pubrec(connection, *_acknowledgement(connection, body, "PUBREC"))
    elif first == PUBREL:
        _release(connection, _acknowledgement(connection, body, "PUBREL")[0])
    elif first == PUBCOMP:
        packet_id, _ = _acknowledgement(connection, body, "PUBCOMP")
        again = connection.vacate(packet_id)
        _meter_unknown(connection, packet_id)
        connection.hub.plain.streams.completed(connection.own_session, packet_id)
        if again:
            connection.room_again()
    elif first == DISCONNECT:
        _disconnect(connection, *packets.disconnect(body, version))
    elif first == CONNECT:
        raise Malformed("second_connect")  # MQTT-3.1.0-2
    else:
        raise wrong_first_byte(first)


def _pubrec(connection: Peer, packet_id: int, code: int) -> None:
    plain, session = connection.hub.plain, connection.own_session
    _meter_unknown(connection, packet_id)
    if code >= reasons.FIRST_ERROR:
        _note(connection, code)
        again = connection.vacate(packet_id)
        plain.streams.refused(session, packet_id)
        if again:
            connection.room_again()
    elif connection.version == V5 and not plain.streams.knows(session, packet_id):
        connection.answer(encode.acknowledgement(PUBREL, packet_id, reasons.IDENTIFIER_NOT_FOUND))
    else:
        plain.streams.received(session, packet_id)


def _disconnect(connection: Peer, code: int, found: props.Properties) -> None:
    session = connection.own_session
    wanted = found.get(props.SESSION_EXPIRY)
    if wanted is not None:
        if wanted and not session.expiry:
            raise Malformed("session_expiry")
        session.expiry = min(wanted, connection.hub.limits.session_expiry_s)
        connection.clean = not session.expiry
    if code == reasons.SUCCESS:
        connection.will = None  # MQTT-3.14.4-3, MQTT5-3.14.4-3, and with no other code (MQTT5-3.1.2-8)
    connection.end("disconnect" if code < reasons.FIRST_ERROR else "disconnect_error")


def _release(connection: Peer, packet_id: int) -> None:
    """PUBREL: the identifier is free again; PUBCOMP says so, for a kept session once that is on disk."""
    hub, session = connection.hub, connection.own_session
    answer = encode.short(PUBCOMP, packet_id)
    if session.received is None or packet_id not in session.received:
        connection.meter(hub.clock())
        if connection.version == V5:
            answer = encode.acknowledgement(PUBCOMP, packet_id, reasons.IDENTIFIER_NOT_FOUND)
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
