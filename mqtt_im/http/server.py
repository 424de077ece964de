"""HTTP listeners on the loop that carries everything else: the site, the same over TLS, and metrics by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import uvicorn

from mqtt_im.config import Address, Config, HttpTlsConfig, parse_bind
from mqtt_im.http.app import metrics_site, site
from mqtt_im.http.asgi import App
from mqtt_im.http.connection import MAX_HEAD_BYTES, HttpConnection
from mqtt_im.http.health import Readiness
from mqtt_im.http.places import Places
from mqtt_im.http.services import Desk, Services
from mqtt_im.metrics import Metrics
from mqtt_im.pacing import Paced
from mqtt_im.transport.accepting import AT_ONCE, ask_after, let_wait

_POLL_S: Final = 0.01
KEEP_ALIVE_S: Final = 75
"""A connection without a request is kept so long; proxies' own time is shorter."""
_HEADERS: Final = [("X-Content-Type-Options", "nosniff")]

# What uvicorn says of each broken request and each stop; faults of ours are logged by `app`.
logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone; the composition handles them."""
        yield


class Listener:
    """One listener on the running loop."""

    def __init__(self, address: Address, app: App, places: Places, desk: Desk, tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

        def connection(**given: Any) -> asyncio.Protocol:
            return HttpConnection(places, desk.websocket, **given)

        self._server = _Uvicorn(
            uvicorn.Config(
                cast(Any, app),
                access_log=False,
                backlog=AT_ONCE,
                date_header=True,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                headers=_HEADERS,
                http=cast(Any, connection),
                lifespan="off",
                log_config=None,
                loop="none",
                proxy_headers=False,
                server_header=False,
                ssl_context_factory=None if tls is None else lambda *_: tls,
                timeout_graceful_shutdown=1,
                timeout_keep_alive=KEEP_ALIVE_S,
                ws=cast(Any, asyncio.Protocol),
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
        let_wait(self._socket)
        ask_after(self._socket)

    async def stop(self) -> None:
        """Stop accepting, finish what is being answered, for a second at most."""
        if self._task is None:
            return
        self._server.should_exit = True
        await asyncio.wait([self._task])
        if self._socket is not None:
            self._socket.close()


class HttpServer:
    """Every HTTP listener of the configuration."""

    def __init__(self, config: Config, ready: Readiness, metrics: Metrics) -> None:
        http = config.http
        self.desk = Desk()
        self._tls: ssl.SSLContext | None = None
        self._listeners: dict[str, Listener] = {}
        limits = config.limits
        self.places = places = Places(http.max_connections, limits.connect_timeout_s, metrics.count, limits.memory_mb)
        self._own_places = Places(64, limits.connect_timeout_s, metrics.count, limits.memory_mb)
        whole = site(config, self.desk, ready, metrics, with_metrics=not http.metrics_bind)
        if address := parse_bind(http.bind):
            self._listeners["http"] = Listener(address, whole, places, self.desk)
        if address := parse_bind(http.tls.bind):
            self._tls = tls_context(http.tls)
            self._listeners["https"] = Listener(address, whole, places, self.desk, self._tls)
        if address := parse_bind(http.metrics_bind):
            self._listeners["metrics"] = Listener(address, metrics_site(ready, metrics), self._own_places, Desk())

    @property
    def addresses(self) -> dict[str, Address]:
        """Where each listener (`http`, `https`, `metrics`) listens."""
        return {name: listener.address for name, listener in self._listeners.items()}

    async def start(self) -> None:
        """Accept connections; health is answered, and the API with 503 until `open`. Raises `OSError`."""
        for listener in self._listeners.values():
            await listener.start()

    def open(self, services: Services) -> None:
        """Answer requests with these from now on."""
        self.desk.services = services

    async def drain(self, grace_s: float) -> None:
        """Take no more requests, and finish those under way, for `grace_s` seconds at most; health is answered as before."""
        await self.desk.drain(grace_s)

    async def stop(self) -> None:
        """Stop accepting, and close what is open."""
        await asyncio.gather(*(listener.stop() for listener in self._listeners.values()))
        for connection in [*self.places.all, *self._own_places.all]:
            connection.cut()

    def renewed(self, files: HttpTlsConfig) -> Callable[[], None]:
        """Read the TLS files; what is returned makes handshakes use them from then on. Raises `OSError`."""
        outer = self._tls
        if outer is None:
            return lambda: None
        made = tls_context(files)

        def choose(handshake: ssl.SSLSocket | ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
            handshake.context = made

        def swap() -> None:
            # The server holds on to the context that it was given, so each handshake changes to the new one.
            outer.sni_callback = choose

        return swap


def tls_context(files: HttpTlsConfig) -> ssl.SSLContext:
    """A server's context. Raises `OSError` where a file is missing or wrong, naming it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = Paced
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise OSError(f"http.tls.cert {files.cert!r} and http.tls.key {files.key!r} cannot be used: {error}") from error
    return context


def _no_password() -> str:
    """An encrypted key must not make a server ask on its terminal."""
    raise ValueError("the key is encrypted; a server can't ask for its password")


def _listen(address: Address) -> socket.socket:
    """A listening socket on the first address that the host stands for."""
    family, kind, protocol, _, sockaddr = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(sockaddr)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
