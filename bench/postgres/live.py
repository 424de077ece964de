"""A message to a device that another node has, beside one that the same node has: from PUBLISH to arrival, through sockets."""

from __future__ import annotations

import statistics
import time
from typing import Final

from bench.priority import level
from bench.report import Row, Target
from bench.servers import OURS
from tests.support.nodes import new_nodes
from tests.support.postgres import Cluster

from .ledgers import SETTINGS

SAME: Final = "same node"
_MESSAGES: Final = 200
_WARM_UP: Final = 20


def compare() -> list[Row]:
    """The median of each, the two in turns; one message at a time."""
    with Cluster(SETTINGS) as cluster, new_nodes(cluster, 2, **{"limits.requests_per_second": 1_000_000}) as nodes:
        sender = nodes.online(0, "sender")
        readers = [nodes.online(0, "near"), nodes.online(1, "far")]
        level(cluster.processes)
        waits: list[list[float]] = [[], []]
        for number in range(_MESSAGES + _WARM_UP):
            for reader, found in zip(readers, waits, strict=True):
                begin = time.perf_counter()
                sender.request("send", id=f"{reader.user}{number}", to=reader.user, body=number)
                reader.wait("msg", body=number)
                found.append((time.perf_counter() - begin) * 1000)
                sender.reply(f"{reader.user}{number}")
    near, far = (statistics.median(found[_WARM_UP:]) for found in waits)
    return [Row("live message to a device on another node: p50", "ms", {OURS: far, SAME: near}, (Target(3, 1, over="+"),), SAME)]
