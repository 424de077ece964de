"""A message to a large group: in PostgreSQL, in the ledger, and what it takes until a member who is online has it."""

from __future__ import annotations

import time
from typing import Any, Final

from bench.report import Row, Target
from bench.servers import OURS
from mqtt_im.bridge.pulling import SLICE
from mqtt_im.clock import Times
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import PullJob
from mqtt_im.store.jobs.reads import FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.threads.reader import AT_ONCE
from tests.support.postgres import Cluster, new_database

from .ledgers import FLOOR, SETTINGS, Meter, Writer, cost, floor, node

_GROUP: Final = "#everyone"
_MEMBERS: Final = 5_000
_MESSAGES: Final = 20
_ROUNDS: Final = 2
_ALONE: Final = 200
"""Messages that are appended to one table by themselves."""


def compare() -> list[Row]:
    """Figures of a group of 5,000."""
    with (
        Cluster(SETTINGS) as cluster,
        new_database(cluster) as url,
        new_database(cluster) as bare,
        node(url, "one") as engine,
        floor(bare) as low,
    ):
        members = [f"member{number}" for number in range(_MEMBERS)]
        _make(engine, members)
        writer = Writer(engine, "group", lambda _: ("owner", _GROUP))
        writer.commit(1)
        cluster.execute("VACUUM ANALYZE", url.rpartition("/")[2])
        found = [(cost(cluster, writer.commit, 1, _MESSAGES, 0), cost(cluster, low, 1, _ALONE)) for _ in range(_ROUNDS)]
        ours, least = (min((pair[at] for pair in found), key=lambda one: one.database) for at in (0, 1))
        pulls = [_pull(cluster, writer, members) for _ in range(_ROUNDS)]
        pull, pulled_wal = min(cpu for cpu, _ in pulls), min(wal for _, wal in pulls)
        look = _look(cluster, engine, members)
    what = f"message to a group of {_MEMBERS:,}"
    target = Target(12, 8, over="×")
    return [
        Row(f"{what}: CPU in PostgreSQL", "µs", {OURS: ours.database, FLOOR: least.database}, (target,), FLOOR),
        Row(f"{what}: CPU in the node", "µs", {OURS: ours.node}),
        Row(f"{what}: write-ahead log", "B", {OURS: ours.wal, FLOOR: least.wal}, (), FLOOR),
        Row(
            "it comes to an inbox, for each member online: CPU in the node and in PostgreSQL",
            "µs",
            {OURS: pull},
            (Target(35, 20),),
        ),
        Row("it comes to an inbox, for each member online: write-ahead log", "B", {OURS: pulled_wal}),
        Row("look at an inbox, for each member online: CPU in the node and in PostgreSQL", "µs", {OURS: look}, (Target(35, 20),)),
    ]


def _make(engine: Any, members: list[str]) -> None:
    create = rq.GroupCreate(id="make", group=_GROUP, members=members[: _MEMBERS - 1])
    job = RequestJob(Who("owner", "pc", 0), create, lambda _: None)
    writer = Writer(engine, "make")
    writer.run([job])


def _pull(cluster: Cluster, writer: Writer, members: list[str]) -> tuple[float, float]:
    """Each member is online and takes one message: µs of CPU, and bytes of write-ahead log, for each of them."""
    _take(writer, members)
    writer.commit(1)
    with Meter(cluster) as meter:
        found = _take(writer, members)
    assert found == len(members) - 1
    return (meter.node + meter.database) / found * 1e6, meter.wal / found


def _take(writer: Writer, members: list[str]) -> int:
    """How many had something to take."""
    found = 0
    for start in range(0, len(members), SLICE):
        part, more = members[start : start + SLICE], True
        while more:
            job = PullJob(part, "", lambda _: None)
            writer.run([job])
            found, more = found + sum(len(commit.to) for commit in job.told), bool(job.more)
    return found


def _look(cluster: Cluster, engine: Any, members: list[str]) -> float:
    """Each member is online and reads the newest item, once the group has got one: µs of CPU."""
    heads = engine.state.heads(members)
    reading = engine.reading()
    times = Times(time.time_ns() // 1_000_000, time.time_ns() // 1_000_000, 0)
    with Meter(cluster) as meter:
        for start in range(0, _MEMBERS - 1, AT_ONCE):
            part = members[start : start + AT_ONCE][: _MEMBERS - 1 - start]
            with reading.together([(name, heads[name] - 1, 10) for name in part]):
                for name in part:
                    job = FetchJob(name, heads[name] - 1, 10, 1 << 20, lambda _: None)
                    assert reading.run(job.finish, lambda: None, times)
                    assert job.entries, f"{name} has nothing to read"
    reading.close()
    return (meter.node + meter.database) / (_MEMBERS - 1) * 1e6
