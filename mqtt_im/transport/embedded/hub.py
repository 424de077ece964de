"""What the connections of one server share: who is there, their sessions, and the one write a loop turn."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from mqtt_im.clock import Clock
from mqtt_im.config import LimitsConfig
from mqtt_im.config.peers import network_of
from mqtt_im.core import costs
from mqtt_im.logs import RateLimited
from mqtt_im.pacing import Relay
from mqtt_im.protocol.topics import Topics
from mqtt_im.shares import Bounds
from mqtt_im.transport.api import Handler, Identity
from mqtt_im.transport.embedded.buckets import MAX_DEBT_S, Bucket, Buckets, SharedBucket
from mqtt_im.transport.embedded.limits import Count, Quiet
from mqtt_im.transport.embedded.members import Holding, Member, Socket, Turn, User
from mqtt_im.transport.embedded.plugins import Plugins
from mqtt_im.transport.embedded.sessions.access import Access
from mqtt_im.transport.embedded.sessions.ground import Ground, log
from mqtt_im.transport.embedded.sessions.keeper import Keeper
from mqtt_im.transport.embedded.sessions.plain import Plain
from mqtt_im.transport.embedded.sessions.session import Key, nameless
from mqtt_im.transport.embedded.sessions.wills import Wills
from mqtt_im.transport.embedded.unread import Unread
from mqtt_im.transport.held import Held
from mqtt_im.transport.under_way import USUAL_BYTES, UnderWay

_LOOK_AGAIN_S: Final = 600.0
USUAL_STRANGERS_BYTES: Final = 32 << 20
"""Of what came on all connections whose login is not over, with the usual share of memory."""
USUAL_WRITE_BUFFER: Final = 64 << 10
_LEAST_WRITE_BUFFER: Final = 16 << 10
_LOGIN_LOOK_S: Final = 0.25
_LOGINS: Final = 4
"""So many times the connections that a user may have may wait to be let in, once the user has to pay for that first."""
MAX_HANDSHAKES: Final = 500
"""TLS handshakes at a time: each takes 80 KB, and who means it is done in a moment."""
_ENDS: Final = 50
"""Connections that were lost of which everybody is told in one turn of the loop: a line that breaks may have thousands."""
_OVERFLOW: Final = 64
"""Sockets above `limits.max_connections` that are told so instead of being cut."""

_mistakes: Final = RateLimited(log)

if TYPE_CHECKING:
    from mqtt_im.transport.embedded.places import Places
    from mqtt_im.transport.embedded.sessions.claiming import Claims


class Hub:
    """The shared state of a transport. Everything here runs on the event loop's thread."""

    def __init__(
        self, handler: Handler, topics: Topics, plain_topics: tuple[str, ...], limits: LimitsConfig, count: Count, clock: Clock
    ) -> None:
        self.handler = handler
        self.topics = topics
        self.access = Access(topics, plain_topics)
        self.limits = limits
        self.count = count
        self.loop = asyncio.get_running_loop()
        self.clock = self.loop.time
        self.log = Quiet(log, self.clock, count)
        self.ground = Ground(self.access, limits, count, self.log, self.background, clock)
        self.plugins: Plugins
        self.plain = Plain(self.ground)
        self.sessions = Keeper(self.ground, self.plain, handler.session_ended)
        self.wills = Wills(self.ground)
        self.sessions.before_end = self.wills.publish
        self.wills.end_session = self.sessions.end
        self.sockets: set[Socket] = set()
        """Every open socket, logged in or not."""
        self._addresses: dict[str, int] = {}
        """Open sockets by the client's address; only where they are limited."""
        rate = limits.connects_per_second_per_address
        self._accepts = Buckets(rate) if rate else None
        """How fast each address may connect."""
        self.claims: Claims | None = None
        """Set before the first client comes, where there are other nodes."""
        self.spent: dict[str, float] | None = None
        """Set before the first client comes, where there are other nodes: what users have spent of their rate here lately."""
        self.places: Places | None = None
        """Set before the first client comes, where there are other nodes."""
        self.live: dict[Key, Member] = {}
        """The connections that are logged in."""
        self.entered = 0
        """How many are logged in, those included that wait for their session."""
        self.protocols: Counter[str] = Counter()
        """The same, by protocol."""
        bounds = Bounds(limits.memory_mb)
        self.held: Held[Holding] = Held(bounds)
        """What is in memory for connections alone: packets that are not whole or wait, what a client does not read, wills, …"""
        self.unread = Unread()
        """What clients do not read, by user; what is too much of it is among what is held."""
        self.relay = Relay()
        """By which subscribing to much goes on."""
        self.under_way = UnderWay(bounds.of(USUAL_BYTES))
        self.write_buffer = max(_LEAST_WRITE_BUFFER, bounds.of(USUAL_WRITE_BUFFER))
        """Bytes that wait for a client before it gets nothing more than its answers."""
        self.most_strangers = bounds.of(USUAL_STRANGERS_BYTES)
        self.strangers = 0
        """Bytes that were taken in from sockets that nobody has logged in on."""
        self.turned_away = 0
        """How many sockets stay only to be told why they are refused."""
        self.draining = False
        self.server_reference = ""
        """Where clients of MQTT 5 are told to go when this node stops."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Packets that are being handled by a task."""
        self.handshakes: dict[asyncio.Task[None], None] = {}
        """TLS handshakes that are under way, the oldest first; each ends with its socket."""
        self.max_pending = max(64, 4 * limits.max_inflight)
        """Publishes of one connection that may wait for their acknowledgement before no more are handled."""
        self._expiries: dict[Member, asyncio.TimerHandle] = {}
        """Of those whose lease ends by itself."""
        self._all_answered: asyncio.Event | None = None
        self._all_closed: asyncio.Event | None = None
        self._users: dict[str, User] = {}
        self._dirty: list[Socket] = []
        self._next_turns: deque[Callable[[], None]] = deque()
        """Connections that have had enough of a turn of the loop, and go on in one of their own."""
        self._lost: deque[Socket] = deque()
        """Connections that were lost, and wait for the turn of the loop in which that is told."""
        self._may_settle = _ENDS
        """How many more ends may be told in this turn."""
        self._turns: dict[Key, tuple[asyncio.Lock, list[None]]] = {}
        self._nobody = 0

    # Writing

    def flush_soon(self, connection: Socket) -> None:
        """Have the connection write what it gathers until this turn of the loop is over."""
        if not self._dirty:
            self.loop.call_soon(self.flush)
        self._dirty.append(connection)

    def flush(self) -> None:
        """Every connection has written what it gathered; one where a mistake meets that is cut."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001 - told in the log
                _mistakes.exception("a connection can't be written to, and is cut", error)
                connection.cut()

    # Turns

    def next_turn(self, go_on: Callable[[], None]) -> None:
        """Go on in a later turn of the loop, one connection in each."""
        self._next_turns.append(go_on)
        if len(self._next_turns) == 1:
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        go_on = self._next_turns.popleft()
        if self._next_turns:
            self.loop.call_soon(self._turn)
        go_on()

    # Ends

    def settles_later(self, wire: Socket) -> bool:
        """Whether the end of a lost connection is told in a later turn of the loop, since there were many in this one."""
        if self.draining:
            return False
        if self._may_settle == _ENDS:
            self.loop.call_soon(self._settle)
        self._may_settle -= 1
        if self._may_settle >= 0 and not self._lost:
            return False
        self._lost.append(wire)
        return True

    def _settle(self) -> None:
        self._may_settle = _ENDS
        if self._lost:
            self._may_settle = 0
            self.loop.call_soon(self._settle)
            for _ in range(min(_ENDS, len(self._lost))):
                self._lost.popleft().settle()

    def settle_all(self) -> None:
        """Every end was told."""
        while self._lost:
            self._lost.popleft().settle()

    # Sockets

    def socket_opened(self, wire: Socket) -> str:
        """Count a socket in; returns why it cannot stay, or an empty text."""
        self.sockets.add(wire)
        if self.draining:
            return "stopping"
        if len(self.sockets) > self.limits.max_connections + _OVERFLOW:
            return "max_connections"
        return ""

    def address_known(self, wire: Socket) -> str:
        """Count a socket for its client's address; returns why it cannot stay, or an empty text."""
        network = wire.network = network_of(wire.address)
        if self.limits.max_connections_per_address:
            here = self._addresses[network] = self._addresses.get(network, 0) + 1
            if here > self.limits.max_connections_per_address:
                return "max_connections_per_address"
        if self._accepts is not None and self._accepts.take(network, self.clock()):
            return "connects_per_second_per_address"
        return ""

    def socket_closed(self, wire: Socket) -> None:
        """Count a socket out."""
        self.sockets.discard(wire)
        if self._all_closed is not None and not self.sockets:
            self._all_closed.set()
        if wire.network and self.limits.max_connections_per_address:
            left = self._addresses.get(wire.network, 1) - 1
            if left:
                self._addresses[wire.network] = left
            else:
                self._addresses.pop(wire.network, None)

    def has_no_room(self, key: Key) -> str:
        """The limit that leaves no room for one more connection of a user, or of anybody; empty where there is room."""
        if self._lost and self.entered >= self.limits.max_connections:
            self.settle_all()
        if self.entered >= self.limits.max_connections:
            return "max_connections"
        for member in self.connections(key[0]) if self._lost else ():
            if member.closed:
                member.end("lost")  # which was not told yet
        elsewhere = 0 if self.places is None else self.places.elsewhere(key)
        if key[0] and len(self.connections(key[0])) + elsewhere >= self.limits.max_connections_per_user:
            return "max_connections_per_user"
        return ""

    def tell(self, what: str, connection: Member, **more: object) -> None:
        """Log what happened to a client that is, or was, logged in."""
        who = {"user": connection.user or None, "device": connection.device or None, "address": connection.address}
        log.info(what, extra={**who, **more})

    def failed(self, what: str) -> None:
        """Log an exception of our own, with its traceback: it is a mistake in this program."""
        log.exception("%s failed", what)

    # Users and keys

    def enter(self, connection: Member) -> None:
        """A connection is logged in, and about to get its session."""
        self.entered += 1
        self.protocols[connection.protocol] += 1
        connection.since = time.time_ns() // 1_000_000
        self._watch_lease(connection)
        if connection.user:
            user = self.user(connection.user)
            user.connections.append(connection)
            connection.bucket = user.bucket
            if self.places is not None and connection.key is not None:
                self.places.changed(connection.key, there=True)
        else:
            connection.bucket = Bucket(self.limits.requests_per_second)

    def _watch_lease(self, connection: Member) -> None:
        """End the connection when its lease does. Timers don't follow a clock that is set, so they look again now and then."""
        if connection.lease is None or connection.lease.expires is None:
            return
        left = connection.lease.expires / 1000 - time.time()
        if left <= 0 and connection in self._expiries:
            connection.end("token_expired")
            return
        self._expiries[connection] = self.loop.call_later(min(max(left, 0.0), _LOOK_AGAIN_S), self._watch_lease, connection)

    def leave(self, connection: Member) -> None:
        """A logged-in connection has ended."""
        self.entered -= 1
        self.protocols[connection.protocol] -= 1
        if (timer := self._expiries.pop(connection, None)) is not None:
            timer.cancel()
        if connection.user:
            left = self.user(connection.user).connections
            left.remove(connection)
            key = connection.key
            if self.places is not None and key is not None and not any(other.key == key for other in left):
                self.places.changed(key, there=False)
            self.release_user(connection.user)

    def user(self, name: str) -> User:
        """The shared state of a user; it lives while there are connections or something is left to pay."""
        user = self._users.get(name)
        if user is None:
            rate = self.limits.requests_per_second
            bucket = Bucket(rate) if self.spent is None else SharedBucket(rate, name, self.spent)
            user = self._users[name] = User(bucket)
        return user

    async def pay_login(self, name: str) -> bool:
        """The user may come in: who comes and goes pays for that as for requests, and waits where too much was charged.

        They wait in one line, so that one of them looks whether it is paid. False where too many stand there already.
        """
        user = self.user(name)
        if user.logins >= _LOGINS * self.limits.max_connections_per_user:
            return False
        user.logins += 1
        try:
            if user.logins > 1 or not self._has_paid_login(user):
                await self._wait_to_pay(user)
        finally:
            user.logins -= 1
            self.release_user(name)
        return True

    def _has_paid_login(self, user: User) -> bool:
        now = self.clock()
        if user.bucket.take(now):
            return False
        user.bucket.charge(costs.LOGIN - 1, now)
        return True

    async def _wait_to_pay(self, user: User) -> None:
        deadline = self.clock() + MAX_DEBT_S
        door = user.door = user.door or asyncio.Lock()
        async with door:
            while wait := user.bucket.take(self.clock()):
                if self.clock() >= deadline:
                    break
                await asyncio.sleep(min(wait, _LOGIN_LOOK_S))
            user.bucket.charge(costs.LOGIN - 1, self.clock())

    def connections(self, name: str) -> list[Member]:
        """The logged-in connections of a user."""
        user = self._users.get(name)
        return list(user.connections) if user is not None else []

    def keys(self) -> list[Key]:
        """Of the connections of all users, those included that wait for their session."""
        return [member.key for user in self._users.values() for member in user.connections if member.key is not None]

    def _has_paid(self, name: str, user: User) -> None:
        user.watched = False
        self.release_user(name)

    def release_user(self, name: str) -> None:
        """Forget a user without connections, as soon as reconnecting would gain nothing."""
        user = self._users.get(name)
        if user is not None and not user.connections and not user.watched and not user.logins:
            owing = user.bucket.paid_until - self.clock()
            if owing > 0:
                user.watched = True
                self.loop.call_later(owing, self._has_paid, name, user)
            else:
                del self._users[name]

    def key(self, identity: Identity, client_id: str) -> Key:
        """Names the session of a client: users never meet, nor do clients without an id."""
        name = identity.device or client_id
        if not name:
            self._nobody += 1
            name = nameless(self._nobody)
        return identity.user or "", name

    def turn(self, key: Key) -> Turn:
        """Let one connection at a time come in under this key; the others wait, the last one stays."""
        return Turn(self._turns, key)

    async def release(self, key: Key, clean: bool, wanted: Callable[[], Awaitable[bool]]) -> None:
        """Another node has the client from now on, where that is `wanted`; `clean`: its session begins anew there."""
        async with self.turn(key):  # who comes back meanwhile would go on with what is half let go of
            if not await wanted():  # it has come back while this waited
                return
            if (old := self.live.get(key)) is not None:
                old.end("taken_over")
            if clean:
                self.wills.publish(key)
            else:
                self.wills.cancel(key)
            await self.handler.released(*key)
            await self.sessions.let_go(key)

    def handshake(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a TLS handshake, which ends with its socket at the latest, or when too many have begun behind it."""
        task = self.loop.create_task(work)
        self.handshakes[task] = None
        task.add_done_callback(lambda task: self.handshakes.pop(task, None))
        if len(self.handshakes) > MAX_HANDSHAKES:
            oldest = next(iter(self.handshakes))
            del self.handshakes[oldest]
            oldest.cancel()
            self.count("connects_refused", reason="handshakes")

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
