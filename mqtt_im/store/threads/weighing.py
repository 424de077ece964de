"""What jobs cost a batch: as far as that is known before, and what it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mqtt_im.logs import RateLimited
from mqtt_im.store.jobs.job import Job

MAX_WEIGHT = 8000
"""Of one transaction, see `Store.weight`: a fiftieth of a second."""
LONG = 2000
"""Of one job, before which whatever is lighter is committed: some milliseconds, for which nobody's answer has to wait."""
_PER_SECOND = 50.0 * MAX_WEIGHT

_log = RateLimited(logging.getLogger(__name__))


def weight_of(members_of: Callable[[str], int], job: Job) -> float:
    """What a job will weigh in a batch, as far as it is heavy; `members_of` tells how many a group has.

    0 where a mistake of ours meets that one: lines are counted on, and whoever stands behind it would wait for ever.
    """
    try:
        return job.recipients(members_of)
    except Exception as error:  # noqa: BLE001 - told in the log
        _log.exception("a job can't be weighed", error)
        return 0.0


def has_long(batch: Sequence[Job], weight: Callable[[Job], float]) -> bool:
    """Whether any of the jobs is a long one."""
    return any(weight(job) > LONG for job in batch)


def cost(job: Job) -> float:
    """What a job has cost the batch, in the measure of `Store.weight`."""
    records = [commit.record for commit in job.commits or ()]
    weight = 10.0 + sum(len(getattr(record, "pos", ())) + (len(getattr(record, "body", None) or b"") >> 10) for record in records)
    return max(weight, job.seconds * _PER_SECOND)
