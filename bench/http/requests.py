"""Messages over `POST send`, durable, beside an empty POST of starlette and uvicorn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack

from bench.http.client import Poster, token_of
from bench.http.turns import turns
from bench.meter import Usage, usage
from bench.report import Row, Target
from bench.servers import OURS, STARLETTE, Server, running
from mqtt_im.load.bodies import bodies
from mqtt_im.load.figures import percentile
from mqtt_im.load.traffic import Traffic

CONNECTIONS = 50
_BODIES = bodies()


async def compare(seconds: float) -> list[Row]:
    """Requests a second and CPU time of both. They take turns, so that whatever else the machine does meets both."""
    name = f"POST send on {CONNECTIONS} connections"
    target = (Target(0.6, more_is_better=True, over="×"),)
    per_second = Row(name, "per s", targets=target, reference=STARLETTE)
    per_cpu = Row(f"{name}, by CPU time", "per CPU s", targets=target, reference=STARLETTE)
    p50 = Row(f"{name}: p50", "ms", reference=STARLETTE)
    busy = Row(f"{name}: generator busy", "%", reference=STARLETTE)
    traffic = Traffic()
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(name)) for name in (OURS, STARLETTE)}
        posters = {
            name: [Poster(*_requests(server, number), traffic.fail) for number in range(CONNECTIONS)]
            for name, server in servers.items()
        }
        for name, server in servers.items():
            await asyncio.gather(*(poster.dial(server.http_port) for poster in posters[name]))

        async def posted(name: str, seconds: float) -> tuple[Usage, int]:
            before, count = usage(servers[name].pid), 0
            for poster in posters[name]:
                poster.start()
            await traffic.passing(seconds)
            count = sum(await asyncio.gather(*(poster.stop() for poster in posters[name])))
            return usage(servers[name].pid) - before, count

        for name, cost in (await turns((OURS, STARLETTE), posted, seconds)).items():
            per_second.values[name] = 1 / cost.wall_s
            per_cpu.values[name] = 1 / cost.cpu_s
            p50.values[name] = percentile(sorted(time for poster in posters[name] for time in poster.latencies), 0.5) * 1000
            busy.values[name] = 100 * cost.busy
            for poster in posters[name]:
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
