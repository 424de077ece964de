"""Mending: projections that are damaged are made anew from the log, beside the damaged ones, which serve on where they still can.

That goes on a thread of its own, into a file beside the old one; the ledger's thread puts it into its place. A server that
starts and finds an unfinished one knows that the old one is damaged, and begins with none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mqtt_im.core.records import AnyRecord, decode
from mqtt_im.protocol.errors import StoreError
from mqtt_im.shares import Bounds

from .errors import ERRORS, is_damage
from .flusher import Flusher
from .gate import Gate
from .replay import replay
from .retention.base import restore
from .state.projected import ProjectedState
from .tables.files import PROJECTION_FILE, UNFINISHED, move_aside, open_log, open_new_projection, remove
from .tables.log import Log
from .tables.projection import Projection

logger = logging.getLogger(__name__)

_CHUNK = 5000
"""Rows of the log that are read at a time, so that no snapshot of it is held for long."""


def leave_unfinished(data_dir: Path) -> None:
    """The next server that starts makes the projections anew."""
    (data_dir / UNFINISHED).touch(mode=0o600)


class Mending:
    """Begins at once. `over` says whether it has ended, `problem` why it has failed; `hopeless`: since the log is damaged too."""

    def __init__(self, data_dir: Path, epoch: str) -> None:
        self.problem: str | None = None
        self.hopeless = False
        self._data_dir = data_dir
        self._epoch = epoch
        self._stop = threading.Event()
        # Marked before anything else is done, for a server that starts later.
        leave_unfinished(data_dir)
        self._thread = threading.Thread(target=self._run, name="mending", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether the new file is whole, or can't be made."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Return when it is over."""
        self._thread.join()

    def stop(self) -> None:
        """Give up; the next start does it."""
        self._stop.set()
        self._thread.join()

    def put_in_place(self) -> None:
        """The new file is the projections' file, which nobody has open; the damaged one is kept beside it. Raises `OSError`."""
        move_aside(self._data_dir / PROJECTION_FILE)
        (self._data_dir / UNFINISHED).rename(self._data_dir / PROJECTION_FILE)

    def _run(self) -> None:
        try:
            self._make()
        except Exception as error:
            if not isinstance(error, (*ERRORS, StoreError, OSError)):
                logger.exception("store: the projections could not be made anew")
            self.problem = str(error)
            self.hopeless = is_damage(error) or isinstance(error, msgspec.DecodeError)
            if self.hopeless:  # the damaged ones are the best that there are
                remove(self._data_dir / UNFINISHED)

    def _make(self) -> None:
        log_db = open_log(self._data_dir, readonly=True)
        projection_db = open_new_projection(self._data_dir / UNFINISHED)
        try:
            log, projection = Log(log_db), Projection(projection_db)
            position = restore(log, log_db, projection_db, self._epoch)
            state = ProjectedState(log, projection, lambda _: True, lambda _: ())
            state.live.last = position
            flusher = Flusher(projection, self._epoch, Gate(), Bounds())
            flusher.begin(state)
            replay(self._rows(log, position), state.replay, flusher.full, flusher.flush, state.prefetch_next)
            if self._stop.is_set():
                self.problem = "the server stops"
                return
            flusher.flush()
        finally:
            projection_db.close()
            log_db.close()
        if (self._data_dir / f"{UNFINISHED}-wal").exists():
            raise StoreError(f"{UNFINISHED} could not be written to its end")

    def _rows(self, log: Log, position: int) -> Iterator[tuple[int, AnyRecord, int]]:
        while not self._stop.is_set():
            rows = log.part(position, _CHUNK)
            if not rows:
                return
            for lsn, data in rows:
                yield lsn, decode(data), len(data)
            position = rows[-1][0]
