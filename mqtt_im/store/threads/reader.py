"""The reader: a thread that does whatever only reads, beside the ledger's and on connections of its own.

Users take turns, by what their reads have cost in time (`turns`). Each answer leaves as soon as it is there. A read that has to
see what is on its way to the disk is put aside until that is there, and others go before it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Final

from mqtt_im import lasting
from mqtt_im.clock import Clock
from mqtt_im.protocol.errors import Refusal, StoreError
from mqtt_im.store.interface import Reading
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import FetchJob
from mqtt_im.store.refusals import unavailable

from .turns import Turns

logger = logging.getLogger(__name__)

MAX_UNTOLD: Final = 64
"""Answers that are on their way to the loop."""
AT_ONCE: Final = 64
"""Looks at inboxes that are done together, where that is cheaper."""
PATIENCE_S: Final = 10.0
"""So long a read waits for what is on its way to the disk."""
LAST_S: Final = 2.0
"""So long what waits is still done when the end has come."""
_WAIT_S: Final = 0.005
"""So long the thread waits for that before it looks whether somebody else has come."""


class _Rest:
    """The reader is to rest: `begun` once it does, until `over`."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.over = threading.Event()


class Reader:
    """The event loop's side. `tell` is called on the reader's thread with each job that is over."""

    def __init__(
        self,
        tell: Callable[[Job], None],
        clock: Clock,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """`failed` is told, on the reader's thread, why something could not be read."""
        self._tell = tell
        self._failed = failed
        self._clock = clock
        self._queue: SimpleQueue[Job | _Rest | None] = SimpleQueue()
        self._turns = Turns[Job](lambda job: job.line())
        self._aside: list[tuple[float, Job]] = []
        """Reads that wait for the disk, and since when."""
        self.arrived = 0
        """How many answers the loop has got to."""
        self._answered = 0
        self._make: Callable[[], Reading]
        self._reading: Reading | None = None
        self._thread: threading.Thread | None = None
        self._end: float | None = None
        """When what waits is not done any more; None where the end has not come."""

    def start(self, make: Callable[[], Reading]) -> None:
        """Jobs are done from now on, with what `make` opens on the reader's thread."""
        self._make = make
        self._end = None
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """The job stands in its user's line."""
        self._queue.put(job)

    def stop(self) -> None:
        """Everything submitted is done, or refused where that takes longer than `LAST_S`, and the thread has ended."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Nothing is read meanwhile, and no file is open; from another thread, which waits for the read that is under way."""
        if self._thread is None:
            self.close()
            yield
            return
        rest = _Rest()
        self._queue.put(rest)
        rest.begun.wait()
        try:
            yield
        finally:
            rest.over.set()

    # The thread.

    def _run(self) -> None:
        lasting.thread("the reader's thread", self._rounds)
        self.close()

    def _rounds(self) -> None:
        while self._end is None or self._turns or self._aside:
            if self._gather(block=self._end is None and not (self._turns or self._aside)) and self._end is None:
                self._end = time.monotonic() + LAST_S
            if self._end is not None and time.monotonic() >= self._end:
                self._refuse_all()
            self.serve()

    def _refuse_all(self) -> None:
        """Whoever has asked has gone, or is about to be told that the server stops."""
        waiting = [job for _, job in self._aside]
        self._aside.clear()
        while (job := self._turns.take()) is not None:
            waiting.append(job)
        for job in waiting:
            job.refuse(unavailable())
            self._answer(job)

    def _gather(self, block: bool) -> bool:
        """What has come stands in its line; whether the end has come."""
        try:
            job = self._queue.get() if block else self._queue.get_nowait()
            while job is not None:
                if isinstance(job, _Rest):
                    self.close()
                    job.begun.set()
                    job.over.wait()
                else:
                    self._turns.put(job)
                job = self._queue.get_nowait()
        except Empty:
            return False
        return True

    def serve(self) -> None:
        """The next job is done, or has been put aside; and those that were aside, where that makes sense."""
        while self._answered - self.arrived >= MAX_UNTOLD and self._thread is not None:
            time.sleep(_WAIT_S)  # what the loop has not got to is in memory
        job = self._turns.take()
        if job is not None and self._reading is not None and self._reading.gathers and type(job) is FetchJob:
            self._serve_together(self._reading, job)
        elif job is not None:
            self._serve_one(job)
        elif self._aside and self._reading is not None:
            self._reading.wait(_WAIT_S)
        if self._aside:
            aside, self._aside = self._aside, []
            for since, waiting in aside:
                self._do(waiting, since)

    def _serve_one(self, job: Job) -> None:
        began = time.perf_counter()
        self._do(job, time.monotonic())
        self._turns.charge(job.line(), time.perf_counter() - began)

    def _serve_together(self, reading: Reading, first: FetchJob) -> None:
        """The next jobs are done as well, as far as they look at inboxes too; each pays the same. And the one behind them."""
        fetches = [first]
        job: Job | None = None
        while len(fetches) < AT_ONCE and type(job := self._turns.take()) is FetchJob:
            fetches.append(job)
        began, waiting = time.perf_counter(), deque(fetches)
        try:
            with reading.together([(fetch.user, fetch.after, fetch.limit) for fetch in fetches]):
                while waiting:
                    self._do(waiting.popleft(), time.monotonic())
        except Exception as error:  # noqa: BLE001 - told in the log
            self._met(error)
            self.close()
        for fetch in waiting:  # by itself each meets what is wrong with it, or nothing is any more
            self._do(fetch, time.monotonic())
        each = (time.perf_counter() - began) / len(fetches)
        for fetch in fetches:
            self._turns.charge(fetch.line(), each)
        if job is not None and job is not fetches[-1]:
            self._serve_one(job)

    def _do(self, job: Job, since: float) -> None:
        try:
            if self._reading is None:
                self._reading = self._make()
            done = self._reading.run(job.finish, lambda: self._answer(job), self._clock.now(), job.exact)  # type: ignore[arg-type]
        except Refusal as refusal:
            job.refuse(refusal)
        except Exception as error:  # noqa: BLE001 - told in the log
            self._met(error)
            job.refuse(unavailable())
        else:
            if done:
                return
            if time.monotonic() - since < PATIENCE_S:
                self._aside.append((since, job))
                return
            job.refuse(unavailable())
        self._answer(job)

    def _met(self, error: Exception) -> None:
        known = isinstance(error, StoreError) or (self._reading is not None and isinstance(error, self._reading.errors))
        logger.error("store: can't be read: %s", error, exc_info=error if not known else None)
        if known:
            self.close()  # and opened anew: the files may be others now
            self._failed(error)

    def _answer(self, job: Job) -> None:
        self._answered += 1
        self._tell(job)

    def close(self) -> None:
        """Nothing is open; also where a mistake meets that, so that nobody waits for it, nor for an answer."""
        reading, self._reading = self._reading, None
        if reading is not None:
            try:
                reading.close()
            except Exception:
                logger.exception("store: what was read from could not be closed")
