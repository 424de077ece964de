"""The ledger: what the rest of the server sees of the store. Jobs are handed in on the event loop, and are over there too.

What changes something goes to the writer's thread (`threads.writer`), whatever only reads to the reader's (`threads.reader`),
after what its user has handed in before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from mqtt_im import lasting
from mqtt_im.clock import Clock
from mqtt_im.compiling import mypyc_attr
from mqtt_im.protocol.errors import Refusal, StoreError

from .interface import Readable, Store
from .jobs.delivering import PullJob
from .jobs.job import Job
from .jobs.reads import CallJob
from .policy import Policy, Removed
from .threads.gathering import Gathering
from .threads.reader import Reader
from .threads.turns import SERVER
from .threads.writer import Writer

logger = logging.getLogger(__name__)

J = TypeVar("J", bound=Job)


@mypyc_attr(allow_interpreted_subclasses=True)
class Ledger:
    """The event loop's side of the store. `submit` is called on the loop, and every job's `done` too."""

    def __init__(self, make: Callable[[], Store], *, clock: Clock | None = None) -> None:
        """`make` opens the store, on another thread. Raises `StoreError`."""
        self._make = make
        self.clock = clock or Clock()
        """Its steady time counts from `start` on."""
        self._pending: list[Job] = []
        self._last: dict[str, Job] = {}
        """By user, the last job that was handed in and is not over."""
        self._after: dict[int, list[Callable[[], None]]] = {}
        """What is done when a job is over, by its `id()`: reads of its user wait for that."""
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._reader = Reader(self._tell_one, self.clock, self._not_read)
        self.gathering = Gathering()
        """What waits for the writer's thread."""
        self.writer = Writer(self.gathering, self._reader, self.clock, self._soon, self._report)
        """The thread: how it is, what it has committed, and who is told of that."""
        self.on_retained: Callable[[], None] = lambda: None
        """Called on the event loop when retention has taken messages."""
        self.on_reported: Callable[[], None] = lambda: None
        """Called on the event loop when jobs that were over together have been told so."""
        self._submitted = 0
        self._answered = 0

    @property
    def failing(self) -> str | None:
        """Why the store can't commit now; None while it can."""
        return self.writer.failing

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
        self.writer.start(engine)

    async def stop(self) -> None:
        """What was submitted is done, the projections are written, the files are closed."""
        if self._store is None:
            return
        in_background = asyncio.get_running_loop().run_in_executor
        self._send()
        await in_background(None, self.writer.stop)
        await in_background(None, self._reader.stop)
        await in_background(None, self._store.close)
        self._store = None

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
        """The read is done once those jobs are over that its user has handed in until now, and the server's own, such as cursors.

        None that come later: of who goes on and on, there is always one that is not over.
        """
        before = [found for name in {line, SERVER} if (found := self._last.get(name)) is not None]
        if not before:
            self._reader.submit(job)
            return
        left = len(before)

        def over() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._reader.submit(job)

        for one in before:
            self._after.setdefault(id(one), []).append(over)

    async def over(self) -> None:
        """What was handed in until now and may change something is done, or refused."""
        ended = []
        for job in self._last.values():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._after.setdefault(id(job), []).append(partial(_let_go, future))
            ended.append(future)
        await asyncio.gather(*ended)

    def _send(self) -> None:
        self._scheduled = False
        if self._pending:
            self.gathering.submit(self._pending)
            self._pending = []

    async def ask(self, make: Callable[[Callable[[J], None]], J], told: Callable[[J], None] = lambda _: None) -> J:
        """The job of `make`, which is given the job's `notify`, is over. Raises its `Refusal`.

        `told` is called with the job in the turn of the loop in which it is over, also where nobody waits for it any more.
        """
        future: asyncio.Future[J] = asyncio.get_running_loop().create_future()

        def notify(job: J) -> None:
            try:
                told(job)
            finally:
                if future.done():
                    pass
                elif job.refusal is not None:
                    future.set_exception(job.refusal)
                else:
                    future.set_result(job)

        self.submit(make(notify))
        return await future

    async def call(self, function: Callable[[Readable], Any], user: str = SERVER) -> Any:
        """What `function` has read on the reader's thread, in the user's turn. Raises its `Refusal`."""
        job: CallJob = await self.ask(lambda notify: CallJob(function, notify, user))
        return job.result

    async def pull(self, users: Sequence[str]) -> None:
        """These users' inboxes have what large groups have told by now. Raises `Refusal`."""
        while users and self._store is not None and not self._store.alone:
            job: PullJob = await self.ask(partial(PullJob, users, SERVER))
            users = job.more

    async def decide(self, function: Callable[[Store], Any]) -> Any:
        """What `function` has found out between two batches, on the ledger's thread. Raises its `Refusal`."""
        job: _Control = await self.ask(lambda notify: _Control(function, notify))
        return job.result

    async def probe(self) -> None:
        """The store can commit. Raises `Refusal`."""
        await self.decide(lambda store: store.probe())

    async def compact(self, policy: Policy) -> Removed:
        """Take out of the store what may go, a little at a time between other work. Raises `StoreError` where that fails."""
        future: asyncio.Future[Removed] = asyncio.get_running_loop().create_future()

        def settle(result: Removed | StoreError) -> None:
            if future.done():
                return
            if isinstance(result, StoreError):
                future.set_exception(result)
            else:
                if result.messages:
                    self.on_retained()
                future.set_result(result)

        times = self.clock.now()
        now = min(times.wall, times.steady)  # rather too late than too early
        try:
            await self.decide(lambda store: store.retain(policy, now, partial(self._soon, settle)))
        except Refusal as refusal:
            raise StoreError(f"the store can't commit: {self.failing}" if self.failing else refusal.message) from refusal
        return await future

    # From the threads.

    def _soon(self, act: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop was closed before the ledger was
            self._loop.call_soon_threadsafe(act, *args)

    def _tell_one(self, job: Job) -> None:
        self._soon(self._report, [job])

    def _not_read(self, error: Exception) -> None:
        self.gathering.submit([_Control(lambda store: store.mends(error), lambda _: None)])

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
                lasting.each("what has waited for a job", waiting)
        self.on_reported()


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():  # nobody waits any more
        future.set_result(None)


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
