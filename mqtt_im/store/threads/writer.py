"""The ledger's thread: it takes everything that waits and commits it as one transaction.

Group commit: while one batch is on its way to the disk, the next one gathers (`gathering`). Numbers are given out inside the
batch; a batch that fails leaves nothing, neither on disk nor in memory (INV-1: what is answered is on disk). After each commit
the thread does a part of what else the store has to do, so that this never holds up the next commit for long.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial
from itertools import chain
from time import monotonic, perf_counter, thread_time

from mqtt_im import lasting
from mqtt_im.clock import Clock, Times
from mqtt_im.logs import RateLimited
from mqtt_im.protocol.errors import InDoubt, Refusal
from mqtt_im.store.interface import Anew, Engine, Later, Store
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.refusals import fault_refusal, unavailable, undecided

from .gathering import Gathering
from .reader import Reader
from .readonly import Owed, read_only
from .weighing import LONG, MAX_WEIGHT, weight_of

logger = logging.getLogger(__name__)
_log = RateLimited(logger)

MAX_SECONDS = 0.01
"""Of the thread's time, for deciding the jobs of one transaction: what is refused weighs nothing, and takes time too."""
LOOKED_AT_S = 0.0005
"""A job that takes less, its waiting included, is not asked how much of that was the thread's time."""
MAX_UNTOLD = 64
"""Times that answers are on their way to the loop: what it has not got to is in memory."""
LAST_S = 5.0
"""So long what stands in line is still done when the end has come."""
LONGEST_TELL_S = 10.0
"""A loop that has got to nothing for so long is not waited for."""
TOLD_AT_ONCE = 100
"""Jobs whose answers leave together."""
MARK_MS = 300_000
"""Between two notes of how the clocks stand."""
ABOUT_MS = 10
"""Times that differ by less are the same."""


