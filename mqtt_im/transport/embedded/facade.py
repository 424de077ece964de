"""The embedded broker as the rest of the program sees it: `EmbeddedTransport`, a `transport.api.Transport`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amqtt.contexts import ListenerType

from mqtt_im.clock import Clock
from mqtt_im.cluster import Neighbours
from mqtt_im.config import LimitsConfig, MqttConfig, TlsConfig, WebsocketConfig
from mqtt_im.config.addresses import Address, parse_bind
from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.protocol.errors import MqttImError
from mqtt_im.protocol.topics import Topics
from mqtt_im.transport.api import Handler, Link
from mqtt_im.transport.embedded import asking, guests, tls
from mqtt_im.transport.embedded.admission import fire
from mqtt_im.transport.embedded.broker import EmbeddedBroker, Listener
from mqtt_im.transport.embedded.connection import Connection
from mqtt_im.transport.embedded.entrance import Entrance
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.limits import Count
from mqtt_im.transport.embedded.places import Places
from mqtt_im.transport.embedded.plugins import Plugins
from mqtt_im.transport.embedded.sessions.access import PlainTopics
from mqtt_im.transport.embedded.sessions.ground import log
from mqtt_im.transport.embedded.sessions.persistence import Persistence, StoreFailed
from mqtt_im.transport.embedded.sessions.session import Key, Session
from mqtt_im.transport.embedded.spending import Spending
from mqtt_im.transport.embedded.websocket import WebSocket
from mqtt_im.transport.guest import Guest

if TYPE_CHECKING:
    from mqtt_im.postgres.connecting import Database

FILE: Final = "broker.db"
SENT_ON: Final = 0.6
"""This part of the time for a drain is spent on sending clients to other nodes."""
PIECE_S: Final = 0.1
ANSWERS_S: Final = 1.0


class EmbeddedTransport:
    """MQTT over TCP, TLS and WebSocket, on amqtt. Made on the event loop that it is to run on."""

    def __init__(
        self,
        handler: Handler,
        mqtt: MqttConfig,
        websocket: WebsocketConfig,
        limits: LimitsConfig,
        data_dir: Path,
        count: Count,
        *,
        synchronous: str = "full",
        plugins: Mapping[str, Mapping[str, Any]] | None = None,
        trusted_proxies: Iterable[str] = (),
        clock: Clock | None = None,
        database: Database | None = None,
        neighbours: Neighbours | None = None,
        server_reference: str = "",
    ) -> None:
        """`count` adds to the counters of `mqtt_im.metrics`; `plugins` are amqtt's, by dotted name, with their options.

        `trusted_proxies`: who may say in `X-Forwarded-For` whose WebSocket it is. `clock` has been resumed by `start`.
        `database`: where sessions are kept, else in `data_dir`; `neighbours`: the other nodes on it,
        and `server_reference` where they are reached.
        """
        self._proxies = TrustedProxies(trusted_proxies)
        self._mqtt = mqtt
        self._websocket = websocket
        self._data_dir = data_dir
        self._synchronous = synchronous
        self._plugins = plugins or {}
        self._database = database
        self._plain_topics = mqtt.plain_topics
        self._neighbours = neighbours or Neighbours()
        self._server_reference = server_reference
        self._hub = Hub(handler, Topics(mqtt.prefix), mqtt.plain_topics, limits, count, clock or Clock())
        self._spending: Spending | None = None
        if not self._neighbours.alone:
            self._spending = Spending(self._hub, self._neighbours)
            self._hub.places = Places(self._hub.keys, self._neighbours)
        self._broker: EmbeddedBroker | None = None
        self._tls: ssl.SSLContext | None = None
        self.addresses: dict[str, tuple[str, int]] = {}
        """Where each listener (`mqtt`, `mqtts`, `websocket`) really listens, once it is started."""

    async def start(self) -> None:
        """Every listener accepts.

        Raises `OSError` where a port is taken or a file cannot be used, with the address or the name in its text, and
        `MqttImError` where a plugin cannot be used.
        """
        hub = self._hub
        with contextlib.ExitStack() as undo:
            listeners = self._listeners(undo)
            hub.ground.store = await self._open_store()
            try:
                store = hub.ground.store
                hub.plain.retained.restore(await store.look(store.retained))
                if hub.plain.abroad is not None:
                    await hub.plain.abroad.start()
                else:
                    for stored in await store.look(store.plain_sessions):
                        hub.sessions.restore(stored)
                broker = EmbeddedBroker(hub, listeners, self._plugins)
                hub.plugins = Plugins(broker, hub.background)
                if hub.plugins.filter_topics and hub.plain.abroad is not None:
                    raise MqttImError("start", "mqtt.plugins: plugins that filter topics do not work with store.url yet")
                hub.plain.retained.told = hub.plugins.retained
                if hub.plugins.filter_topics:
                    hub.plain.ask = partial(asking.share, hub)
                hub.wills.fire = partial(fire, hub)
                await hub.wills.start()
                hub.sessions.start()
                await broker.start()
            except BaseException:
                hub.wills.stop()
                hub.sessions.stop()
                await hub.ground.store.close()
                raise
            self._broker = broker
            if self._spending is not None:
                self._spending.start()
            undo.pop_all()
        self.addresses = {name: listener.socket.getsockname()[:2] for name, listener in listeners.items()}

    async def _open_store(self) -> Persistence:
        hub = self._hub
        if self._database is None:
            return Persistence(
                self._data_dir / FILE,
                hub.count,
                log,
                self._synchronous,
                longest_expiry=hub.limits.session_expiry_s,
                now=hub.ground.now,
            )
        from mqtt_im.transport.embedded.sessions.claiming import Claims
        from mqtt_im.transport.embedded.sessions.shared import SharedPersistence

        store = SharedPersistence(
            await asyncio.to_thread(SharedPersistence.tables, self._database),
            hub.count,
            log,
            lambda: self._neighbours.incarnation,
        )
        if self._mqtt.plain_topics:
            self._join_plain()
        hub.claims = Claims(store, self._neighbours, hub.release, hub.background)
        self._neighbours.on_left.append(lambda _: hub.background(self._adopt()))
        return store

    def _join_plain(self) -> None:
        """Plain topics are those of all nodes."""
        from mqtt_im.transport.embedded.sessions.abroad import Abroad

        hub = self._hub
        abroad = hub.plain.abroad = Abroad(hub.ground, self._neighbours)

        def at_home(key: Key) -> Session | None:
            session = hub.sessions.in_memory.get(key)
            return session if session is not None and session.connection is not None else None

        abroad.at_home, abroad.arrived = at_home, hub.plain.arrived
        abroad.take_in, abroad.share_in = hub.plain.take_in, hub.plain.share_in
        abroad.retained, abroad.broken = hub.plain.retained.differ, self._missed
        hub.plain.retained.written = abroad.retained_here

    def _missed(self) -> None:
        """What others have published may have been missed: sessions that nobody keeps end, as where a connection breaks."""
        for connection in list(self._hub.live.values()):
            session = connection.mqtt_session if isinstance(connection, Connection) else None
            owns = self._hub.topics.owns
            if session is not None and not session.kept and any(o & 3 and not owns(f) for f, o in session.filters.items()):
                connection.end("unavailable")

    async def _adopt(self) -> None:
        """What a dead node has left to be done for its clients is done."""
        try:
            await self._hub.wills.start()
        except StoreFailed as failure:
            self._hub.log.note("session_store", "", "wills of a node that has died cannot be read: %s", failure)

    def _listeners(self, undo: contextlib.ExitStack) -> dict[str, Listener]:
        listeners = dict[str, Listener]()
        if address := parse_bind(self._mqtt.bind):
            listeners["mqtt"] = Listener(_bind(address, undo), ListenerType.TCP, self._plain_connection)
        if address := parse_bind(self._mqtt.tls.bind):
            self._tls = tls.context(self._mqtt.tls)
            listeners["mqtts"] = Listener(_bind(address, undo), ListenerType.TCP, self._secure_connection)
        if address := parse_bind(self._websocket.bind):
            listeners["websocket"] = Listener(_bind(address, undo), ListenerType.WS, lambda: self.websocket("websocket"))
        return listeners

    def _plain_connection(self) -> asyncio.BaseProtocol:
        connection = Connection(self._hub, "mqtt")
        return Entrance(connection, None, proxied=True) if self._mqtt.proxy_protocol else connection

    def _secure_connection(self) -> asyncio.BaseProtocol:
        return Entrance(Connection(self._hub, "mqtts"), self._tls_context, proxied=self._mqtt.proxy_protocol)

    def _tls_context(self) -> ssl.SSLContext:
        assert self._tls is not None
        return self._tls

    def renewed(self, config: TlsConfig) -> Callable[[], None]:
        """Read the TLS files of `config`; what is returned makes handshakes use them from then on. Raises `OSError`."""
        made = tls.context(config) if self._tls is not None else None

        def swap() -> None:
            self._tls = made

        return swap

    def reopened(self, plain_topics: tuple[str, ...]) -> Callable[[], None]:
        """What is returned makes these the topics that are open as plain MQTT: nothing else is taken or handed out from then on.

        Subscriptions stay, and yield what is open. Raises `MqttImError` where that takes a restart.
        """
        hub = self._hub
        if plain_topics and self._database is not None and hub.plain.abroad is None:
            raise MqttImError("reload", "mqtt.plain_topics: where there were none, nodes open some with a restart")
        made = PlainTopics(hub.access.topics, plain_topics)

        def swap() -> None:
            if plain_topics == self._plain_topics:
                return
            self._plain_topics, hub.access.plain = plain_topics, made
            for session in list(hub.sessions.in_memory.values()):
                hub.plain.streams.withdraw(session, lambda topic: not made.is_open(topic))

        return swap

    async def drain(self, grace_s: float) -> None:
        """Stop accepting and reading, let what was received get its answers, write them, close every connection.

        Returns after `grace_s` seconds at the latest; wills of the connections closed this way fire.
        """
        hub, broker = self._hub, self._broker
        if broker is None:
            return
        self._broker = None
        hub.draining = True
        hub.settle_all()
        broker.stop_accepting()
        deadline = hub.clock() + grace_s
        if self._neighbours.others:
            await self._send_on(grace_s * SENT_ON)
        for wire in list(hub.sockets):
            if isinstance(wire, Connection):
                wire.stop()
        if hub.plain.abroad is not None:
            hub.plain.abroad.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                if hub.tasks:
                    await asyncio.wait(hub.tasks)
                await hub.answers()
        hub.plain.crowds.finish()
        for wire in list(hub.sockets):
            wire.end("stopping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await hub.closed()
        for wire in list(hub.sockets):
            wire.cut()
        for task in list(hub.tasks):
            task.cancel()
        await asyncio.gather(*hub.tasks, *hub.handshakes, return_exceptions=True)
        hub.wills.stop()
        hub.sessions.stop()
        if self._spending is not None:
            self._spending.stop()
        await broker.shutdown()
        await hub.ground.store.close()

    async def _send_on(self, seconds: float) -> None:
        """The clients are sent to other nodes, a few at a time, so that these are not overrun; each gets its answers first."""
        hub = self._hub
        hub.server_reference = self._server_reference
        wires = [wire for wire in hub.sockets if isinstance(wire, Connection)]
        random.shuffle(wires)
        pieces = max(1, min(len(wires), int(seconds / PIECE_S)))
        for number in range(pieces):
            part = wires[number::pieces]
            for wire in part:
                wire.stop()
            for _ in range(int(ANSWERS_S / 0.02)):
                if all(wire.answered or wire.closed for wire in part):
                    break
                await asyncio.sleep(0.02)
            for wire in part:
                wire.end("moved")
            if number + 1 < pieces:
                await asyncio.sleep(seconds / pieces)

    async def lost(self) -> None:
        """This node was declared dead while it stood still: other nodes have its clients, and nothing of them is written here.

        Nobody is connected any more, and what was to be written has failed.
        """
        hub = self._hub
        if hub.claims is not None:
            hub.claims.give_up()
        for session in list(hub.sessions.in_memory.values()):
            session.kept = False
        for connection in list(hub.live.values()):
            if isinstance(connection, Connection):
                connection.will = None
            connection.end("unavailable")
        hub.wills.stop()
        await hub.sessions.committed()

    def links(self, user: str) -> list[Link]:
        """The connections of this user's devices, for closing them when the account goes."""
        return [*self._hub.connections(user)]

    def all_links(self) -> list[Link]:
        """See `Transport`."""
        return [member for member in self._hub.live.values() if member.user]

    async def join(self, guest: Guest) -> str:
        """Let a guest in as a connection of its user, which takes over from the one of its device.

        Returns why it can't be let in, as a word, or an empty text; then `leave` is due at its end.
        """
        return await guests.join(self._hub, guest)

    def leave(self, guest: Guest) -> None:
        """A guest has ended, whether it was let in or not."""
        guests.leave(self._hub, guest)

    def spend(self, user: str) -> float:
        """See `Transport`."""
        hub = self._hub
        wait = hub.user(user).bucket.take(hub.clock())
        hub.release_user(user)
        return wait

    def flush(self) -> None:
        """See `Transport`."""
        self._hub.flush()

    def charge(self, user: str, units: float) -> None:
        """See `Transport`."""
        hub = self._hub
        hub.user(user).bucket.charge(units, hub.clock())
        hub.release_user(user)

    def owes(self, user: str) -> float:
        """See `Transport`."""
        hub = self._hub
        owed = hub.user(user).bucket.owes(hub.clock())
        hub.release_user(user)
        return owed

    def websocket(self, listener: str) -> asyncio.Protocol:
        """What talks to a client whose request for a WebSocket came to another listener, such as HTTP's, from that request on."""
        return WebSocket(self._hub, listener, self._websocket.path, self._websocket.origins, self._proxies)

    async def forget(self, user: str, device: str) -> None:
        """The device's kept session is gone from disk; its connection is closed."""
        hub = self._hub
        key = (user, device)
        async with hub.turn(key):
            if (connection := hub.live.get(key)) is not None:
                connection.end("forgotten")
            if (session := await hub.sessions.find(key)) is not None:
                hub.sessions.discard(session)
                await hub.sessions.committed()

    async def forget_user(self, user: str) -> None:
        """No session of the user is kept any more, on disk or in memory, of whatever client; their connections are closed."""
        hub = self._hub
        await hub.sessions.committed()
        kept = hub.sessions.names(user)
        for device in {*kept, *(name for owner, name in hub.live if owner == user)}:
            await self.forget(user, device)

    @property
    def protocols(self) -> dict[str, int]:
        """Connections that are logged in, by their protocol."""
        return dict(self._hub.protocols)

    @property
    def connection_count(self) -> int:
        """Connections that are logged in."""
        return len(self._hub.live)

    @property
    def listening(self) -> bool:
        """Every listener accepts."""
        return self._broker is not None


def _bind(address: Address, undo: contextlib.ExitStack) -> socket.socket:
    """A bound socket. Raises `OSError` with the address in its text."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        bound = undo.enter_context(socket.socket(family, kind, protocol))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error} ({address})") from error
    bound.setblocking(False)
    return bound
