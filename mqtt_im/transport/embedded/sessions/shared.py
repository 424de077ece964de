"""Sessions of many nodes, in one database: the same tables, written by one thread of each node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import peewee
import psycopg

from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import one_line
from mqtt_im.postgres.nodes import BURY_ENDED
from mqtt_im.tables.postgres import Lane, PostgresTables
from mqtt_im.transport.embedded.limits import Count
from mqtt_im.transport.embedded.sessions.persistence import MODELS, Parameters, Persistence, StoreFailed

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


_CLAIM = (
    'INSERT INTO client AS c ("user", name, incarnation, before, gen) VALUES (?, ?, ?, 0, 1) '
    'ON CONFLICT ("user", name) DO UPDATE SET before = c.incarnation, incarnation = excluded.incarnation, gen = c.gen + 1 '
    "RETURNING before, gen"
)


class SharedPersistence(Persistence):
    """Implements what `Persistence` does; nothing of it waits for the network on the event loop."""

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
        return PostgresTables(Lane(database, NAME), NAME, [*MODELS, ClientRow])

    def still_alive(self, *, needed: bool) -> None:
        """Nothing: the nodes know which of them live."""

    async def look(self, read: Callable[[], T]) -> T:
        """See `Persistence`."""
        return await asyncio.to_thread(read)

    def claim(self, key: tuple[str, str], incarnation: int) -> tuple[int, int]:
        """The client is this node's; which one had it before, 0 for none, and how often it has changed hands."""
        ((before, gen),) = self._query(_CLAIM, (*key, incarnation))
        return int(before), int(gen)

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
