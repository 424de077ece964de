"""The ledger: one writer thread that takes everything that waits and commits it as one transaction.

Group commit: while one batch is on its way to the disk, the next one gathers. Numbers are given out inside the batch; a batch
that fails leaves nothing, neither on disk nor in memory (INV-1: what is answered is on disk). After each commit the thread
writes a slice of the projections, so that the bulk never holds up the next commit for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Container
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from mqtt_im.core.rules import Limits
from mqtt_im.protocol.errors import Refusal, StoreError
from mqtt_im.store.sqlite.engine import ERRORS, Engine
from mqtt_im.store.sqlite.retention.compactor import Compactor
from mqtt_im.store.sqlite.retention.passes import Policy, Removed

from . import interface, jobs
from .jobs import Job

logger = logging.getLogger(__name__)

MAX_BATCH = 2000
"""Jobs of one transaction."""
RETRY_S = 0.5
"""Between two attempts to write to a store that is in trouble."""


class Ledger:
    """The event loop's side of the store. `submit` is called on the loop, and every job's `done` too."""

    def __init__(
        self,
        data_dir: Path,
        *,
        synchronous: str = "full",
        limits: Limits | None = None,
        has_account: Callable[[str], bool] = lambda _: True,
        claim: Callable[[str, int], bool] = lambda *_: False,
        unclaim: Callable[[str, int], None] = lambda *_: None,
        online: Container[str] = frozenset(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._make: Callable[[], Engine] = lambda: Engine(
            data_dir, synchronous, limits or Limits(), has_account, claim, unclaim, online
        )
        self._clock = clock
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._pending: list[Job] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._stale = False
        self._compactor = Compactor()
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
        try:
            # Not on the loop: a long log takes a while, and health is asked meanwhile.
            engine = await self._loop.run_in_executor(None, self._make)
        except (*ERRORS, ValueError) as error:
            raise StoreError(f"the store can't be opened: {error}") from error
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

    async def call(self, function: Callable[[interface.Engine], Any]) -> Any:
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
        try:
            await self.call(lambda _: self._compactor.ask(policy, now, ended))
        except Refusal as refusal:
            raise StoreError(refusal.message) from refusal
        return await future

    # The thread.

    def _run(self, engine: Engine) -> None:
        stop = False
        while not stop:
            batch, stop = self._gather(engine)
            if batch:
                self._work(engine, batch)
            elif self.failing is not None:
                self._recovered(engine)
            if self.failing is None:
                try:
                    engine.keep_up(len(batch))
                    self._compactor.work(engine, busy=bool(batch))
                except Exception as error:
                    if not isinstance(error, ERRORS):
                        logger.exception("store: the projections could not be written")
                    self._trouble(engine, error)
        self._compactor.stop()
        engine.close()

    def _gather(self, engine: Engine) -> tuple[list[Job], bool]:
        batch: list[Job] = []
        timeout = self._patience(engine) if self.failing is None else RETRY_S
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

    def _patience(self, engine: Engine) -> float | None:
        """Seconds until there is something to do without a job; None where there is nothing."""
        waits = [pause for pause in (engine.until_flush(), self._compactor.pause()) if pause is not None]
        return min(waits, default=None)

    def _work(self, engine: Engine, batch: list[Job]) -> None:
        if self.failing is not None and not self._recovered(engine):
            self._fail(batch)
        else:
            engine.now = max(engine.now, int(self._clock() * 1000))
            try:
                self._prepare(engine, batch)
                engine.commit()
            except ERRORS as error:
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

    def _prepare(self, engine: Engine, batch: list[Job]) -> None:
        engine.state.prefetch([asked for job in batch if (asked := job.asks()) is not None])
        for job in batch:
            before = engine.last
            try:
                job.prepare(engine)
            except Refusal as refusal:
                job.refusal = refusal
            except ERRORS:
                raise
            except Exception:
                if engine.last != before:
                    raise
                logger.exception("store: a request could not be decided")
                job.refusal = Refusal("unavailable", "the server has a fault with this request; its log tells more")

    def _finish(self, engine: Engine, batch: list[Job]) -> None:
        for job in batch:
            if job.refusal is None:
                try:
                    job.finish(engine)
                except Refusal as refusal:
                    job.refusal = refusal
                except ERRORS as error:
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

    def _trouble(self, engine: Engine, error: object) -> None:
        """The batch is void: forget what it did to the state, and remember that the store is in trouble."""
        if self.failing is None:
            logger.error("store: can't commit: %s", error)
        self.failing = str(error)
        self._compactor.fail(f"the store can't commit: {error}")
        self._reload(engine)

    def _reload(self, engine: Engine) -> bool:
        try:
            engine.load()
        except Exception as error:
            if not isinstance(error, ERRORS):
                logger.exception("store: could not be read")
            self.failing = str(error)
            self._stale = True
            return False
        self._stale = False
        return True

    def _recovered(self, engine: Engine) -> bool:
        """Whether the store can be read and written again."""
        if self._stale and not self._reload(engine):
            return False
        try:
            engine.probe()
        except ERRORS as error:
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
