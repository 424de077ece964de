"""Memory of an idle connection with its subscription, and what connecting and subscribing cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bench.meter import cpu_seconds, resident_bytes
from bench.report import Row, Target
from bench.servers import AMQTT, Server, running
from mqtt_im.load.peer import close_all
from mqtt_im.load.traffic import connect_idle

_WARM_UP = 500
_MOST_OF_AMQTT = 1_000
"""Its subscriptions cost more with every one there is: 10,000 take minutes."""


async def memory_of_idle(server: Server, connections: int) -> float:
    """Private memory that each of so many more connections takes, after some that warmed the server up, in KB."""
    peers = await connect_idle(server, [f"warm{number}" for number in range(_WARM_UP)])
    await asyncio.sleep(1)
    before = resident_bytes(server.pid)
    peers += await connect_idle(server, [f"idle{number}" for number in range(connections)])
    await asyncio.sleep(2)
    taken = resident_bytes(server.pid) - before
    await close_all(peers)
    return taken / connections / 1000


async def compare(servers: Sequence[str], connections: int) -> list[Row]:
    """Private memory that `connections` more connections take, after some that warmed the server up."""
    memory = Row("memory of an idle connection, subscribed", "KB", targets=(Target(12, 6),))
    connecting = Row("connect + subscribe, any name", "conn/CPU s")
    for name in servers:
        count = min(connections, _MOST_OF_AMQTT) if name == AMQTT else connections
        with running(name) as server:
            cpu = cpu_seconds(server.pid)
            memory.values[name] = await memory_of_idle(server, count)
            connecting.values[name] = (count + _WARM_UP) / (cpu_seconds(server.pid) - cpu)
    return [memory, connecting]
