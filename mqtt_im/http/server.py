"""`/health/live`, `/health/ready` and `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mqtt_im.config import Address
from mqtt_im.metrics import Metrics

Readiness = Callable[[], Awaitable[dict[str, str]]]
"""Says of each part, by name, `"ok"` or what is wrong with it."""

_POLL_S = 0.01
_HEADERS = {"Cache-Control": "no-store"}


def application(ready: Readiness, metrics: Metrics) -> Starlette:
    """The pages as an ASGI application."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def readiness(_: Request) -> Response:
        parts = await ready()
        is_ready = all(state == "ok" for state in parts.values())
        body = {"status": "ok" if is_ready else "unavailable", "parts": parts}
        return JSONResponse(body, 200 if is_ready else 503, headers=_HEADERS)

    async def show_metrics(_: Request) -> Response:
        return PlainTextResponse(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", readiness),
            Route("/metrics", show_metrics),
        ]
    )


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone; the composition handles them."""
        yield


class HttpServer:
    """One HTTP listener on the running loop."""

    def __init__(self, address: Address, ready: Readiness, metrics: Metrics) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._server = _Uvicorn(
            uvicorn.Config(
                application(ready, metrics),
                access_log=False,
                http="h11",
                lifespan="off",
                limit_concurrency=200,
                log_config=None,
                loop="none",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                timeout_keep_alive=5,
                ws="none",
            )
        )

    @property
    def address(self) -> Address:
        """Where it listens; the port is the one that was taken where 0 was asked for."""
        if self._socket is None:
            return self._address
        return Address(self._address.host, self._socket.getsockname()[1])

    async def start(self) -> None:
        """Accept connections. Raises `OSError` where the address can't be had."""
        self._socket = await asyncio.to_thread(_listen, self._address)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise OSError(f"HTTP did not start on {self._address}")
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Stop accepting, finish what is being answered, for a second at most."""
        if self._task is None:
            return
        self._server.should_exit = True
        await asyncio.wait([self._task])
        if self._socket is not None:
            self._socket.close()


def _listen(address: Address) -> socket.socket:
    """A listening socket on the first address that the host stands for."""
    family, kind, protocol, _, sockaddr = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(sockaddr)
        listener.listen(256)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
