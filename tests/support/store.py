"""The store without its thread: a batch is run to its end where it is called, and can be made to fail at any point."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from mqtt_im.clock import Clock, Times
from mqtt_im.core.rules import Limits
from mqtt_im.store.given import Given
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.opening import opener
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE
from mqtt_im.store.threads.reader import Reader
from mqtt_im.store.threads.readonly import Owed
from mqtt_im.store.uploads import NoUploads, Uploads

T = TypeVar("T")


class Crash(BaseException):
    """Stands for the end of the process: nobody catches it."""


class HereAndNow:
    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        callback(*args)


class SetClock(Clock):
    """Stands at what it is set to, in ms. The steady time goes on with the wall clock, and stands still where that goes back."""

    def __init__(self) -> None:
        super().__init__(lambda: self.at / 1000, lambda: self.passed / 1000, boot="")
        self._base = 0

    at = passed = 0

    def set(self, wall: int, steady: int | None = None) -> Times:
        self.at, self.passed = wall, max(self.passed, wall) if steady is None else steady
        return self.now()


class ByHand:
    """The ledger's own code, run by hand: what both stores' stand-ins share."""

    ledger: Ledger
    reader: Reader
    clock: SetClock
    engine: Any

    def _begin(self, not_read: Callable[[Exception], None] = lambda _: None) -> None:
        self.ledger.writer.failing = None
        self.ledger.writer._owed = Owed()
        self.engine = self.ledger._make()
        self.reader = self.ledger._reader = self.ledger.writer._reader = Reader(self.ledger._tell_one, self.clock, not_read)
        self.reader._make = self.engine.reading

    def see(self, look: Callable[[Readable], T], now: int, steady: int | None = None) -> T:
        """What `look` sees as the reader's thread does, at a time in ms since 1970."""
        seen = self.glance(look, now, steady)
        assert seen is not None, "it would have to wait for what is not committed"
        return seen

    def glance(self, look: Callable[[Readable], T], now: int, steady: int | None = None) -> T | None:
        """As `see`, but None where it would have to wait for what is not committed."""
        seen: list[T] = []
        if self.reader._reading is None:
            self.reader._reading = self.engine.reading()
        done = self.reader._reading.run(lambda view: seen.append(look(view)), lambda: None, self.clock.set(now, steady))
        return seen[-1] if done else None

    def run(self, batch: Sequence[Job], now: int, steady: int | None = None) -> None:
        """The jobs are over, and have been told so. `now` is the time in ms since 1970; see `SetClock` for `steady`."""
        self.clock.set(now, steady)
        writes = [job for job in batch if not job.reads]
        if writes:
            self.ledger.writer._work(self.engine, writes)
            while len(self.ledger.gathering.turns):
                if fitting := self.ledger.gathering.gather(self.engine, self.ledger.failing is not None):
                    self.ledger.writer._work(self.engine, fitting)
                else:
                    self.engine.side_work(0)  # what has many recipients waits for that
        for job in batch:
            if job.reads:
                self.reader.submit(job)
                self.reader._gather(block=False)
                self.reader.serve()

    def close(self) -> None:
        """The process ends in good order."""
        self.reader.close()
        self.engine.close()


class SqliteStore(ByHand):
    """The ledger's own code on files, run by hand."""

    def __init__(
        self,
        data_dir: Path,
        limits: Limits | None = None,
        has_account: Callable[[str], bool] = lambda _: True,
        claim: Callable[[str, int], bool] = lambda *_: False,
        unclaim: Callable[[str, int], None] = lambda *_: None,
        online: Container[str] = frozenset(),
        ledger: type[Ledger] = Ledger,
        uploads: Uploads | None = None,
        memory_mb: int = 400,
    ) -> None:
        self.data_dir = data_dir
        self.clock = SetClock()
        make = opener(
            data_dir,
            synchronous="off",
            given=Given(limits or Limits(), has_account, claim, unclaim, online, uploads or NoUploads()),
            memory_mb=memory_mb,
        )
        self.ledger = ledger(make, clock=self.clock)
        self.ledger._loop = cast(Any, HereAndNow())
        self._open()

    engine: Engine

    def _open(self) -> None:
        self._begin(self._not_read)

    def _not_read(self, error: Exception) -> None:
        self.engine.mends(error)

    def keep_up(self, jobs: int = 1) -> None:
        """What the ledger does after each batch."""
        try:
            self.engine.flusher.keep_up()
            self.engine.erasure.work()
        except sqlite3.Error as error:
            self.ledger.writer._trouble(self.engine, error)

    def crash(self) -> None:
        """The process ends here."""
        self.reader.close()
        if (commit := self.engine.flusher._commit) is not None:
            commit._thread.join()  # no connection is closed under a statement
        self.engine._log_db.close()
        self.engine._projections.db.close()

    def reopen(self, lose_projection: bool = False) -> None:
        """A new process on the same folder; where its projections were lost, it makes them anew."""
        if lose_projection:
            for file in self.data_dir.glob(PROJECTION_FILE + "*"):
                file.unlink()
        self._open()
