"""A database with a store, on which no node runs meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import peewee
import psycopg

from mqtt_im.hooks.subscriptions import KeyRow
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import explained, one_line
from mqtt_im.postgres.nodes import keep_out
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.postgres.taking import is_empty
from mqtt_im.store.postgres.whole import PostgresWhole
from mqtt_im.store.postgres.written_out import write_out
from mqtt_im.tables import Tables
from mqtt_im.tables.postgres import Lane, PostgresTables
from mqtt_im.transport.embedded.sessions.shared import NAME as SESSIONS
from mqtt_im.transport.embedded.sessions.shared import WillRow as SharedWillRow
from mqtt_im.transport.embedded.sessions.tables import WillRow

from .small import FILES, Models

_PATIENCE_S: Final = 86_400.0
_QUEUE_RELAYED: Final = """
    INSERT INTO queued (session, seq, qos, retain, stage, topic, payload, properties, expires, share)
    SELECT r.session, coalesce((SELECT max(seq) FROM queued q WHERE q.session = r.session), 0)
    + row_number() OVER (PARTITION BY r.session ORDER BY r.id),
    r.qos, r.retain, 0, r.topic, r.payload, r.properties, r.expires, '' FROM relayed r JOIN session s ON s.id = r.session"""


class _Within(Lane):
    """All that is done is a part of the transaction that is open on a connection."""

    def __init__(self, database: Database, connection: Connection) -> None:
        super().__init__(database, "copy")
        self._connection = connection
        self.inside = True


class Schemas:
    """The store and the small tables of a database, within a transaction of the caller's."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self.where = database.where
        self._database = database
        self._connection = connection

    def whole(self) -> PostgresWhole:
        """All that the store holds; what large groups have told is written out, in this transaction alone."""
        self._connection.execute("SET LOCAL search_path TO DEFAULT")
        write_out(self._connection)
        return PostgresWhole(self._database, self._connection)

    def small(self, name: str, *, made: bool = False) -> tuple[Tables, Models] | None:
        """See `HasSmall`. One set at a time: names are those of its schema until `whole` is asked for."""
        schema = f"im_{name}"
        models = tuple(SharedWillRow if model is WillRow else model for model in FILES[name][1])
        found = self._connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", (schema,)).fetchone()
        if not made and not (found and found[0]):
            return None
        self._connection.execute(f"SET LOCAL search_path = {schema}".encode())
        if name == SESSIONS and not made:
            self._queue_relayed()
        return PostgresTables(_Within(self._database, self._connection), name, models), models

    def _queue_relayed(self) -> None:
        """What one node has left for sessions at another one stands in their queues, in this transaction alone."""
        found = self._connection.execute("SELECT to_regclass('relayed') IS NOT NULL").fetchone()
        if found and found[0]:
            self._connection.execute(_QUEUE_RELAYED)

    def push_key(self) -> bytes | None:
        """See `HasSmall`."""
        there = self._connection.execute("SELECT to_regclass('im_webpush.key') IS NOT NULL").fetchone()
        found = self._connection.execute("SELECT pem FROM im_webpush.key").fetchone() if there and there[0] else None
        return None if found is None else bytes(found[0])

    def keep_push_key(self, pem: bytes) -> None:
        """See `HasSmall`."""
        self._connection.execute("SET LOCAL search_path = im_webpush")
        PostgresTables(_Within(self._database, self._connection), "webpush", (KeyRow,))
        self._connection.execute("DELETE FROM im_webpush.key")
        self._connection.execute("INSERT INTO im_webpush.key (name, pem) VALUES ('vapid', %s)", (pem,))

    @property
    def empty(self) -> bool:
        """Whether nobody has ever kept anything in it."""
        if not is_empty(self._connection):
            return False
        for name in FILES:
            found = self.small(name)
            if found is not None and any(found[0].rows(model.select(peewee.SQL("1")).limit(1)) for model in found[1]):
                return False
        self._connection.execute("SET LOCAL search_path TO DEFAULT")
        return True


@contextmanager
def alone(url: str) -> Iterator[tuple[Database, Connection]]:
    """A connection to a database on which no node runs, nor starts while this lasts. Raises `StoreError`."""
    database = Database(url)
    with database.connect("copy", patience_s=_PATIENCE_S) as connection:
        try:
            database.check_pooling(connection)
            connection.execute("SET idle_in_transaction_session_timeout = 0")
            running = keep_out(database, connection)
            if running:
                names = ", ".join(running)
                raise StoreError(f"{database.where}: in use by {names}; stop every node first")
            yield database, connection
        except psycopg.Error as error:
            raise explained(error, database.where) from error
        except peewee.PeeweeException as error:
            raise StoreError(f"{database.where}: {one_line(error)}") from error
