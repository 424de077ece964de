"""Turns: the lines of jobs of all users, served so that nobody's many or heavy jobs hold up another's single one.

Fair queuing: each job begins at a *tag*, which is where its user's last job ended, in the user's own time that runs by what jobs
cost, or now where that is later. The job that will end first is next, as far as what it costs is known before (Golestani 1994:
self-clocked). So a user who has had much waits, one who comes back after a while has lost and saved nothing, who is alone is
served at once, and what is heavy lets pass what is light. Of one user jobs keep their order.

Where several are taken before it is known what they cost, each counts as what its user's last one has cost, until it is known:
else who has had least would have all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Final, Generic, NamedTuple, TypeVar

J = TypeVar("J")

SERVER: Final = ""
"""The line of the server's own jobs, which come first and cost nobody anything."""
_FEW: Final = 64


class _Place(NamedTuple):
    """Of a line: where its first job will end, when it came, whose it is, and where that job begins."""

    end: float
    came: int
    user: str
    tag: float


class Turns(Generic[J]):
    """Jobs that wait. Used by one thread."""

    def __init__(self, line: Callable[[J], str]) -> None:
        """`line` names the user in whose line a job stands."""
        self._line = line
        self._lines: dict[str, deque[J]] = {}
        """By user, where any wait."""
        self._heap: list[_Place] = []
        """Of each line, and some that its line has no more."""
        self._places: dict[str, _Place] = {}
        """The place of each line."""
        self._last: dict[str, float] = {}
        """What a user's last job has cost, of those in `_ends`."""
        self._usual = 0.0
        """What somebody's last job has cost."""
        self.weigh: Callable[[J], float] = lambda _: 0.0
        """What a job will cost, as far as that is known."""
        self._ends: dict[str, float] = {}
        """Where a user's last job ended, as far as that is later than now."""
        self._most = _FEW
        self._now = 0.0
        """The tag of the last job that was done."""
        self._tags: deque[float] = deque()
        """Of the jobs that were taken, and neither charged for nor given back."""
        self._count = 0
        self._came = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[J]:
        return chain.from_iterable(self._lines.values())

    def put(self, job: J) -> None:
        """The job stands in its user's line."""
        user = self._line(job)
        self._count += 1
        line = self._lines.get(user)
        if line is not None:
            line.append(job)
            return
        self._lines[user] = deque((job,))
        self._push(user)

    def take(self) -> J | None:
        """The next job; None where none waits."""
        return next(iter(self.several(1)), None)

    def several(
        self,
        most: int,
        waits: Callable[[J], bool] | None = None,
        long: Callable[[J], bool] = lambda _: False,
        overdue: bool = False,
    ) -> list[J]:
        """The next jobs, so many at most, without lines of whose first job `waits` says that it still has to wait.

        One that is `long` is taken alone, so that no others need wait for it: when there are none, or where that is `overdue`.
        """
        if overdue and (found := self._several(1, lambda job: not long(job) or (waits is not None and waits(job)), long)):
            return found
        return self._several(most, waits, long)

    def _several(self, most: int, waits: Callable[[J], bool] | None, long: Callable[[J], bool]) -> list[J]:
        taken: list[J] = []
        passed: list[_Place] = []  # put back at the end, so that a line that waits is looked at once for all that pass it
        while self._count and len(taken) < most:
            job = self._first(waits, passed)
            if job is None:
                break
            if not long(job):
                taken.append(job)
                continue
            if taken:
                self.give_back([job])
            else:
                taken.append(job)
            break
        for place in passed:
            heappush(self._heap, place)
        if not self._count and not taken:
            self._ends.clear()  # nobody has waited for anybody
            self._last.clear()
            self._tags.clear()
            self._heap.clear()
        return taken

    def _first(self, waits: Callable[[J], bool] | None, passed: list[_Place]) -> J | None:
        server = self._lines.get(SERVER)
        if server is not None and (waits is None or not waits(server[0])):
            self._tags.append(self._now)
            return self._next(SERVER, server, self._now)
        while self._heap:
            place = heappop(self._heap)
            user, tag = place.user, place.tag
            if self._places.get(user) is not place:
                continue  # it has another one by now
            if self._ends.get(user, 0.0) > tag:
                self._push(user, came=place.came)  # it was charged after it had got its place
                continue
            line = self._lines[user]
            if waits is not None and waits(line[0]):
                passed.append(place)
                continue
            tag = max(self._now, tag)
            self._tags.append(tag)
            return self._next(user, line, tag)
        return None

    def _next(self, user: str, line: deque[J], tag: float) -> J:
        self._count -= 1
        job = line.popleft()
        if line:
            self._push(user, tag + self._last.get(user, self._usual))
        else:
            del self._lines[user]
            self._places.pop(user, None)
        return job

    def give_back(self, jobs: list[J]) -> None:
        """Of the jobs that were taken these, the last ones, were not done, and stand in front of their lines again.

        Who comes then stands behind what was done, not behind what was only looked at.
        """
        for _ in range(min(len(jobs), len(self._tags))):
            self._tags.pop()
        for job in reversed(jobs):
            user = self._line(job)
            self._count += 1
            line = self._lines.get(user)
            if line is not None:
                line.appendleft(job)
            else:
                self._lines[user] = deque((job,))
        for user in dict.fromkeys(map(self._line, jobs)):
            self._push(user)

    def settle(self) -> None:
        """Nobody is charged for what was taken until now any more: nobody has waited for it."""
        self._tags.clear()

    def charge(self, user: str, cost: float) -> None:
        """The next of the jobs that were taken is done: it has cost its user so much, which counts before the user's next one."""
        if self._tags:
            self._now = max(self._now, self._tags.popleft())
        self.owe(user, cost)

    def owe(self, user: str, cost: float) -> None:
        """So much was done for the user, which counts before the user's next job."""
        if user == SERVER:
            return
        self._ends[user] = end = max(self._now, self._ends.get(user, 0.0)) + cost
        self._last[user] = self._usual = cost
        if (place := self._places.get(user)) is not None and place.tag > end:
            self._push(user, came=place.came)  # it was taken to cost more
        if len(self._ends) > self._most:
            self._ends = {name: at for name, at in self._ends.items() if at > self._now}
            self._last = {name: self._last[name] for name in self._ends}
            self._most = 2 * len(self._ends) + _FEW

    def _push(self, user: str, tag: float = 0.0, came: int = 0) -> None:
        """The user's line has its place where its last job ended, or now or at `tag`, where that is later."""
        if user == SERVER:
            return
        if not came:
            self._came = came = self._came + 1
        tag = max(tag, self._now, self._ends.get(user, 0.0))
        self._places[user] = place = _Place(tag + self.weigh(self._lines[user][0]), came, user, tag)
        heappush(self._heap, place)
        if len(self._heap) > 2 * len(self._places) + _FEW:
            self._heap = [place for place in self._heap if self._places.get(place.user) is place]
            heapify(self._heap)
