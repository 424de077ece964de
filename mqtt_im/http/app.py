"""The HTTP application: which path is whose, and how what goes wrong is answered.

Requests of the protocol are found by one look into a dict; everything else is starlette's. A file of this package has one
subject, and its routes are put together here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router

from mqtt_im.config import Config
from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.http.admin import admin_routes
from mqtt_im.http.asgi import App, Receive, Scope, Send
from mqtt_im.http.body import Gone
from mqtt_im.http.chat import Chat
from mqtt_im.http.errors import Problem, tell, unavailable
from mqtt_im.http.events import Events
from mqtt_im.http.files import FileRoutes
from mqtt_im.http.health import Readiness, health_routes, metrics_route
from mqtt_im.http.logins import Logins
from mqtt_im.http.openapi import openapi_routes
from mqtt_im.http.pages import page_routes
from mqtt_im.http.requests import OPS, Requests
from mqtt_im.http.services import Desk
from mqtt_im.http.tickets import Tickets
from mqtt_im.http.webpush import WebPushRoutes
from mqtt_im.http.who import read_anew
from mqtt_im.logs import RateLimited
from mqtt_im.metrics import Metrics
from mqtt_im.protocol.errors import StoreError
from mqtt_im.shares import Bounds

log = logging.getLogger(__name__)

PREFIX: Final = "/api/v1/"
MAX_QUERY_PARTS: Final = 100
"""Of a URL: a head has room for 15,000, which are all taken apart before anybody is asked who it is."""
EXPOSED: Final = ["Retry-After", "ETag", "Content-Range"]
ALLOWED: Final = ["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Act-As", "Range", "If-None-Match"]


def site(config: Config, desk: Desk, ready: Readiness, metrics: Metrics, *, with_metrics: bool = True) -> App:
    """Everything that one listener has."""
    http = config.http
    proxies = TrustedProxies(http.trusted_proxies)
    tickets = Tickets(desk, proxies)
    routes: list[Route] = [
        *Logins(desk, proxies).routes(),
        *WebPushRoutes(desk, proxies).routes(),
        *tickets.routes(),
        *Events(desk, tickets, Bounds(config.limits.memory_mb)).routes(),
        *FileRoutes(desk, tickets).routes(),
        *(admin_routes(desk, proxies, ready) if config.auth.admin_token else []),
        *openapi_routes(),
        *health_routes(ready),
        *([metrics_route(metrics)] if with_metrics else []),
        *page_routes(web=http.web),
        *(Chat(desk).routes() if http.web else []),
    ]
    app: App = Site(Requests(desk, proxies), routes, metrics, partial(read_anew, desk) if config.store.url else None)
    if http.origins:
        app = CORSMiddleware(
            app,
            allow_origins=http.origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=ALLOWED,
            expose_headers=EXPOSED,
        )
    return app


def metrics_site(ready: Readiness, metrics: Metrics) -> App:
    """Health and metrics alone, for an address of their own."""
    return Site(None, [*health_routes(ready), metrics_route(metrics)], metrics)


class Site:
    """An ASGI application."""

    def __init__(
        self,
        requests: Requests | None,
        routes: list[Route],
        metrics: Metrics,
        before: Callable[[Scope], Awaitable[None]] | None = None,
    ) -> None:
        """`before` is awaited before each request is looked at; it raises what the request is answered then."""
        self._requests = requests
        self._before = before
        self._log = RateLimited(log, on_suppressed=lambda: metrics.count("log_lines_suppressed"))
        self._router = Router(routes, redirect_slashes=False, default=_nothing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        try:
            if scope["query_string"].count(b"&") >= MAX_QUERY_PARTS:
                raise Problem("too_large", f"the query has more than {MAX_QUERY_PARTS} parts", status=414)
            if self._before is not None:
                await self._before(scope)
            if self._requests is not None and path.startswith(PREFIX) and path[len(PREFIX) :] in OPS:
                await self._requests.serve(path[len(PREFIX) :], scope, receive, send)
            else:
                scope["app"] = self  # so that starlette raises what it refuses
                await self._router(scope, receive, send)
        except Gone:
            return
        except Exception as error:
            if scope["mqtt_im.connection"].cycle.response_started:
                raise
            await tell(self._problem(error), send)

    def _problem(self, error: Exception) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, HTTPException) and error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            return Problem("method_not_allowed", f"this path knows {allow} only", {"Allow": allow})
        if isinstance(error, StoreError):
            self._log.error("a request over HTTP failed", reason=error.message)
            return unavailable("the server can't read or write what it needs; try again")
        self._log.exception("a request over HTTP failed", error)
        return unavailable("the server has a fault with this request; its log tells more")


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    path = scope["path"]
    if path.startswith(PREFIX) and "/" not in path[len(PREFIX) :]:
        raise Problem("unknown_op", f"there is no op {path[len(PREFIX) :][:64]!r}")
    raise Problem("not_found", "there is nothing here")


__all__ = ["Site", "metrics_site", "site"]
