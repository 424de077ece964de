"""What the ledger asks and tells of uploads. Lives in the ledger's thread, but for `stored` and `take_released`."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from typing import Final

from mqtt_im.core.model import Upload
from mqtt_im.files.table import FileTable
from mqtt_im.logs import RateLimited
from mqtt_im.protocol.errors import Refusal, StoreError

_log = RateLimited(logging.getLogger(__name__))

MAX_RELEASED: Final = 10_000
"""More of them are found by looking at all files, as after a restart."""


class FileUploads:
    """Implements `store.uploads.Uploads` on the table of files."""

    def __init__(self, table: FileTable) -> None:
        self._table = table
        self._carried: list[tuple[str, str, int]] = []
        self._released: set[str] = set()
        self._too_many = False
        self._pending: set[str] = set()

    def stored(self, file: str) -> Upload | None:
        """See `Uploads`. Raises `unavailable`."""
        try:
            return self._table.upload(file)
        except StoreError as error:
            _log.error("an upload can't be looked up", reason=error.message)
            why = "files can't be looked up at the moment; try again"
            raise Refusal("unavailable", why, retry=True, retry_after=1.0) from error

    def find(self, file: str) -> Upload | None:
        """See `Uploads`."""
        found = self.stored(file)
        if found is None or not self._carried:
            return found
        more = tuple((conv, seq) for carried, conv, seq in self._carried if carried == file)
        return found._replace(carriers=found.carriers + more)

    def carry(self, files: Iterable[str], conv: str, seq: int) -> None:
        """See `Uploads`."""
        self._carried += [(file, conv, seq) for file in files]

    def released(self, files: Iterable[str]) -> None:
        """See `Uploads`."""
        self._pending.update(files)

    def commit(self) -> None:
        """See `Uploads`."""
        if self._carried:
            try:
                self._table.carry(self._carried)
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
