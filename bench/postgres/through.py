"""What a message takes in a whole node, through sockets, and in PostgreSQL: between pairs, and to a group that is connected."""

from __future__ import annotations

from functools import partial
from typing import Final

from bench.meter import usage
from bench.pairs import Load, between_pairs, names_of
from bench.report import Row
from bench.servers import OURS, Server, running
from mqtt_im.load.groups import Member, Speaker, make_group
from mqtt_im.load.traffic import Traffic, connect_idle, finish, join
from tests.support.postgres import Cluster, new_database

from .ledgers import SETTINGS, Meter

SQLITE: Final = "SQLite"
_PAIRS: Final = 50
_IN_FLIGHT: Final = (20, 1)
_OTHERS: Final = (199, 200)
"""Members beside the one who speaks: together as many as a group has at most in which everybody is told who has got a message,
and one more, in a group of which a message is one row."""
_GROUP: Final = "#everyone"


async def compare(seconds: float) -> list[Row]:
    """The node beside one on SQLite, and PostgreSQL."""
    rows = []
    with Cluster(SETTINGS) as cluster:
        for inflight in _IN_FLIGHT:
            load = Load(_PAIRS, inflight, 0.0, seconds)
            with new_database(cluster) as url, running(OURS, {"store.url": url}, pinned=False) as server:
                with Meter(cluster) as meter:
                    ours = await between_pairs(server, load, names_of(_PAIRS))
                database = meter.database / ours.sent_in_all * 1e6
            with running(OURS, pinned=False) as server:
                theirs = await between_pairs(server, load, names_of(_PAIRS))
            node = {name: one.written.cpu_s / one.sent_in_all * 1e6 for name, one in ((OURS, ours), (SQLITE, theirs))}
            rows += [
                Row(f"{load.name}: CPU of a message in a whole node", "µs", node, (), SQLITE),
                Row(f"{load.name}: CPU of a message in PostgreSQL", "µs", {OURS: database}),
            ]
        for others in _OTHERS:
            with new_database(cluster) as url, running(OURS, {"store.url": url}, pinned=False) as server:
                node_us, database_us = await _to_a_group(cluster, server, others, seconds)
            rows += [
                Row(f"message to {others} connected members: CPU in a whole node", "µs", {OURS: node_us}),
                Row(f"message to {others} connected members: CPU in PostgreSQL", "µs", {OURS: database_us}),
            ]
    return rows


async def _to_a_group(cluster: Cluster, server: Server, others: int, seconds: float) -> tuple[float, float]:
    traffic = Traffic()
    users = [f"member{number}" for number in range(others)]
    await make_group(server, traffic, "owner", _GROUP, users)
    speaker = Speaker(traffic, "owner", _GROUP, server, others)
    speaker.inflight = 1
    peers = await connect_idle(server, users, None, partial(Member, speaker))
    await join(server, speaker, "owner", server.down("owner"))
    traffic.sending = True
    speaker.pump()
    await traffic.passing(1.0)
    with Meter(cluster) as meter:
        before, first = usage(server.pid), speaker.arrived
        await traffic.passing(seconds)
        count = max(1, speaker.arrived - first)
        node = (usage(server.pid) - before).cpu_s
    await finish(traffic, [speaker], [speaker, *peers])
    return node / count * 1e6, meter.database / count * 1e6
