"""Several ledgers on one database, each in a process of its own: messages between any two users, or in one conversation."""

from __future__ import annotations

import multiprocessing
import random
import time
from typing import Any, Final, NamedTuple

import psycopg

from bench.alone import end_with_parent
from bench.report import Row, Target
from bench.servers import OURS
from tests.support.postgres import Cluster, new_database

from .ledgers import SETTINGS, Meter, Writer, fill, node

ALONE: Final = "one node"
_NODES: Final = (1, 2, 4)
_BATCH: Final = 64
_WARM_UP: Final = 20
_USERS: Final = 100_000
"""As many as where the design was decided. A batch locks some 128, so that four nodes among 10,000 mostly wait for each other."""


class _Told(NamedTuple):
    """What one node has done: messages, CPU seconds, batches that the database refused."""

    messages: int
    used: float
    refused: int


class _Found(NamedTuple):
    """What several have done together: messages a second, µs of CPU a message, and what must not be."""

    pace: float
    node: float
    database: float
    deadlocks: int
    refused: int


def compare(seconds: float, *, hot: bool = False) -> list[Row]:
    """`seconds` for each number of nodes; `hot` where all write in one conversation."""
    with Cluster(SETTINGS) as cluster, new_database(cluster) as filled:
        with node(filled, "fill") as engine:
            fill(engine, _USERS)
        template = filled.rpartition("/")[2]
        found = {nodes: _measured(cluster, template, nodes, seconds, hot) for nodes in _NODES}
    rows = []
    for nodes, one in found.items():
        what = f"{nodes} node{'s' * (nodes > 1)}, batches of {_BATCH}{', one conversation' * hot}"
        target = Target(0.7, 0.9, more_is_better=True, over="×") if hot else Target(1.5, 2, more_is_better=True, over="×")
        pace = {OURS: one.pace, ALONE: found[1].pace}
        rows += [
            Row(f"{what}: messages a second together", "1/s", pace, (target,) if nodes == _NODES[-1] else (), ALONE),
            Row(f"{what}: CPU of a message in a node", "µs", {OURS: one.node}),
            Row(f"{what}: CPU of a message in PostgreSQL", "µs", {OURS: one.database}),
            Row(f"{what}: deadlocks", "", {OURS: one.deadlocks}, (Target(0),)),
            Row(f"{what}: batches refused by the database", "", {OURS: one.refused}, (Target(0),)),
        ]
    return rows


def _measured(cluster: Cluster, template: str, nodes: int, seconds: float, hot: bool) -> _Found:
    context = multiprocessing.get_context("spawn")
    with new_database(cluster, template) as url:
        start, stop, told = context.Barrier(nodes + 1), context.Event(), context.Queue()
        children = [
            context.Process(target=_one, args=(url, number, hot, start, stop, told), daemon=True) for number in range(nodes)
        ]
        for child in children:
            child.start()
        start.wait()
        with Meter(cluster) as meter:
            begin = time.perf_counter()
            time.sleep(seconds)
            took = time.perf_counter() - begin
        stop.set()
        each: list[_Told] = [told.get() for _ in children]
        for child in children:
            child.join()
        name = url.rpartition("/")[2]
        ((deadlocks,),) = cluster.execute(f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'")
    count = sum(one.messages for one in each)
    cpu = sum(one.used for one in each) / count * 1e6
    return _Found(count / took, cpu, meter.database / count * 1e6, deadlocks, sum(one.refused for one in each))


def _one(url: str, number: int, hot: bool, start: Any, stop: Any, told: Any) -> None:
    end_with_parent()
    refused = 0
    with node(url, f"node{number}") as engine:
        writer = Writer(engine, f"node{number}", _in_one if hot else _any_two)
        for _ in range(_WARM_UP):
            writer.commit(_BATCH)
        start.wait()
        begin, count = time.process_time(), writer.count
        while not stop.is_set():
            try:
                writer.commit(_BATCH)
            except psycopg.Error:
                refused += 1
                engine.load()
        told.put(_Told(writer.count - count - refused * _BATCH, time.process_time() - begin, refused))


def _any_two(dice: random.Random) -> tuple[str, str]:
    return f"user{dice.randrange(_USERS)}", f"user{dice.randrange(_USERS)}"


def _in_one(_: random.Random) -> tuple[str, str]:
    return "user0", "user1"
