"""What the connections of one server share: who is there, their sessions, and the one write a loop turn."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from mqtt_im.config import LimitsConfig
from mqtt_im.protocol.names import is_device
from mqtt_im.protocol.topics import Topics
from mqtt_im.transport.api import Handler, Identity
from mqtt_im.transport.embedded import persistence
from mqtt_im.transport.embedded.access import Access
from mqtt_im.transport.embedded.limits import Bucket, Buckets, Count, Quiet
from mqtt_im.transport.embedded.persistence import Persistence, StoredSession
from mqtt_im.transport.embedded.plain import Plain
from mqtt_im.transport.embedded.plugins import Plugins
from mqtt_im.transport.embedded.session import Key, Message, Outbox, Session

if TYPE_CHECKING:
    from mqtt_im.transport.embedded.connection import Connection
    from mqtt_im.transport.embedded.wire import Wire

log: Final = logging.getLogger("mqtt_im.mqtt")

MAX_KEPT_SESSIONS: Final = 256
"""Kept sessions of one user; of nobody as well."""
_OVERFLOW: Final = 64
"""Sockets above `limits.max_connections` that are told so instead of being cut."""


class User:
    """What the connections of one user share."""

    __slots__ = ("bucket", "connections")

    def __init__(self, rate: float) -> None:
        self.bucket = Bucket(rate)
        self.connections: list[Connection] = []


class Hub:
    """The shared state of a transport. Everything here runs on the event loop's thread."""

    def __init__(
        self, handler: Handler, topics: Topics, plain_topics: tuple[str, ...], limits: LimitsConfig, count: Count
    ) -> None:
        self.handler = handler
        self.topics = topics
        self.access = Access(topics, plain_topics)
        self.limits = limits
        self.count = count
        self.loop = asyncio.get_running_loop()
        self.clock = self.loop.time
        self.log = Quiet(log, self.clock, count)
        self.store: Persistence
        self.plugins: Plugins
        self.plain = Plain(self)
        self.sockets: set[Wire] = set()
        """Every open socket, logged in or not."""
        self._addresses: dict[str, int] = {}
        """Open sockets by the peer's address; only where they are limited."""
        rate = limits.connects_per_second_per_address
        self._accepts = Buckets(rate) if rate else None
        """How fast each address may connect."""
        self.live: dict[Key, Connection] = {}
        """The connections that are logged in."""
        self.entered = 0
        """How many are logged in, those included that wait for their session."""
        self.sessions: dict[Key, Session] = {}
        """Sessions in memory: of the live connections, and kept ones that plain messages may reach."""
        self.draining = False
        self.tasks: set[asyncio.Task[None]] = set()
        """Packets that are being handled by a task."""
        self.max_pending = max(64, 4 * limits.max_inflight)
        """Publishes of one connection that may wait for their acknowledgement before no more are handled."""
        self._all_answered: asyncio.Event | None = None
        self._all_closed: asyncio.Event | None = None
        self._users: dict[str, User] = {}
        self._dirty: list[Wire] = []
        self._turns: dict[Key, tuple[asyncio.Lock, list[None]]] = {}
        self._nobody = 0

    # Writing

    def flush_soon(self, connection: Wire) -> None:
        """Have the connection write what it gathers until this turn of the loop is over."""
        if not self._dirty:
            self.loop.call_soon(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    # Sockets

    def socket_opened(self, wire: Wire) -> str:
        """Count a socket in; returns why it cannot stay, or an empty text."""
        self.sockets.add(wire)
        limits, here = self.limits, 0
        if limits.max_connections_per_address:
            here = self._addresses[wire.address] = self._addresses.get(wire.address, 0) + 1
        if self.draining:
            return "stopping"
        if len(self.sockets) > limits.max_connections + _OVERFLOW:
            return "max_connections"
        if here > limits.max_connections_per_address:
            return "max_connections_per_address"
        if self._accepts is not None and self._accepts.take(wire.address, self.clock()):
            return "connects_per_second_per_address"
        return ""

    def socket_closed(self, wire: Wire) -> None:
        """Count a socket out."""
        self.sockets.discard(wire)
        if self._all_closed is not None and not self.sockets:
            self._all_closed.set()
        if self.limits.max_connections_per_address:
            left = self._addresses.get(wire.address, 1) - 1
            if left:
                self._addresses[wire.address] = left
            else:
                self._addresses.pop(wire.address, None)

    @property
    def crowded(self) -> bool:
        """There is no room for one more connection; a few sockets above the limit live long enough to be told so."""
        return self.entered >= self.limits.max_connections

    def has_no_room(self, user: str) -> bool:
        """Whether there is no room for one more connection of this user, or of anybody."""
        return self.crowded or (bool(user) and len(self.connections(user)) >= self.limits.max_connections_per_user)

    def failed(self, what: str) -> None:
        """Log an exception of our own, with its traceback: it is a mistake in this program."""
        log.exception("%s failed", what)

    # Users and keys

    def enter(self, connection: Connection) -> None:
        """A connection is logged in, and about to get its session."""
        self.entered += 1
        if connection.user:
            user = self.user(connection.user)
            user.connections.append(connection)
            connection.bucket = user.bucket
        else:
            connection.bucket = Bucket(self.limits.requests_per_second)

    def leave(self, connection: Connection) -> None:
        """A logged-in connection has ended."""
        self.entered -= 1
        if connection.user:
            self.user(connection.user).connections.remove(connection)
            self.release_user(connection.user)

    def user(self, name: str) -> User:
        """The shared state of a user; it lives while there are connections or something is left to pay."""
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = User(self.limits.requests_per_second)
        return user

    def connections(self, name: str) -> list[Connection]:
        """The logged-in connections of a user."""
        user = self._users.get(name)
        return list(user.connections) if user is not None else []

    def release_user(self, name: str) -> None:
        """Forget a user without connections, as soon as reconnecting would gain nothing."""
        user = self._users.get(name)
        if user is not None and not user.connections:
            owing = user.bucket.paid_until - self.clock()
            if owing > 0:
                self.loop.call_later(owing, self.release_user, name)
            else:
                del self._users[name]

    def key(self, identity: Identity, client_id: str) -> Key:
        """Names the session of a client: users never meet, nor do clients without an id."""
        name = identity.device or client_id
        if not name:
            self._nobody += 1
            name = f"\0{self._nobody}"
        return identity.user or "", name

    @asynccontextmanager
    async def turn(self, key: Key) -> AsyncIterator[None]:
        """Let one connection at a time come in under this key; the others wait, the last one stays."""
        lock, waiting = self._turns.setdefault(key, (asyncio.Lock(), []))
        waiting.append(None)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                del self._turns[key]

    # Sessions

    def outbox(self, session: Session) -> Outbox:
        """The session's outbox, made at its first use."""
        if session.outbox is None:
            session.outbox = Outbox(self.limits.max_inflight, self.limits.max_queued_messages)
        return session.outbox

    async def find_session(self, key: Key) -> Session | None:
        """The kept session of this key, from memory or disk. Raises `StoreFailed`."""
        if key not in self.sessions and not self.store.idle:
            await self.committed()  # what was written of it last must be found
        session = self.sessions.get(key)
        if session is not None:
            return session
        stored = self.store.session(*key)
        return None if stored is None else self.restore(stored)

    async def make_room(self, user: str) -> None:
        """Let the user have room for one more kept session: of those without a connection, the longest unseen ones go."""
        names = self.store.names(user, MAX_KEPT_SESSIONS - 1)
        away = [name for name in names if (user, name) not in self.live]
        for name in away[: max(0, len(names) + 1 - MAX_KEPT_SESSIONS)]:
            session = await self.find_session((user, name))
            if session is not None and session.connection is None:
                self.discard(session)
                if user and is_device(name):
                    self.handler.session_ended(user, name)

    def new_session(self, key: Key, kept: bool) -> Session:
        """Begin a session."""
        session = Session(key, secrets.token_hex(8), kept)
        self.sessions[key] = session
        if kept:
            self.save_session(session)
        return session

    def restore(self, stored: StoredSession) -> Session:
        """Put a kept session from disk into memory."""
        session = Session((stored.user, stored.name), stored.id, kept=True)
        session.filters = stored.filters
        session.received = set(stored.received) or None
        if stored.queue:
            self.outbox(session).restore(
                Message(row.seq, row.topic.encode(), row.payload, row.qos, row.retain, row.stage) for row in stored.queue
            )
        self.plain.subscribe_all(session)
        self.sessions[session.key] = session
        return session

    def save_session(self, session: Session) -> None:
        """Write a kept session's row with the next transaction."""
        filters = json.dumps(session.filters, ensure_ascii=False, separators=(",", ":"))
        row = (*session.key, session.id, filters, bool(session.plain), int(time.time()))
        self.store.write(persistence.SAVE_SESSION, *row)

    def discard(self, session: Session) -> None:
        """End a session: its subscriptions and queue are gone, from disk with the next transaction."""
        self.plain.unsubscribe_all(session)
        session.outbox = session.received = None
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]
        if session.kept:
            for statement in (persistence.DROP_SESSION, persistence.DROP_QUEUE, persistence.DROP_RECEIVED):
                self.store.write(statement, session.id)
            session.kept = False  # nothing of it is written any more

    def rest(self, session: Session) -> None:
        """The session's connection is gone: end it, or keep as much of it in memory as is needed there."""
        session.connection = None
        session.catch_up = None
        if not session.kept:
            self.discard(session)
            return
        self.store.write(persistence.SEEN, int(time.time()), session.id)
        if session.idle:
            self._evict(session, ok=True)

    def _evict(self, session: Session, *, ok: bool) -> None:
        """Take a session that is on disk out of memory, once reading it from there would find all of it."""
        if session.connection is not None or not session.idle or self.sessions.get(session.key) is not session:
            return
        if self.store.idle:
            del self.sessions[session.key]
        elif ok:
            self.store.committed(lambda ok: self._evict(session, ok=ok))

    async def committed(self) -> bool:
        """Wait for what was written so far; whether it was committed."""
        future: asyncio.Future[bool] = self.loop.create_future()

        def done(ok: bool) -> None:
            if not future.done():
                future.set_result(ok)

        self.store.committed(done)
        return await future

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this in a task that nobody awaits."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # Stopping

    async def answers(self) -> None:
        """Return when every publish that was handed in has its acknowledgement; `draining` is set before."""
        self._all_answered = asyncio.Event()
        while any(not connection.answered for connection in self.live.values()):
            self._all_answered.clear()
            await self._all_answered.wait()

    async def closed(self) -> None:
        """Return when every socket is closed; `draining` is set before."""
        self._all_closed = asyncio.Event()
        if self.sockets:
            await self._all_closed.wait()

    def answered(self) -> None:
        """A connection has nothing left to answer."""
        if self._all_answered is not None:
            self._all_answered.set()
