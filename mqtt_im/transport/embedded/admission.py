"""CONNECT: who is it, may it come in, and which session is its own; and the way out.

Nothing of anybody's session is touched before the login has succeeded. A device's connection takes over from the one
before by its identity, and begins only when everything that one had handed in has its answer.
"""

from __future__ import annotations

import asyncio

from mqtt_im.mqtt.encode import IDENTIFIER_REJECTED, SERVER_UNAVAILABLE, connack
from mqtt_im.mqtt.packets import Connect
from mqtt_im.transport.api import Identity, Login, LoginRefused
from mqtt_im.transport.embedded import tls
from mqtt_im.transport.embedded.peer import Peer
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from mqtt_im.transport.embedded.sessions.plain import PlainMessage
from mqtt_im.transport.embedded.sessions.session import Key, Session


async def admit(connection: Peer, connect: Connect) -> None:
    """Answer a CONNECT. Afterwards the connection is attached to its session, or closed."""
    hub = connection.hub
    if not connect.client_id and not connect.clean:
        connection.refuse(connack(IDENTIFIER_REJECTED), "identifier")  # MQTT-3.1.3-8
        return
    identity = await _identify(connection, connect)
    if identity is None or _gone(connection):
        return
    connection.user, connection.device = identity.user or "", identity.device or ""
    connection.lease = identity.lease
    connection.clean = connect.clean
    key = hub.key(identity, connect.client_id)
    async with hub.turn(key):
        if _gone(connection):
            return
        if (old := hub.live.get(key)) is not None:
            old.end("taken_over")
        # Whoever takes over leaves its own place first, so a full house refuses others alone.
        if reason := hub.has_no_room(connection.user):
            connection.refuse(connack(SERVER_UNAVAILABLE), reason)
            return
        # From here on it counts, so that many that come at once cannot be more than may be.
        connection.key = key
        hub.enter(connection)
        if connection.device:
            await hub.handler.quiesced(connection.user, connection.device)
        try:
            session, resumed = await _session(connection, key, connect.clean)
        except StoreFailed as failure:
            hub.log.note("session_store", connection.address, "no session for %s: %s", connection, failure)
            connection.refuse(connack(SERVER_UNAVAILABLE), "session_store")
            return
        if _gone(connection):
            hub.sessions.rest(session)
            return
        connection.will = connect.will
        hub.live[key] = connection
        connection.keep_alive(connect.keep_alive)
        connection.attach(session, resumed)
        hub.tell("logged in", connection, listener=connection.listener)
    _begin(connection, session)


def _gone(connection: Peer) -> bool:
    """Whether the connection has ended, which every `await` gives it time for."""
    return connection.closed


async def _identify(connection: Peer, connect: Connect) -> Identity | None:
    hub = connection.hub
    certificate_user = tls.certificate_user(connection.transport)
    login = Login(connect.client_id, connect.username, connect.password, connection.address, certificate_user)
    try:
        identity = await _login(connection, login)
        if not await hub.plugins.authenticate(login):
            raise LoginRefused(5, "a plugin refused it")
    except LoginRefused as refused:
        if not _gone(connection):
            connection.refuse(connack(refused.code), f"connack_{refused.code}", told=True)
        return None
    except Exception:  # noqa: BLE001 - whatever goes wrong with one login is that client's trouble only
        hub.failed(f"the login of {connection.address}")
        connection.refuse(connack(SERVER_UNAVAILABLE), "internal_error")
        return None
    return identity


async def _login(connection: Peer, login: Login) -> Identity:
    """Who this is; cancelled when the connection ends, since a login may wait long for its turn and costs much."""
    connection.login = asyncio.current_task()
    try:
        return await connection.hub.handler.login(login)
    finally:
        connection.login = None


async def _session(connection: Peer, key: Key, clean: bool) -> tuple[Session, bool]:
    """The client's session, and whether it is a kept one that goes on (MQTT-3.2.2-1 to -3).

    Raises `StoreFailed` where what CONNACK would say of it could not be so after a crash.
    """
    hub = connection.hub
    found = await hub.sessions.find(key)
    if found is not None and not clean:
        return found, True
    if found is not None:
        hub.sessions.discard(found)
    if connection.device and clean:
        hub.handler.session_ended(connection.user, connection.device)
    if not clean:
        await hub.sessions.make_room(key[0])
    session = hub.sessions.begin(key, kept=not clean)
    if (found is not None or not clean) and not await hub.sessions.committed():
        hub.sessions.discard(session)
        raise StoreFailed("it could not be written")
    return session, False


def _begin(connection: Peer, session: Session) -> None:
    """Start what a session that goes on has to send, right behind CONNACK."""
    hub = connection.hub
    if connection.device:
        hub.handler.attached(connection)
        if session.rights is not None:
            for other, qos in list(session.rights.watched.items()):
                if not _gone(connection):
                    hub.handler.watch(connection, other, min(qos, 1))
    hub.plain.resume(session)
    hub.plugins.connected(connection)


def leave(connection: Peer) -> None:
    """A connection has ended: take it out of the shared state, tell the bridge, fire its will unless it said goodbye."""
    hub, session, key = connection.hub, connection.mqtt_session, connection.key
    if key is None:
        return
    hub.leave(connection)
    if session is None:
        return
    if hub.live.get(key) is connection:
        del hub.live[key]
    if session.connection is connection:
        hub.sessions.rest(session)
    if connection.device:
        hub.handler.detached(connection)
    hub.plugins.disconnected(connection)
    will, connection.will = connection.will, None
    if will is None:
        return
    if connection.device and will.topic == hub.topics.up(connection.user, connection.device):
        hub.handler.will(connection.user, connection.device, will.payload)
    elif hub.access.may_publish(will.topic):
        message = PlainMessage(will.topic, will.payload, will.qos, will.retain)
        if hub.plugins.filter_topics:
            hub.background(_filtered_will(connection, message))
        else:
            hub.plain.publish(message)
    else:
        hub.count("forbidden_publishes")
        hub.log.note("will", connection.address, "the will of %s is dropped: it may not publish to %r", connection, will.topic)


async def _filtered_will(connection: Peer, message: PlainMessage) -> None:
    hub = connection.hub
    if await hub.plugins.may_publish(connection, message.topic):
        hub.plain.publish(message, targets=await hub.plugins.who_may_receive(hub.plain.subscribers(message.topic), message.topic))
