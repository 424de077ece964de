"""SUBSCRIBE and UNSUBSCRIBE: what is granted, what it yields, and who has to know."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from mqtt_im.core import costs
from mqtt_im.mqtt import V5, encode, reasons
from mqtt_im.mqtt.packets import NO_LOCAL, RETAIN_AS_PUBLISHED
from mqtt_im.pacing import Relay
from mqtt_im.transport.api import REFUSED
from mqtt_im.transport.embedded import asking
from mqtt_im.transport.embedded.peer import Peer
from mqtt_im.transport.embedded.sessions.access import Claim, Rights
from mqtt_im.transport.embedded.sessions.session import IDENTIFIER_SHIFT, Session

if TYPE_CHECKING:
    from mqtt_im.transport.embedded.sessions.abroad import Abroad

_UNSUBACK: Final = 0xB0
MAX_FILTER_BYTES: Final = 256 * 1024
"""Of all filters of one session: they stay in memory, and are written with each change."""
MAX_SHARED: Final = 1_000
"""Characters of a shared subscription where there may be other nodes, which all know it."""
_FEW: Final = 100
"""Filters that are handled at once …"""
_LOOKS: Final = 10
"""… as which each counts once more for so many retained messages that it may match."""
_TURN_S: Final = 0.003
_ALWAYS, _IF_NEW = 0, 1
"""Retain Handling (MQTT5-3.3.1-9 to -11)."""


def waits(connection: Peer, filters: list[tuple[str, int]]) -> bool:
    """Whether subscribing to these has to wait: for the disk, for a plugin, for who may watch whom, or for others' turns."""
    hub, session = connection.hub, connection.own_session
    return (
        session.kept
        or _abroad(connection, filters) is not None
        or _are_many(connection, len(filters))
        or hub.plugins.filter_topics
        or any(
            hub.access.is_down(name, connection.user, connection.device)
            or hub.access.claim(name, connection.user, connection.device) is Claim.PRESENCE
            for name, _ in filters
        )
    )


def _abroad(connection: Peer, filters: list[tuple[str, int]]) -> Abroad | None:
    """The other nodes, where there may be some and they have to know of one of these filters."""
    plain = connection.hub.plain
    return plain.abroad if any(plain.is_plain(topic_filter) for topic_filter, _ in filters) else None


