"""Password hashing off the event loop, in turn for each address.

One hash takes tens of milliseconds of a core. Two threads do them, and addresses take turns, so that who guesses
passwords waits for his own guesses, and the next address waits for one of them at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

THREADS = 2
MAX_WAITING = 10_000
MAX_WAITING_PER_ADDRESS = 6_000


class PoolFullError(Exception):
    """Too many logins wait already."""


class _Job:
    __slots__ = ("future", "work")

    def __init__(self, work: Callable[[], bool | None], future: asyncio.Future[bool | None]) -> None:
        self.work = work
        self.future = future


class PasswordPool:
    """Runs verifications. Everything but the work itself happens on the event loop."""

    def __init__(self, threads: int = THREADS) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="password", initializer=_give_way)
        self._free = threads
        self._waiting: OrderedDict[str, deque[tuple[_Job, Callable[[], bool]]]] = OrderedDict()
        self._count = 0

    @property
    def waiting(self) -> int:
        """How many logins wait for a thread."""
        return self._count

    async def run(self, address: str, work: Callable[[], bool], wanted: Callable[[], bool]) -> bool | None:
        """What `work` returns, run in a thread; None where `wanted` says, when its turn has come, that it is not worth it.

        Raises `PoolFullError` where too many wait.
        """
        queue = self._waiting.get(address)
        if self._count >= MAX_WAITING or (queue is not None and len(queue) >= MAX_WAITING_PER_ADDRESS):
            raise PoolFullError
        job = _Job(work, asyncio.get_running_loop().create_future())
        if queue is None:
            queue = self._waiting[address] = deque()
        queue.append((job, wanted))
        self._count += 1
        self._start_next()
        return await job.future

    def close(self) -> None:
        """Let go of the threads; nobody waits for what they still do."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start_next(self) -> None:
        while self._free and self._waiting:
            address, queue = self._waiting.popitem(last=False)
            job, wanted = queue.popleft()
            self._count -= 1
            if queue:
                self._waiting[address] = queue  # at the end: the next address has its turn first
            if job.future.done():
                continue  # the connection has gone meanwhile
            if not wanted():
                job.future.set_result(None)
                continue
            self._free -= 1
            asyncio.get_running_loop().run_in_executor(self._executor, job.work).add_done_callback(self._done_with(job))

    def _done_with(self, job: _Job) -> Callable[[asyncio.Future[bool | None]], None]:
        def done(finished: asyncio.Future[bool | None]) -> None:
            self._free += 1
            error = None if finished.cancelled() else finished.exception()
            if job.future.done():
                pass
            elif error is not None:
                job.future.set_exception(error)
            else:
                job.future.set_result(None if finished.cancelled() else finished.result())
            self._start_next()

        return done


def _give_way() -> None:
    """On Linux, where threads have priorities of their own: whoever is let in already comes first."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
