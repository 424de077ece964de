"""Sessions by their names: begun, found again, kept on disk, and ended, by their clients' wish or by the clock."""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import math
import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

from mqtt_im.protocol.names import is_device
from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.away import Away, weight
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.persistence import StoredSession, StoreFailed
from mqtt_im.transport.embedded.sessions.plain import Plain
from mqtt_im.transport.embedded.sessions.session import Key, Message, Session, is_nameless

MAX_KEPT_SESSIONS: Final = 256
"""Kept sessions of one user; of nobody as well."""
_AHEAD_S: Final = 3600
"""The ends of sessions are looked up on disk so far ahead; only the near ones are in memory."""
_ALIVE_S: Final = 2.0

logger = logging.getLogger(__name__)


class Keeper:
    """All sessions. Those that plain messages may reach, and those with a connection, are in memory."""

    def __init__(self, ground: Ground, plain: Plain, ended: Callable[[str, str], None]) -> None:
        """`ended` is told of each device, by user and name, whose kept session was given up or has expired."""
        self._ground = ground
        self._plain = plain
        self._ended = ended
        self.in_memory: dict[Key, Session] = {}
        self.before_end: Callable[[Key], None] = lambda _: None
        """Is called before a session ends that had no connection."""
        self._away = Away(ground.bounds.less(ground.limits.max_kept_session_bytes))
        self._ends: list[tuple[float, Key]] = []
        """A heap of when sessions without a client end; what was taken up again meanwhile is found out then."""
        self._looked_ahead_to = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._over: set[str] = set()
        """Ids of sessions that have ended though the disk does not know it yet."""
        self._timed: set[str] = set()
        """Ids of the connected sessions whose expiry is shorter than the longest."""
        self._alive: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """The store is there, and all sessions that have to be in memory: look for those that have ended, or will soon."""
        for session in sorted(self.in_memory.values(), key=lambda session: session.seen or math.inf):
            self._away.add(session.key, weight(session.filters))
        self._ground.background(self._look_ahead())

    def stop(self) -> None:
        """No timer is left."""
        for timer in (self._timer, self._alive):
            if timer is not None:
                timer.cancel()
        self._timer = self._alive = None
        self._ground.store.still_alive(needed=False)

    async def find(self, key: Key) -> Session | None:
        """The kept session of this key, from memory or disk, if it has not expired. Raises `StoreFailed`."""
        if is_nameless(key[1]):
            return None
        if key not in self.in_memory and not self._ground.store.idle:
            await self.committed()  # what was written of it last must be found
        session = self.in_memory.get(key)
        if session is None:
            stored = await self._ground.store.look(partial(self._ground.store.session, *key))
            if stored is not None and stored.id in self._over:
                self._drop(stored.id)
                self._ground.store.committed(partial(self._dropped, stored.id))
                return None
            session = None if stored is None else self.restore(stored)
        if session is None or session.connection is not None or not session.seen:
            return session
        if session.seen + session.expiry <= self._ground.now():
            self._give_up(session)
            return None
        return session

    def names(self, user: str) -> list[str]:
        """The clients of the user whose sessions are kept, as far as they are on disk."""
        return self._ground.store.names(user, 0)

    async def make_room(self, user: str) -> None:
        """Let the user have room for one more kept session: of those without a connection, the longest unseen ones go."""
        names = await self._ground.store.look(partial(self._ground.store.names, user, MAX_KEPT_SESSIONS - 1))
        away = [name for name in names if not self._connected((user, name))]
        for name in away[: max(0, len(names) + 1 - MAX_KEPT_SESSIONS)]:
            session = await self.find((user, name))
            if session is not None and session.connection is None:
                self._give_up(session)

    async def end(self, key: Key) -> None:
        """A session whose client is away is over, as if its time were; what was to be published at its end is."""
        try:
            session = await self.find(key)
        except StoreFailed as failure:
            self._ground.log.note("session_store", "", "session %s:%s could not be ended: %s", *key, failure)
            return
        if session is None:
            self.before_end(key)
        elif session.connection is None:
            self._give_up(session)

    def _connected(self, key: Key) -> bool:
        session = self.in_memory.get(key)
        return session is not None and session.connection is not None

    def _give_up(self, session: Session) -> None:
        """End a session that has no connection."""
        user, name = session.key
        self.before_end(session.key)
        self.discard(session)
        if user and is_device(name):
            self._ended(user, name)

    def begin(self, key: Key, expiry: int) -> Session:
        """Begin a session that is kept for so many seconds without its client; 0: not at all."""
        session = Session(key, secrets.token_hex(8), expiry)
        self.in_memory[key] = session
        self.save(session)
        self._watch_clock(session)
        return session

    async def begin_on_disk(self, key: Key, expiry: int, former: Session | None) -> Session:
        """Begin a session where `former` was discarded just now; it and its end are on disk.

        A disk that is full keeps nobody from reading: then the session lasts as long as the connection, which CONNACK of MQTT 5
        says. Raises `StoreFailed` where other nodes have the sessions too.
        """
        session = self.begin(key, expiry)
        if (former is None and not expiry) or await self.committed():
            return session
        self.discard(session)
        if self._ground.store.shared:
            raise StoreFailed("it could not be written")
        if former is not None:
            self._over.add(former.id)
        self._ground.log.note("session_store", "", "the session of %s:%s is not kept: it could not be written", *key)
        return self.begin(key, 0)

    def resume(self, session: Session, expiry: int) -> None:
        """A kept session has its client again, who may want it kept for another time."""
        self._away.drop(session.key)
        session.seen = 0
        session.expiry = expiry
        self.save(session)
        self._watch_clock(session)

    def restore(self, stored: StoredSession) -> Session:
        """Put a kept session from disk into memory."""
        session = Session((stored.user, stored.name), stored.id, stored.expires)
        session.kept = True
        session.seen = stored.seen
        session.filters = stored.filters
        session.received = set(stored.received) or None
        if stored.queue:
            session.need_outbox(self._ground.limits, self._ground.room).restore(
                Message(
                    row.seq,
                    row.topic.encode(),
                    row.payload,
                    row.qos,
                    row.retain,
                    row.stage,
                    row.properties,
                    row.expires,
                    row.share,
                )
                for row in stored.queue
            )
            # What was queued is checked again: the configuration may have closed its topic since.
            is_open = self._ground.access.plain.is_open
            self._plain.streams.withdraw(session, lambda topic: not is_open(topic))
        self._plain.subscribe_all(session)
        self.in_memory[session.key] = session
        return session

    def save(self, session: Session) -> None:
        """Write a kept session's row with the next transaction."""
        if session.kept:
            filters = json.dumps(session.filters, ensure_ascii=False, separators=(",", ":"))
            row = (*session.key, session.id, filters, bool(session.plain), session.seen, session.expiry)
            self._ground.store.write(sql.SAVE_SESSION, *row)

    def discard(self, session: Session) -> None:
        """End a session: its subscriptions and queue are gone, from disk with the next transaction.

        What came by a shared subscription and was not acknowledged goes to another member (MQTT5-4.8.2-5).
        """
        self._timed.discard(session.id)
        self._away.drop(session.key)
        self._plain.unsubscribe_all(session)
        if session.kept and self._plain.abroad is not None:
            self._plain.abroad.ended(session)
        left = session.outbox.everything() if session.outbox is not None else []
        if session.outbox is not None:
            session.outbox.clear()
        session.outbox = session.received = session.unwritten = None
        if self.in_memory.get(session.key) is session:
            del self.in_memory[session.key]
        if session.kept:
            self._drop(session.id)
            session.kept = False  # nothing of it is written any more
        self._plain.share_out(left)

    def _drop(self, session_id: str) -> None:
        for statement in (sql.DROP_SESSION, sql.DROP_QUEUE, sql.DROP_RECEIVED):
            self._ground.store.write(statement, session_id)

    def _dropped(self, session_id: str, ok: bool) -> None:
        if ok:
            self._over.discard(session_id)

    def rest(self, session: Session) -> None:
        """The session's connection is gone: end it, or keep as much of it in memory as is needed there."""
        session.connection = None
        session.asking = session.catch_up = None
        self._timed.discard(session.id)
        if not session.expiry or not session.kept:
            self.discard(session)
            return
        session.seen = math.ceil(self._ground.now())
        self._ground.store.write(sql.SEEN, session.seen, session.expiry, session.id)
        if session.expiry < self._ground.limits.session_expiry_s:
            self._ground.store.committed(lambda _: None)  # now, not lazily: its time counts from now
        end = session.seen + session.expiry
        if end < self._looked_ahead_to:
            self._push(end, session.key)
        if self._ground.store.shared:
            self._put_away(session)
        elif session.idle:
            self._evict(session, ok=True)
        else:
            self._is_away(session)

    def _is_away(self, session: Session) -> None:
        """The session stays in memory without its client; where that is too much, those that have been so for longest end."""
        user = session.key[0]
        self._away.add(session.key, weight(session.filters))
        while (key := self._away.too_much(user)) is not None:
            self._away.drop(key)
            self._ground.count("sessions_given_up")
            self._ground.log.note("given_up", "", "session %s:%s ends: those whose clients are away take too much memory", *key)
            self._give_up(self.in_memory[key])

    def _put_away(self, session: Session) -> None:
        """Whichever node its client comes to reads the session from the database; nothing of it is in memory."""
        self._away.drop(session.key)
        self._plain.unsubscribe_all(session)
        if session.outbox is not None:
            session.outbox.clear()
        session.outbox = None
        if self.in_memory.get(session.key) is session:
            del self.in_memory[session.key]

    def _evict(self, session: Session, *, ok: bool) -> None:
        """Take a session that is on disk out of memory, once reading it from there would find all of it."""
        if session.connection is not None or not session.idle or self.in_memory.get(session.key) is not session:
            return
        if self._ground.store.idle:
            self._away.drop(session.key)
            del self.in_memory[session.key]
        elif ok:
            self._ground.store.committed(lambda ok: self._evict(session, ok=ok))

    async def let_go(self, key: Key) -> None:
        """Another node has the session from now on: all of it is written, and nothing of it is in memory."""
        if (session := self.in_memory.get(key)) is not None:
            if not session.kept:
                self.discard(session)
            else:
                self._timed.discard(session.id)
                self._put_away(session)
        if not self._ground.store.idle:
            await self.committed()

    async def committed(self) -> bool:
        """Wait for what was written so far; whether it was committed."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(ok: bool) -> None:
            if not future.done():
                future.set_result(ok)

        self._ground.store.committed(done)
        return await future

    # The clock

    async def _look_ahead(self) -> None:
        """Take up the sessions that end before the next look."""
        now = self._ground.now()
        self._looked_ahead_to = now + _AHEAD_S
        store = self._ground.store
        try:
            rows = await store.look(partial(store.expiring, int(self._looked_ahead_to)))
            self._ends = [(end, (user, name)) for user, name, end in rows]
        except StoreFailed as failure:
            self._ground.log.note("session_store", "", "sessions that have expired cannot be looked up: %s", failure)
        except Exception:
            logger.exception("sessions that have expired could not be looked up")
        heapq.heapify(self._ends)
        self._wait()

    def _push(self, end: float, key: Key) -> None:
        heapq.heappush(self._ends, (end, key))
        if self._ends[0][0] == end:
            self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = min(self._ends[0][0] if self._ends else self._looked_ahead_to, self._looked_ahead_to - _AHEAD_S / 2)
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._ground.now()) + 0.01, self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._ground.now()
        ended: list[Key] = []
        while self._ends and self._ends[0][0] <= now and len(ended) < 100:
            ended.append(heapq.heappop(self._ends)[1])
        if ended:
            self._ground.background(self._end(ended))
        if now >= self._looked_ahead_to - _AHEAD_S / 2:
            self._ground.background(self._look_ahead())
        else:
            self._wait()

    async def _end(self, keys: list[Key]) -> None:
        for key in keys:
            try:
                session = await self.find(key)  # which ends it, if it has expired
                if session is not None and session.connection is None and self._ground.store.shared:
                    self._put_away(session)
            except StoreFailed as failure:
                self._ground.log.note("session_store", "", "a session that has expired cannot be read: %s", failure)
                return
            await asyncio.sleep(0)  # each may have a thousand filters

    def _watch_clock(self, session: Session) -> None:
        """Where the time of a connected session will count from a crash, the file says now and then that the server is there."""
        if not session.kept or session.expiry >= self._ground.limits.session_expiry_s:
            self._timed.discard(session.id)
            return
        self._timed.add(session.id)
        if self._alive is None:
            self._still_alive()

    def _still_alive(self) -> None:
        needed = bool(self._timed)
        self._alive = asyncio.get_running_loop().call_later(_ALIVE_S, self._still_alive) if needed else None
        self._ground.store.still_alive(needed=needed)
