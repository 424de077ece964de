"""Plain topics over several nodes: who elsewhere is to get a message, and what others have for the sessions that are here.

There are two kinds of subscribers elsewhere. What a kept session is to get at QoS 1 or 2 becomes a row (`relayed`), committed
before the publisher has its acknowledgement; the node that the client is connected to takes it into the session's queue, at once
or when the client comes. All nodes know the filters of all kept sessions, connected or not. Of the other subscriptions each node
tells the others what filters it has, and is told by them what matches; that goes over the bus, and is lost with it, as what is
under way to a session that nobody keeps.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Final

from mqtt_im import lasting
from mqtt_im.cluster import Neighbours
from mqtt_im.mqtt.packets import RETAIN_AS_PUBLISHED
from mqtt_im.transport.embedded.sessions import shared as sql
from mqtt_im.transport.embedded.sessions.elsewhere import Elsewhere, Remote
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.interests import START_S, Interests
from mqtt_im.transport.embedded.sessions.message import PlainMessage, identifiers
from mqtt_im.transport.embedded.sessions.persistence import RetainedFields, StoreFailed
from mqtt_im.transport.embedded.sessions.session import Key, Session
from mqtt_im.transport.embedded.sessions.shared import Relayed, SharedPersistence
from mqtt_im.transport.embedded.sessions.work import Work

ROWS: Final = 200
"""Rows that are taken at a time."""
ENVELOPE: Final = 100
"""Bytes of a message on the bus beside payload and topic."""
SWEEP_S: Final = 3.0
TRIM_S: Final = 5.0
RETRY_S: Final = 1.0
_LOOK, _ADOPT = "look", "adopt"


class Away:
    """Who elsewhere is to get a message: `sessions` and `shares` as rows, which are told when these are committed."""

    __slots__ = ("members", "nodes", "sessions", "shares")

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.shares: set[int] = set()
        """Nodes, for one of whose clients there is a row."""
        self.nodes: list[int] = []
        """Nodes that are told over the bus."""
        self.members: list[tuple[int, str]] = []
        """The same for one of their clients, of a shared subscription."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.sessions) + len(self.shares) + len(self.nodes) + len(self.members)

    @property
    def durable(self) -> bool:
        """Whether there are rows."""
        return bool(self.sessions or self.shares)