class Writer:
    """What the thread knows and does. The loop's side is `ledger`."""

    def __init__(
        self,
        gathering: Gathering,
        reader: Reader,
        clock: Clock,
        soon: Callable[..., None],
        report: Callable[[list[Job]], None],
    ) -> None:
        """`soon` has the loop call what it is given, with its arguments; `report` is called there with jobs that are over."""
        self._gathering = gathering
        self._reader = reader
        self._clock = clock
        self._soon = soon
        self._report = report
        self._worker: threading.Thread | None = None
        self._told: list[list[Job]] = []
        """Of the jobs in hand those that have been told what became of them."""
        self._untold = threading.Semaphore(MAX_UNTOLD)
        self._stale = False
        self._owed = Owed()
        self.on_recovered: Callable[[], None] | None = None
        """Called on the loop when the store commits again after it could not."""
        self.failing: str | None = None
        """Why the store can't commit now; None while it can."""
        self.commits = 0
        """Transactions so far."""
        self.records = 0
        """Records committed so far."""
        self.holds_up = False
        """Whether it is at work on what takes long and is not waiting for the disk: everybody's next commit waits for that."""
        self.on_batch: Callable[[int], None] = lambda _: None
        """Called on the thread with the number of jobs of each batch."""
        self._marked: Times | None = None
        self._marked_commits = 0

    def start(self, engine: Store) -> None:
        """Jobs are done from now on, on this store, which belongs to the thread."""
        self._worker = threading.Thread(target=self._run, args=(engine,), name="ledger", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """Everything submitted is done, or refused where that takes longer than `LAST_S`, and the thread has ended."""
        if self._worker is not None:
            self._gathering.stop()
            self._worker.join()
            self._worker = None

    # The thread.

    def _run(self, engine: Store) -> None:
        self._beside(engine, 0)
        lasting.thread("the ledger's thread", partial(self._rounds, engine))
        engine.abandon("the store is closed")
        with contextlib.suppress(*engine.errors):
            engine.keep_mark(self._clock.mark())

    def _rounds(self, engine: Store) -> None:
        """Until the end has come, and everything is over."""
        gathering = self._gathering
        end: float | None = None
        while not (gathering.stopping and gathering.empty):
            if gathering.stopping and end is None:
                end = monotonic() + LAST_S
            try:
                if end is not None and monotonic() >= end:
                    self._refuse_rest()
                batch = gathering.gather(engine, self.failing is not None)
                if batch:
                    self.on_batch(len(batch))
                    self._work(engine, batch)
                elif self.failing is not None:
                    self._recovered(engine)
            except Exception as error:  # noqa: BLE001 - told in the log
                _log.exception("store: a mistake has met a batch", error, jobs=len(gathering.hand))
                self._let_go(engine, error)
            else:
                if self.failing is None:
                    self._beside(engine, len(batch))

    def _refuse_rest(self) -> None:
        """Who has asked has gone, or is about to be told that the server stops; what the server itself has to do is done."""
        left = self._gathering.let_go()
        for job in left:
            self._refuse(job, unavailable())
        for start in range(0, len(left), TOLD_AT_ONCE):
            self._tell(left[start : start + TOLD_AT_ONCE])

    def _let_go(self, engine: Store, error: Exception) -> None:
        """Nobody waits for the batch, of which nobody knows whether it was committed, and the state is what is on disk."""
        over = {id(job) for job in chain(*self._told, self._gathering.turns, self._gathering.behind)}
        left = [job for job in self._gathering.hand if id(job) not in over]
        for job in left:
            self._refuse(job, undecided())
        self._tell(left)
        self._gathering.hand, self._told = [], []
        self._trouble(engine, error)

    def _beside(self, engine: Store, jobs: int) -> None:
        """What is to be done beside the batches, a part of it."""
        self.holds_up = True
        try:
            self._keep_time(engine)
            engine.side_work(jobs, self._gathering.waiting)
            if engine.mended:
                with self._reader.suspended():
                    engine.replace()
        except Exception as error:  # noqa: BLE001 - told in the log
            if not isinstance(error, engine.errors):
                _log.exception("store: work beside the batches could not be done", error)
            self._trouble(engine, error)
        finally:
            self.holds_up = False

    def _keep_time(self, engine: Store) -> None:
        """The store knows how the clocks stand: since the start, since one was set, and where something is written anyway."""
        times = self._clock.now()
        before, commits = self._marked, self._marked_commits
        if before is None or times.ahead != before.ahead or (commits != self.commits and times.steady - before.steady > MARK_MS):
            engine.keep_mark(self._clock.mark())
            self._marked, self._marked_commits = times, self.commits

    def _work(self, engine: Store, batch: list[Job]) -> None:
        """The batch is over and its jobs have been told so, but for those that did not fit, which stand in line again."""
        times = self._clock.now()
        engine.now = max(engine.now, times.wall)
        behind = engine.now - times.steady
        engine.behind = behind if abs(behind) > ABOUT_MS else 0
        engine.ahead = times.ahead
        if self.failing is None or self._recovered(engine):
            self._commit(engine, [self._owed, *batch] if self._owed else batch)
        else:
            self._serve(engine, batch)
        self._gathering.hand, self._told = [], []  # they hold connections that may go

    def _commit(self, engine: Store, batch: list[Job]) -> None:
        """The jobs are committed and finished, or refused; see `_work`."""
        try:
            fitting, late = self._prepare(engine, batch)
        except Exception as error:
            fault = not isinstance(error, engine.errors)
            if fault:
                logger.exception("store: a batch of %d jobs could not be prepared", len(batch))
            if not (fault or engine.mends(error)) or not self._reload(engine):
                self._trouble(engine, error)
                self._serve(engine, batch)
            elif len(batch) > 1:
                self._halve(engine, batch)
            else:
                self._refuse(batch[0], fault_refusal() if fault else unavailable())
                self._tell(batch)
            return
        batch = self._gathering.decided(batch, fitting, late)
        try:
            engine.commit()
        except engine.errors as error:
            self._trouble(engine, error)
            self._serve(engine, batch, undecided() if isinstance(error, InDoubt) else unavailable())
        else:
            self.commits += 1
            self._finish(engine, batch)

    def _halve(self, engine: Store, batch: list[Job]) -> None:
        """One of the jobs can't be done: the others are, whoever's it is."""
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            for job in half:
                job.commits = job.refusal = None
            if self.failing is None:
                self._commit(engine, half)
            else:
                self._serve(engine, half)

    def _serve(self, engine: Store, batch: list[Job], why: Refusal | None = None) -> None:
        """Nothing can be committed: what does not need it is done, everything else refused."""
        why = why or unavailable()
        reading = read_only(engine, self._owed)
        for job in batch:
            job.commits = job.refusal = None
            if self._stale or job.patient:
                self._refuse(job, why)
                continue
            try:
                with engine.changing:
                    job.prepare(reading)
            except Refusal as refusal:
                job.refuse(refusal)
            except (Later, Anew):  # it needs what only a batch brings
                self._refuse(job, why)
            except Exception as error:  # noqa: BLE001 - told in the log
                self._refuse(job, self._refusal_of(engine, error))
            else:
                self._finish_one(reading, engine, job)
        self._tell(batch)

    def _prepare(self, engine: Store, batch: list[Job]) -> tuple[int, list[Job]]:
        """How many of the jobs are decided: as many as one batch may have; and who of them has to wait for a later one."""
        self.holds_up = len(batch) == 1 and weight_of(engine.members_of, batch[0]) > LONG
        try:
            with engine.changing:
                while True:
                    try:
                        engine.prefetch(batch)
                    except engine.errors as error:
                        if not engine.mends(error):
                            raise
                    try:
                        return self._decide(engine, batch)
                    except Anew:
                        for job in batch:
                            job.commits = job.refusal = None
        finally:
            self.holds_up = False

    def _decide(self, engine: Store, batch: list[Job]) -> tuple[int, list[Job]]:
        """See `_prepare`. Raises `Anew`, where all jobs have been asked what else they need, and nothing has come of them."""
        anew = False
        late: list[Job] = []
        lines: set[str] = set()
        began = looked = thread_time()  # a call to the kernel, where the other clock takes a fifth of its time
        begun = start = perf_counter()
        others = 0.0
        for count, job in enumerate(batch):
            before = engine.last
            if late and job.line() in lines:
                late.append(job)  # behind what stands before it
                continue
            try:
                job.prepare(engine)
            except Refusal as refusal:
                job.refuse(refusal)
            except Anew:
                anew = True
            except Later as later:
                late.append(job)
                job.brought += later.weight
                self._gathering.turns.owe(job.line(), later.weight)
                lines.add(job.line())
            except Exception as error:
                if anew:
                    continue
                if engine.last != before or (isinstance(error, engine.errors) and not engine.mends(error)):
                    raise
                job.refuse(self._refusal_of(engine, error))
            ended = perf_counter()
            job.seconds, start = ended - start, ended
            if job.seconds < LOOKED_AT_S:
                others += job.seconds
            else:
                now = thread_time()
                job.seconds, looked, others = max(0.0, now - looked - others), now, 0.0
            if anew:
                continue
            if engine.weight >= MAX_WEIGHT or (ended - begun >= MAX_SECONDS and thread_time() - began >= MAX_SECONDS):
                return count + 1, late
        if anew:
            raise Anew
        return len(batch), late

    def _finish(self, engine: Store, batch: list[Job]) -> None:
        for start in range(0, len(batch), TOLD_AT_ONCE):
            part = batch[start : start + TOLD_AT_ONCE]
            for job in part:
                if job.refusal is None:
                    self._finish_one(engine, engine, job)
                if job.commits:
                    self.records += len(job.commits)
            self._tell(part)

    def _finish_one(self, view: Engine, engine: Store, job: Job) -> None:
        try:
            job.finish(view)
        except Refusal as refusal:
            job.refuse(refusal)
        except Exception as error:  # noqa: BLE001 - told in the log
            why = self._refusal_of(engine, error)
            if job.commits is None:  # else it is done all the same, and devices fetch what they were not told
                job.refuse(why)

    def _refuse(self, job: Job, refusal: Refusal) -> None:
        job.commits = None
        job.refuse(refusal)

    def _refusal_of(self, engine: Store, error: Exception) -> Refusal:
        """Say what went wrong with one job."""
        if isinstance(error, engine.errors):
            if not engine.mends(error):
                logger.error("store: can't be read: %s", error)
            return unavailable()
        logger.error("store: a request met a fault of the server", exc_info=error)
        return fault_refusal()

    def _trouble(self, engine: Store, error: object) -> None:
        """The batch is void: forget what it did to the state, and remember that the store is in trouble."""
        if self.failing is None:
            logger.error("store: can't commit: %s", error)
        self.failing = str(error)
        engine.abandon(f"the store can't commit: {error}")
        self._reload(engine)

    def _reload(self, engine: Store) -> bool:
        before, self._stale = self._stale, True
        try:
            engine.abandon("the store was read anew")
            with self._reader.suspended():
                engine.load()
        except Exception as error:  # noqa: BLE001 - told in the log
            if not isinstance(error, engine.errors):
                _log.exception("store: could not be read", error)
            elif not before:
                logger.error("store: can't be read: %s", error)
            self.failing = str(error)
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
        if self.on_recovered is not None:
            self._soon(self.on_recovered)
        return True

    # Answers.

    def _tell(self, batch: list[Job]) -> None:
        """The jobs are over on the loop soon. The thread waits where the loop does not keep up."""
        self._told.append(batch)
        self._untold.acquire(timeout=LONGEST_TELL_S)
        self._soon(self._arrived, batch)

    def _arrived(self, batch: list[Job]) -> None:
        self._untold.release()
        self._report(batch)
