"""What is known of uploaded files, in small tables (`files.db`): rows of files, and the messages that may carry each of them.

A carrier is written before the message that it names is committed, so there may be one too many, never one too few; whether a
message really carries a file is asked of the store. Transactions wait for the disk: who was told of a file finds it again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import peewee

from mqtt_im.cache import Cache
from mqtt_im.core.model import Upload
from mqtt_im.core.records import Message
from mqtt_im.core.rules.files import files_of
from mqtt_im.protocol.errors import StoreError
from mqtt_im.protocol.names import is_file
from mqtt_im.tables import Place, place_of

NAME: Final = "files"


class FileRow(peewee.Model):
    """One uploaded file."""

    id = peewee.TextField(primary_key=True)
    owner = peewee.TextField()
    name = peewee.TextField()
    type = peewee.TextField()
    size = peewee.BigIntegerField()
    sha256 = peewee.TextField()
    created = peewee.BigIntegerField()
    """ms since 1970."""

    class Meta:
        """Names the table."""

        table_name = "file"
        without_rowid = True


class CarrierRow(peewee.Model):
    """A message that may carry a file."""

    file = peewee.TextField()
    conv = peewee.TextField()
    seq = peewee.BigIntegerField()

    class Meta:
        """Names the table."""

        table_name = "carrier"
        primary_key = peewee.CompositeKey("file", "conv", "seq")
        without_rowid = True


class MetaRow(peewee.Model):
    """`epoch`: the store whose messages the carriers are."""

    key = peewee.TextField(primary_key=True)
    value = peewee.TextField()

    class Meta:
        """Names the table."""

        table_name = "meta"
        without_rowid = True


_MODELS: Final = [FileRow, CarrierRow, MetaRow]
_INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS file_owner_size ON file (owner, size, id)",
    "CREATE INDEX IF NOT EXISTS file_created ON file (created, id)",
    "DROP INDEX IF EXISTS file_owner",
)
"""The last one is what earlier versions had made."""
_KNOWN_BYTES: Final = 2 << 20
_USAGE_BYTES: Final = 300
"""Of what is known of one user, in memory."""
_UPLOAD: Final = (
    "SELECT id, owner, name, type, size, conv, seq FROM file LEFT JOIN carrier ON carrier.file = file.id WHERE id = ? "
    "ORDER BY conv DESC, seq DESC LIMIT ?"
)
_CARRIERS: Final = "SELECT conv, seq FROM carrier WHERE file = ? AND (conv, seq) < (?, ?) ORDER BY conv DESC, seq DESC LIMIT ?"
_AT_ONCE: Final = 8
"""Carriers that are read together: mostly the first one says already that somebody may read a file."""
_INTO_FILE: Final = "INTO file (id, owner, name, type, size, sha256, created) VALUES (?, ?, ?, ?, ?, ?, ?)"


class Stored(NamedTuple):
    """A file as it lies in its place."""

    id: str
    owner: str
    name: str
    type: str
    size: int
    sha256: str
    created: int
    """When, in ms by the steady time."""


class Usage(NamedTuple):
    """What all files of a user are together."""

    files: int
    bytes: int


class Aged(NamedTuple):
    """A file, and how it stands to those that are to leave because nobody carries them: in the order of their uploads."""

    created: int
    id: str
    is_carried: bool
    """Whether a message was ever to carry it."""


class StoredCarriers:
    """Implements `Carriers`; some are read at a time, since a thousand rows take longer than a message. Raises `StoreError`."""

    def __init__(self, table: FileTable, file: str, first: list[tuple[str, int]]) -> None:
        """`first` are those that come first, as many as are read at a time, or all."""
        self._table = table
        self._file = file
        self._first = first
        self._count = len(first) if len(first) < _AT_ONCE else 0

    def __len__(self) -> int:
        """See `Carriers`."""
        if not self._count and self._first:
            self._count = self._table.carried_by(self._file)
        return self._count

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """See `Carriers`."""
        part = self._first
        yield from part
        while len(part) == _AT_ONCE:
            part = self._table.carriers(self._file, part[-1], _AT_ONCE)
            yield from part

    def groups(self) -> set[str]:
        """See `Carriers`."""
        return self._table.groups(self._file)


class FileTable:
    """The rows. Every method may be called from any thread. Failures of the database are `StoreError`s.

    Nothing that a server asks again and again takes in proportion to all files of a user, or of everybody: the ledger's thread
    may be among those who wait meanwhile.
    """

    def __init__(self, where: str | os.PathLike[str] | Place, *, readonly: bool = False) -> None:
        place = place_of(where)
        self._lock = threading.RLock()
        self._tables = place.open(NAME, _MODELS, readonly=readonly)
        self._usage: Cache[str, Usage] | None = None if place.shared else Cache(_KNOWN_BYTES)
        """Of users who have uploaded something since the start. Where other servers write too, it is counted each time."""
        if not readonly:
            with self._guarded():
                for index in _INDEXES:
                    self._tables.sql(index)
        self.is_new = self._tables.is_new
        """Whether there were no such tables before."""

    def close(self) -> None:
        """Nothing may be called after it."""
        with self._lock:
            self._tables.close()

    # Which store's messages

    @property
    def epoch(self) -> str:
        """The store whose messages the carriers are; empty where that is not known."""
        rows = self._select("SELECT value FROM meta WHERE key = 'epoch'")
        return str(rows[0][0]) if rows else ""

    def begin(self, epoch: str, messages: Iterable[Message]) -> None:
        """The carriers are these messages of this store; a file that only they know is theirs who sent it."""
        with self._guarded(), self._tables.transaction():
            self._tables.sql("DELETE FROM carrier")
            for message in messages:
                self._carry((file, message.conv, message.seq) for file in files_of(message))
                for file, name, kind, size in (message.extra or {}).get("files", ()):
                    row = (file, message.by, name, kind, size, "", message.ts)
                    self._tables.sql(f"INSERT {_INTO_FILE} ON CONFLICT DO NOTHING", row)
            self._tables.sql("DELETE FROM meta")
            self._tables.sql("INSERT INTO meta (key, value) VALUES ('epoch', ?)", (epoch,))
            if self._usage is not None:
                self._usage.clear()

    def belongs_to(self, epoch: str) -> None:
        """The carriers are of this store, which is the same one under a new name."""
        with self._guarded(), self._tables.transaction():
            self._tables.sql("DELETE FROM meta")
            self._tables.sql("INSERT INTO meta (key, value) VALUES ('epoch', ?)", (epoch,))

    # Files

    def add(self, stored: Stored) -> None:
        """The file is known, on disk."""
        with self._guarded():
            with self._tables.transaction():
                self._tables.sql(f"INSERT {_INTO_FILE}", stored)
            self._grow(stored.owner, 1, stored.size)

    def get(self, file: str) -> Stored | None:
        """The file with this id; None for what is no id, too."""
        if not is_file(file):
            return None
        rows = self._select("SELECT id, owner, name, type, size, sha256, created FROM file WHERE id = ?", (file,))
        return Stored(*rows[0]) if rows else None

    def upload(self, file: str) -> Upload | None:
        """The file with this id, and the messages that may carry it."""
        if not is_file(file):
            return None
        rows = self._select(_UPLOAD, (file, _AT_ONCE))
        if not rows:
            return None
        known, owner, name, kind, size, *_ = rows[0]
        first = [(conv, seq) for *_, conv, seq in rows if conv is not None]
        return Upload(known, owner, name, kind, size, StoredCarriers(self, file, first))

    def carriers(self, file: str, before: tuple[str, int], limit: int) -> list[tuple[str, int]]:
        """`(conv, seq)` of the last messages that may carry this file, of those before this one."""
        return [(conv, seq) for conv, seq in self._select(_CARRIERS, (file, *before, limit))]

    def carried_by(self, file: str) -> int:
        """How many messages may carry this file."""
        return int(self._select("SELECT count(*) FROM carrier WHERE file = ?", (file,))[0][0])

    def groups(self, file: str) -> set[str]:
        """The groups in which these messages are."""
        sql = "SELECT DISTINCT conv FROM carrier WHERE file = ? AND substr(conv, 1, 1) = '#'"
        return {row[0] for row in self._select(sql, (file,))}

    def used(self, owner: str) -> Usage:
        """What all files of this user are together."""
        with self._guarded():
            known = None if self._usage is None else self._usage.get(owner)
            if known is None:
                rows = self._tables.sql("SELECT count(*), coalesce(sum(size), 0) FROM file WHERE owner = ?", (owner,))
                known = self._know(owner, Usage(int(rows[0][0]), int(rows[0][1])))
            return known

    def _know(self, owner: str, usage: Usage) -> Usage:
        if self._usage is not None:
            self._usage.put(owner, usage, _USAGE_BYTES)
        return usage

    def _grow(self, owner: str, files: int, size: int) -> None:
        known = None if self._usage is None else self._usage.get(owner)
        if known is not None:
            self._know(owner, Usage(known.files + files, known.bytes + size))

    def total(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""
        count, size = self._select("SELECT count(*), coalesce(sum(size), 0) FROM file")[0]
        return int(count), int(size)

    def aged(self, after: Aged, before: int, limit: int) -> list[Aged]:
        """Files uploaded before this time, in ms since 1970, in the order of their uploads, from after this one on."""
        rows = self._select(
            "SELECT created, id, EXISTS (SELECT 1 FROM carrier WHERE file = file.id) FROM file"
            " WHERE (created, id) > (?, ?) AND created < ? ORDER BY created, id LIMIT ?",
            (after.created, after.id, before, limit),
        )
        return [Aged(created, file, bool(carried)) for created, file, carried in rows]

    def carried_after(self, file: str, limit: int) -> list[str]:
        """Files that a message may carry, in the order of their ids, from after this one on."""
        rows = self._select("SELECT DISTINCT file FROM carrier WHERE file > ? ORDER BY file LIMIT ?", (file, limit))
        return [row[0] for row in rows]

    def ids(self, after: str, limit: int) -> list[str]:
        """All files, in the order of their ids, from after this one on."""
        return [row[0] for row in self._select("SELECT id FROM file WHERE id > ? ORDER BY id LIMIT ?", (after, limit))]

    def owned(self, owner: str, after: tuple[int, str], limit: int) -> list[tuple[int, str]]:
        """The sizes and ids of a user's files, in this order, from after this one on."""
        rows = self._select(
            "SELECT size, id FROM file WHERE owner = ? AND (size, id) > (?, ?) ORDER BY size, id LIMIT ?", (owner, *after, limit)
        )
        return [(size, file) for size, file in rows]

    def remove(self, files: Sequence[str]) -> None:
        """The files are not known any more, nor who carried them."""
        gone: list[tuple[Any, ...]] = []
        with self._guarded():
            with self._tables.transaction():
                for file in files:
                    gone += self._tables.sql("DELETE FROM file WHERE id = ? RETURNING owner, size", (file,))
                    self._tables.sql("DELETE FROM carrier WHERE file = ?", (file,))
            for owner, size in gone:
                self._grow(owner, -1, -size)

    # Carriers

    def carry(self, carriers: Iterable[tuple[str, str, int]]) -> None:
        """`(file, conv, seq)`: these messages may carry these files."""
        with self._guarded(), self._tables.transaction():
            self._carry(carriers)

    def carry_no_more(self, file: str, carriers: Sequence[tuple[str, int]]) -> None:
        """These messages carry the file no more. One of them stays where there are no others: it says that there were any."""
        with self._guarded(), self._tables.transaction():
            count = int(self._tables.sql("SELECT count(*) FROM carrier WHERE file = ?", (file,))[0][0])
            gone = carriers[1:] if count <= len(carriers) else carriers
            self._tables.many("DELETE FROM carrier WHERE file = ? AND conv = ? AND seq = ?", [(file, *one) for one in gone])

    def _carry(self, carriers: Iterable[tuple[str, str, int]]) -> None:
        self._tables.many("INSERT INTO carrier (file, conv, seq) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", carriers)

    def _select(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._guarded():
            return self._tables.sql(sql, values)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except peewee.PeeweeException as error:
                raise StoreError(f"{self._tables.where}: {error}") from error
