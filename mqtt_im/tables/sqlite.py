"""Tables in a folder: one SQLite file for each name."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import peewee

from mqtt_im.disk import reading, reason
from mqtt_im.protocol.errors import StoreError

from .interface import Models, Place

_BUSY_TIMEOUT_MS: Final = 5_000
_binding = threading.Lock()


class SqliteTables:
    """Implements `Tables`: one connection, used by one thread at a time."""

    def __init__(self, path: Path, models: Models, synchronous: str, readonly: bool, unchanging: bool = False) -> None:
        self.where = str(path)
        self.path = path
        self.is_new = not path.exists()
        pragmas = {"busy_timeout": _BUSY_TIMEOUT_MS}
        self.db: Any = peewee.SqliteDatabase(
            reading(path, unchanging) if readonly else str(path),
            uri=readonly,
            thread_safe=False,  # one connection for all threads, under a lock of the caller's
            check_same_thread=False,
            pragmas=pragmas if readonly else {"journal_mode": "wal", "synchronous": synchronous, "secure_delete": 1, **pragmas},
        )
        try:
            if not readonly:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self.is_new:
                    # Never where it may be open already: to close any descriptor of a file gives up all POSIX locks that this
                    # process has on it, and then another process that is done with it takes the write-ahead log away.
                    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self.db.connect()
            if not readonly:
                with _binding, self.db.bind_ctx(models):
                    self.db.create_tables(models)
        except (peewee.PeeweeException, OSError) as error:
            raise StoreError(reason(path, error)) from error

    @property
    def changes(self) -> int | None:
        """See `Tables`."""
        # On the way of each request with a token, so without peewee around it.
        try:
            found: int = self.db.connection().execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise peewee.OperationalError(str(error)) from error
        return found

    def transaction(self) -> AbstractContextManager[object]:
        """See `Tables`."""
        atomic: AbstractContextManager[object] = self.db.atomic("IMMEDIATE")
        return atomic

    def run(self, query: Any) -> Any:
        """See `Tables`."""
        return query.execute(self.db)

    def rows(self, query: Any) -> list[Any]:
        """See `Tables`."""
        return list(query.tuples().execute(self.db))

    def count(self, query: Any) -> int:
        """See `Tables`."""
        return int(query.count(self.db))

    def sql(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See `Tables`."""
        return list(self.db.execute_sql(sql, values).fetchall())

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """See `Tables`."""
        try:
            self.db.connection().executemany(sql, rows)
        except sqlite3.Error as error:
            raise peewee.OperationalError(str(error)) from error

    def close(self) -> None:
        """See `Tables`."""
        self.db.close()


class Folder:
    """A `Place`: files `{name}.db` in one folder."""

    shared = False

    def __init__(self, folder: str | os.PathLike[str], unchanging: bool = False) -> None:
        """`unchanging`: what is opened `readonly` is read as a file that does not change, for which nothing has to be written."""
        self.folder = Path(folder)
        self._unchanging = unchanging

    def open(self, name: str, models: Models, *, synchronous: str = "full", readonly: bool = False) -> SqliteTables:
        """See `Place`."""
        return SqliteTables(self.folder / f"{name}.db", models, synchronous, readonly, self._unchanging)

    def close(self) -> None:
        """See `Place`: its tables share nothing."""

    def has(self, name: str) -> bool:
        """See `Place`."""
        return (self.folder / f"{name}.db").exists()


def place_of(where: str | os.PathLike[str] | Place) -> Place:
    """The place itself, or the folder of this path."""
    return Folder(where) if isinstance(where, str | os.PathLike) else where
