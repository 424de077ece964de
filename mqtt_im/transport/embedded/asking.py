"""What topic plugins say where something is handed out that was let through before: in a kept session, or by a retained message.

A right that was there when a filter was granted or a message routed must be there still when its client gets something by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from mqtt_im.core import costs
from mqtt_im.mqtt.topics import matches, split_share
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.peer import Peer
from mqtt_im.transport.embedded.sessions.message import PlainMessage
from mqtt_im.transport.embedded.sessions.session import Session
from mqtt_im.transport.embedded.sessions.sharing import Group

_AT_ONCE: Final = 100
"""Places in the tree of retained topics that are looked at before the turn of the loop may end."""


def resume(connection: Peer, session: Session) -> None:
    """Go on with the plain messages of a session, where plugins have a say once they were asked; until then all of them wait."""
    hub = connection.hub
    if hub.plugins.filter_topics and (session.plain or session.outbox is not None):
        session.asking = connection
        hub.background(_ask_again(connection, session))
    else:
        hub.plain.streams.resume(session)


async def _ask_again(connection: Peer, session: Session) -> None:
    """Each filter and each topic is asked of once; where a plugin fails, the connection ends and nothing is gone."""
    hub = connection.hub
    try:
        closed = await _closed_filters(connection, session)
        refused = set()
        for topic in session.outbox.topics() if session.outbox is not None else ():
            name = topic.decode()
            if session.asking is not connection:
                return
            may = await hub.plugins.may_receive(session, name)
            if not may or (_comes_by(closed, name) and not _comes_by(session.filters, name)):
                refused.add(name)
    except Exception:  # noqa: BLE001 - as with packets: it costs one connection
        hub.failed(f"asking what {connection} may have")
        connection.end("internal_error")
        return
    if session.asking is not connection:
        return
    session.asking = None
    hub.plain.streams.withdraw(session, refused.__contains__)
    hub.plain.streams.resume(session)


async def _closed_filters(connection: Peer, session: Session) -> list[str]:
    """Take away the plain filters that would not be granted any more; returns them."""
    hub = connection.hub
    closed = [
        topic_filter
        for topic_filter in list(session.filters)
        if hub.plain.is_plain(topic_filter) and not await hub.plugins.may_subscribe(connection, topic_filter)
    ]
    if session.asking is not connection:
        return []
    for topic_filter in closed:
        if session.filters.pop(topic_filter, None) is not None:
            hub.plain.unsubscribe(session, topic_filter)
            session.plain -= 1
            hub.count("refused_subscriptions")
            hub.log.note("subscription", connection.address, "%s may not subscribe to %.200r any more", connection, topic_filter)
    if closed:
        connection.filters_changed()
        hub.sessions.save(session)
    return closed


def _comes_by(filters: list[str] | dict[str, int], topic: str) -> bool:
    return any(matches(split_share(topic_filter)[1], topic) for topic_filter in filters)


async def want_retained(connection: Peer, session: Session, topic_filter: str, ends: Callable[[], Awaitable[None]]) -> None:
    """Have what is retained for a filter that was just granted sent, as far as the client may have it.

    `ends` the turn of the loop where that is due: to find it may take long, and what is retained may change meanwhile.
    """
    hub, options = connection.hub, session.filters.get(topic_filter, 0)
    topics: list[str] = []
    looked = found = 0
    for topic in hub.plain.retained.walk(topic_filter):
        looked += 1
        if topic is not None:
            found += 1
            if hub.plugins.filter_topics:
                topics.append(topic)
            else:
                hub.plain.streams.want(session, topic, options)
        if not looked % _AT_ONCE:
            await ends()
            if session.connection is not connection:
                return
    connection.charge(costs.of_audience(found) + costs.of_looks(looked))
    for topic in topics:
        may = await hub.plugins.may_receive(session, topic)
        if session.connection is not connection:
            return
        if may and topic_filter in session.filters:
            hub.plain.streams.want(session, topic, options)


def share(hub: Hub, message: PlainMessage, group: Group) -> None:
    """Hand a message to a member of the group who may have it, if there is one."""
    hub.background(_share(hub, message, group))


async def _share(hub: Hub, message: PlainMessage, group: Group) -> None:
    try:
        targets = await hub.plugins.who_may_receive({group: []}, message.topic)
    except Exception:  # noqa: BLE001 - whatever a plugin does
        hub.failed("asking who may have a shared message")
        return
    hub.plain.publish(message, targets=targets)
