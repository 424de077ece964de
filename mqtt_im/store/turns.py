"""Turns: the lines of jobs of all users, served so that nobody's many or heavy jobs hold up another's single one.

Start-time fair queuing (Goyal, Vin, Cheng 1996): each job begins at a *tag*, which is where its user's last job ended, in the
user's own time that runs by what jobs cost, or now where that is later. The job with the lowest tag is next. So a user who has
had much waits, one who comes back after a while has lost and saved nothing, and who is alone is served at once. Of one user
jobs keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

J = TypeVar("J")

SERVER: Final = ""
"""The line of the server's own jobs, which come first and cost nobody anything."""
_FEW: Final = 64


class Turns(Generic[J]):
    """Jobs that wait. Used by one thread."""

    def __init__(self, line: Callable[[J], str]) -> None:
        """`line` names the user in whose line a job stands."""
        self._line = line
        self._lines: dict[str, deque[J]] = {}
        """By user, where any wait."""
        self._heap: list[tuple[float, int, str]] = []
        """`(tag, when it came, user)` of each line."""
        self._ends: dict[str, float] = {}
        """Where a user's last job ended, as far as that is later than now."""
        self._most = _FEW
        self._now = 0.0
        self._count = 0
        self._came = 0

    def __len__(self) -> int:
        return self._count

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
        if not self._count:
            self._ends.clear()  # nobody has waited for anybody
            return None
        self._count -= 1
        server = self._lines.get(SERVER)
        if server is not None:
            job = server.popleft()
            if not server:
                del self._lines[SERVER]
            return job
        while True:
            tag, _, user = heappop(self._heap)
            end = self._ends.get(user, 0.0)
            if end <= tag:
                break
            self._push(user)  # it was charged after it had got its place
        self._now = max(self._now, tag)
        line = self._lines[user]
        job = line.popleft()
        if line:
            self._push(user)
        else:
            del self._lines[user]
        return job

    def give_back(self, jobs: list[J]) -> None:
        """Jobs that were taken, in this order, and not done, stand in front of their lines again."""
        for job in reversed(jobs):
            user = self._line(job)
            self._count += 1
            line = self._lines.get(user)
            if line is not None:
                line.appendleft(job)
            else:
                self._lines[user] = deque((job,))
                self._push(user)

    def charge(self, user: str, cost: float) -> None:
        """What was done for the user has cost so much, which counts before the user's next job."""
        if user == SERVER:
            return
        self._ends[user] = max(self._now, self._ends.get(user, 0.0)) + cost
        if len(self._ends) > self._most:
            self._ends = {name: at for name, at in self._ends.items() if at > self._now}
            self._most = 2 * len(self._ends) + _FEW

    def _push(self, user: str) -> None:
        if user != SERVER:
            self._came += 1
            heappush(self._heap, (max(self._now, self._ends.get(user, 0.0)), self._came, user))
