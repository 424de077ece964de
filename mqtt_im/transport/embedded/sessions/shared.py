"""Sessions of many nodes, in one database: the same tables, written by one thread of each node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

import peewee
import psycopg

from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import one_line
from mqtt_im.tables.postgres import Lane, PostgresTables
from mqtt_im.transport.embedded.limits import Count
from mqtt_im.transport.embedded.sessions.persistence import MODELS, Parameters, Persistence, StoreFailed

NAME = "sessions"
T = TypeVar("T")


class SharedPersistence(Persistence):
    """Implements what `Persistence` does; nothing of it waits for the network on the event loop."""

    def __init__(self, tables: PostgresTables, count: Count, log: logging.Logger) -> None:
        self._tables = tables
        self._run(count, log)

    @staticmethod
    def tables(database: Database) -> PostgresTables:
        """The tables, made where they are missing, on a connection of their own. Raises `StoreError`."""
        return PostgresTables(Lane(database, NAME), NAME, MODELS)

    def still_alive(self, *, needed: bool) -> None:
        """Nothing: the nodes know which of them live."""

    async def look(self, read: Callable[[], T]) -> T:
        """See `Persistence`."""
        return await asyncio.to_thread(read)

    def _query(self, sql: str, parameters: Parameters) -> list[tuple[object, ...]]:
        try:
            return self._tables.sql(sql, parameters)
        except peewee.PeeweeException as error:
            raise StoreFailed(str(error)) from error

    def _commit(self, statements: list[tuple[str, Parameters]]) -> bool:
        if not statements:
            return True
        try:
            with self._tables.transaction():
                self._tables.batch(statements)
        except (peewee.PeeweeException, psycopg.Error) as error:
            self._failure = one_line(error)
            return False
        return True

    def _end(self) -> None:
        self._tables.lane.close()
