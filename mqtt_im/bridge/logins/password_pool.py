"""Password hashing off the event loop, in turn for each address.

One verification takes tens of milliseconds of a core, and thousands may be wanted at once, when everybody comes back after a
restart. A thread for each core does them, below the priority of everything else, and addresses take turns, so that who
guesses passwords waits for his own guesses, and the next address waits for one of them at most.

Who guesses from thousands of addresses would still keep everybody waiting for one check of each. So there are three lines,
by what is known of a login, each with a share of the turns where others wait too: most are for those who are no guessers.

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
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from functools import partial
from typing import Final, NamedTuple, Protocol

MAX_THREADS = 4
"""So many verify passwords at most: each takes up memory, and a container may have fewer cores than it sees."""
MAX_WAITING = 10_000
MAX_WAITING_PER_ADDRESS = 6_000
PATIENCE_S = 8.0
"""How long a login waits at most; the less patient ones among clients give up after 10 s without CONNACK."""
_SPREAD = 0.25
"""Some wait for so much less, so that those who came at once are not told to come back at once."""

_PASSED_AT_ONCE: Final = 200
"""So many that are looked at no more, or wait elsewhere now, in one turn of the loop."""


class PoolFullError(Exception):
    """Too many logins wait already."""


class NotYetError(Exception):
    """The login has waited for long enough; its verification keeps its place."""


class Standing(IntEnum):
    """What is known of a login before its password is looked at. The value is the share of the turns that such logins have."""

    SUSPECT = 1
    """Others from there were wrong not long ago."""
    NEW = 3
    """Nothing is."""
    KNOWN = 4
    """The user was let in from there, or with this password."""


class Place(NamedTuple):
    """Where a login waits."""

    standing: Standing
    party: str
    """With whom it shares turns there."""


class Verification(Protocol):
    """What is done for a login when its turn has come. What it raises is raised by `PasswordPool.run`."""

    def place(self) -> Place:
        """Called on the event loop: where it waits, as of now. Raises where it is not worth it any more."""

    def begin(self) -> Callable[[], bool]:
        """Called on the event loop: what a thread is to compute."""

    def end(self, right: bool) -> int:
        """Called on the event loop with what was computed, whoever still waits for it; the result of `PasswordPool.run`."""


class _Job:
    __slots__ = ("future", "keeps_place", "key", "place", "verification", "waiting")

    def __init__(self, key: tuple[str, bytes], verification: Verification) -> None:
        self.key = key
        self.verification = verification
        self.place = verification.place()
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        """Logins that wait for it."""
        self.keeps_place = False
        """Somebody was told to come back for it."""


class _Line:
    """Those of one standing that wait, by party.

    Every other turn is that of the party that came last, the others go round. So who fills the line keeps nobody waiting who
    comes after him, and who comes anew all the time keeps nobody waiting who stays.
    """

    def __init__(self, standing: Standing) -> None:
        self.parties: OrderedDict[str, OrderedDict[_Job, None]] = OrderedDict()
        self.used = 0.0
        """The turns it has had, divided by its share."""
        self._share = standing.value
        self._came: OrderedDict[str, None] = OrderedDict()
        """Parties that had no turn since they came."""
        self._last_first = False

    def append(self, job: _Job) -> None:
        """The last one of its party."""
        if job.place.party not in self.parties:
            self._came[job.place.party] = None
        self.parties.setdefault(job.place.party, OrderedDict())[job] = None

    def pop(self) -> _Job:
        """The next one; its party is the last that goes round then."""
        party = next(reversed(self._came)) if self._last_first and self._came else next(iter(self.parties))
        job = next(iter(self.parties[party]))
        self.parties.move_to_end(party)
        self._came.pop(party, None)
        self.leave(job)
        return job

    def passed(self, party: str) -> None:
        """Its turn was not used, and goes on."""
        if party in self.parties:
            self.parties.move_to_end(party, last=False)

    def turn(self) -> None:
        """One was used."""
        self.used += 1 / self._share
        self._last_first = not self._last_first

    def leave(self, job: _Job) -> bool:
        """Whether it has waited here; it does no more."""
        jobs = self.parties.get(job.place.party)
        if jobs is None or job not in jobs:
            return False
        del jobs[job]
        if not jobs:
            del self.parties[job.place.party]
            self._came.pop(job.place.party, None)
        return True


class PasswordPool:
    """Runs verifications. Everything but the computing itself happens on the event loop."""

    def __init__(self, threads: int | None = None, patience_s: float = PATIENCE_S) -> None:
        self._free = threads or min(_cores(), MAX_THREADS)
        self._patience_s = patience_s
        self._executor = ThreadPoolExecutor(self._free, thread_name_prefix="password", initializer=_give_way)
        self._jobs: dict[tuple[str, bytes], _Job] = {}
        """Those that wait and those that are computed, by address and digest."""
        self._lines = {standing: _Line(standing) for standing in Standing}
        self._used = 0.0
        """What the line of the last turn had used: a line where nobody waited has saved up nothing."""
        self.waiting = 0
        """How many verifications wait for a thread."""
        self._waiting: Counter[str] = Counter()
        """The same by address."""

    async def run(self, address: str, digest: bytes, verification: Verification) -> int:
        """The result of the verification, or of the one that the same address has wanted before, of the same `digest`.

        Raises `PoolFullError` where too many wait, `NotYetError` where it takes too long.
        """
        job = self._jobs.get((address, digest)) or self._enter((address, digest), verification)
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
            if not job.waiting and not job.keeps_place and self._lines[job.place.standing].leave(job):
                del self._jobs[job.key]
                self._left(job)

    def close(self) -> None:
        """Let go of the threads; nobody waits for what they still do."""
        self._lines.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _enter(self, key: tuple[str, bytes], verification: Verification) -> _Job:
        # Who waits for nothing yet finds room for one, however many others have come from elsewhere.
        mine = self._waiting[key[0]]
        if mine >= MAX_WAITING_PER_ADDRESS or (len(self._waiting) if mine == 0 else self.waiting) >= MAX_WAITING:
            raise PoolFullError
        job = self._jobs[key] = _Job(key, verification)
        self._waiting[key[0]] += 1
        self.waiting += 1
        self._line_up(job)
        return job

    def _line_up(self, job: _Job) -> None:
        line = self._lines[job.place.standing]
        if not line.parties:
            line.used = max(line.used, self._used)
        line.append(job)

    def _left(self, job: _Job) -> None:
        """It waits no more."""
        self.waiting -= 1
        self._waiting[job.key[0]] -= 1
        if not self._waiting[job.key[0]]:
            del self._waiting[job.key[0]]

    def _start_next(self) -> None:
        passed = 0
        while self._free and (lines := [line for line in self._lines.values() if line.parties]):
            if passed == _PASSED_AT_ONCE:
                asyncio.get_running_loop().call_soon(self._start_next)
                return
            line = min(lines, key=lambda line: line.used)
            job = line.pop()
            if not self._begin(job):
                line.passed(job.place.party)
                passed += 1
                continue
            self._used = line.used
            line.turn()

    def _begin(self, job: _Job) -> bool:
        """Whether a thread computes it now. If not, it has gone to where it belongs by now, or has left."""
        try:
            place = job.verification.place()
            if place != job.place:
                job.place = place
                self._line_up(job)
                return False
            work = job.verification.begin()
        except Exception as error:  # noqa: BLE001 - it is whoever waits that is told
            self._left(job)
            self._finish(job, error)
            return False
        self._left(job)
        self._free -= 1
        asyncio.get_running_loop().run_in_executor(self._executor, work).add_done_callback(partial(self._computed, job))
        return True

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
