"""Sessions by their names: begun, found again, kept on disk, and ended."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from typing import Final

from mqtt_im.protocol.names import is_device
from mqtt_im.transport.embedded.sessions import persistence
from mqtt_im.transport.embedded.sessions.ground import Ground
from mqtt_im.transport.embedded.sessions.persistence import StoredSession
from mqtt_im.transport.embedded.sessions.plain import Plain
from mqtt_im.transport.embedded.sessions.session import Key, Message, Session

MAX_KEPT_SESSIONS: Final = 256
"""Kept sessions of one user; of nobody as well."""


class Keeper:
    """All sessions. Those that plain messages may reach, and those with a connection, are in memory."""

    def __init__(self, ground: Ground, plain: Plain, ended: Callable[[str, str], None]) -> None:
        """`ended` is told of each device, by user and name, whose kept session was given up."""
        self._ground = ground
        self._plain = plain
        self._ended = ended
        self.in_memory: dict[Key, Session] = {}

    async def find(self, key: Key) -> Session | None:
        """The kept session of this key, from memory or disk. Raises `StoreFailed`."""
        if key not in self.in_memory and not self._ground.store.idle:
            await self.committed()  # what was written of it last must be found
        session = self.in_memory.get(key)
        if session is not None:
            return session
        stored = self._ground.store.session(*key)
        return None if stored is None else self.restore(stored)

    async def make_room(self, user: str) -> None:
        """Let the user have room for one more kept session: of those without a connection, the longest unseen ones go."""
        names = self._ground.store.names(user, MAX_KEPT_SESSIONS - 1)
        away = [name for name in names if not self._connected((user, name))]
        for name in away[: max(0, len(names) + 1 - MAX_KEPT_SESSIONS)]:
            session = await self.find((user, name))
            if session is not None and session.connection is None:
                self.discard(session)
                if user and is_device(name):
                    self._ended(user, name)

    def _connected(self, key: Key) -> bool:
        session = self.in_memory.get(key)
        return session is not None and session.connection is not None

    def begin(self, key: Key, kept: bool) -> Session:
        """Begin a session."""
        session = Session(key, secrets.token_hex(8), kept)
        self.in_memory[key] = session
        if kept:
            self.save(session)
        return session

    def restore(self, stored: StoredSession) -> Session:
        """Put a kept session from disk into memory."""
        session = Session((stored.user, stored.name), stored.id, kept=True)
        session.filters = stored.filters
        session.received = set(stored.received) or None
        if stored.queue:
            session.need_outbox(self._ground.limits).restore(
                Message(row.seq, row.topic.encode(), row.payload, row.qos, row.retain, row.stage) for row in stored.queue
            )
        self._plain.subscribe_all(session)
        self.in_memory[session.key] = session
        return session

    def save(self, session: Session) -> None:
        """Write a kept session's row with the next transaction."""
        filters = json.dumps(session.filters, ensure_ascii=False, separators=(",", ":"))
        row = (*session.key, session.id, filters, bool(session.plain), int(time.time()))
        self._ground.store.write(persistence.SAVE_SESSION, *row)

    def discard(self, session: Session) -> None:
        """End a session: its subscriptions and queue are gone, from disk with the next transaction."""
        self._plain.unsubscribe_all(session)
        session.outbox = session.received = None
        if self.in_memory.get(session.key) is session:
            del self.in_memory[session.key]
        if session.kept:
            for statement in (persistence.DROP_SESSION, persistence.DROP_QUEUE, persistence.DROP_RECEIVED):
                self._ground.store.write(statement, session.id)
            session.kept = False  # nothing of it is written any more

    def rest(self, session: Session) -> None:
        """The session's connection is gone: end it, or keep as much of it in memory as is needed there."""
        session.connection = None
        session.catch_up = None
        if not session.kept:
            self.discard(session)
            return
        self._ground.store.write(persistence.SEEN, int(time.time()), session.id)
        if session.idle:
            self._evict(session, ok=True)

    def _evict(self, session: Session, *, ok: bool) -> None:
        """Take a session that is on disk out of memory, once reading it from there would find all of it."""
        if session.connection is not None or not session.idle or self.in_memory.get(session.key) is not session:
            return
        if self._ground.store.idle:
            del self.in_memory[session.key]
        elif ok:
            self._ground.store.committed(lambda ok: self._evict(session, ok=ok))

    async def committed(self) -> bool:
        """Wait for what was written so far; whether it was committed."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(ok: bool) -> None:
            if not future.done():
                future.set_result(ok)

        self._ground.store.committed(done)
        return await future
