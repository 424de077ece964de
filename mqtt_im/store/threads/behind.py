"""Jobs that nobody waits for: they are done one at a time, behind all others that are light.

A batch commits what came together, so that a message would wait for a thousand cursors that came with it. What has to follow
them waits for them all the same: they stand before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mqtt_im.store.jobs.job import Job


class Behind:
    """Used by the ledger's thread."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def part(self, came: list[Job]) -> list[Job]:
        """What came, without jobs that nobody waits for; where one has to follow such jobs, all of these stand before it."""
        others: list[Job] = []
        for job in came:
            if job.lazy:
                self._jobs.append(job)
                continue
            if self._jobs and not job.passes:
                others += self._jobs
                self._jobs.clear()
            others.append(job)
        return others

    def take(self) -> Job:
        """The next one; there is one."""
        return self._jobs.popleft()
