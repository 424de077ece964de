"""Erasure: recalled content leaves the log's write-ahead file too (INV-9), in the ledger's thread but on no commit's way.

A commit that recalls something asks for it, and does not wait. The file is emptied right after; where that fails, or somebody
reads what was there before, again and again until it is done.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from .tables.log import Log

EVERY_S: Final = 0.1
"""However many recalls come, no more often than this: emptying writes to two files and waits for the disk."""
RETRY_S: Final = 0.25
LONGEST_RETRY_S: Final = 2.0
TELL_AFTER_S: Final = 30.0

logger = logging.getLogger(__name__)


class Erasure:
    """`due` is when it is to be tried next, in seconds of `clock`; None where nothing is to be erased."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        # What a server that was killed had still to do.
        self.due: float | None = clock()
        self._retry_s = RETRY_S
        self._asked = self._done = clock()
        self._told = False

    def ask(self) -> None:
        """Something was taken back with a commit that is on disk."""
        if self.due is None:
            self._asked = self._clock()
            self._retry_s = RETRY_S
            self.due = max(self._asked, self._done + EVERY_S)

    def pause(self) -> float | None:
        """Seconds until there is something to do; None where there is nothing."""
        return None if self.due is None else max(0.0, self.due - self._clock())

    def work(self) -> None:
        """Try, where it is due. Raises nothing: it is tried again."""
        now = self._clock()
        if self.due is None or now < self.due:
            return
        problem = "somebody reads the log as it was before"
        try:
            emptied = self._log.checkpoint()
        except sqlite3.Error as error:
            emptied, problem = False, str(error)
        if emptied:
            if self._told:
                logger.warning("store: recalled content is gone from the log's write-ahead file now")
            self.due, self._told, self._done = None, False, self._clock()
            return
        if not self._told and now - self._asked > TELL_AFTER_S:
            self._told = True
            logger.warning("store: recalled content still stands in the log's write-ahead file: %s", problem)
        self.due = self._clock() + self._retry_s
        self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
