"""One ledger on PostgreSQL beside SQLite's, and beside a table that only takes the records, in batches of several sizes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from bench.report import Row, Target
from bench.servers import OURS
from mqtt_im.store.sqlite import opening as sqlite
from tests.support.postgres import Cluster, new_database

from .ledgers import FLOOR, SETTINGS, Cost, Writer, cost, floor, node

SQLITE: Final = "SQLite"
BATCHES: Final = ((1, 5, 3), (16, 8, 5), (64, 13, 9), (256, 13, 9))
"""Messages, and how many times the CPU of one table PostgreSQL must take for each at most, and had better."""
_USUAL: Final = (16, 64)
"""Sizes of which the node's CPU is held beside SQLite's."""
_ROUNDS: Final = 4
_FILLED: Final = 40


def compare(messages: int) -> list[Row]:
    """Figures of so many messages for each size, fewer of small batches."""
    with (
        Cluster(SETTINGS) as cluster,
        new_database(cluster) as url,
        new_database(cluster) as bare,
        tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder,
        node(url, "one") as engine,
        floor(bare) as low,
    ):
        small = sqlite.opener(Path(folder))()
        ours, theirs = Writer(engine, "pg").commit, Writer(small, "sq").commit
        for _ in range(_FILLED):  # as a store that is in use
            ours(256)
            theirs(256)
        cluster.execute("VACUUM ANALYZE", url.rpartition("/")[2])  # else it comes by itself at some time
        rows = []
        for size, must, aim in BATCHES:
            count = max(600, min(messages, messages * size // 32)) // _ROUNDS
            found = [  # in turns, since others use the machine
                (cost(cluster, low, size, count), cost(cluster, ours, size, count), cost(None, theirs, size, count))
                for _ in range(_ROUNDS)
            ]
            rows += _rows(size, Target(must, aim, over="×"), *(_least(costs) for costs in zip(*found, strict=True)))
        small.close()
    return rows


def _least(costs: tuple[Cost, ...]) -> Cost:
    """The round that others have disturbed least; of the write-ahead log the mean."""
    return Cost(min(c.node for c in costs), min(c.database for c in costs), sum(c.wal for c in costs) / len(costs))


def _rows(size: int, target: Target, low: Cost, ours: Cost, theirs: Cost) -> list[Row]:
    what = f"batches of {size}"
    beside = (Target(0.8, 0.5, over="×"),) if size in _USUAL else ()
    cpu = {OURS: ours.node, SQLITE: theirs.node, FLOOR: low.node}
    return [
        Row(f"{what}: CPU of a message in the node", "µs", cpu, beside, SQLITE),
        Row(f"{what}: CPU of a message in PostgreSQL", "µs", {OURS: ours.database, FLOOR: low.database}, (target,), FLOOR),
        Row(f"{what}: write-ahead log of a message", "B", {OURS: ours.wal, FLOOR: low.wal}, (Target(5, 4, over="×"),), FLOOR),
    ]
