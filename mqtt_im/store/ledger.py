"""The ledger: one writer thread that takes everything that waits and commits it as one transaction.

Group commit: while one batch is on its way to the disk, the next one gathers. Numbers are given out inside the batch; a batch
that fails leaves nothing, neither on disk nor in memory (INV-1: what is answered is on disk). After each commit the thread
does a part of what else the store has to do, so that this never holds up the next commit for long.

A batch is bounded by what it costs, not by how many jobs it has. What does not fit waits in lines, whose users take turns
(`turns`). Whatever only reads goes to the reader's thread (`reader`), after what its user has handed in before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter, thread_time
from typing import Any

from mqtt_im.clock import Clock, Times
from mqtt_im.compiling import mypyc_attr
from mqtt_im.protocol.errors import InDoubt, Refusal, StoreError, Undecided

from .interface import Anew, Engine, Readable, Store
from .jobs import Job, PullJob
from .policy import Policy, Removed
from .reader import Reader, unavailable
from .readonly import Owed, read_only
from .reads import CallJob
from .turns import SERVER, Turns

logger = logging.getLogger(__name__)

MAX_WEIGHT = 8000
"""Of one transaction, see `Store.weight`: a fiftieth of a second."""
HEAVY = 500
"""Of one job, which waits where the store is crowded."""
MAX_SECONDS = 0.01
"""Of the thread's time, for deciding the jobs of one transaction: what is refused weighs nothing, and takes time too."""
LOOKED_AT_S = 0.0005
"""A job that takes less, its waiting included, is not asked how much of that was the thread's time."""
MAX_JOBS = 1000
"""Jobs that are looked at for one transaction …"""
MIN_JOBS = 64
"""… and so many at least: where fewer fitted lately, a few more than that."""
MAX_UNTOLD = 64
"""Times that answers are on their way to the loop: what it has not got to is in memory."""
LONGEST_TELL_S = 10.0
"""A loop that has got to nothing for so long is not waited for."""
TOLD_AT_ONCE = 100
"""Jobs whose answers leave together."""
MARK_MS = 300_000
"""Between two notes of how the clocks stand."""
ABOUT_MS = 10
"""Times that differ by less are the same."""
RETRY_S = 0.5
"""Between two attempts to write to a store that is in trouble."""
_WEIGHT_PER_SECOND = 50.0 * MAX_WEIGHT


