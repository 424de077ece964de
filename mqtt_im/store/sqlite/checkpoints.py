"""Checkpoints of the projections, on a thread: what stands in their write-ahead file is copied into the database beside commits.

That takes as long as the disk needs for some ten megabytes, twice. Left to SQLite, the ledger's thread would do it with the
bulk write after which the file is large, and messages would wait: in a large store one bulk write alone makes more than it would
leave. In place of that the next bulk write waits, while what waits to be copied is much (`behind`).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final

import peewee

from mqtt_im.disk import reason

from .tables.sql import checkpoint

logger = logging.getLogger(__name__)

ENOUGH_BYTES: Final = 16 << 20
"""Of the write-ahead file: a page that is written often is copied once for many times."""
_KEPT_BYTES: Final = 4 << 20
"""Of the file that stay when it begins anew, so that its size tells how much stands in it."""
MUCH_BYTES: Final = 4 * ENOUGH_BYTES
"""So much should be copied before more is written: where the next write comes sooner, the file can't begin anew after it."""
MOST_BYTES: Final = 8 * MUCH_BYTES
"""And so much has to be, since a disk that copies less than comes would be full of that file in the end."""


class Checkpoints:
    """Those of the projections that are open. `look` begins one, where there is enough to copy."""

    def __init__(self, db: peewee.SqliteDatabase) -> None:
        """`db` leaves them to this from now on."""
        db.pragma("wal_autocheckpoint", 0)
        db.pragma("journal_size_limit", _KEPT_BYTES)
        self._path = Path(db.database)
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._thread is not None and self._thread.is_alive()

    def look(self) -> None:
        """One is under way, if there is enough to copy. To be called after a commit."""
        if not self.busy and self._written() >= ENOUGH_BYTES:
            self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
            self._thread.start()

    def behind(self) -> bool:
        """Whether one is under way, and what is written now should wait for it."""
        return self.busy and self._written() >= MUCH_BYTES

    def keep_up(self) -> None:
        """More may be written; waits for the one that is under way, where it has to."""
        if self.busy and self._written() >= MOST_BYTES:
            self.wait()

    def _written(self) -> int:
        try:
            return self._path.with_name(f"{self._path.name}-wal").stat().st_size
        except OSError:
            return 0

    def wait(self) -> None:
        """None is under way, and the file may be closed."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = NORMAL")
                checkpoint(connection, "PASSIVE")
        except sqlite3.Error as error:
            logger.warning("store: %s; it is tried again", reason(self._path, error))