class Abroad:
    """The other nodes, for plain topics. Lives on the event loop."""

    def __init__(self, ground: Ground, neighbours: Neighbours) -> None:
        self._ground = ground
        self._neighbours = neighbours
        self.at_home: Callable[[Key], Session | None] = lambda _: None
        """The session of this key, where its client is connected here."""
        self.arrived: Callable[[PlainMessage, str], None] = lambda *_: None
        """Is given what was published at another node; for one client of a shared subscription, where one is named."""
        self.take_in: Callable[[Session, list[Relayed]], Awaitable[bool]]
        """Takes rows into a session's queue; whether that was committed."""
        self.share_in: Callable[[list[Relayed]], Awaitable[bool]]
        """Gives each row to one member of its shared subscription; whether that was committed."""
        self.retained: Callable[[Iterable[str], list[RetainedFields]], None] = lambda *_: None
        """Is told what the database has of these topics."""
        self.broken: Callable[[], None] = lambda: None
        """What came over the bus may have been missed."""
        self._elsewhere = Elsewhere(ground.access.topics.owns)
        self.interests = Interests(neighbours, self._elsewhere, self._background)
        self._numbers = itertools.count(1)
        self._last: dict[int, int] = {}
        """The newest message of each node that has come, so that what is sent again comes once."""
        self._read = {
            kind: Work(work, self._background, self._failed)
            for kind, work in (
                ("kept", self._read_kept),
                ("relayed", self._take_rows),
                ("shares", self._take_shares),
                ("retained", self._read_retained),
            )
        }
        """What has still to be looked up, by kind."""
        self._written: set[str] = set()
        """Sessions for which rows were written since their number was looked at."""
        self._open = False
        self._tasks: set[asyncio.Task[None]] = set()
        for kind, handler in (
            ("plain", self._on_plain),
            ("kept", self._on_kept),
            ("relayed", lambda _, fields: self.look(fields[0])),
            ("shares", lambda *_: self._read["shares"].add([_LOOK])),
            ("retained", lambda _, fields: self._read["retained"].add(fields[0])),
        ):
            neighbours.on(kind, handler)
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
            self._elsewhere.put(Remote(*stored))
        await self.interests.start()
        self._open = True
        for work in self._read.values():
            work.begin()
        self._read["shares"].add([_ADOPT])
        self._background(lasting.task("the sweep of sessions", self._sweep))

    def stop(self) -> None:
        """Nothing more is done; what is not done yet stands in the database."""
        self._open = self.interests.open = False
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
            if self.interests.shares:
                self._read["shares"].add([_LOOK])

    # Nodes that come and go.

    def _left(self, node: int) -> None:
        self._elsewhere.forget(node)
        self._last.pop(node, None)
        if self._open:
            self.look_at_all()  # what it had committed for sessions here, and not told
            self._read["shares"].add([_ADOPT])
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
        self._read["shares"].add([_ADOPT])

    # Kept sessions.

    def keep(self, session: Session) -> None:
        """The filters of a kept session that is here are these now."""
        if session.plain:
            self._elsewhere.put(Remote(session.key, session.id, dict(session.filters)))
        else:
            self._elsewhere.drop(session.id)

    async def tell_kept(self, session: Session) -> None:
        """The other nodes that serve clients, and live, know the filters of a kept session, which are committed."""
        self.keep(session)
        await self.interests.tell_everybody("kept", session.id)

    def ended(self, session: Session) -> None:
        """A kept session is to be no more, with the next transaction."""
        if session.id not in self._elsewhere.kept:
            return

        def committed(_: bool) -> None:
            self._neighbours.tell("kept", 0, session.id)
            self._read["shares"].add([_LOOK])  # what it had not got by a shared subscription is others'

        self._elsewhere.drop(session.id)
        self._store.write(sql.SHARE_AGAIN, self._neighbours.incarnation, session.id)
        self._store.write(sql.DROP_RELAYED_OF, session.id)
        self._store.committed(committed)

    def _on_kept(self, node: int, fields: list[Any]) -> None:
        number, session_id = fields
        self._read["kept"].add([(session_id, node, number)])

    async def _read_kept(self, asked: set[Any]) -> None:
        ids = {session_id for session_id, _, _ in asked}
        everything = "" in ids
        found = await self._store.look(partial(self._store.plain_filters, None if everything else list(ids)))
        there = {session_id for _, session_id, _ in found}
        for session_id in [each for each in self._elsewhere.kept if each not in there] if everything else ids - there:
            self._elsewhere.drop(session_id)
        for stored in found:
            self._elsewhere.put(Remote(*stored))
        for _, node, number in asked:
            if number:
                self._neighbours.questions.done(node, number)

    # Publishing.

    def reach(self, message: PlainMessage, served: Callable[[str], bool]) -> tuple[Away, set[str]]:
        """Who elsewhere is to get it, by rows of the next transaction or else; and shared subscriptions of which nobody here is.

        `served`: whether a shared subscription has a client here.
        """
        away = Away()
        away.nodes = self._elsewhere.nodes(message.topic)
        for remote, options in self._elsewhere.sessions(message.topic).items() if message.qos else ():
            qos = min(message.qos, max(each & 3 for each in options))
            home = self.at_home(remote.key)
            if qos and (home is None or home.id != remote.id):
                self._write_for(away, remote, message, options)
        shared = {text for text in self._elsewhere.shares(message.topic) if not self.share(away, text, message, served(text))}
        return away, shared

    @staticmethod
    def nowhere() -> Away:
        """Nobody elsewhere, so far."""
        return Away()

    def share(self, away: Away, text: str, message: PlainMessage, here: bool) -> bool:
        """Choose a member of a shared subscription for a message; True where it is to be a client of this node."""
        place = self._elsewhere.choose(text, message.qos, here=here, at_home=self.at_home)
        if isinstance(place, Remote):
            self._write_for(away, place, message, [place.filters[text]], text)
        elif place and message.qos:
            row = (message.topic, message.payload, message.qos, message.retain, message.properties, message.expires)
            self._store.write(sql.RELAY, "", *row, text, place)
            away.shares.add(place)
        elif place:
            away.members.append((place, text))
        return place == 0

    def _write_for(self, away: Away, remote: Remote, message: PlainMessage, options: list[int], share: str = "") -> None:
        qos = min(message.qos, max(each & 3 for each in options))
        retain = message.retain and any(each & RETAIN_AS_PUBLISHED for each in options)
        row = (message.topic, message.payload, qos, retain, identifiers(options) + message.properties, message.expires)
        self._store.write(sql.RELAY, remote.id, *row, share, 0)
        away.sessions.append(remote.id)
        if not self._written and self._open:
            self._background(self._trim())
        self._written.add(remote.id)

    def send(self, message: PlainMessage, away: Away, done: Callable[[], None] | None) -> None:
        """Tell other nodes of a message, and of its rows, which are committed; then `done` is called.

        At QoS 0 it is dropped where too much waits to be told.
        """
        if away.sessions:
            self._neighbours.tell("relayed", away.sessions)
        for node in away.shares:
            self._neighbours.tell("shares", to=node)
        told = [(away.nodes, "")] if away.nodes else []
        for nodes, text in [*told, *(([node], text) for node, text in away.members)]:
            left = message.expires - self._ground.clock.steady() if message.expires else 0
            payload, properties = (base64.b64encode(part).decode() for part in (message.payload, message.properties))
            fields = (next(self._numbers), message.topic, payload, message.qos, message.retain, properties, left, text)
            size = len(payload) + len(message.topic) + ENVELOPE
            if not self._neighbours.send("plain", fields, nodes, None if done is None else _nothing, size):
                self._ground.count("plain_dropped")
        if done is not None:
            self._neighbours.send("", (), (), done)

    def _on_plain(self, node: int, fields: list[Any]) -> None:
        number, topic, payload, qos, retain, properties, left, share = fields
        if number <= self._last.get(node, 0):
            return
        self._last[node] = number
        if self._ground.access.plain.is_open(topic):
            expires = self._ground.clock.steady() + max(1, left) if left else 0
            parts = base64.b64decode(payload), qos, retain, base64.b64decode(properties), expires
            self.arrived(PlainMessage(topic, *parts), share)

    # Rows for sessions that are here.

    def look(self, ids: Iterable[str]) -> None:
        """There may be rows for these sessions; those that are here get them soon."""
        self._read["relayed"].add(ids)

    def look_at_all(self) -> None:
        """The same of all sessions."""
        self.look([remote.id for remote in self._elsewhere.kept.values() if self.at_home(remote.key) is not None])

    async def _take_rows(self, ids: set[Any]) -> None:
        here: dict[str, Session] = {}
        for session_id in ids:
            remote = self._elsewhere.kept.get(session_id)
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

    async def _take_shares(self, what: set[Any]) -> None:
        """Rows for clients of shared subscriptions that are here; those of nodes that are no more are this one's from now on."""
        mine = self._neighbours.incarnation
        rows = await self._store.look(partial(self._store.shared_with, mine, ROWS, adopt=_ADOPT in what))
        if rows and not await self.share_in(rows):
            raise StoreFailed("it could not be written")
        if len(rows) == ROWS:
            self._read["shares"].add([_LOOK])

    async def _trim(self) -> None:
        """Of what waits for a session that nobody takes it to, the oldest goes."""
        await asyncio.sleep(TRIM_S)
        ids, self._written = list(self._written), set()
        limits = self._ground.limits
        trim = partial(self._store.trim, ids, limits.max_queued_messages, limits.max_queued_bytes_per_user)
        try:
            dropped = await self._store.look(trim)
        except StoreFailed:
            if not self._written and self._open:  # else it is about to be, for what was written meanwhile
                self._background(self._trim())
            self._written.update(ids)
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


def _nothing() -> None:
    """Whoever waits for it waits behind it."""
