"""Tables in PostgreSQL: a schema `im_{name}` for each name, and one connection for all of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import peewee
import psycopg

from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import NoAnswer, explained, one_line
from mqtt_im.protocol.errors import StoreError

from .interface import Models

_LOCK: Final = 0x6D71_696D
"""The first half of the advisory locks under which tables are written; the second one names the tables."""


class _Peewee(peewee.PostgresqlDatabase):
    """peewee on a connection of ours. Text is compared by its bytes, as in SQLite."""

    def __init__(self, lane: Lane) -> None:
        self._lane: Lane | None = None
        super().__init__("", prefer_psycopg3=True, thread_safe=False, autoconnect=False)
        self._lane = lane
        self._field_types["TEXT"] = 'TEXT COLLATE "C"'  # type: ignore[attr-defined]

    def connection(self) -> Connection:
        """See `peewee.Database`."""
        assert self._lane is not None
        return self._lane.connection()

    def cursor(self, named_cursor: object = None) -> Any:
        """See `peewee.Database`."""
        return self.connection().cursor()

    def is_closed(self) -> bool:
        """See `peewee.Database`."""
        return self._lane is None

    def in_transaction(self) -> bool:
        """See `peewee.Database`."""
        return self._lane is not None and self._lane.inside


class Lane:
    """One connection, made when it is needed, and again after it was lost. One thread at a time has it."""

    def __init__(self, database: Database, purpose: str) -> None:
        self.database = database
        self._purpose = purpose
        self.where = database.where
        self.lock = threading.RLock()
        self.inside = False
        self._connection: Connection | None = None

    def connection(self) -> Connection:
        """The connection. Raises `peewee.OperationalError` where there can be none now."""
        connection = self._connection
        if connection is None or connection.closed:
            if self.inside:
                raise peewee.OperationalError("the connection to the database was lost")
            try:
                connection = self._connection = self.database.connect(self._purpose)
            except StoreError as error:
                raise peewee.OperationalError(error.message) from error
        return connection

    def begin(self, statement: bytes) -> Connection:
        """A transaction is begun; on a new connection where the old one was lost since it was used last."""
        connection = self.connection()
        try:
            connection.execute(statement)
        except NoAnswer:
            raise
        except psycopg.OperationalError:
            if not connection.closed:
                raise
            connection = self.connection()
            connection.execute(statement)
        return connection

    def undo(self) -> None:
        """The transaction that was begun has left nothing."""
        if self._connection is not None and not self._connection.closed:
            try:
                self._connection.execute("ROLLBACK")
            except psycopg.Error:
                self._connection.close()

    def close(self) -> None:
        """The connection is closed; it is made again where it is needed."""
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


class PostgresTables:
    """Implements `Tables`. Every method may be called from any thread, and waits for the others."""

    def __init__(self, lane: Lane, name: str, models: Models) -> None:
        self.lane = lane
        self._schema = f"im_{name}"
        self.where = lane.where
        self.db: Any = _Peewee(lane)
        path = f"BEGIN; SET LOCAL search_path = {self._schema}"
        self._read = path.encode()
        self._write = f"{path}; SELECT pg_advisory_xact_lock({_LOCK}, hashtext('{self._schema}'))".encode()
        try:
            self.is_new = self._make(models)
        except peewee.PeeweeException as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, StoreError):  # there was no connection; it says which one
                raise cause from error
            raise (
                explained(cause, self.where) if isinstance(cause, psycopg.Error) else StoreError(f"{self.where}: {error}")
            ) from error

    def _make(self, models: Models) -> bool:
        with self.transaction():
            there = self.sql("SELECT count(*) FROM pg_namespace WHERE nspname = ?", (self._schema,))[0][0]
            if not there:
                self.sql(f"CREATE SCHEMA {self._schema}")
            missing = {table for (table,) in self.sql("SELECT tablename FROM pg_tables WHERE schemaname = ?", (self._schema,))}
            for model in models:
                meta: Any = model._meta  # noqa: SLF001 - peewee documents it as public
                if meta.table_name not in missing:
                    self._make_one(model, meta)
        return not there

    def _make_one(self, model: type[peewee.Model], meta: Any) -> None:
        """`WITHOUT ROWID` is SQLite's."""
        manager = peewee.SchemaManager(model, self.db)
        before, meta.without_rowid = meta.without_rowid, False
        try:
            manager.create_table(safe=False)
        finally:
            meta.without_rowid = before
        manager.create_indexes(safe=False)

    changes = None

    def transaction(self) -> AbstractContextManager[object]:
        """See `Tables`. One within another is a part of it."""
        return self._within(self._write)

    def reading(self) -> AbstractContextManager[object]:
        """A statement that stands alone is a transaction too, which waits for no other."""
        return self._within(self._read)

    @contextlib.contextmanager
    def _within(self, begin: bytes) -> Iterator[None]:
        lane = self.lane
        with lane.lock:
            if lane.inside:
                yield
                return
            try:
                connection = lane.begin(begin)
                lane.inside = True
                yield
                connection.execute("COMMIT")
            except psycopg.Error as error:
                lane.undo()
                raise _as_peewee(error) from error
            except BaseException:
                lane.undo()
                raise
            finally:
                lane.inside = False

    def run(self, query: Any) -> Any:
        """See `Tables`."""
        with self.reading():
            return query.execute(self.db)

    def rows(self, query: Any) -> list[Any]:
        """See `Tables`."""
        with self.reading():
            return list(query.tuples().execute(self.db))

    def count(self, query: Any) -> int:
        """See `Tables`."""
        with self.reading():
            return int(query.count(self.db))

    def sql(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See `Tables`."""
        with self.reading():
            cursor = self.lane.connection().execute(sql.replace("?", "%s").encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """See `Tables`."""
        with self.reading():
            self.lane.connection().cursor().executemany(sql.replace("?", "%s").encode(), rows)

    def batch(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Run these one after the other, without waiting for each."""
        with self.reading():
            connection = self.lane.connection()
            with connection.pipeline():
                for sql, values in statements:
                    connection.execute(sql.replace("?", "%s").encode(), values)

    def close(self) -> None:
        """See `Tables`. The connection belongs to the place."""


class Schemas:
    """A `Place`: schemas in one database, over one connection of this node."""

    shared = True

    def __init__(self, database: Database) -> None:
        self.lane = Lane(database, "tables")

    def open(self, name: str, models: Models, *, synchronous: str = "full", readonly: bool = False) -> PostgresTables:
        """See `Place`; how much a power cut may take back is the database's to say."""
        return PostgresTables(self.lane, name, models)

    def has(self, name: str) -> bool:
        """See `Place`."""
        try:
            with self.lane.lock:
                found = self.lane.connection().execute("SELECT to_regnamespace(%s) IS NOT NULL", (f"im_{name}",)).fetchone()
        except (psycopg.Error, peewee.PeeweeException) as error:
            raise StoreError(f"{self.lane.where}: {one_line(error)}") from error
        return bool(found and found[0])

    def close(self) -> None:
        """The connection is closed."""
        self.lane.close()


def _as_peewee(error: psycopg.Error) -> peewee.PeeweeException:
    kind = peewee.IntegrityError if isinstance(error, psycopg.IntegrityError) else peewee.OperationalError
    return kind(one_line(error))
