"""`/health/live`, `/health/ready` and `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mqtt_im.metrics import Metrics

Readiness = Callable[[], Awaitable[dict[str, str]]]
"""Says of each part, by name, `"ok"` or what is wrong with it."""

_HEADERS = {"Cache-Control": "no-store"}


def health_routes(ready: Readiness) -> list[Route]:
    """Whether the server runs, and whether it can be used."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def readiness(_: Request) -> Response:
        parts = await ready()
        is_ready = all(state == "ok" for state in parts.values())
        body = {"status": "ok" if is_ready else "unavailable", "parts": parts}
        return JSONResponse(body, 200 if is_ready else 503, headers=_HEADERS)

    return [Route("/health/live", live), Route("/health/ready", readiness)]


def metrics_route(metrics: Metrics) -> Route:
    """What the server has counted, for Prometheus; who asks in one turn of the loop is shown the same."""
    rendered: list[bytes] = []

    async def show_metrics(_: Request) -> Response:
        if not rendered:  # it takes milliseconds, for which everybody waits
            rendered.append(metrics.render())
            asyncio.get_running_loop().call_soon(rendered.clear)
        return PlainTextResponse(rendered[0], media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", show_metrics)
