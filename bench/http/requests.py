"""Messages over `POST send`, durable, beside an empty POST of starlette and uvicorn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack

from bench.http.client import Poster, token_of
from bench.meter import Usage, usage
from bench.report import Row, Target
from bench.servers import OURS, STARLETTE, Server, running
from mqtt_im.load.bodies import bodies
from mqtt_im.load.figures import percentile
from mqtt_im.load.traffic import Traffic

CONNECTIONS = 50
_TURN_S = 1.0
_WARM_UP_S = 1.0
_BODIES = bodies()


class _Side:
    """One of the servers, and the connections that post to it."""

    def __init__(self, server: Server, traffic: Traffic) -> None:
        self.server = server
        self.posters = [Poster(*_requests(server, number), traffic.fail) for number in range(CONNECTIONS)]
        self.used: list[Usage] = []
        self._traffic = traffic

    async def run(self, seconds: float, *, measuring: bool = True) -> None:
        """All connections post for so long, and have their last answers."""
        before = usage(self.server.pid)
        for poster in self.posters:
            poster.start(measuring=measuring)
        await self._traffic.passing(seconds)
        await asyncio.gather(*(poster.stop() for poster in self.posters))
        if measuring:
            self.used.append(usage(self.server.pid) - before)

    @property
    def latencies(self) -> list[float]:
        """Of what was measured, ordered."""
        return sorted(latency for poster in self.posters for latency in poster.latencies)


async def compare(seconds: float) -> list[Row]:
    """Requests a second and CPU time of both. They take turns, so that whatever else the machine does meets both."""
    name = f"POST send on {CONNECTIONS} connections"
    per_second = Row(name, "per s", targets=(Target(0.6, more_is_better=True, over="×"),), reference=STARLETTE)
    per_cpu = Row(f"{name}, by CPU time", "per CPU s", targets=per_second.targets, reference=STARLETTE)
    p50 = Row(f"{name}: p50", "ms", reference=STARLETTE)
    busy = Row(f"{name}: generator busy", "%", reference=STARLETTE)
    traffic = Traffic()
    with ExitStack() as stack:
        sides = [_Side(stack.enter_context(running(name)), traffic) for name in (OURS, STARLETTE)]
        for side in sides:
            await asyncio.gather(*(poster.dial(side.server.http_port) for poster in side.posters))
            await side.run(_WARM_UP_S, measuring=False)
        for _ in range(max(1, round(seconds / _TURN_S))):
            for side in sides:
                await side.run(_TURN_S)
        for side in sides:
            latencies = side.latencies
            wall = sum(used.wall_s for used in side.used)
            per_second.values[side.server.name] = len(latencies) / wall
            per_cpu.values[side.server.name] = len(latencies) / sum(used.cpu_s for used in side.used)
            p50.values[side.server.name] = percentile(latencies, 0.5) * 1000
            busy.values[side.server.name] = 100 * sum(used.generator_cpu_s for used in side.used) / wall
            for poster in side.posters:
                poster.close()
    return [per_second, per_cpu, p50, busy]


def _requests(server: Server, number: int) -> tuple[str, Callable[[int], bytes]]:
    token = token_of(server.http_port, f"a{number}") if server.is_ours else "mqim_" + "x" * 43
    head = (
        "POST /api/v1/send HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    )

    def body(count: int) -> bytes:
        text = _BODIES[(count + number) % len(_BODIES)].decode()
        return json.dumps({"to": f"b{number}", "body": text, "id": f"{number}-{count:012}"}).encode()

    return head, body
