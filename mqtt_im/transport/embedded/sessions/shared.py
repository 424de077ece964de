"""Sessions of many nodes, in one database: the same tables, written by one thread of each node."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import peewee
import psycopg

from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import one_line
from mqtt_im.postgres.nodes import BURY_ENDED
from mqtt_im.tables.postgres import Lane, PostgresTables
from mqtt_im.transport.embedded.limits import Count
from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.persistence import Parameters, Persistence, RetainedFields, StoreFailed
from mqtt_im.transport.embedded.sessions.tables import MODELS

NAME = "sessions"
T = TypeVar("T")


class ClientRow(peewee.Model):
    """Which node has a client, or had it last; `before` is who had it before, `gen` how often it has changed hands."""

    user = peewee.TextField()
    name = peewee.TextField()
    incarnation = peewee.BigIntegerField()
    before = peewee.BigIntegerField(default=0)
    gen = peewee.BigIntegerField(default=1)

    class Meta:  # noqa: D106 - peewee's way to name a table
        table_name = "client"
        primary_key = peewee.CompositeKey("user", "name")


class Holder(NamedTuple):
    """The node that has a client, and how often that has changed hands."""

    incarnation: int
    gen: int


NOBODY: Final = Holder(0, 0)


class RelayedRow(peewee.Model):
    """A plain message for a kept session, written by the node that it was published at; as in `QueuedRow` otherwise.

    Where no session is named, it is for one of the clients of a shared subscription that a node has.
    """

    id = peewee.BigAutoField()
    session = peewee.TextField(index=True)
    topic = peewee.TextField()
    payload = peewee.BlobField()
    qos = peewee.IntegerField()
    retain = peewee.BooleanField()
    properties = peewee.BlobField()
    expires = peewee.BigIntegerField()
    share = peewee.TextField()
    node = peewee.BigIntegerField()

    class Meta:  # noqa: D106 - peewee's way to name a table
        table_name = "relayed"


class Relayed(NamedTuple):
    """A row of `relayed`."""

    id: int
    session: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: bytes
    expires: int
    share: str


class WillRow(sql.WillRow):
    """A will, and the node that will publish it: `delay` is -1 where it is `due` then (ms), else its client is connected."""

    incarnation = peewee.BigIntegerField()
    delay = peewee.BigIntegerField()

    class Meta:  # noqa: D106 - peewee's way to name a table
        table_name = "will"
        primary_key = peewee.CompositeKey("user", "name")


_KEEP = (
    'INSERT INTO will ("user", name, device, {column}, topic, payload, qos, retain, expiry, properties, incarnation, {other}) '
    'VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {value}) ON CONFLICT ("user", name) DO UPDATE SET device = excluded.device, '
    "due = excluded.due, topic = excluded.topic, payload = excluded.payload, qos = excluded.qos, retain = excluded.retain, "
    "expiry = excluded.expiry, properties = excluded.properties, incarnation = excluded.incarnation, delay = excluded.delay"
)
RELAY: Final = (
    "INSERT INTO relayed (session, topic, payload, qos, retain, properties, expires, share, node) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
SHARE_AGAIN: Final = "UPDATE relayed SET session = '', node = ? WHERE session = ? AND share <> ''"
_ADOPT_SHARES: Final = "UPDATE relayed SET node = ? WHERE session = '' AND node <> ALL (SELECT incarnation FROM public.node)"
_RELAYED: Final = "SELECT id, session, topic, payload, qos, retain, properties, expires, share FROM relayed"
DROP_RELAYED_OF: Final = "DELETE FROM relayed WHERE session = ?"
_TRIM: Final = (
    "DELETE FROM relayed r USING (SELECT id, row_number() OVER w AS n, sum(length(payload) + length(topic)) OVER w AS size "
    "FROM relayed WHERE session = ANY (?) WINDOW w AS (PARTITION BY session ORDER BY id DESC)) t "
    "WHERE r.id = t.id AND t.n > 1 AND (t.n > ? OR t.size > ?) RETURNING r.id"
)
_ORPHANS: Final = "DELETE FROM relayed WHERE session = ANY (?) AND session <> ALL (SELECT id FROM session)"
_WITH_OWNER = {
    sql.KEEP_WILL: _KEEP.format(column="due", other="delay", value=-1),
    sql.DROP_WILL: 'DELETE FROM will WHERE "user" = ? AND name = ? AND incarnation = ?',
    sql.KEEP_TESTAMENT: _KEEP.format(column="delay", other="due", value=0),
}
"""Statements that name the node too."""
_ADOPT = (
    "UPDATE will SET incarnation = ?, delay = -1, due = CASE WHEN delay < 0 THEN due ELSE "
    "(extract(epoch FROM clock_timestamp()) * 1000)::bigint + delay * 1000 END "
    "WHERE incarnation <> ALL (SELECT incarnation FROM public.node) AND incarnation <> ? "
    'RETURNING "user", name, device, due, topic, payload, qos, retain, expiry, properties'
)
_UNATTENDED: Final = (
    'UPDATE session s SET seen = ? FROM client c WHERE s.seen = 0 AND c."user" = s."user" AND c.name = s.name '
    "AND c.incarnation <> ALL (SELECT incarnation FROM public.node)"
)
_CLAIM = (
    'INSERT INTO client AS c ("user", name, incarnation, before, gen) VALUES (?, ?, ?, 0, 1) '
    'ON CONFLICT ("user", name) DO UPDATE SET before = c.incarnation, incarnation = excluded.incarnation, gen = c.gen + 1 '
    "WHERE c.incarnation = excluded.incarnation OR (c.incarnation = ? AND c.gen = ?) RETURNING before, gen"
)
_WHO_HAS: Final = 'SELECT incarnation, gen FROM client WHERE "user" = ? AND name = ?'


class SharedPersistence(Persistence):
    """Implements what `Persistence` does; nothing of it waits for the network on the event loop."""

    shared = True

    def __init__(
        self, tables: PostgresTables, count: Count, log: logging.Logger, incarnation: Callable[[], int] = lambda: 0
    ) -> None:
        """`incarnation` is this node's: what it writes is kept only while that is a living one's; 0: there are no nodes."""
        self._tables = tables
        self._incarnation = incarnation
        self._run(count, log)

    @staticmethod
    def tables(database: Database) -> PostgresTables:
        """The tables, made where they are missing, on a connection of their own. Raises `StoreError`."""
        return PostgresTables(
            Lane(database, NAME), NAME, [*(model for model in MODELS if model is not sql.WillRow), WillRow, ClientRow, RelayedRow]
        )

    def still_alive(self, *, needed: bool) -> None:
        """Nothing: the nodes know which of them live."""

    async def look(self, read: Callable[[], T]) -> T:
        """See `Persistence`."""
        return await asyncio.to_thread(read)

    def write(self, statement: str, *parameters: object) -> None:
        """See `Persistence`."""
        if statement in _WITH_OWNER:
            super().write(_WITH_OWNER[statement], *parameters, self._incarnation())
        else:
            super().write(statement, *parameters)

    def wills(self) -> list[tuple[Any, ...]]:
        """Wills of nodes that are no more, which are this node's from now on; each is told to one node alone."""
        mine = self._incarnation()
        return self._query(_ADOPT, (mine, mine))

    def plain_filters(self, ids: list[str] | None = None) -> list[tuple[tuple[str, str], str, dict[str, int]]]:
        """Key, id and filters of kept sessions that are subscribed to plain topics: of these, or of all."""
        query = 'SELECT "user", name, id, filters FROM session WHERE plain'
        rows = self._query(query, ()) if ids is None else self._query(f"{query} AND id = ANY (?)", (ids,))
        return [((user, name), session_id, json.loads(filters)) for user, name, session_id, filters in rows]

    def relayed(self, ids: list[str], limit: int) -> list[Relayed]:
        """The oldest rows for these sessions, at most `limit`."""
        return self._relayed(f"{_RELAYED} WHERE session = ANY (?) ORDER BY id LIMIT ?", (ids, limit))

    def shared_with(self, node: int, limit: int, *, adopt: bool) -> list[Relayed]:
        """The oldest rows for shared subscriptions of a node's clients; `adopt`: those of dead nodes are this one's now."""
        if adopt:
            self._query(_ADOPT_SHARES, (node,))
        return self._relayed(f"{_RELAYED} WHERE session = '' AND node = ? ORDER BY id LIMIT ?", (node, limit))

    def _relayed(self, query: str, values: Parameters) -> list[Relayed]:
        return [
            Relayed(number, session, topic, bytes(payload), qos, retain, bytes(properties), expires, share)
            for number, session, topic, payload, qos, retain, properties, expires, share in self._query(query, values)
        ]

    def trim(self, ids: list[str], messages: int, size: int) -> int:
        """Of what waits for these sessions, no more than so many messages and bytes are left; how many went."""
        self._query(_ORPHANS, (ids,))
        return len(self._query(_TRIM, (ids, messages, size)))

    def retained_on(self, topics: list[str] | None) -> list[RetainedFields]:
        """What is retained on these topics, or on all."""
        if topics is None:
            return self.retained()
        return self._retained("WHERE topic = ANY (?)", (topics,))

    def unattended(self, now: int) -> None:
        """Clients that were connected to a node which is no more have gone by now (seconds since 1970)."""
        self._query(_UNATTENDED, (now,))

    def claim(self, key: tuple[str, str], incarnation: int, let_go: Holder = NOBODY) -> tuple[bool, Holder]:
        """Whether the client is this node's now: where another one has it, only if that is `let_go`.

        If so, the node that had it before, `NOBODY`'s for none, and the new `gen`; else who has it.
        """
        if rows := self._query(_CLAIM, (*key, incarnation, let_go.incarnation, let_go.gen)):
            return True, Holder(*rows[0])
        return False, Holder(*self._query(_WHO_HAS, key)[0])  # rows of this table stay

    def has(self, key: tuple[str, str], holder: Holder) -> bool:
        """Whether that node has the client, and it has not changed hands since."""
        return [Holder(*row) for row in self._query(_WHO_HAS, key)] == [holder]

    def bury(self, incarnation: int) -> bool:
        """Whether that node is dead, where its process has ended, which is known at once."""
        if not self._query("SELECT 1 FROM public.node WHERE incarnation = ?", (incarnation,)):
            return True
        return bool(self._query(BURY_ENDED, (incarnation,)))

    def _query(self, sql: str, parameters: Parameters) -> list[Any]:
        try:
            return self._tables.sql(sql, parameters)
        except peewee.PeeweeException as error:
            raise StoreFailed(str(error)) from error

    def _commit(self, statements: list[tuple[str, Parameters]]) -> bool:
        if not statements:
            return True
        try:
            with self._tables.reading():
                mine = self._incarnation()
                if mine and not self._tables.sql("SELECT 1 FROM public.node WHERE incarnation = ? FOR KEY SHARE", (mine,)):
                    self._failure = "this node was declared dead"
                    return False
                self._tables.batch(statements)
        except (peewee.PeeweeException, psycopg.Error) as error:
            self._failure = one_line(error)
            return False
        return True

    def _end(self) -> None:
        self._tables.lane.close()
