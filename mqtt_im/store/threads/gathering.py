"""What the ledger's thread takes up next: whatever has come, as far as one batch may have it.

A batch is bounded by what it costs, not by how many jobs it has. What does not fit waits in lines, whose users take turns
(`turns`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

from mqtt_im.store.interface import Store
from mqtt_im.store.jobs.job import Job

from .behind import Behind
from .outflow import Outflow
from .turns import SERVER, Turns
from .weighing import LONG, cost, has_long, weight_of

HEAVY = 500
"""Of one job, which waits where the store is crowded."""
MOST_PASSED = 3
"""Batches of what is light, one after the other, that what is long, or what nobody waits for, lets pass."""
MAX_JOBS = 1000
"""Jobs that are looked at for one transaction …"""
MIN_JOBS = 64
"""… and so many at least: where fewer fitted lately, a few more than that."""
RETRY_S = 0.5
"""Between two attempts to write to a store that is in trouble."""
CROWDED_S = 0.05
"""Between two looks whether what is crowded still is, where nothing can be done about it meanwhile."""
GATHERED = 8
"""Where the last batch had fewer jobs, nobody is waited for: what comes one by one would only come later."""


class Gathering:
    """The jobs that wait for the ledger's thread, and those that it has in hand."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self.turns = Turns[Job](lambda job: job.line())
        """Those that did not fit."""
        self.behind = Behind()
        self.outflow = Outflow(lambda: self.submit([]))
        """What is still to be told, for which jobs for many wait."""
        self.hand: list[Job] = []
        """Those of the batch that is being gathered or worked on."""
        self.stopping = False
        """The end has come: nothing more comes."""
        self._last = 0
        """Jobs that came for the last batch."""
        self._most = MAX_JOBS
        """Jobs that are looked at for the next transaction: what is not done has been looked up for nothing."""
        self._passed = 0
        """Batches of what is light, one after the other, that were done while something else waited."""
        self._kept_waiting = False
        """Whether what is light may wait for what is done now."""
        self._lazy_next = False
        """Whether the last one that let others pass was a long one, so that a lazy one comes before the next long one."""
        self._rests = False
        """Whether all that is in line waits: for what is still to be told, or for what is crowded."""

    def submit(self, jobs: list[Job]) -> None:
        """The jobs stand in line."""
        self._queue.put(jobs)

    def stop(self) -> None:
        """Nothing more comes, and nobody is waited for."""
        self.outflow.stop()
        self._queue.put(None)

    # The thread.

    @property
    def empty(self) -> bool:
        """Whether nobody stands in line, but who has just come."""
        return not self.turns and not self.behind

    def waiting(self) -> bool:
        """Whether somebody may wait for what is done now."""
        return not self._queue.empty() or self._kept_waiting

    def gather(self, engine: Store, failing: bool) -> list[Job]:
        """The jobs of the next batch, as many as there may be; `failing`: the store can't commit."""
        batch = self.hand = list[Job]()
        self._take(batch, self.pause(engine, failing))
        few = 0 < len(batch) < self._last and self._last >= GATHERED
        if few and engine.gathers_s and not (self.stopping or self.turns or failing):
            time.sleep(engine.gathers_s)
            self._take(batch, 0.0)
        if batch:
            self._last = len(batch)
        batch = self.hand = self.behind.part(batch)
        self._kept_waiting = False
        turns, crowded = self.turns, not failing and engine.crowded
        weight = turns.weigh = partial(weight_of, engine.members_of)
        full = self.outflow.full()
        apart = crowded or full or (1 < len(batch) <= MIN_JOBS and has_long(batch, weight))
        if turns or self.behind or apart or len(batch) > self._most:
            turns.settle()
            for job in batch:
                turns.put(job)
            batch = self.hand = self._next(weight, (lambda job: weight(job) > HEAVY) if crowded or full else None)
            self._rests = not batch and len(turns) > 0
        return batch

    def _next(self, weight: Callable[[Job], float], waits: Callable[[Job], bool] | None) -> list[Job]:
        """Those that are light, or a long or lazy one alone, when there are none or it was passed often enough."""
        turns, behind, overdue = self.turns, self.behind, self._passed >= MOST_PASSED
        batch = turns.several(self._most, waits, lambda job: weight(job) > LONG, overdue)
        is_long = len(batch) == 1 and weight(batch[0]) > LONG
        if batch and not (is_long or overdue):
            self._passed = self._passed + 1 if turns or behind else 0
            return batch
        self._passed = 0
        self._kept_waiting = overdue
        if behind and (self._lazy_next or not is_long):
            turns.give_back(batch)
            batch = [behind.take()]
        self._lazy_next = is_long and not self._lazy_next
        return batch

    def pause(self, engine: Store, failing: bool) -> float | None:
        """Seconds to wait for jobs; None: until one comes."""
        if self.behind or (self.turns and not self._rests):
            return 0.0
        self._rests = False
        pause = RETRY_S if failing else engine.pause()
        if not self.turns:
            return pause
        if not failing and engine.crowded:
            return CROWDED_S if pause is None else min(pause, CROWDED_S)
        wait = self.outflow.wait_s()
        return wait if pause is None else min(pause, wait)

    def _take(self, batch: list[Job], timeout: float | None) -> None:
        """What has come is in the batch, where it is empty also what comes within this time; and it is known when the end has."""
        try:
            while True:
                more = self._queue.get_nowait() if batch or timeout == 0.0 else self._queue.get(timeout=timeout)
                if more is None:
                    self.stopping = True
                    return
                batch += more
                if not more:
                    return
        except Empty:
            return

    def let_go(self) -> list[Job]:
        """All jobs that users wait for, which stand in line no more; behind the server's own, of which none waits for them."""
        left: list[Job] = []
        server: list[Job] = []
        while (job := self.turns.take()) is not None:
            (left if job.line() != SERVER else server).append(job)
        self.turns.settle()
        for job in server:
            self.turns.put(job)
        return left

    def decided(self, batch: list[Job], fitting: int, late: list[Job]) -> list[Job]:
        """Those of a batch that are about to be committed: so many were decided, without the late ones.

        The rest stands in line again, and who has had something has paid for it.
        """
        if fitting < len(batch):
            self._most = max(MIN_JOBS, fitting + fitting // 4)
        elif self._most < MAX_JOBS:
            self._most = min(MAX_JOBS, 2 * self._most)
        turns = self.turns
        if late or fitting < len(batch) or turns:
            turns.give_back(late + batch[fitting:])
            batch = batch[:fitting]
            for job in batch:
                turns.charge(job.line(), cost(job))
            if late:
                batch = [job for job in batch if job not in late]
        if self.outflow.overdue and any(turns.weigh(job) > HEAVY for job in batch):
            self.outflow.passed()
        return batch
