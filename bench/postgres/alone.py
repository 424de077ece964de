"""One ledger on PostgreSQL beside SQLite's, and beside a table that only takes the records, in batches of several sizes."""

from __future__ import annotations

import secrets
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.report import Row, Target
from bench.servers import OURS
from mqtt_im.store.sqlite import opening as sqlite
from tests.support.postgres import Cluster, new_database

from .ledgers import FLOOR, SETTINGS, Commit, Cost, Writer, cost, fill, floor, node

SQLITE: Final = "SQLite"
BATCHES: Final = ((1, 5, 3), (16, 8, 5), (64, 13, 9), (256, 13, 9))
"""Messages, and how many times the CPU of one table PostgreSQL must take for each at most, and had better."""
_USUAL: Final = (16, 64)
"""Sizes of which the node's CPU is held beside SQLite's."""
_ROUNDS: Final = 3


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
        fill(engine)
        fill(small)
        cluster.execute("VACUUM ANALYZE", url.rpartition("/")[2])  # else it comes by itself at some time
        rows = []
        for size, must, aim in BATCHES:
            count = max(900, min(messages, messages * size // 32)) // _ROUNDS
            found = [_round(cluster, low, engine, small, size, count) for _ in range(_ROUNDS)]  # in turns: others use the machine
            rows += _rows(size, Target(must, aim, over="×"), *(_mean(costs) for costs in zip(*found, strict=True)))
        small.close()
    return rows


def _round(cluster: Cluster, low: Commit, engine: Any, small: Any, size: int, count: int) -> tuple[Cost, Cost, Cost, Cost]:
    """Of one table, of PostgreSQL's ledger, of SQLite's, and of SQLite's with what it does later."""
    ours, theirs = Writer(engine, secrets.token_hex(4)).commit, Writer(small, secrets.token_hex(4)).commit

    def settle() -> None:
        while (pause := small.flusher.pause()) is not None:
            time.sleep(pause)
            small.side_work(0)

    bare, node = cost(cluster, low, size, count), cost(cluster, ours, size, count)
    settle()
    at_once = cost(None, theirs, size, count)
    settle()
    return bare, node, at_once, cost(None, theirs, size, count, settle=settle)


def _mean(costs: tuple[Cost, ...]) -> Cost:
    return Cost(*(sum(figures) / len(costs) for figures in zip(*costs, strict=True)))


def _rows(size: int, target: Target, low: Cost, ours: Cost, at_once: Cost, theirs: Cost) -> list[Row]:
    what = f"batches of {size}"
    beside = (Target(0.8, 0.5, over="×"),) if size in _USUAL else ()
    return [
        Row(f"{what}: CPU of a message in the node", "µs", {OURS: ours.node, SQLITE: theirs.node}, beside, SQLITE),
        Row(f"{what}: the same, without what SQLite does later", "µs", {OURS: ours.node, SQLITE: at_once.node}, (), SQLITE),
        Row(f"{what}: CPU of a message in PostgreSQL", "µs", {OURS: ours.database, FLOOR: low.database}, (target,), FLOOR),
        Row(f"{what}: write-ahead log of a message", "B", {OURS: ours.wal, FLOOR: low.wal}, (Target(5, 4, over="×"),), FLOOR),
    ]
