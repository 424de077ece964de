"""What of MQTT sessions survives a restart: kept sessions, their plain messages, retained messages (`broker.db`).

The bridge's inboxes are not here: this is the broker's own memory. One writer thread takes everything that waits and
commits it as one transaction; whoever must not speak before that is told on the event loop when it is done. The tables, and
the statements of the writer, are in `tables.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import peewee

from mqtt_im import lasting
from mqtt_im.disk import reason
from mqtt_im.transport.embedded.limits import Count, Quiet
from mqtt_im.transport.embedded.sessions.tables import MODELS, SCHEMA, SINCE_2

logger = logging.getLogger(__name__)

Parameters = tuple[object, ...]
Statement = tuple[str, Parameters]
Done = Callable[[bool], None]
"""Told whether the transaction was committed."""
RetainedFields = tuple[str, int, bytes, bytes, int]
"""Topic, QoS, payload, encoded properties, and when it expires (ms since 1970; 0: never)."""
T = TypeVar("T")

_LAZY_S: Final = 0.2


class StoreFailed(Exception):
    """The session store could not be read or written."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One row of a session's queue."""

    seq: int
    qos: int
    retain: bool
    stage: int
    topic: str
    payload: bytes
    properties: bytes
    expires: int
    share: str


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A kept session as it was found on disk."""

    user: str
    name: str
    id: str
    filters: dict[str, int]
    seen: int
    expires: int
    received: frozenset[int]
    queue: tuple[StoredMessage, ...]


class Persistence:
    """`broker.db`, written by one thread and read on the event loop."""

    shared = False
    """Other nodes have the same sessions."""

    def __init__(
        self,
        path: Path,
        count: Count,
        log: logging.Logger,
        synchronous: str = "full",
        busy_timeout_ms: int = 5000,
        *,
        longest_expiry: int = 7_776_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open the file, or make it; raises `OSError` where that cannot be done.

        `longest_expiry` is what sessions of schema 1, which knew no expiry, are given, in seconds; `now` is the steady
        time, in seconds too, by which all times in the file are.
        """
        self._longest_expiry = longest_expiry
        self._now = now
        self._alive = path.with_suffix(".alive")
        self._database = self._open(path, synchronous, busy_timeout_ms, log)
        self._run(count, log)

    def _open(self, path: Path, synchronous: str, busy_timeout_ms: int, log: logging.Logger) -> peewee.SqliteDatabase:
        database = peewee.SqliteDatabase(
            str(path),
            pragmas={
                "journal_mode": "wal",
                "synchronous": synchronous,
                "secure_delete": 1,
                "busy_timeout": busy_timeout_ms,
                "wal_autocheckpoint": 1000,
            },
            autoconnect=False,
            thread_safe=True,
        )
        try:
            database.connect()
            with database.bind_ctx(MODELS):
                self._migrate(database)
                self._find_those_who_were_there(database, log)
        except peewee.PeeweeException as error:
            database.close()
            raise OSError(reason(path, error)) from error
        return database

    def _run(self, count: Count, log: logging.Logger) -> None:
        """The thread takes what is handed in from now on."""
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._quiet = Quiet(log, self._loop.time, count)
        self._staged: list[Statement] = []
        """Written on the loop, and not handed to the thread yet."""
        self._waiting: list[Statement] = []
        self._waiters: list[Done] = []
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._stopping = False
        self._failure = ""
        self._handed_in = 0
        self._finished = 0
        self._lazy: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._write, name="mqtt-im-sessions", daemon=True)
        self._thread.start()

    def _migrate(self, database: peewee.SqliteDatabase) -> None:
        """Bring the file to the schema of this version. A crash in between leaves it as it was."""
        found = database.pragma("user_version")
        if found > SCHEMA:
            raise peewee.DatabaseError(f"written by a newer version (schema {found}, this one knows {SCHEMA})")
        if found == SCHEMA:
            return  # so that a full disk is in nobody's way
        execute: Callable[..., Any] = database.execute_sql
        with database.atomic():
            if found == 1:
                for table, columns in SINCE_2.items():
                    for column in columns:
                        execute(f"ALTER TABLE {table} ADD COLUMN {column}")
                now = int(self._now())
                execute("UPDATE session SET seen = ?, expires = ?", (now, self._longest_expiry))
            database.create_tables(MODELS, safe=True)
            database.pragma("user_version", SCHEMA, permanent=True)

    def _find_those_who_were_there(self, database: peewee.SqliteDatabase, log: logging.Logger) -> None:
        """The clients that were connected when the server ended without closing went then: as far as that is known."""
        try:
            ended = int(self._alive.read_text())
        except (OSError, ValueError):
            ended = int(self._now())
        execute: Callable[..., Any] = database.execute_sql
        try:
            execute("UPDATE session SET seen = ? WHERE seen = 0", (ended,))
        except peewee.OperationalError as error:
            log.warning("sessions: when their clients went could not be noted: %s", error)
            return
        self._alive.unlink(missing_ok=True)

    def still_alive(self, *, needed: bool) -> None:
        """Note that the server runs, where a session is there whose time will count from when it ended; waits for no disk."""
        with contextlib.suppress(OSError):
            if needed:
                self._alive.write_text(str(int(self._now())))
            else:
                self._alive.unlink(missing_ok=True)

    # Reading: on the event loop, by key or at start.

    def session(self, user: str, name: str) -> StoredSession | None:
        """The kept session of this name as of the last commit, or None. Raises `StoreFailed`, like all that reads."""
        row = self._query('SELECT id, filters, seen, expires FROM session WHERE "user" = ? AND name = ?', (user, name))
        return self._stored(user, name, *row[0]) if row else None

    def names(self, user: str, more_than: int) -> list[str]:
        """The names of this user's kept sessions, the longest unseen first; none where there are not `more_than`."""
        ((number,),) = self._query('SELECT count(*) FROM session WHERE "user" = ?', (user,))
        if number <= more_than:
            return []
        return [name for (name,) in self._query('SELECT name FROM session WHERE "user" = ? ORDER BY seen', (user,))]

    def plain_sessions(self) -> list[StoredSession]:
        """Every kept session that is subscribed to plain topics."""
        rows = self._query('SELECT "user", name, id, filters, seen, expires FROM session WHERE plain', ())
        return [self._stored(*row) for row in rows]

    def expiring(self, before: int) -> list[tuple[str, str, int]]:
        """User, name and end (seconds since 1970) of the sessions without a client that end before that."""
        rows = self._query('SELECT "user", name, seen + expires FROM session WHERE seen > 0 AND seen + expires < ?', (before,))
        return [(user, name, end) for user, name, end in rows]

    def wills(self) -> list[tuple[Any, ...]]:
        """Every will whose delay runs, with the columns of `KEEP_WILL`."""
        return self._query('SELECT "user", name, device, due, topic, payload, qos, retain, expiry, properties FROM will', ())

    def _stored(self, user: str, name: str, session_id: str, filters: str, seen: int, expires: int) -> StoredSession:
        received = self._query("SELECT packet_id FROM received WHERE session = ?", (session_id,))
        queue = self._query(
            "SELECT seq, qos, retain, stage, topic, payload, properties, expires, share FROM queued "
            "WHERE session = ? ORDER BY seq",
            (session_id,),
        )
        return StoredSession(
            user,
            name,
            session_id,
            json.loads(filters),
            seen,
            expires,
            frozenset(packet_id for (packet_id,) in received),
            tuple(
                StoredMessage(seq, qos, bool(retain), stage, topic, bytes(data), bytes(properties), until, share)
                for seq, qos, retain, stage, topic, data, properties, until, share in queue
            ),
        )

    def retained(self) -> list[RetainedFields]:
        """Every retained message."""
        return self._retained("", ())

    def _retained(self, where: str, parameters: Parameters) -> list[RetainedFields]:
        rows = self._query(f"SELECT topic, qos, payload, properties, expires FROM retained {where}", parameters)  # noqa: S608
        return [(topic, qos, bytes(payload), bytes(properties), expires) for topic, qos, payload, properties, expires in rows]

    async def look(self, read: Callable[[], T]) -> T:
        """What `read` finds, which asks of this by the methods above. Raises `StoreFailed`."""
        return read()

    def _query(self, sql: str, parameters: Parameters) -> list[Any]:
        execute: Callable[[str, Parameters], Any] = self._database.execute_sql
        try:
            return list(execute(sql, parameters).fetchall())
        except peewee.PeeweeException as error:
            raise StoreFailed(str(error)) from error

    # Writing: handed to the thread.

    def write(self, sql: str, *parameters: object) -> None:
        """Have this done with the next transaction, at the latest in a fifth of a second; nobody waits for it."""
        self._staged.append((sql, parameters))
        self._handed_in += 1
        if self._lazy is None:
            self._lazy = self._loop.call_later(_LAZY_S, self._wake)

    def write_all(self, statements: list[Statement]) -> None:
        """Have all of this done with one transaction, the next one; it costs the event loop no more than a single statement."""
        self._staged += statements
        self._handed_in += len(statements)
        if self._lazy is None:
            self._lazy = self._loop.call_later(_LAZY_S, self._wake)

    def committed(self, done: Done) -> None:
        """Call `done` when everything that was handed in so far has been committed, or has failed.

        What was written in the same turn of the loop is in one transaction with it: the thread gets them together, so no failure
        of a part can be overlooked.
        """
        with self._lock:
            self._waiting += self._staged
            self._waiters.append(done)
        self._staged.clear()
        self._changed.set()

    def _wake(self) -> None:
        self._lazy = None
        with self._lock:
            self._waiting += self._staged
        self._staged.clear()
        self._changed.set()

    @property
    def idle(self) -> bool:
        """Everything that was handed in has been committed, or has failed: reading finds all of it."""
        return self._handed_in == self._finished

    async def close(self) -> None:
        """Write what waits, and end the thread."""
        if self._lazy is not None:
            self._lazy.cancel()
        self._wake()
        self._stopping = True
        self._changed.set()
        await asyncio.to_thread(self._thread.join)
        self._end()

    def _write(self) -> None:
        """The thread: one transaction for everything that waits."""
        lasting.thread("the sessions' thread", self._work)
        self._end()

    def _end(self) -> None:
        """The thread lets go of its connection."""
        self._database.close()

    def _work(self) -> None:
        self._changed.set()  # perhaps a mistake has ended this before
        while True:
            self._changed.wait()
            self._changed.clear()
            stopping = self._stopping
            with self._lock:
                statements, self._waiting = self._waiting, []
                waiters, self._waiters = self._waiters, []
            if statements or waiters:
                ok = self._committed(statements)
                self._finished += len(statements)
                if waiters or not ok:
                    self._loop.call_soon_threadsafe(self._tell, waiters, ok)
            if stopping:
                break

    def _committed(self, statements: list[Statement]) -> bool:
        """See `_commit`; a mistake is a failure like any other, so that nobody waits for what it has met."""
        try:
            return self._commit(statements)
        except Exception as error:
            logger.exception("sessions: a transaction met a mistake")
            self._failure = str(error)
            return False

    def _commit(self, statements: list[Statement]) -> bool:
        """Commit all of it or nothing; says which. Failing to open the file again is a failure like any other."""
        if not statements:
            return True
        try:
            if self._database.is_closed():
                self._database.connect()
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                for sql, parameters in statements:
                    connection.execute(sql, parameters)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, peewee.PeeweeException) as error:
            self._failure = str(error)
            return False
        return True

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection, in which a transaction begins when we say so."""
        connect: Callable[[], sqlite3.Connection] = self._database.connection
        return connect()

    def _tell(self, waiters: list[Done], ok: bool) -> None:
        if not ok:
            self._count("session_store_failures")
            self._quiet.note(
                "commit", "", "the session store could not commit, nothing it promised was acknowledged: %s", self._failure
            )
        for done in waiters:
            done(ok)
