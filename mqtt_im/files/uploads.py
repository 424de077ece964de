"""What the ledger asks and tells of uploads. Lives in the ledger's thread, but for `stored` and `take_released`."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from mqtt_im.core.model import Carriers, Upload
from mqtt_im.files.table import FileTable
from mqtt_im.logs import RateLimited
from mqtt_im.protocol.errors import Refusal, StoreError

_log = RateLimited(logging.getLogger(__name__))

MAX_RELEASED: Final = 10_000
"""More of them are found by looking at all files, as after a restart."""


class _Carriers:
    """Implements `core.model.Carriers`: those in the table, and before them those of the batch. Raises `unavailable`."""

    def __init__(self, stored: Carriers, more: Sequence[tuple[str, int]]) -> None:
        self._stored = stored
        self._more = more

    def __len__(self) -> int:
        with _looking():
            return len(self._stored) + len(self._more)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        yield from sorted(self._more, reverse=True)
        with _looking():
            yield from self._stored

    def groups(self) -> set[str]:
        with _looking():
            return self._stored.groups() | {conv for conv, _ in self._more if conv[0] == "#"}


@contextmanager
def _looking() -> Iterator[None]:
    """What the table can't tell now, the client may ask again."""
    try:
        yield
    except StoreError as error:
        _log.error("an upload can't be looked up", reason=error.message)
        why = "files can't be looked up at the moment; try again"
        raise Refusal("unavailable", why, retry=True, retry_after=1.0) from error


class FileUploads:
    """Implements `store.uploads.Uploads` on the table of files."""

    def __init__(self, table: FileTable) -> None:
        self._table = table
        self._carried: dict[str, list[tuple[str, int]]] = {}
        """By file, what messages of the batch carry it."""
        self._released: set[str] = set()
        self._too_many = False
        self._pending: set[str] = set()

    def stored(self, file: str) -> Upload | None:
        """See `Uploads`. Raises `unavailable`, also when its carriers are looked at."""
        with _looking():
            found = self._table.upload(file)
        return None if found is None else found._replace(carriers=_Carriers(found.carriers, ()))

    def find(self, file: str) -> Upload | None:
        """See `Uploads`."""
        found = self.stored(file)
        more = self._carried.get(file)
        return found if found is None or more is None else found._replace(carriers=_Carriers(found.carriers, more))

    def carry(self, files: Iterable[str], conv: str, seq: int) -> None:
        """See `Uploads`."""
        for file in files:
            self._carried.setdefault(file, []).append((conv, seq))

    def released(self, files: Iterable[str]) -> None:
        """See `Uploads`."""
        self._pending.update(files)

    def commit(self) -> None:
        """See `Uploads`."""
        if self._carried:
            try:
                self._table.carry((file, *one) for file, carriers in self._carried.items() for one in carriers)
            except StoreError as error:
                raise sqlite3.OperationalError(error.message) from error
            self._carried.clear()
        if self._pending:
            if len(self._released) < MAX_RELEASED:
                self._released |= self._pending
            else:
                self._too_many = True
            self._pending = set()

    def rollback(self) -> None:
        """See `Uploads`."""
        self._carried.clear()
        self._pending.clear()

    def take_released(self) -> set[str] | None:
        """Files that a message has carried whose content has gone since, None where they are too many; from any thread."""
        if self._too_many:
            self._too_many, self._released = False, set()
            return None
        taken, self._released = self._released, set()
        return taken