@mypyc_attr(allow_interpreted_subclasses=True)
class Ledger:
    """The event loop's side of the store. `submit` is called on the loop, and every job's `done` too."""

    def __init__(self, make: Callable[[], Store], *, clock: Clock | None = None) -> None:
        """`make` opens the store, on another thread. Raises `StoreError`."""
        self._make = make
        self.clock = clock or Clock()
        """Its steady time counts from `start` on."""
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._pending: list[Job] = []
        self._last: dict[str, Job] = {}
        """By user, the last job that was handed in and is not over."""
        self._after: dict[int, list[Callable[[], None]]] = {}
        """What is done when a job is over, by its `id()`: reads of its user wait for that."""
        self._turns = Turns[Job](lambda job: job.line())
        self._most = MAX_JOBS
        """Jobs that are looked at for the next transaction: what is not done has been looked up for nothing."""
        self._worker: threading.Thread | None = None
        self._store: Store | None = None
        self._untold = threading.Semaphore(MAX_UNTOLD)
        self._reader = Reader(self._tell_one, self.clock, self._not_read)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
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
        self.on_batch: Callable[[int], None] = lambda _: None
        """Called on the ledger's thread with the number of jobs of each batch."""
        self.on_retained: Callable[[], None] = lambda: None
        """Called on the event loop when retention has taken messages."""
        self._submitted = 0
        self._answered = 0
        self._marked: Times | None = None
        self._marked_commits = 0

    @property
    def epoch(self) -> str:
        """Names the store, as it is now: an operator may give one of many nodes a new name."""
        return "" if self._store is None else self._store.epoch

    @property
    def queued(self) -> int:
        """Jobs that were handed in and are not done."""
        return self._submitted - self._answered

    async def start(self) -> None:
        """The store is open and its tail replayed. Raises `StoreError`."""
        self._loop = asyncio.get_running_loop()
        # Not on the loop: a long log takes a while, and health is asked meanwhile.
        engine = await self._loop.run_in_executor(None, self._make)
        self.clock.resume(engine.mark)
        self._store = engine
        self._reader.start(engine.reading)
        self._worker = threading.Thread(target=self._run, args=(engine,), name="ledger", daemon=True)
        self._worker.start()

    async def stop(self) -> None:
        """What was submitted is done, the projections are written, the files are closed."""
        if self._worker is None or self._store is None:
            return
        in_background = asyncio.get_running_loop().run_in_executor
        self._send()
        self._queue.put(None)
        await in_background(None, self._worker.join)
        await in_background(None, self._reader.stop)
        await in_background(None, self._store.close)
        self._worker = self._store = None

    def submit(self, job: Job) -> None:
        """The job stands in line. Jobs of one turn of the loop are handed over together."""
        line = job.line()
        self._submitted += 1
        if job.reads:
            self._read(job, line)
            return
        self._last[line] = job
        self._pending.append(job)
        if not self._scheduled:
            self._scheduled = True
            assert self._loop is not None
            self._loop.call_soon(self._send)

    def _read(self, job: Job, line: str) -> None:
        """The read is done once its user's jobs are, and the server's own, such as cursors."""
        for name in (line, SERVER):
            before = self._last.get(name)
            if before is not None:
                self._after.setdefault(id(before), []).append(partial(self._read, job, line))
                return
        self._reader.submit(job)

    async def over(self) -> None:
        """What was handed in until now and may change something is done, or refused."""
        ended = []
        for job in self._last.values():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._after.setdefault(id(job), []).append(partial(future.set_result, None))
            ended.append(future)
        await asyncio.gather(*ended)

    def _send(self) -> None:
        self._scheduled = False
        if self._pending:
            self._queue.put(self._pending)
            self._pending = []

    async def call(self, function: Callable[[Readable], Any], user: str = SERVER) -> Any:
        """What `function` has read on the reader's thread, in the user's turn. Raises its `Refusal`."""
        return await self._ended(lambda notify: CallJob(function, notify, user))

    async def pull(self, users: Sequence[str]) -> None:
        """These users' inboxes have what large groups have told by now. Raises `Refusal`."""
        while users and self._store is not None and not self._store.alone:
            job: PullJob = await self._notified(partial(PullJob, users, SERVER))
            users = job.more

    async def decide(self, function: Callable[[Store], Any]) -> Any:
        """What `function` has found out between two batches, on the ledger's thread. Raises its `Refusal`."""
        return await self._ended(lambda notify: _Control(function, notify))

    async def probe(self) -> None:
        """The store can commit. Raises `Refusal`."""
        await self._ended(lambda notify: _Control(lambda store: store.probe(), notify))

    async def _notified(self, make: Callable[[Callable[[Any], None]], Job]) -> Any:
        """The job, once it is over. Raises its `Refusal`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def notify(job: Job) -> None:
            if future.done():
                return
            if job.refusal is not None:
                future.set_exception(job.refusal)
            else:
                future.set_result(job)

        self.submit(make(notify))
        return await future

    async def _ended(self, make: Callable[[Callable[[Any], None]], CallJob | _Control]) -> Any:
        return (await self._notified(make)).result

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
                if result.messages:
                    self.on_retained()
                future.set_result(result)

        def ended(result: Removed | StoreError) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before the ledger was
                loop.call_soon_threadsafe(settle, result)

        times = self.clock.now()
        now = min(times.wall, times.steady)  # rather too late than too early
        try:
            await self._ended(lambda notify: _Control(lambda store: store.retain(policy, now, ended), notify))
        except Refusal as refusal:
            raise StoreError(f"the store can't commit: {self.failing}" if self.failing else refusal.message) from refusal
        return await future

    # The thread.

    def _run(self, engine: Store) -> None:
        stop = False
        self._beside(engine, 0)
        while not stop or self._turns:
            batch, ended = self._gather(engine)
            stop = stop or ended
            if batch:
                self.on_batch(len(batch))
                self._work(engine, batch)
            elif self.failing is not None:
                self._recovered(engine)
            if self.failing is None:
                self._beside(engine, len(batch))
        engine.abandon("the store is closed")
        with contextlib.suppress(*engine.errors):
            engine.keep_mark(self.clock.mark())

    def _beside(self, engine: Store, jobs: int) -> None:
        """What is to be done beside the batches, a part of it."""
        try:
            self._keep_time(engine)
            engine.side_work(jobs)
            if engine.mended:
                with self._reader.suspended():
                    engine.replace()
        except Exception as error:
            if not isinstance(error, engine.errors):
                logger.exception("store: work beside the batches could not be done")
            self._trouble(engine, error)

    def _keep_time(self, engine: Store) -> None:
        """The store knows how the clocks stand: since the start, since one was set, and where something is written anyway."""
        times = self.clock.now()
        before, commits = self._marked, self._marked_commits
        if before is None or times.ahead != before.ahead or (commits != self.commits and times.steady - before.steady > MARK_MS):
            engine.keep_mark(self.clock.mark())
            self._marked, self._marked_commits = times, self.commits

    def _gather(self, engine: Store) -> tuple[list[Job], bool]:
        """The jobs of the next batch, as many as there may be, and whether the end has come."""
        batch: list[Job] = []
        ended = False
        timeout = 0.0 if self._turns else engine.pause() if self.failing is None else RETRY_S
        try:
            while True:
                more = self._queue.get_nowait() if batch or timeout == 0.0 else self._queue.get(timeout=timeout)
                if more is None:
                    ended = True
                    break
                batch += more
        except Empty:
            pass
        turns, crowded = self._turns, self.failing is None and engine.crowded
        weight = turns.weigh = partial(_weight, engine.members_of)
        if turns or len(batch) > self._most or crowded:
            waits = (lambda job: weight(job) > HEAVY) if crowded else None
            for job in batch:
                turns.put(job)
            batch = turns.several(self._most, waits)
        return batch, ended

    def _work(self, engine: Store, batch: list[Job]) -> None:
        """The batch is over and its jobs have been told so, but for those that did not fit, which stand in line again."""
        times = self.clock.now()
        engine.now = max(engine.now, times.wall)
        behind = engine.now - times.steady
        engine.behind = behind if abs(behind) > ABOUT_MS else 0
        engine.ahead = times.ahead
        if self.failing is None or self._recovered(engine):
            self._commit(engine, [self._owed, *batch] if self._owed else batch)
        else:
            self._serve(engine, batch)

    def _commit(self, engine: Store, batch: list[Job]) -> None:
        """The jobs are committed and finished, or refused; see `_work`."""
        try:
            fitting = self._prepare(engine, batch)
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
        if fitting < len(batch):
            self._most = max(MIN_JOBS, fitting + fitting // 4)
        elif self._most < MAX_JOBS:
            self._most = min(MAX_JOBS, 2 * self._most)
        if fitting < len(batch) or self._turns:
            batch = self._cut(batch, fitting)
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
            except Exception as error:  # noqa: BLE001 - told in the log
                self._refuse(job, self._refusal_of(engine, error))
            else:
                self._finish_one(reading, engine, job)
        self._tell(batch)

    def _prepare(self, engine: Store, batch: list[Job]) -> int:
        """How many of the jobs are decided: as many as one batch may have."""
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

    def _decide(self, engine: Store, batch: list[Job]) -> int:
        """See `_prepare`. Raises `Anew`, where all jobs have been asked what else they need, and nothing has come of them."""
        anew = False
        began = looked = thread_time()  # a call to the kernel, where the other clock takes a fifth of its time
        begun = start = perf_counter()
        others = 0.0
        for count, job in enumerate(batch):
            before = engine.last
            try:
                job.prepare(engine)
            except Refusal as refusal:
                job.refuse(refusal)
            except Anew:
                anew = True
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
                return count + 1
        if anew:
            raise Anew
        return len(batch)

    def _cut(self, batch: list[Job], fitting: int) -> list[Job]:
        """What fits; the rest stands in line again, and who has had something has paid for it."""
        turns = self._turns
        turns.give_back(batch[fitting:])
        batch = batch[:fitting]
        for job in batch:
            turns.charge(job.line(), _cost(job))
        return batch

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

    def _not_read(self, error: Exception) -> None:
        """The reader has met this."""
        self._queue.put([_Control(lambda store: store.mends(error), lambda _: None)])

    def _trouble(self, engine: Store, error: object) -> None:
        """The batch is void: forget what it did to the state, and remember that the store is in trouble."""
        if self.failing is None:
            logger.error("store: can't commit: %s", error)
        self.failing = str(error)
        engine.abandon(f"the store can't commit: {error}")
        self._reload(engine)

    def _reload(self, engine: Store) -> bool:
        engine.abandon("the store was read anew")
        try:
            with self._reader.suspended():
                engine.load()
        except Exception as error:
            if not isinstance(error, engine.errors):
                logger.exception("store: could not be read")
            elif not self._stale:
                logger.error("store: can't be read: %s", error)
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

    # Answers.

    def _tell_one(self, job: Job) -> None:
        self._hand_over(self._report, [job])

    def _tell(self, batch: list[Job]) -> None:
        """The jobs are over on the loop soon. From the ledger's thread, which waits where the loop does not keep up."""
        self._untold.acquire(timeout=LONGEST_TELL_S)
        self._hand_over(self._arrived, batch)

    def _hand_over(self, report: Callable[[list[Job]], None], batch: list[Job]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop was closed before the ledger was
            self._loop.call_soon_threadsafe(report, batch)

    def _arrived(self, batch: list[Job]) -> None:
        self._untold.release()
        self._report(batch)

    def _report(self, batch: list[Job]) -> None:
        last, after = self._last, self._after
        self._answered += len(batch)
        for job in batch:
            try:
                job.done()
            except Exception:
                logger.exception("a job's answer could not be given")
            if job.reads:
                self._reader.arrived += 1
                continue
            line = job.line()
            if last.get(line) is job:
                del last[line]
            if after and (waiting := after.pop(id(job), None)) is not None:
                for go_on in waiting:
                    go_on()


class _Control(Job):
    """What the server itself asks of the store; `result` is what it was told."""

    __slots__ = ("act", "notify", "result")

    def __init__(self, act: Callable[[Store], Any], notify: Callable[[_Control], None]) -> None:
        super().__init__()
        self.act = act
        self.notify = notify
        self.result: Any = None

    def finish(self, engine: Any) -> None:
        """See `Job`."""
        self.result = self.act(engine)

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)


def undecided() -> Undecided:
    """The refusal of what may have been committed, or not."""
    return Undecided("unavailable", "the server can't tell whether it has stored this; try again", retry=True, retry_after=1.0)


def fault_refusal() -> Refusal:
    """The refusal of what the server can't do, however often it is asked."""
    return Refusal("unavailable", "the server has a fault with this request; its log tells more")


def _weight(members_of: Callable[[str], int], job: Job) -> float:
    """What a job will weigh in a batch, as far as it is heavy."""
    return job.recipients(members_of)


def _cost(job: Job) -> float:
    """What a job has cost the batch, in the measure of `Store.weight`."""
    records = [commit.record for commit in job.commits or ()]
    weight = 10.0 + sum(len(getattr(record, "pos", ())) + (len(getattr(record, "body", None) or b"") >> 10) for record in records)
    return max(weight, job.seconds * _WEIGHT_PER_SECOND)
