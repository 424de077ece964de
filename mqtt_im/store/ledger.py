"""The ledger: one writer thread that takes everything that waits and commits it as one transaction.

Group commit: while one batch is on its way to the disk, the next one gathers. Numbers are given out inside the batch; a batch
that fails leaves nothing, neither on disk nor in memory (INV-1: what is answered is on disk). After each commit the thread
does a part of what else the store has to do, so that this never holds up the next commit for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from mqtt_im.protocol.errors import Refusal, StoreError

from . import jobs
from .interface import Engine, Store
from .jobs import Job
from .policy import Policy, Removed

logger = logging.getLogger(__name__)

MAX_BATCH = 2000
"""Jobs of one transaction."""
RETRY_S = 0.5
"""Between two attempts to write to a store that is in trouble."""


class Ledger:
    """The event loop's side of the store. `submit` is called on the loop, and every job's `done` too."""

    def __init__(self, make: Callable[[], Store], *, clock: Callable[[], float] = time.time) -> None:
        """`make` opens the store, on another thread. Raises `StoreError`."""
        self._make = make
        self._clock = clock
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._pending: list[Job] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._stale = False
        self.on_recovered: Callable[[], None] | None = None
        """Called on the loop when the store commits again after it could not."""
        self.failing: str | None = None
        """Why the store can't commit now; None while it can."""
        self.epoch = ""
        self.commits = 0
        """Transactions so far."""
        self.records = 0
        """Records committed so far."""

    async def start(self) -> None:
        """The store is open and its tail replayed. Raises `StoreError`."""
        self._loop = asyncio.get_running_loop()
        # Not on the loop: a long log takes a while, and health is asked meanwhile.
        engine = await self._loop.run_in_executor(None, self._make)
        self.epoch = engine.epoch
        self._thread = threading.Thread(target=self._run, args=(engine,), name="ledger", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """What was submitted is done, the projections are written, the files are closed."""
        if self._thread is None:
            return
        self._send()
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._thread = None

    def submit(self, job: Job) -> None:
        """The job stands in line. Jobs of one turn of the loop are handed over together."""
        self._pending.append(job)
        if not self._scheduled:
            self._scheduled = True
            assert self._loop is not None
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._scheduled = False
        if self._pending:
            self._queue.put(self._pending)
            self._pending = []

    async def call(self, function: Callable[[Engine], Any]) -> Any:
        """What `function` returns on the ledger's thread, after everything submitted before. Raises its `Refusal`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def notify(job: jobs.CallJob) -> None:
            if future.done():
                return
            if job.refusal is not None:
                future.set_exception(job.refusal)
            else:
                future.set_result(job.result)

        self.submit(jobs.CallJob(function, notify))
        return await future

    async def compact(self, policy: Policy) -> Removed:
        """Take out of the store what may go, a little at a time between other work. Raises `StoreError` where that fails."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Removed] = loop.create_future()

        def settle(result: Removed | StoreError) -> None:
            if future.done():
                return
            if isinstance(result, StoreError):
                future.set_exception(result)
            else:
                future.set_result(result)

        def ended(result: Removed | StoreError) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before the ledger was
                loop.call_soon_threadsafe(settle, result)

        now = int(self._clock() * 1000)

        def retain(store: Any) -> None:
            store.retain(policy, now, ended)

        try:
            await self.call(retain)
        except Refusal as refusal:
            raise StoreError(refusal.message) from refusal
        return await future

    # The thread.

    def _run(self, engine: Store) -> None:
        stop = False
        while not stop:
            batch, stop = self._gather(engine)
            if batch:
                self._work(engine, batch)
            elif self.failing is not None:
                self._recovered(engine)
            if self.failing is None:
                try:
                    engine.side_work(len(batch))
                except Exception as error:
                    if not isinstance(error, engine.errors):
                        logger.exception("store: work beside the batches could not be done")
                    self._trouble(engine, error)
        engine.close()

    def _gather(self, engine: Store) -> tuple[list[Job], bool]:
        batch: list[Job] = []
        timeout = engine.pause() if self.failing is None else RETRY_S
        try:
            while len(batch) < MAX_BATCH:
                if batch or timeout == 0.0:
                    more = self._queue.get_nowait()
                else:
                    more = self._queue.get(timeout=timeout)
                if more is None:
                    return batch, True
                batch += more
        except Empty:
            pass
        return batch, False

    def _work(self, engine: Store, batch: list[Job]) -> None:
        if self.failing is not None and not self._recovered(engine):
            self._fail(batch)
        else:
            engine.now = max(engine.now, int(self._clock() * 1000))
            try:
                self._prepare(engine, batch)
                engine.commit()
            except engine.errors as error:
                self._trouble(engine, error)
                self._fail(batch)
            except Exception:
                # A fault of ours: what was decided in this batch can't be told from what was not, so none of it stands.
                logger.exception("store: a batch of %d jobs could not be prepared", len(batch))
                self._trouble(engine, "a fault of the server")
                self._fail(batch)
            else:
                self.commits += 1
                self._finish(engine, batch)
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_report, batch)
        except RuntimeError:  # the loop was closed before the ledger was
            return

    def _prepare(self, engine: Store, batch: list[Job]) -> None:
        engine.prefetch([asked for job in batch if (asked := job.asks()) is not None])
        for job in batch:
            before = engine.last
            try:
                job.prepare(engine)
            except Refusal as refusal:
                job.refusal = refusal
            except engine.errors:
                raise
            except Exception:
                if engine.last != before:
                    raise
                logger.exception("store: a request could not be decided")
                job.refusal = Refusal("unavailable", "the server has a fault with this request; its log tells more")

    def _finish(self, engine: Store, batch: list[Job]) -> None:
        for job in batch:
            if job.refusal is None:
                try:
                    job.finish(engine)
                except Refusal as refusal:
                    job.refusal = refusal
                except engine.errors as error:
                    logger.error("store: can't be read: %s", error)
                    job.refusal = unavailable()
                except Exception:
                    logger.exception("store: a job could not be finished")
                    job.refusal = unavailable()
            if job.commits:
                self.records += len(job.commits)

    def _fail(self, batch: list[Job]) -> None:
        for job in batch:
            job.commits = None
            job.refusal = unavailable()

    def _trouble(self, engine: Store, error: object) -> None:
        """The batch is void: forget what it did to the state, and remember that the store is in trouble."""
        if self.failing is None:
            logger.error("store: can't commit: %s", error)
        self.failing = str(error)
        engine.abandon(f"the store can't commit: {error}")
        self._reload(engine)

    def _reload(self, engine: Store) -> bool:
        try:
            engine.load()
        except Exception as error:
            if not isinstance(error, engine.errors):
                logger.exception("store: could not be read")
            self.failing = str(error)
            self._stale = True
            return False
        self._stale = False
        return True

    def _recovered(self, engine: Store) -> bool:
        """Whether the store can be read and written again."""
        if self._stale and not self._reload(engine):
            return False
        try:
            engine.probe()
        except engine.errors as error:
            self.failing = str(error)
            return False
        self.failing = None
        logger.warning("store: commits again")
        if self.on_recovered is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self.on_recovered)
        return True


def _report(batch: list[Job]) -> None:
    for job in batch:
        try:
            job.done()
        except Exception:
            logger.exception("a job's answer could not be given")


def unavailable() -> Refusal:
    """The refusal of everything while the store can't commit."""
    return Refusal("unavailable", "the server can't store anything at the moment; try again", retry=True, retry_after=1.0)
