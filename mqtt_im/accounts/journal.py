"""The journal of accounts: what every change of them is written with, and what is read after it.

Every change writes a row into a journal in the same transaction. A server that has the file open learns of it by
`PRAGMA data_version`, which costs microseconds, and reads only the journal's new rows; so a new account can log in,
and be written to, as soon as the command that made it has returned. Which accounts there are is a function of the journal.

Where the tables are shared over a network, an event loop must not wait for them: there it is answered from what was read
last, and whoever needs the newest word has `catch_up` called on another thread before.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import peewee

from mqtt_im.accounts.known import Known
from mqtt_im.accounts.models import MODELS, Change, ChangeRow, add_columns
from mqtt_im.disk import reason
from mqtt_im.protocol.errors import MqttImError, StoreError
from mqtt_im.shares import Bounds
from mqtt_im.tables import Place, place_of
from mqtt_im.tables.sqlite import SqliteTables

NAME: Final = "accounts"
FILE_NAME: Final = "accounts.db"


class Journal:
    """The tables in one place. Every method may be called from any thread. Failures of it are `StoreError`s.

    Reads and writes have a connection each in a file, so that nobody who looks something up waits for somebody else's disk.
    """

    def __init__(self, where: str | os.PathLike[str] | Place, readonly: bool = False, bounds: Bounds | None = None) -> None:
        """`readonly`: only the methods that read are called, and nothing is written; `bounds` are for what is remembered.

        Raises `StoreError`.
        """
        place = place_of(where)
        self.shared = self._shared = place.shared
        """Other servers have them too; then `catch_up` has something to do."""
        self._lock = threading.RLock()
        """Of what is in memory; nobody waits for a network under it."""
        self._writer_lock = threading.RLock()
        self._reader_lock = self._lock if not place.shared else threading.RLock()
        self._known = Known(bounds or Bounds())
        self._seen: int | None = None
        """`Tables.changes` when the journal was read last."""
        self._writer = place.open(NAME, MODELS, readonly=readonly)
        if isinstance(self._writer, SqliteTables) and not readonly:
            add_columns(self._writer.db)
        self._reader = self._writer if place.shared else place.open(NAME, MODELS, readonly=readonly)
        self.where = str(Path(self._writer.where).parent.absolute()) if not place.shared else self._writer.where
        """The folder, or the database, for messages."""
        self._read_journal()
        self._known.take_changes()

    def close(self) -> None:
        """Nothing may be called after it."""
        with self._writer_lock, self._lock:
            self._writer.close()
            self._reader.close()

    def exists(self, name: str) -> bool:
        """Whether there is such an account, from memory; only a miss looks whether the file has changed."""
        if name in self._known.versions:
            return True
        with self._guarded():
            self._refresh()
            return name in self._known.versions

    def version(self, name: str) -> int | None:
        """The version of an account's credentials, as of now; None where there is no such account. Takes microseconds."""
        with self._guarded():
            self._refresh()
            return self._known.versions.get(name)

    def take_changes(self) -> list[Change]:
        """What has changed since the last call, by any process, in order. Called a few times a second by a server."""
        with self._guarded():
            self._refresh()
            with self._lock:
                return self._known.take_changes()

    # Within

    @property
    def _on_loop(self) -> bool:
        """Whether this is no place to wait for the network."""
        if not self._shared:
            return False
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def _refresh(self) -> None:
        """What is in memory is what the journal says; on an event loop, what it has said last."""
        changes = self._reader.changes
        if changes is None:
            if not self._on_loop:
                self._read_journal()
        elif changes != self._seen:
            self._read_journal()
            # Taken before the journal was read: a change in between is found by the next call.
            self._seen = changes

    def _read_journal(self) -> None:
        journal = ChangeRow.select(ChangeRow.id, ChangeRow.name, ChangeRow.what, ChangeRow.token)
        rows = self._rows(journal.where(ChangeRow.id > self._known.last_change).order_by(ChangeRow.id))
        with self._lock:
            for row in rows:
                self._known.take_in(*row)

    def _note(self, name: str, what: str, token: str = "") -> None:
        self._run(ChangeRow.insert(name=name, what=what, token=token))

    def _run(self, query: Any) -> Any:
        return self._writer.run(query)

    def _written(self, query: Any) -> list[Any]:
        return self._writer.rows(query)

    def _rows(self, query: Any) -> list[Any]:
        with self._reading():
            return self._reader.rows(query)

    @staticmethod
    def _found(name: str, rows: int) -> None:
        if not rows:
            raise MqttImError("not_found", f"there is no user {name}")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock if not self._shared else nullcontext(), self._failures():
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._reader_lock, self._failures():
            yield

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except peewee.IntegrityError:
            raise
        except peewee.PeeweeException as error:
            where = self._writer.where
            raise StoreError(f"{where}: {error}" if self._shared else reason(Path(where), error)) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, which counts as read when it is over."""
        with self._failures(), self._writer_lock, self._writer.transaction():
            yield
        with self._guarded():
            self._refresh()


def now_ms() -> int:
    """The time, in ms since 1970."""
    return time.time_ns() // 1_000_000
