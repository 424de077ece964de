"""The dashboard's figures: a flat map, once or each second. They are read from what is counted, never from the database.

They are this node's, but for who is online, and what begins with `node_`.

Whether the store can commit is tried every few seconds while somebody looks, so that it is told where nobody writes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections import deque
from typing import Any, Final

import psutil
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mqtt_im.bridge.audience import Audience
from mqtt_im.http.admin.guard import Guard, answer
from mqtt_im.http.asgi import Receive, Scope, Send
from mqtt_im.http.health import Readiness
from mqtt_im.http.services import Services
from mqtt_im.protocol.codec import encode_json

EVERY_S: Final = 1.0
WINDOW_S: Final = 10.0
TRY_S: Final = 5.0
"""The store is tried so often."""
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_Histogram = tuple[tuple[float, ...], list[int]]


class Figures:
    """Makes the map; rates and percentiles are those of the last seconds."""

    def __init__(self, ready: Readiness) -> None:
        self._ready = ready
        self._tried = float("-inf")
        self._failing = ""
        self._past: deque[tuple[float, float, dict[str, list[int]]]] = deque()
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._made: tuple[float, dict[str, Any]] = (0.0, {})

    def make(self, services: Services) -> dict[str, Any]:
        """The figures now; made once a second, however many ask."""
        now = time.monotonic()
        if now - self._made[0] < EVERY_S / 2:
            return self._made[1]
        if now - self._tried >= TRY_S:
            self._tried = now
            services.bridge.background(self._try())
        metrics, transport = services.metrics, services.transport
        protocols = {f"connections_{name.replace('/', '_')}": count for name, count in transport.protocols.items()}
        messages = metrics.total("messages_committed")
        told = {
            "ts": time.time_ns() // 1_000_000,
            "uptime_s": round(time.time() - self._process.create_time()),
            "connections": sum(transport.protocols.values()),
            **protocols,
            "users_online": _online(services.bridge.audience),
            "streams": len(services.streams),
            "messages": int(messages),
            **self._recent(services, now, messages),
            "ledger_queue_jobs": services.bridge.ledger.queued,
            "devices_behind": int(metrics.figure("devices_behind")),
            "worst_lag_items": int(metrics.figure("worst_lag_items")),
            "webhooks_waiting": int(metrics.figure("webhooks_waiting")),
            "webhooks_dead": int(metrics.figure("webhooks_dead")),
            "store_failing": services.bridge.ledger.failing or self._failing,
            "cpu_percent": self._process.cpu_percent(),
            "memory_bytes": self._process.memory_info().rss,
            "open_files": _open_files(),
            **_disk(services.config.data_dir),
            "refusals": int(metrics.total("refusals")),
            **{f"refusals_{code}": int(count) for code, count in metrics.each("refusals").items()},
            "closes": int(metrics.total("closes")),
            **{f"closes_{reason}": int(count) for reason, count in metrics.each("closes").items()},
            "logins_refused": int(metrics.value("logins", result="refused")),
        }
        self._made = now, told
        return told

    async def of_all(self, services: Services) -> dict[str, Any]:
        """The figures now, and where there are several nodes a few of each, which begin with `node_` and its name."""
        told, nodes = self.make(services), services.nodes
        if not nodes.several:
            return told
        found, silent = await nodes.figures()
        each = {f"node_{node}_{name}": value for node, figures in found.items() for name, value in figures.items()}
        return {**told, "node": nodes.name, "nodes": len(found), "nodes_not_answering": ", ".join(silent), **each}

    async def _try(self) -> None:
        state = (await self._ready())["store"]
        self._failing = "" if state == "ok" else state

    def _recent(self, services: Services, now: float, messages: float) -> dict[str, Any]:
        current = {name: services.metrics.buckets(f"{name}_seconds") for name in ("commit", "delivery")}
        past = self._past
        while len(past) > 1 and past[1][0] <= now - WINDOW_S:
            past.popleft()
        then, before, counts = past[0] if past else (now, messages, {name: found[1] for name, found in current.items()})
        past.append((now, messages, {name: found[1] for name, found in current.items()}))
        elapsed = now - then
        told: dict[str, Any] = {"messages_per_second": round((messages - before) / elapsed, 1) if elapsed else 0.0}
        for name, (bounds, found) in current.items():
            grown = [new - old for new, old in zip(found, counts[name], strict=True)]
            for share in (50, 95, 99):
                told[f"{name}_p{share}_ms"] = percentile(bounds, grown, share)
        return told


def percentile(bounds: tuple[float, ...], counts: list[int], share: int) -> float | None:
    """The bound (ms) below which `share` of a hundred values lie; None of none, the last bound where they lie above all."""
    total = sum(counts)
    if not total:
        return None
    running = 0
    for bound, count in zip(bounds, counts, strict=False):
        running += count
        if running * 100 >= total * share:
            return bound * 1000
    return bounds[-1] * 1000


def _online(audience: Audience) -> int:
    here, elsewhere = audience.online, audience.elsewhere
    return len(here.keys() | elsewhere.keys()) if elsewhere else len(here)


def _open_files() -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return 0


def _disk(folder: str) -> dict[str, int]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return {}
    return {"disk_free_bytes": usage.free, "disk_bytes": usage.total}


class _Stream(Response):
    """The figures each second, until the client has gone or the server stops."""

    def __init__(self, services: Services, figures: Figures) -> None:
        super().__init__(headers=_HEADERS, media_type="text/event-stream")
        del self.headers["content-length"]
        self._services = services
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        gone = asyncio.ensure_future(_disconnected(receive))
        self._services.watchers.add(gone)
        try:
            while not gone.done():
                data = encode_json(await self._figures.of_all(self._services))
                await send({"type": "http.response.body", "body": b"event: stats\ndata: %b\n\n" % data, "more_body": True})
                await asyncio.wait([gone], timeout=EVERY_S)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._services.watchers.discard(gone)
            gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Stats:
    """Answers `stats` and `stats/stream`."""

    def __init__(self, guard: Guard, ready: Readiness) -> None:
        self._guard = guard
        self._ready = ready
        self._figures: Figures | None = None

    def routes(self) -> list[Route]:
        """Where they are."""
        route = self._guard.route
        return [*route("stats", get=self.once), *route("stats/stream", get=self.stream)]

    async def once(self, services: Services, request: Request) -> Response:
        """The figures now."""
        return answer(await self._of().of_all(services))

    async def stream(self, services: Services, request: Request) -> Response:
        """The figures each second, as server-sent events."""
        return _Stream(services, self._of())

    def _of(self) -> Figures:
        if self._figures is None:
            self._figures = Figures(self._ready)
        return self._figures
