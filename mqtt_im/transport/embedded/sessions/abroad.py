"""Plain topics over several nodes: who elsewhere is to get a message, and what others have for the sessions that are here.

There are two kinds of subscribers elsewhere. What a kept session is to get at QoS 1 or 2 becomes a row (`relayed`), committed
before the publisher has its acknowledgement; the node that the client is connected to takes it into the session's queue, at once
or when the client comes. All nodes know the filters of all kept sessions, connected or not. Of the other subscriptions each node
tells the others what filters it has, and is told by them what matches; that goes over the bus, and is lost with it, as what is
under way to a session that nobody keeps.

A SUBSCRIBE is answered when the other nodes know of it, so who publishes after that reaches the subscriber.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final

from mqtt_im.cluster import Neighbours
from mqtt_im.mqtt.packets import RETAIN_AS_PUBLISHED
from mqtt_im.transport.embedded.sessions import shared as sql
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.message import PlainMessage, identifiers
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from mqtt_im.transport.embedded.sessions.routing import Subscriptions
from mqtt_im.transport.embedded.sessions.session import Key, Session
from mqtt_im.transport.embedded.sessions.shared import Relayed, SharedPersistence
from mqtt_im.transport.embedded.sessions.work import Work

MAX_FILTERS: Final = 10_000
"""A node with more filters than that is sent everything, so that no neighbour has to remember more of it."""
MAX_FILTER_BYTES: Final = 1_000
"""Of a longer filter the others are told a shorter one that matches more."""
ROWS: Final = 200
"""Rows that are taken at a time."""
ENVELOPE: Final = 100
"""Bytes of a message on the bus beside payload and topic."""
SWEEP_S: Final = 3.0
TRIM_S: Final = 5.0
RETRY_S: Final = 1.0
START_S: Final = 3.0
"""So long a start waits for what other nodes have subscribed."""


class Remote:
    """A kept session with plain filters, wherever its client is."""

    __slots__ = ("filters", "id", "key")

    def __init__(self, key: Key, session_id: str, filters: dict[str, int]) -> None:
        self.key = key
        self.id = session_id
        self.filters = filters


class Abroad:
    """The other nodes, for plain topics. Lives on the event loop."""

    def __init__(self, ground: Ground, neighbours: Neighbours) -> None:
        self._ground = ground
        self._neighbours = neighbours
        self.at_home: Callable[[Key], Session | None] = lambda _: None
        """The session of this key, where its client is connected here."""
        self.arrived: Callable[[PlainMessage], None] = lambda _: None
        """Is given what was published at another node."""
        self.take_in: Callable[[Session, list[Relayed]], Awaitable[bool]]
        """Takes rows into a session's queue; whether that was committed."""
        self.retained: Callable[[Iterable[str], list[sql.RetainedRow]], None] = lambda *_: None
        """Is told what the database has of these topics."""
        self.broken: Callable[[], None] = lambda: None
        """What came over the bus may have been missed."""
        self._kept: dict[str, Remote] = {}
        self._index: Subscriptions[Remote] = Subscriptions()
        self._nodes: Subscriptions[int] = Subscriptions()
        self._filters: dict[int, set[str]] = {}
        """What other nodes have subscribed; only those that serve clients are there."""
        self._here: Counter[str] = Counter()
        self._told: set[str] = set()
        """Filters of this node that the others know."""
        self._changed: set[str] = set()
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._last: dict[int, int] = {}
        """The newest message of each node that has come, so that what is sent again comes once."""
        self._read = {
            kind: Work(work, self._background, self._failed)
            for kind, work in (("kept", self._read_kept), ("relayed", self._take_rows), ("retained", self._read_retained))
        }
        """What has still to be looked up, by kind."""
        self._written: set[str] = set()
        """Sessions for which rows were written since their number was looked at."""
        self._open = False
        self._tasks: set[asyncio.Task[None]] = set()
        for kind, handler in (
            ("plain", self._on_plain),
            ("interest", self._on_interest),
            ("interests", self._on_interests),
            ("interests?", self._on_asked),
            ("kept", self._on_kept),
            ("relayed", lambda _, fields: self.look(fields[0])),
            ("retained", lambda _, fields: self._read["retained"].add(fields[0])),
        ):
            neighbours.on(kind, handler)
        neighbours.on_joined.append(self._joined)
        neighbours.on_left.append(self._left)
        neighbours.on_gap.append(self._gap)

    @property
    def _store(self) -> SharedPersistence:
        store = self._ground.store
        assert isinstance(store, SharedPersistence)
        return store

    async def start(self) -> None:
        """What is subscribed elsewhere is known. Raises `StoreFailed`."""
        for stored in await self._store.look(self._store.plain_filters):
            self._put(Remote(*stored))
        others = list(self._neighbours.others)
        asking = [asyncio.ensure_future(self._neighbours.ask("interests?", node)) for node in others]
        if asking:
            _, late = await asyncio.wait(asking, timeout=START_S)
            for each in late:
                each.cancel()
        self._open = True
        for node in self._neighbours.others:
            self._tell_all(node)
        for work in self._read.values():
            work.begin()

        self._background(self._sweep())

    def stop(self) -> None:
        """Nothing more is done; what is not done yet stands in the database."""
        self._open = False
        for task in self._tasks:
            task.cancel()

    def _failed(self, failure: StoreFailed) -> None:
        self._ground.log.note("session_store", "", "what other nodes have told cannot be read: %s", failure)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        """That there are rows is told; a word may be lost."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.look_at_all()

    # What is subscribed here.

    def subscribed(self, topic_filter: str) -> None:
        """A session that is here has subscribed; `confirm` has to be awaited before it is told so."""
        self._here[topic_filter] += 1
        if self._here[topic_filter] == 1:
            self._changed.add(topic_filter)

    def unsubscribed(self, topic_filter: str) -> None:
        """A session that is here has this filter no more; the others know it a little later."""
        self._here[topic_filter] -= 1
        if not self._here[topic_filter]:
            del self._here[topic_filter]
            first = not self._changed
            self._changed.add(topic_filter)
            if first:
                self._background(self._later())

    async def _later(self) -> None:
        await asyncio.sleep(RETRY_S)
        await self.confirm()

    async def confirm(self) -> None:
        """The other nodes that serve clients, and live, know what is subscribed here."""
        async with self._turn:
            self._changed.clear()
            wanted = self._wanted()
            more, less = sorted(wanted - self._told), sorted(self._told - wanted)
            self._told = wanted
            if more or less:
                await self._tell_everybody("interest", more, less)

    async def _tell_everybody(self, kind: str, *fields: Any) -> None:
        """Those that serve clients know it; those that are about to come across it."""
        serving = list(self._filters)
        for node in self._neighbours.others:
            if node not in self._filters:
                self._neighbours.tell(kind, 0, *fields, to=node)
        await asyncio.gather(*(self._neighbours.ask(kind, node, *fields) for node in serving))

    def _wanted(self) -> set[str]:
        return {"#"} if len(self._here) > MAX_FILTERS else {_short(each) for each in self._here}

    def _tell_all(self, node: int) -> None:
        self._told = self._wanted()
        self._neighbours.tell("interests", sorted(self._told), to=node)

    def _joined(self, node: int) -> None:
        if self._open:
            self._tell_all(node)

    def _on_asked(self, node: int, fields: list[Any]) -> None:
        if self._open:
            self._tell_all(node)
        self._neighbours.done(node, fields[0])

    # What is subscribed elsewhere.

    def _on_interests(self, node: int, fields: list[Any]) -> None:
        self._forget(node)
        self._filters[node] = set(fields[0])
        for topic_filter in fields[0]:
            self._nodes.add(topic_filter, node, 0)

    def _on_interest(self, node: int, fields: list[Any]) -> None:
        number, more, less = fields
        known = self._filters.setdefault(node, set())
        for topic_filter in less:
            known.discard(topic_filter)
            self._nodes.remove(topic_filter, node)
        for topic_filter in more:
            known.add(topic_filter)
            self._nodes.add(topic_filter, node, 0)
        self._neighbours.done(node, number)

    def _forget(self, node: int) -> None:
        for topic_filter in self._filters.pop(node, ()):
            self._nodes.remove(topic_filter, node)

    def _left(self, node: int) -> None:
        self._forget(node)
        self._last.pop(node, None)
        if self._open:
            self.look_at_all()  # what it had committed for sessions here, and not told
            self._background(self._unattended())

    async def _unattended(self) -> None:
        try:
            await self._store.look(partial(self._store.unattended, int(self._ground.now())))
        except StoreFailed as failure:
            self._ground.log.note("session_store", "", "sessions of a node that has died cannot be noted: %s", failure)

    def _gap(self) -> None:
        self.broken()
        self.look_at_all()
        self._read["kept"].add([("", 0, 0)])
        self._read["retained"].add([""])

    # Kept sessions.

    def keep(self, session: Session) -> None:
        """The filters of a kept session that is here are these now."""
        if session.plain:
            self._put(Remote(session.key, session.id, dict(session.filters)))
        else:
            self._drop(session.id)

    async def tell_kept(self, session: Session) -> None:
        """The other nodes that serve clients, and live, know the filters of a kept session, which are committed."""
        self.keep(session)
        await self._tell_everybody("kept", session.id)

    def ended(self, session: Session) -> None:
        """A kept session is to be no more, with the next transaction."""
        if session.id in self._kept:
            self._drop(session.id)
            self._store.write(sql.DROP_RELAYED_OF, session.id)
            self._store.committed(lambda _: self._neighbours.tell("kept", 0, session.id))

    def _put(self, remote: Remote) -> None:
        self._drop(remote.id)
        self._kept[remote.id] = remote
        owns = self._ground.access.topics.owns
        for topic_filter, options in remote.filters.items():
            if not owns(topic_filter):
                self._index.add(topic_filter, remote, options)

    def _drop(self, session_id: str) -> None:
        remote = self._kept.pop(session_id, None)
        for topic_filter in remote.filters if remote is not None else ():
            self._index.remove(topic_filter, remote)  # type: ignore[arg-type]

    def _on_kept(self, node: int, fields: list[Any]) -> None:
        number, session_id = fields
        self._read["kept"].add([(session_id, node, number)])

    async def _read_kept(self, asked: set[Any]) -> None:
        ids = {session_id for session_id, _, _ in asked}
        everything = "" in ids
        found = await self._store.look(partial(self._store.plain_filters, None if everything else list(ids)))
        there = {session_id for _, session_id, _ in found}
        for session_id in [each for each in self._kept if each not in there] if everything else ids - there:
            self._drop(session_id)
        for stored in found:
            self._put(Remote(*stored))
        for _, node, number in asked:
            if number:
                self._neighbours.done(node, number)

    # Publishing.

    def relay(self, message: PlainMessage) -> list[str]:
        """Write what kept sessions elsewhere are to get, with the next transaction; their ids, which are to be told then."""
        ids: list[str] = []
        for remote, options in self._index.match(message.topic).items() if message.qos else ():
            qos = min(message.qos, max(each & 3 for each in options))
            home = self.at_home(remote.key)
            if not qos or (home is not None and home.id == remote.id):
                continue
            retain = message.retain and any(each & RETAIN_AS_PUBLISHED for each in options)
            row = (message.topic, message.payload, qos, retain, identifiers(options) + message.properties, message.expires)
            self._store.write(sql.RELAY, remote.id, *row)
            ids.append(remote.id)
        if ids and not self._written and self._open:
            self._background(self._trim())
        self._written.update(ids)
        return ids

    def interested(self, topic: str) -> list[int]:
        """The nodes with a subscription that matches."""
        return list(self._nodes.match(topic))

    def send(self, message: PlainMessage, nodes: list[int], ids: list[str], done: Callable[[], None] | None) -> None:
        """Tell other nodes of a message, and of rows for these sessions, which are committed; then `done` is called.

        At QoS 0 it is dropped where too much waits to be told.
        """
        if ids:
            self._neighbours.tell("relayed", ids)
        if nodes:
            left = message.expires - self._ground.clock.steady() if message.expires else 0
            payload, properties = (base64.b64encode(part).decode() for part in (message.payload, message.properties))
            fields = (next(self._numbers), message.topic, payload, message.qos, message.retain, properties, left)
            if not self._neighbours.send("plain", fields, nodes, done, len(payload) + len(message.topic) + ENVELOPE):
                self._ground.count("plain_dropped")
        elif done is not None:
            self._neighbours.send("", (), (), done)

    def _on_plain(self, node: int, fields: list[Any]) -> None:
        number, topic, payload, qos, retain, properties, left = fields
        if number <= self._last.get(node, 0):
            return
        self._last[node] = number
        if self._ground.access.plain.is_open(topic):
            expires = self._ground.clock.steady() + max(1, left) if left else 0
            parts = base64.b64decode(payload), qos, retain, base64.b64decode(properties), expires
            self.arrived(PlainMessage(topic, *parts))

    # Rows for sessions that are here.

    def look(self, ids: Iterable[str]) -> None:
        """There may be rows for these sessions; those that are here get them soon."""
        self._read["relayed"].add(ids)

    def look_at_all(self) -> None:
        """The same of all sessions."""
        self.look([remote.id for remote in self._kept.values() if self.at_home(remote.key) is not None])

    async def _take_rows(self, ids: set[Any]) -> None:
        here: dict[str, Session] = {}
        for session_id in ids:
            remote = self._kept.get(session_id)
            session = self.at_home(remote.key) if remote is not None else None
            if session is not None and session.id == session_id:
                here[session_id] = session
        if not here:
            return
        rows = await self._store.look(partial(self._store.relayed, list(here), ROWS))
        by_session: dict[str, list[Relayed]] = {}
        for row in rows:
            by_session.setdefault(row.session, []).append(row)
        committed = [self.take_in(here[session_id], part) for session_id, part in by_session.items()]
        if not all(await asyncio.gather(*committed)):
            raise StoreFailed("it could not be written")
        if len(rows) == ROWS:
            self._read["relayed"].add(here)

    async def _trim(self) -> None:
        """Of what waits for a session that nobody takes it to, the oldest goes."""
        await asyncio.sleep(TRIM_S)
        ids, self._written = list(self._written), set()
        limits = self._ground.limits
        trim = partial(self._store.trim, ids, limits.max_queued_messages, limits.max_queued_bytes_per_user)
        try:
            dropped = await self._store.look(trim)
        except StoreFailed:
            self._written.update(ids)  # with what is written next
            return
        for _ in range(dropped):
            self._ground.count("plain_dropped")

    # Retained messages.

    def retained_here(self, topic: str) -> None:
        """What is retained on a topic is another with the next transaction; the other nodes are told then."""

        def committed(ok: bool) -> None:
            if ok and self._neighbours.others:
                self._neighbours.tell("retained", [topic])
                self._read["retained"].add([topic])  # another node may have been later

        self._store.committed(committed)

    async def caught_up(self) -> None:
        """What other nodes have told so far of retained messages is known here."""
        if self._neighbours.others:
            await self._neighbours.caught_up()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_S):
                    await self._read["retained"].idle.wait()

    async def _read_retained(self, topics: set[Any]) -> None:
        everything = "" in topics
        rows = await self._store.look(partial(self._store.retained_on, None if everything else list(topics)))
        self.retained(topics, rows)


def _short(topic_filter: str) -> str:
    """The filter, or a shorter one that matches all that it does."""
    if len(topic_filter) <= MAX_FILTER_BYTES:
        return topic_filter
    levels = topic_filter[:MAX_FILTER_BYTES].split("/")[:-1]
    return "/".join([*levels, "#"])
