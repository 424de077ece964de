"""A store in one SQLite file, through peewee. The file is locked as long as it is open, so two processes can't share it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
import peewee

from mqtt_im.client.core.inbox import Marks
from mqtt_im.client.errors import StoreInUse, StoreUnusable

from .interface import Loaded, Row
from .memory import new_device

VERSION: Final = 1
"""Of the tables; a newer one is not touched."""
_APPLICATION: Final = 0x6D696D63
"""SQLite's application_id of these files, so that another program's database is not taken for one."""


class Identity(peewee.Model):
    """One row: whose store this is, and where its inbox stands."""

    user = peewee.TextField()
    device = peewee.TextField()
    last_n = peewee.IntegerField(default=0)
    epoch = peewee.TextField(default="")
    cursor = peewee.IntegerField(default=0)
    messages = peewee.IntegerField(default=0)
    events = peewee.IntegerField(default=0)
    in_hand = peewee.IntegerField(default=0)


class Outbox(peewee.Model):
    """What is not answered yet, in the order of `key`."""

    key = peewee.IntegerField(primary_key=True)
    id = peewee.TextField(unique=True)
    op = peewee.TextField()
    fields = peewee.BlobField()
    codec = peewee.TextField()
    body = peewee.BlobField(null=True)
    n = peewee.IntegerField(null=True)
    tried = peewee.BooleanField()
    made = peewee.DoubleField()
    made_up = peewee.DoubleField()
    boot = peewee.TextField()
    ttl = peewee.DoubleField(null=True)
    timeout = peewee.DoubleField(null=True)


class Note(peewee.Model):
    """Small things by name."""

    name = peewee.TextField(primary_key=True)
    value = peewee.BlobField()


_TABLES: Final = (Identity, Outbox, Note)


class _Database(peewee.SqliteDatabase):
    """Says nothing of what it executes: peewee logs every statement with its values, and those hold what people write."""

    def execute_sql(self, sql: str, params: Any = None, *_: Any) -> Any:
        cursor: Any = self.cursor()  # type: ignore[no-untyped-call]
        cursor.execute(sql, params or ())
        return cursor


class SqliteStore:
    """See `interface.Store`. `synchronous` is `full` (survives a power cut) or `normal` (survives a killed process)."""

    def __init__(self, path: Path, synchronous: Literal["full", "normal"]) -> None:
        self.path = path
        self._db = _Database(
            str(path),
            # The lock is taken by the first write and held until the end; there is nobody to wait for.
            pragmas=[("busy_timeout", 0), ("locking_mode", "exclusive"), ("journal_mode", "wal"), ("synchronous", synchronous)],
            check_same_thread=False,
            autoconnect=False,
            thread_safe=False,
        )

    def open(self, user: str, device: str | None) -> Loaded:  # noqa: D102
        with self._errors(), self._db.bind_ctx(_TABLES):
            try:
                self._db.connect()
                with self._db.atomic("IMMEDIATE"):
                    self._check()
                    loaded = self._load(user, device)
            except BaseException:
                self._db.close()
                raise
        return loaded

    def _check(self) -> None:
        version, application = self._db.user_version, self._db.application_id
        if version == 0 and not self._db.get_tables():
            self._db.create_tables(_TABLES)
            self._db.user_version, self._db.application_id = VERSION, _APPLICATION
        elif application != _APPLICATION:
            raise StoreUnusable(f"{self.path} is a database of something else; name another file as the store")
        elif version > VERSION:
            raise StoreUnusable(f"{self.path} was written by a newer release of mqtt-im; use that, or name another file")

    def _load(self, user: str, device: str | None) -> Loaded:
        found = Identity.get_or_none()
        if found is None:
            found = Identity.create(user=user, device=device or new_device())
        if found.user != user:
            raise StoreUnusable(f"{self.path} is the store of {found.user}, not of {user}; each user needs one")
        if device is not None and found.device != device:
            raise StoreUnusable(f"{self.path} is the store of the device {found.device}, not of {device}; each device needs one")
        return Loaded(
            found.device,
            Marks(found.epoch, found.cursor, found.messages, found.events, found.in_hand),
            found.last_n,
            [_row(each) for each in Outbox.select().order_by(Outbox.key)],
            {note.name: msgspec.msgpack.decode(note.value) for note in Note.select()},
        )

    def add(self, row: Row) -> None:  # noqa: D102
        Outbox.insert(**_columns(row)).execute(self._db)

    def replace(self, row: Row) -> None:  # noqa: D102
        Outbox.insert(**_columns(row)).on_conflict_replace().execute(self._db)

    def tried(self, keys: Iterable[int]) -> None:  # noqa: D102
        Outbox.update(tried=True).where(Outbox.key.in_(list(keys))).execute(self._db)

    def remove(self, key: int, last_n: int) -> None:  # noqa: D102
        Outbox.delete().where(Outbox.key == key).execute(self._db)
        Identity.update(last_n=last_n).execute(self._db)

    def mark(self, marks: Marks) -> None:  # noqa: D102
        Identity.update(
            epoch=marks.epoch, cursor=marks.cursor, messages=marks.messages, events=marks.events, in_hand=marks.in_hand
        ).execute(self._db)

    def note(self, name: str, value: Any) -> None:  # noqa: D102
        Note.insert(name=name, value=msgspec.msgpack.encode(value)).on_conflict_replace().execute(self._db)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:  # noqa: D102
        with self._errors(), self._db.atomic("IMMEDIATE"):
            yield

    def close(self) -> None:  # noqa: D102
        with contextlib.suppress(peewee.PeeweeException, sqlite3.Error):
            self._db.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (peewee.PeeweeException, sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            what = str(error)
            if "locked" in what:
                raise StoreInUse(f"{self.path} is open in another process, or by another client") from error
            raise StoreUnusable(f"{self.path}: {what}") from error


def _columns(row: Row) -> dict[str, Any]:
    return {
        "key": row.key, "id": row.id, "op": row.op, "fields": msgspec.msgpack.encode(row.fields), "codec": row.codec,
        "body": row.raw, "n": row.n, "tried": row.tried, "made": row.made, "made_up": row.made_up, "boot": row.boot,
        "ttl": row.ttl, "timeout": row.timeout,
    }  # fmt: skip


def _row(found: Any) -> Row:
    return Row(
        key=found.key, id=found.id, op=found.op, fields=cast(dict[str, Any], msgspec.msgpack.decode(found.fields)),
        codec=found.codec, raw=None if found.body is None else bytes(found.body), n=found.n, tried=found.tried,
        made=found.made, made_up=found.made_up, boot=found.boot, ttl=found.ttl, timeout=found.timeout,
    )  # fmt: skip
