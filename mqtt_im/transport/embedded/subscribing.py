"""SUBSCRIBE and UNSUBSCRIBE: what is granted, what it yields, and who has to know."""

from __future__ import annotations

from typing import Final

from mqtt_im.mqtt import encode
from mqtt_im.transport.api import REFUSED
from mqtt_im.transport.embedded.peer import Peer
from mqtt_im.transport.embedded.sessions.access import Claim, Rights
from mqtt_im.transport.embedded.sessions.session import Session

_UNSUBACK: Final = 0xB0


async def subscribe(connection: Peer, packet_id: int, filters: list[tuple[str, int]]) -> None:
    """Grant what may be granted, answer, and start what was subscribed. A kept session's filters are on disk before SUBACK."""
    hub, session = connection.hub, connection.mqtt_session
    assert session is not None
    before = dict(session.filters)
    codes: list[int] = []
    for topic_filter, qos in filters:
        code = await _grant(connection, session, topic_filter, qos)
        codes.append(code)
        if code != REFUSED and session.connection is connection:
            _add(connection, session, topic_filter, code)
    if session.connection is not connection:
        return
    if session.kept and session.filters != before:
        hub.sessions.save(session)
        if not await hub.sessions.committed():
            _put_back(connection, session, before)
            codes = [REFUSED] * len(codes)
        if connection.closed:
            return
    _update_rights(connection, session)
    connection.answer(encode.suback(packet_id, codes))
    for (topic_filter, _), code in zip(filters, codes, strict=True):
        if code == REFUSED:
            hub.count("refused_subscriptions")
            hub.log.note("subscription", connection.address, "%s may not subscribe to %r", connection, topic_filter)
        elif not connection.closed:
            _start(connection, session, topic_filter, code, is_new=before.get(topic_filter) != code)
    hub.plain.pump(session)


async def _grant(connection: Peer, session: Session, topic_filter: str, qos: int) -> int:
    """The return code for one filter: its granted QoS, or `REFUSED`."""
    hub = connection.hub
    if topic_filter not in session.filters and len(session.filters) >= hub.limits.max_subscriptions:
        return REFUSED
    claim = hub.access.claim(topic_filter, connection.user, connection.device)
    if claim is Claim.OWN:
        return min(qos, 1) if hub.access.is_down(topic_filter, connection.user, connection.device) else qos
    if claim is Claim.PRESENCE:
        other = hub.topics.presence_of(topic_filter)
        assert other is not None
        return qos if await hub.handler.may_watch(connection.user, other) else REFUSED
    if claim is Claim.PLAIN and await hub.plugins.may_subscribe(connection, topic_filter):
        return qos
    return REFUSED


def _add(connection: Peer, session: Session, topic_filter: str, qos: int) -> None:
    plain = connection.hub.plain
    if plain.is_plain(topic_filter):
        plain.subscribe(session, topic_filter, qos)
        session.plain += topic_filter not in session.filters
    session.filters[topic_filter] = qos


def _put_back(connection: Peer, session: Session, filters: dict[str, int]) -> None:
    """The disk did not take the new filters: neither does memory."""
    plain = connection.hub.plain
    plain.unsubscribe_all(session)
    session.filters = filters
    plain.subscribe_all(session)


def _update_rights(connection: Peer, session: Session) -> Rights:
    """Work out anew what the session's filters yield under the prefix; returns what they yielded before."""
    before = session.rights or Rights()
    if connection.device:
        rights = connection.hub.access.rights(session.filters, connection.user, connection.device)
        session.rights = rights
        connection.user_qos, connection.device_qos = rights.user_qos, rights.device_qos
    return before


def _start(connection: Peer, session: Session, topic_filter: str, qos: int, *, is_new: bool) -> None:
    """Tell who feeds this filter that it was granted."""
    hub = connection.hub
    if hub.plain.is_plain(topic_filter):
        hub.plain.want_retained(session, topic_filter, qos)
        hub.plugins.subscribed(connection, topic_filter, qos)
        return
    if is_new and hub.access.is_down(topic_filter, connection.user, connection.device):
        hub.handler.subscribe(connection, topic_filter)
    # Presence is retained, and retained messages come again with each SUBSCRIBE (MQTT-3.8.4-3).
    for other in hub.access.rights({topic_filter: qos}, connection.user, connection.device).watched:
        if session.rights is not None and not connection.closed:
            hub.handler.watch(connection, other, min(session.rights.watched[other], 1))


async def unsubscribe(connection: Peer, packet_id: int, filters: list[str]) -> None:
    """Take filters away and answer, with UNSUBACK even where none was there (MQTT-3.10.4-5)."""
    hub, session = connection.hub, connection.mqtt_session
    assert session is not None
    gone = [topic_filter for topic_filter in dict.fromkeys(filters) if session.filters.pop(topic_filter, None) is not None]
    for topic_filter in gone:
        if hub.plain.is_plain(topic_filter):
            hub.plain.unsubscribe(session, topic_filter)
            session.plain -= 1
            hub.plugins.unsubscribed(connection, topic_filter)
    before = _update_rights(connection, session)
    if session.kept and gone:
        hub.sessions.save(session)
        await hub.sessions.committed()
        if connection.closed:
            return
    connection.answer(encode.short(_UNSUBACK, packet_id))
    if not connection.device or not gone or session.rights is None:
        return
    if connection.user_qos < before.user_qos or connection.device_qos < before.device_qos:
        hub.handler.unsubscribed(connection)
    for other in before.watched.keys() - session.rights.watched.keys():
        if not connection.closed:
            hub.handler.unwatch(connection, other)
