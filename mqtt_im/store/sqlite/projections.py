"""The projections' file at work: it is opened, and made anew where it was lost, belongs to another log, or is damaged."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Final

import peewee

from mqtt_im.shares import Bounds

from .checkpoints import Checkpoints
from .errors import ERRORS
from .flusher import FLUSH_ROWS, Flusher
from .gate import Gate
from .rebuild import rebuild
from .retention.base import restore
from .retention.folds import Folds
from .tables.files import PROJECTION_FILE, move_aside, open_projection, remove
from .tables.log import Log
from .tables.models import PROJECTION_MODELS
from .tables.projection import Projection

logger = logging.getLogger(__name__)

_NO_FILE: Final[tuple[type[Exception], ...]] = (*ERRORS, OSError)


class Projections:
    """Of one log. What they consist of is another with each `open`. Raises what `sqlite3` raises."""

    db: peewee.SqliteDatabase
    projection: Projection
    folds: Folds
    checkpoints: Checkpoints
    flusher: Flusher

    def __init__(self, data_dir: Path, log_db: peewee.SqliteDatabase, log: Log, epoch: str, gate: Gate, bounds: Bounds) -> None:
        """They are open, and on disk has been made anew what was lost or foreign, where that is much."""
        self._data_dir = data_dir
        self._log_db = log_db
        self._log = log
        self._epoch = epoch
        self._gate = gate
        self._bounds = bounds
        self.open()
        self._make()

    def open(self) -> None:
        """The file is open, if it was not, and can be written."""
        self.db = open_projection(self._data_dir, bounds=self._bounds)
        self.projection = Projection(self.db)
        self.folds = Folds(self._log_db, self.db)
        self.checkpoints = Checkpoints(self.db)
        looks = self.checkpoints.look, self.checkpoints.behind, self._look_beside, self.checkpoints.keep_up
        self.flusher = Flusher(self.projection, self._epoch, self._gate, self._bounds, *looks)

    def _look_beside(self) -> peewee.SqliteDatabase:
        return open_projection(self._data_dir, readonly=True)

    def close(self) -> None:
        """The file is closed; a bulk write that was under way has left nothing."""
        with contextlib.suppress(*ERRORS):
            self.flusher.abort()
        self.checkpoints.wait()
        self.db.close()

    def put_aside(self) -> None:
        """The file is kept under another name, and an empty one is open in its place."""
        self.close()
        move_aside(self._data_dir / PROJECTION_FILE)
        self.open()

    def begin(self) -> int:
        """They are those of this log; up to which row of it. What they had of another one, or too much of this, is gone."""
        return self.projection.position()[1] if self._usable() else self._restore()

    def _make(self) -> None:
        """What is lost or foreign is made anew as a file, where it is much; on a full disk in memory, as far as that goes."""
        try:
            if self._usable() or (self.projection.empty() and self._log.last() <= FLUSH_ROWS):
                return
        except ERRORS:
            return  # who loads them knows what to do about damage
        self.close()
        try:
            rows = rebuild(self._data_dir, self._log, self._log_db, self._epoch)
            logger.info("store: the projections were made from %d rows of the log", rows)
        except _NO_FILE as error:
            logger.error("store: the projections can't be made anew as a file: %s", error)
            remove(self._data_dir / PROJECTION_FILE)
        self.open()

    def _usable(self) -> bool:
        """Whether they are those of this log, so that only its tail is to be replayed over them."""
        self.folds.finish()
        epoch, position = self.projection.position()
        if not epoch:
            return False
        if epoch == self._epoch and self._follows(position) and self.folds.catch_up():
            return True
        logger.warning("store: the projections belong to another log, and are rebuilt from this one")
        return False

    def _follows(self, position: int) -> bool:
        """The log goes on without a gap after this row: up to the base some are gone, and a power cut takes back projections."""
        return self.folds.position().base <= position <= self._log.last()

    def _restore(self) -> int:
        """They have what the base has, and nothing else; up to which log row that is."""
        if not self.projection.empty():  # else a full disk is in nobody's way
            with self.db.atomic("IMMEDIATE"), self.db.bind_ctx(PROJECTION_MODELS):
                for model in PROJECTION_MODELS:
                    model.delete().execute()
        return restore(self._log, self._log_db, self.db, self._epoch)
