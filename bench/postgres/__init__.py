"""Stores on PostgreSQL: what a message takes there and in the node, beside SQLite's ledger and beside a bare table.

PostgreSQL is one of the bench's own, with fsync. Its CPU is that of all its processes, the node's that of its process. CPU says
something also where others use the machine; messages a second do not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

from bench.report import Row

from . import alone, failover, groups, live, through, together

PARTS: Final[dict[str, Callable[[int, float], list[Row] | Coroutine[None, None, list[Row]]]]] = {
    "batches": lambda messages, _: alone.compare(messages),
    "nodes": lambda _, seconds: together.compare(seconds),
    "hot": lambda _, seconds: together.compare(seconds, hot=True),
    "group": lambda *_: groups.compare(),
    "through": lambda _, seconds: through.compare(seconds),
    "live": lambda *_: live.compare(),
    "failover": lambda _, seconds: failover.compare(seconds),
}


async def compare(parts: Sequence[str], messages: int, seconds: float) -> list[Row]:
    """The figures of these parts, or of all; `messages` of each batch size, `seconds` for each number of nodes."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # several nodes and PostgreSQL share all cores
    rows: list[Row] = []
    for part in parts or PARTS:
        found = PARTS[part](messages, seconds)
        rows += found if isinstance(found, list) else await found
    return rows
