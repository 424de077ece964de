"""Password hashing off the event loop, in turn for each address.

One verification takes tens of milliseconds of a core, and thousands may be wanted at once, when everybody comes back after a
restart. A thread for each core does them, below the priority of everything else, and addresses take turns, so that who
guesses passwords waits for his own guesses, and the next address waits for one of them at most.

A login waits for so long that even clients of little patience are still there. Then it is told to come back, and its
verification keeps its place: who comes back with the same password waits at that place, or finds the answer. A login that
hangs up leaves the queue, and costs nothing unless its turn had come.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

MAX_THREADS = 4
"""So many verify passwords at most: each takes up memory, and a container may have fewer cores than it sees."""
MAX_WAITING = 10_000
MAX_WAITING_PER_ADDRESS = 6_000
PATIENCE_S = 8.0
"""How long a login waits at most; the less patient ones among clients give up after 10 s without CONNACK."""
_SPREAD = 0.25
"""Some wait for so much less, so that those who came at once are not told to come back at once."""


class PoolFullError(Exception):
    """Too many logins wait already."""


class NotYetError(Exception):
    """The login has waited for long enough; its verification keeps its place."""


class Verification(Protocol):
    """What is done for a login when its turn has come. What it raises is raised by `PasswordPool.run`."""

    def begin(self) -> Callable[[], bool]:
        """Called on the event loop: what a thread is to compute. Raises where it is not worth it any more."""

    def end(self, right: bool) -> int:
        """Called on the event loop with what was computed, whoever still waits for it; the result of `PasswordPool.run`."""


class _Job:
    __slots__ = ("future", "key", "keeps_place", "verification", "waiting")

    def __init__(self, key: tuple[str, bytes], verification: Verification) -> None:
        self.key = key
        self.verification = verification
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        """Logins that wait for it."""
        self.keeps_place = False
        """Somebody was told to come back for it."""


class PasswordPool:
    """Runs verifications. Everything but the computing itself happens on the event loop."""

    def __init__(self, threads: int | None = None, patience_s: float = PATIENCE_S) -> None:
        self._free = threads or min(_cores(), MAX_THREADS)
        self._patience_s = patience_s
        self._executor = ThreadPoolExecutor(self._free, thread_name_prefix="password", initializer=_give_way)
        self._jobs: dict[tuple[str, bytes], _Job] = {}
        """Those that wait and those that are computed, by address and digest."""
        self._queues: OrderedDict[str, OrderedDict[_Job, None]] = OrderedDict()
        """Those that wait, by address; the next turn is the first address's."""
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many verifications wait for a thread."""
        return self._waiting

    async def run(self, address: str, digest: bytes, verification: Verification) -> int:
        """The result of the verification, or of the one that the same address has wanted before, of the same `digest`.

        Raises `PoolFullError` where too many wait, `NotYetError` where it takes too long.
        """
        job = self._jobs.get((address, digest)) or self._enqueue((address, digest), verification)
        job.waiting += 1
        self._start_next()
        patience_s = self._patience_s * random.uniform(1 - _SPREAD, 1)  # noqa: S311 - it is no secret
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.shield(job.future)
        except TimeoutError:
            job.keeps_place = True
            raise NotYetError from None
        finally:
            job.waiting -= 1
            if not job.waiting and not job.keeps_place:
                self._leave(job)

    def close(self) -> None:
        """Let go of the threads; nobody waits for what they still do."""
        self._queues.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _enqueue(self, key: tuple[str, bytes], verification: Verification) -> _Job:
        queue = self._queues.get(key[0])
        if self._waiting >= MAX_WAITING or (queue is not None and len(queue) >= MAX_WAITING_PER_ADDRESS):
            raise PoolFullError
        if queue is None:
            queue = self._queues[key[0]] = OrderedDict()
        job = self._jobs[key] = _Job(key, verification)
        queue[job] = None
        self._waiting += 1
        return job

    def _leave(self, job: _Job) -> None:
        """Nobody wants it any more: it gives up its place, unless its turn has come already."""
        address = job.key[0]
        queue = self._queues.get(address)
        if queue is None or job not in queue:
            return
        del queue[job], self._jobs[job.key]
        self._waiting -= 1
        if not queue:
            del self._queues[address]

    def _start_next(self) -> None:
        while self._free and self._queues:
            address, queue = self._queues.popitem(last=False)
            job, _ = queue.popitem(last=False)
            self._waiting -= 1
            if queue:
                self._queues[address] = queue  # at the end: the next address has its turn first
            try:
                work = job.verification.begin()
            except Exception as error:  # noqa: BLE001 - it is whoever waits that is told
                self._finish(job, error)
                if queue:
                    self._queues.move_to_end(address, last=False)  # it has used nothing, and its turn goes on
                continue
            self._free -= 1
            asyncio.get_running_loop().run_in_executor(self._executor, work).add_done_callback(partial(self._computed, job))

    def _computed(self, job: _Job, computed: asyncio.Future[bool]) -> None:
        self._free += 1
        try:
            self._finish(job, job.verification.end(computed.result()))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as above; cancelled by `close`
            self._finish(job, error)
        self._start_next()

    def _finish(self, job: _Job, result: int | BaseException) -> None:
        del self._jobs[job.key]
        if isinstance(result, asyncio.CancelledError):
            job.future.cancel()
        elif isinstance(result, BaseException):
            job.future.set_exception(result)
            job.future.exception()  # who has left will not look at it
        else:
            job.future.set_result(result)


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _give_way() -> None:
    """On Linux, where threads have priorities of their own: whoever is let in already comes first."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
