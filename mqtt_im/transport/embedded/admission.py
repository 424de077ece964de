"""CONNECT: who is it, may it come in, and which session is its own; and the way out.

Nothing of anybody's session is touched before the login has succeeded. A device's connection takes over from the one
before by its identity, and begins only when everything that one had handed in has its answer.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final

from mqtt_im.core import costs
from mqtt_im.mqtt import V5, reasons
from mqtt_im.mqtt import properties as props
from mqtt_im.mqtt.encode import IDENTIFIER_REJECTED, SERVER_UNAVAILABLE
from mqtt_im.mqtt.packets import Connect, Will
from mqtt_im.transport.api import Identity, Login, LoginRefused
from mqtt_im.transport.embedded import asking, tls
from mqtt_im.transport.embedded.farewells import CONNACKS
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.peer import Peer
from mqtt_im.transport.embedded.sessions.message import PlainMessage
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from mqtt_im.transport.embedded.sessions.session import Key, Session, is_nameless
from mqtt_im.transport.embedded.sessions.sharing import Group

if TYPE_CHECKING:
    from mqtt_im.transport.embedded.sessions.claiming import Claim

MAX_CLIENT_ID_BYTES: Final = 256
"""A device and its user have 129 at most; sessions of plain clients are kept, and looked for, by their names."""


async def admit(connection: Peer, connect: Connect) -> None:
    """Answer a CONNECT. Afterwards the connection is attached to its session, or closed."""
    hub = connection.hub
    if _is_refused_unseen(connection, connect):
        return
    assigned = "" if connect.client_id or connect.version != V5 else f"~{secrets.token_hex(12)}"  # MQTT5-3.1.3-6, -7
    client_id = connect.client_id or assigned
    identity = await _identify(connection, connect, client_id)
    if identity is None or _gone(connection):
        return
    connection.user, connection.device = identity.user or "", identity.device or ""
    connection.lease = identity.lease
    expiry = _expiry(hub, connect)
    key = hub.key(identity, client_id)
    async with hub.turn(key):
        if _gone(connection):
            return
        if (old := hub.live.get(key)) is not None:
            old.end("taken_over")
        # Whoever takes over leaves its own place first, so a full house refuses others alone.
        if reason := hub.has_no_room(key):
            code = reasons.BUSY if reason == "max_connections" else reasons.QUOTA
            connection.turn_down(SERVER_UNAVAILABLE, code, reason, text="too many connections")
            return
        # From here on it counts, so that many that come at once cannot be more than may be.
        connection.key = key
        hub.enter(connection)
        if connection.device:
            await hub.handler.quiesced(connection.user, connection.device)
        try:
            claim = await _claim(connection, key, connect.clean)
            if _gone(connection):
                return
            session, resumed = await _session(connection, key, connect.clean, expiry)
            if hub.wills.keep(key, connection.device, connect.will, expiry):
                await hub.sessions.committed()  # another node fires it, if this one dies
        except StoreFailed as failure:
            hub.log.note("session_store", connection.address, "no session for %s: %s", connection, failure)
            connection.turn_down(SERVER_UNAVAILABLE, reasons.UNAVAILABLE, "session_store", text="no session can be kept now")
            return
        finally:
            if hub.claims is not None:
                hub.claims.settle(key)
        connection.clean = not session.expiry
        if claim is not None and claim.lost:
            connection.end("taken_over")
        if _gone(connection):
            hub.wills.forget(key)
            hub.sessions.rest(session)
            return
        hub.wills.cancel(key)
        connection.will = connect.will
        hub.live[key] = connection
        cap = hub.limits.max_keepalive_s
        capped = connect.version == V5 and cap > 0 and not 0 < connect.keep_alive <= cap
        connection.keep_alive(cap if capped else connect.keep_alive)
        connection.attach(session, resumed, connect, assigned, cap if capped else None)
        hub.tell("logged in", connection, listener=connection.listener, protocol=connection.protocol)
    if not _gone(connection):
        _begin(connection, session)


async def _claim(connection: Peer, key: Key, clean: bool) -> Claim | None:
    """The client is this node's, or the connection has ended; None where there is no other node. Raises `StoreFailed`."""
    claims = connection.hub.claims
    if claims is None or is_nameless(key[1]):
        return None
    claim = await claims.claim(key, clean=clean, gone=partial(_gone, connection))
    if claim.lost:
        connection.end("taken_over")
    elif claim.moved:
        connection.hub.handler.moved(connection.user or "", connection.device or "")
    return claim


