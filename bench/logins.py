"""Connections accepted with passwords whose check is cached: CONNECT, CONNACK, DISCONNECT, the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bench.meter import usage
from bench.report import Row, Target
from bench.servers import AMQTT, Server, running
from mqtt_im.load import wire
from mqtt_im.load.peer import Peer, close_all

_USERS = {f"login{number}": f"password-{number}" for number in range(10)}
_AT_ONCE = 50
_SETTINGS = {"limits.max_connections_per_user": "100000"}


async def _storm(server: Server, connections: int) -> None:
    """So many connections have been accepted and have left, `_AT_ONCE` at a time."""
    numbers = iter(range(connections))
    accounts = list(_USERS.items())

    async def work() -> None:
        for number in numbers:
            user, password = accounts[number % len(accounts)]
            peer = Peer()
            await peer.dial(server, wire.connect(f"{user}:device{number}", user, password))
            peer.leave()
            await peer.closed

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


async def _hold(server: Server, connections: int) -> list[Peer]:
    """So many connections, accepted and kept."""
    accounts = list(_USERS.items())
    peers = [Peer() for _ in range(connections)]
    for first in range(0, connections, _AT_ONCE):
        dials = []
        for number in range(first, min(first + _AT_ONCE, connections)):
            user, password = accounts[number % len(accounts)]
            dials.append(peers[number].dial(server, wire.connect(f"{user}:held{number}", user, password)))
        await asyncio.gather(*dials)
    return peers


async def compare(servers: Sequence[str], connections: int) -> list[Row]:
    """Accepted and closed, and accepted and kept, a second of the server's CPU time. amqtt logs everybody in."""
    target = Target(1000, 3000, more_is_better=True)
    churned = Row("logins, cached credentials: accepted and closed", "conn/CPU s", targets=(target,))
    churned_s = Row(churned.what, "conn/s")
    held = Row("logins, cached credentials: accepted and kept", "conn/CPU s")
    for name in servers:
        with running(name, _SETTINGS, passwords=None if name == AMQTT else _USERS) as server:
            await _storm(server, len(_USERS))
            before = usage(server.pid)
            await _storm(server, connections)
            used = usage(server.pid) - before
            churned.values[name] = connections / used.cpu_s
            churned_s.values[name] = connections / used.wall_s
            before = usage(server.pid)
            peers = await _hold(server, connections)
            held.values[name] = connections / (usage(server.pid) - before).cpu_s
            await close_all(peers)
    return [churned, churned_s, held]
