"""How far registered devices are behind their inboxes, read from the projections now and then, on a thread of its own.

What the projections do not have yet, some seconds' worth, is not counted: this is a figure to watch, not one to decide by.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from .tables.files import PROJECTION_FILE

EVERY_S: Final = 15.0
_QUERY: Final = "SELECT count(*), max(u.head - d.cursor) FROM device d JOIN user u USING (uid) WHERE d.cursor < u.head"

logger = logging.getLogger(__name__)


class Lags:
    """The figures, as of at most `EVERY_S` seconds ago."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / PROJECTION_FILE
        self.behind = 0
        """Devices that have not acknowledged all of their inbox."""
        self.worst = 0
        """Items that the one furthest behind lacks."""

    async def run(self) -> None:
        """Never returns; to be cancelled."""
        while True:
            try:
                self.behind, self.worst = await asyncio.to_thread(self._read)
            except sqlite3.Error as error:
                logger.debug("the devices' lags can't be read: %s", error)
            await asyncio.sleep(EVERY_S)

    def _read(self) -> tuple[int, int]:
        with closing(sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            behind, worst = connection.execute(_QUERY).fetchone()
        return int(behind), int(worst or 0)