def _is_refused_unseen(connection: Peer, connect: Connect) -> bool:
    """Refuse what needs no look at who it is; returns whether that was done."""
    hub = connection.hub
    if connection.turned_away:
        if connection.version != V5:
            hub.count("connects_refused", reason=connection.turned_away)
            connection.end("refused")
            return True
        text = "too many connects; come back in a while"
        connection.turn_down(SERVER_UNAVAILABLE, reasons.CONNECTION_RATE, connection.turned_away, text=text, told=True)
    elif len(connect.client_id.encode()) > MAX_CLIENT_ID_BYTES:
        text = f"a client id has at most {MAX_CLIENT_ID_BYTES} bytes"
        connection.turn_down(IDENTIFIER_REJECTED, reasons.IDENTIFIER_NOT_VALID, "identifier", text=text)
    elif not connect.client_id and not connect.clean and connect.version != V5:
        connection.turn_down(IDENTIFIER_REJECTED, reasons.IDENTIFIER_NOT_VALID, "identifier")  # MQTT-3.1.3-8
    elif props.AUTHENTICATION_METHOD in connect.properties:
        text = "there is no enhanced authentication here; send username and password"
        connection.turn_down(SERVER_UNAVAILABLE, reasons.BAD_METHOD, "auth_method", text=text)  # MQTT5-4.12.0-1
    else:
        return False
    return True


def _expiry(hub: Hub, connect: Connect) -> int:
    """How long the session is kept without its client, in seconds; 3.1.1 has only "not" and "as long as may be"."""
    longest = hub.limits.session_expiry_s
    if connect.version != V5:
        return 0 if connect.clean else longest
    return min(int(connect.properties.get(props.SESSION_EXPIRY, 0)), longest)


def _gone(connection: Peer) -> bool:
    """Whether the connection has ended, which every `await` gives it time for."""
    return connection.closed


async def _identify(connection: Peer, connect: Connect, client_id: str) -> Identity | None:
    hub = connection.hub
    certificate_user = tls.certificate_user(connection.transport)
    login = Login(client_id, connect.username, connect.password, connection.address, certificate_user)
    try:
        identity = await _login(connection, login)
        if identity.user:
            await _pay(connection, identity.user)
        if not await hub.plugins.authenticate(login):
            raise LoginRefused(5, "a plugin refused it")
    except LoginRefused as refused:
        if not _gone(connection):
            code5 = reasons.BUSY if refused.busy else CONNACKS.get(refused.code, reasons.UNSPECIFIED)
            connection.turn_down(refused.code, code5, f"connack_{refused.code}", text=refused.reason, told=True)
        return None
    except Exception:  # noqa: BLE001 - whatever goes wrong with one login is that client's trouble only
        hub.failed(f"the login of {connection.address}")
        connection.turn_down(SERVER_UNAVAILABLE, reasons.UNAVAILABLE, "internal_error")
        return None
    return identity


async def _login(connection: Peer, login: Login) -> Identity:
    """Who this is; cancelled when the connection ends, since a login may wait long for its turn and costs much."""
    connection.login = asyncio.current_task()
    try:
        return await connection.hub.handler.login(login)
    finally:
        connection.login = None


