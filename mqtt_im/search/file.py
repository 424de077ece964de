"""The search index's file, `search.db`: its tables, as peewee models, and how it is opened and thrown away.

Its shards are FTS5 tables, which no model describes; `shards.py` makes them.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Final, cast

import peewee

from mqtt_im.shares import Bounds

FILE_NAME: Final = "search.db"
_PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": "normal",  # a power cut may take back the last transactions, with their positions: they are made again
    "secure_delete": 1,
    "journal_size_limit": 16 << 20,
    "busy_timeout": 5000,
}


_PAGES_KIB: Final = 16_384
"""Pages that stay in memory."""


class DocRow(peewee.Model):
    """A message: its log row, its conversation's number, and its text in the form that `words.py` gives it."""

    lsn = peewee.IntegerField(primary_key=True)
    cid = peewee.IntegerField()
    seq = peewee.IntegerField()
    ts = peewee.IntegerField()
    text = peewee.TextField()

    class Meta:
        """Names the table."""

        table_name = "doc"


class ShardRow(peewee.Model):
    """A shard: from when its first message is, and whether it is to be purged."""

    number = peewee.IntegerField(primary_key=True)
    ts = peewee.IntegerField()
    dirty = peewee.IntegerField()

    class Meta:
        """Names the table."""

        table_name = "shard"


class MetaRow(peewee.Model):
    """`epoch` of the store, `version`, `key` of the conversations' numbers, how far the log (`lsn`) and folds were followed."""

    key = peewee.TextField(primary_key=True)
    value = peewee.TextField()

    class Meta:
        """Names the table."""

        table_name = "meta"
        without_rowid = True


class SearchFile:
    """An open file with its tables, for one thread at a time. Raises `sqlite3.Error`, `peewee.PeeweeException`, `OSError`."""

    def __init__(self, data_dir: Path, bounds: Bounds | None = None) -> None:
        path = data_dir / FILE_NAME
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        pragmas = {**_PRAGMAS, "cache_size": -(bounds or Bounds()).of(_PAGES_KIB)}
        self._db = peewee.SqliteDatabase(str(path), thread_safe=False, check_same_thread=False, pragmas=pragmas)
        self._db.connect()
        self.sql = cast(sqlite3.Connection, self._db.connection())  # type: ignore[no-untyped-call]
        try:
            for model in (DocRow, ShardRow, MetaRow):
                peewee.SchemaManager(model, database=self._db).create_all()
        except BaseException:
            self._db.close()
            raise

    def meta(self, key: str) -> str:
        """What is noted under this key; empty where nothing is."""
        row = self.sql.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def note(self, key: str, value: str | int) -> None:
        """Note it under this key."""
        self.sql.execute("REPLACE INTO meta (key, value) VALUES (?, ?)", (key, str(value)))

    def __enter__(self) -> None:
        """What is written from here on is one transaction, which is taken back where an exception ends it."""
        self.sql.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None:
                self.sql.execute("COMMIT")
        finally:
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")

    def scour(self) -> None:
        """What was removed is gone from the write-ahead file too."""
        self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def close(self) -> None:
        """The file is closed."""
        self._db.close()


def remove(data_dir: Path) -> None:
    """There is no index in this folder; it is made anew when it is asked for."""
    for suffix in ("", "-wal", "-shm"):
        (data_dir / (FILE_NAME + suffix)).unlink(missing_ok=True)