def _are_many(connection: Peer, filters: int) -> bool:
    """Whether so many filters are more than one turn of the loop has time for."""
    return filters * (1 + len(connection.hub.plain.retained.messages) // _LOOKS) > _FEW


def pay(connection: Peer, filters: list[str]) -> None:
    """Have the user pay for a SUBSCRIBE or UNSUBSCRIBE by what it costs: each filter, each look at who may see whom."""
    hub = connection.hub
    presences = sum(hub.topics.presence_of(topic_filter) is not None for topic_filter in filters)
    kept = len(connection.own_session.filters)
    connection.charge(costs.of_subscriptions(len(filters), presences, kept) - 1)


async def subscribe(connection: Peer, packet_id: int, filters: list[tuple[str, int]], identifier: int) -> None:
    """Grant what may be granted, answer, and start what was subscribed. A kept session's filters are on disk before SUBACK."""
    hub, session = connection.hub, connection.mqtt_session
    assert session is not None
    abroad = _abroad(connection, filters)
    if abroad is not None:
        await abroad.caught_up()  # what was published before is not taken for what comes after
    before = dict(session.filters)
    turn = _Turn(hub.relay, many=_are_many(connection, len(filters)))
    taken = sum(map(len, before))
    codes: list[int] = []
    for topic_filter, options in filters:
        await turn.ends()
        code = await _grant(connection, session, topic_filter, options & 3, taken)
        codes.append(code)
        taken += len(topic_filter) if code < REFUSED and topic_filter not in session.filters else 0
        if code < REFUSED and session.connection is connection:
            kept = code | options & (NO_LOCAL | RETAIN_AS_PUBLISHED) | identifier << IDENTIFIER_SHIFT
            _add(connection, session, topic_filter, kept)
    if session.connection is not connection:
        return
    if not await _kept(connection, session, before, abroad):
        codes = [REFUSED] * len(codes)
    if abroad is not None:
        await abroad.interests.confirm()
    if connection.closed or session.connection is not connection:
        return
    _update_rights(connection, session)
    codes = await _registered(connection, session, filters, codes)
    if connection.closed or session.connection is not connection:
        return
    if connection.version == V5:
        connection.answer(encode.suback5(packet_id, codes))
    else:
        connection.answer(encode.suback(packet_id, [min(code, REFUSED) for code in codes]))
    for (topic_filter, options), code in zip(filters, codes, strict=True):
        await turn.ends()
        if code >= REFUSED:
            hub.count("refused_subscriptions")
            hub.log.note("subscription", connection.address, "%s may not subscribe to %.200r", connection, topic_filter)
        elif not connection.closed:
            is_new = topic_filter not in before
            handling = options >> 4
            wants = handling == _ALWAYS or (handling == _IF_NEW and is_new)
            changed = before.get(topic_filter, REFUSED) & 3 != code or is_new
            await _start(connection, session, topic_filter, code, turn, changed=changed, wants_retained=wants)
    hub.plain.streams.pump(session)


async def _kept(connection: Peer, session: Session, before: dict[str, int], abroad: Abroad | None) -> bool:
    """The filters of a session that is kept are on disk; False where they could not be written, and are as they were."""
    sessions = connection.hub.sessions
    if session.kept and session.filters != before:
        sessions.save(session)
        if not await sessions.committed():
            _put_back(connection, session, before)
            return False
        if abroad is not None:
            await abroad.tell_kept(session)
    return True


async def _registered(connection: Peer, session: Session, filters: list[tuple[str, int]], codes: list[int]) -> list[int]:
    """The codes when the device, where a down topic is granted, is registered; where it may not be, such filters are refused.

    Who has SUBACK may rely on the registration, whichever server the next message comes to.
    """
    hub = connection.hub
    down = {
        name
        for (name, _), code in zip(filters, codes, strict=True)
        if code < REFUSED and hub.access.is_down(name, connection.user, connection.device)
    }
    if not down or await hub.handler.register(connection) or session.connection is not connection:
        return codes
    for topic_filter in down:
        session.filters.pop(topic_filter, None)
    _update_rights(connection, session)
    if session.kept:
        hub.sessions.save(session)
        await hub.sessions.committed()
    return [reasons.QUOTA if name in down else code for (name, _), code in zip(filters, codes, strict=True)]


class _Turn:
    """Ends the turn of the loop where that is due, in the middle of many filters, and begins when no other connection has one."""

    def __init__(self, relay: Relay, *, many: bool) -> None:
        self._relay = relay
        self._many = many
        self._end = 0.0

    async def ends(self) -> None:
        """The next step may be done."""
        if self._many and perf_counter() > self._end:
            self._end = await self._relay.turn(_TURN_S)


async def _grant(connection: Peer, session: Session, topic_filter: str, qos: int, taken: int) -> int:
    """The code for one filter: its granted QoS, or why it is refused (from `REFUSED` on; 3.1.1 knows only that).

    `taken`: the bytes of the filters that the session has.
    """
    hub = connection.hub
    is_new = topic_filter not in session.filters
    if is_new and (len(session.filters) >= hub.limits.max_subscriptions or taken + len(topic_filter) > MAX_FILTER_BYTES):
        return reasons.QUOTA
    claim = hub.access.claim(topic_filter, connection.user, connection.device)
    if topic_filter.startswith("$share/") and connection.version != V5:
        return REFUSED  # 3.1.1 knows no shared subscriptions
    if topic_filter.startswith("$share/") and hub.plain.abroad is not None and len(topic_filter) > MAX_SHARED:
        return reasons.QUOTA
    if claim is Claim.OWN:
        return min(qos, 1) if hub.access.is_down(topic_filter, connection.user, connection.device) else qos
    if claim is Claim.PRESENCE:
        other = hub.topics.presence_of(topic_filter)
        assert other is not None
        return qos if await hub.handler.may_watch(connection.user, other) else reasons.NOT_AUTHORISED
    if claim is Claim.PLAIN and is_new and not hub.plain.has_room(session, topic_filter):
        return reasons.QUOTA
    if claim is Claim.PLAIN and await hub.plugins.may_subscribe(connection, topic_filter):
        return qos
    return reasons.SHARED_NOT_SUPPORTED if claim is Claim.SHARED else reasons.NOT_AUTHORISED


def _add(connection: Peer, session: Session, topic_filter: str, options: int) -> None:
    plain = connection.hub.plain
    if plain.is_plain(topic_filter):
        plain.subscribe(session, topic_filter, options)
        session.plain += topic_filter not in session.filters
    session.filters[topic_filter] = options


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
    connection.filters_changed()
    return before


async def _start(
    connection: Peer, session: Session, topic_filter: str, qos: int, turn: _Turn, *, changed: bool, wants_retained: bool
) -> None:
    """Tell who feeds this filter that it was granted."""
    hub = connection.hub
    if hub.plain.is_plain(topic_filter):
        if wants_retained and not topic_filter.startswith("$share/"):  # MQTT5-4.8.2
            await asking.want_retained(connection, session, topic_filter, turn.ends)
        hub.plugins.subscribed(connection, topic_filter, qos)
        return
    if changed and hub.access.is_down(topic_filter, connection.user, connection.device):
        hub.handler.subscribe(connection, topic_filter)
    # Presence is retained, and retained messages come again with each SUBSCRIBE (MQTT-3.8.4-3).
    for other in hub.access.rights({topic_filter: qos}, connection.user, connection.device).watched:
        if session.rights is not None and not connection.closed:
            hub.handler.watch(connection, other, min(session.rights.watched[other], 1), wants_retained)


async def unsubscribe(connection: Peer, packet_id: int, filters: list[str]) -> None:
    """Take filters away and answer, with UNSUBACK even where none was there (MQTT-3.10.4-5)."""
    hub, session = connection.hub, connection.mqtt_session
    assert session is not None
    codes: list[int] = []
    gone: list[str] = []
    for topic_filter in filters:
        found = session.filters.pop(topic_filter, None) is not None
        codes.append(reasons.SUCCESS if found else reasons.NO_SUBSCRIPTION)
        if found:
            gone.append(topic_filter)
    for topic_filter in gone:
        if hub.plain.is_plain(topic_filter):
            hub.plain.unsubscribe(session, topic_filter)
            session.plain -= 1
            hub.plugins.unsubscribed(connection, topic_filter)
    before = _update_rights(connection, session)
    if session.kept and gone:
        hub.sessions.save(session)
        if await hub.sessions.committed() and hub.plain.abroad is not None:
            await hub.plain.abroad.tell_kept(session)
        if connection.closed:
            return
    if connection.version == V5:
        connection.answer(encode.suback5(packet_id, codes, unsuback=True))
    else:
        connection.answer(encode.short(_UNSUBACK, packet_id))
    if not connection.device or not gone or session.rights is None:
        return
    if connection.user_qos < before.user_qos or connection.device_qos < before.device_qos:
        hub.handler.unsubscribed(connection)
    for other in before.watched.keys() - session.rights.watched.keys():
        if not connection.closed:
            hub.handler.unwatch(connection, other)