async def _pay(connection: Peer, user: str) -> None:
    """The user has paid for the login; cancelled as above. Raises `LoginRefused` where too many wait for that."""
    connection.login = asyncio.current_task()
    try:
        has_paid = await connection.hub.pay_login(user)
    finally:
        connection.login = None
    if not has_paid:
        raise LoginRefused(SERVER_UNAVAILABLE, "you log in too often; try again in a while", busy=True)


async def _session(connection: Peer, key: Key, clean: bool, expiry: int) -> tuple[Session, bool]:
    """The client's session, and whether it is a kept one that goes on (MQTT-3.2.2-1 to -3, MQTT5-3.1.2-4 to -6).

    Raises `StoreFailed` where what CONNACK would say of it could not be so after a crash.
    """
    hub = connection.hub
    found = await hub.sessions.find(key)
    if found is not None and not clean:
        hub.sessions.resume(found, expiry)
        return found, True
    hub.wills.publish(key)  # the session ends, or there is none (MQTT5-3.1.3.2.2)
    if found is not None:
        hub.sessions.discard(found)
    if connection.device and (clean or not expiry):
        hub.handler.session_ended(connection.user, connection.device)
    if expiry:
        await hub.sessions.make_room(key[0])
    return await hub.sessions.begin_on_disk(key, expiry, found), False


def _begin(connection: Peer, session: Session) -> None:
    """Start what a session that goes on has to send, right behind CONNACK."""
    hub = connection.hub
    if connection.device:
        hub.handler.attached(connection)
        if session.rights is not None:
            for other, qos in list(session.rights.watched.items()):
                if not _gone(connection):
                    hub.handler.watch(connection, other, min(qos, 1))
    asking.resume(connection, session)
    if hub.plain.abroad is not None and session.plain:
        if session.kept:
            hub.plain.abroad.look([session.id])
        hub.background(hub.plain.abroad.interests.confirm())
    hub.plugins.connected(connection)


def leave(connection: Peer) -> None:
    """A connection has ended: take it out of the shared state, tell the bridge, see to its will unless it said goodbye."""
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
    hub.wills.forget(key)
    will, connection.will = connection.will, None
    if will is None:
        return
    delay = min(will.delay, session.expiry) if session.kept else 0
    if delay:
        hub.wills.delay(key, connection.device, will, delay)
    else:
        fire(hub, key, connection.device, will)


def fire(hub: Hub, key: Key, device: str, will: Will) -> None:
    """Publish a will, which follows the publish rules."""
    user = key[0]
    if device and will.topic == hub.topics.up(user, device):
        hub.handler.will(user, device, will.payload, will.expiry)
    elif hub.access.may_publish(will.topic):
        message = PlainMessage(
            will.topic, will.payload, will.qos, will.retain, will.handed_on, hub.ground.expires_at(will.expiry)
        )
        if hub.plugins.filter_topics:
            hub.background(_filtered_will(hub, user, key, message))
        else:
            _publish(hub, user, message)
    else:
        hub.count("forbidden_publishes")
        where = (user or "nobody", key[1], will.topic)
        hub.log.note("will", "", "the will of %s/%s is dropped: it may not publish to %.200r", *where)


async def _filtered_will(hub: Hub, user: str, key: Key, message: PlainMessage) -> None:
    try:
        may = await hub.plugins.may_publish(user, key, message.topic)
        targets = await hub.plugins.who_may_receive(hub.plain.subscribers(message.topic), message.topic) if may else None
    except Exception:  # noqa: BLE001 - whatever a plugin does
        hub.failed(f"asking for the will of {user or 'nobody'}/{key[1]}")
        return
    if targets is not None:
        _publish(hub, user, message, targets)


def _publish(hub: Hub, user: str, message: PlainMessage, targets: dict[Session | Group, list[int]] | None = None) -> None:
    """Publish a plain will; the user's next login, and what follows it, pays for that."""
    price = costs.of_plain(*hub.plain.publish(message, targets=targets), message.size)
    if user:
        hub.user(user).bucket.charge(price, hub.clock())
        hub.release_user(user)
