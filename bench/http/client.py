"""Keep-alive connections that post, and event streams that read: as little Python a request as it takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http.client import HTTPConnection
from time import perf_counter
from typing import Any, cast

from mqtt_im.load.peer import PeerError

HOST = "127.0.0.1"


def ask(port: int, path: str, data: dict[str, Any] | None = None, token: str = "", method: str = "POST") -> Any:
    """The answer's JSON. Raises `PeerError` where the request is refused."""
    connection = HTTPConnection(HOST, port, timeout=30)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    try:
        connection.request(method, path, json.dumps(data) if data is not None else None, headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        raise PeerError(f"{method} {path} was answered with {response.status}: {body[:200]!r}")
    return json.loads(body) if body else None


def token_of(port: int, user: str) -> str:
    """A token of this user, in open mode."""
    return str(ask(port, "/api/v1/login", {"user": user})["token"])


class Poster(asyncio.Protocol):
    """Posts one request after the other on one connection, each when the one before was answered."""

    def __init__(self, head: str, bodies: Callable[[int], bytes], failed: Callable[[PeerError], None]) -> None:
        """`bodies` makes the body of each number; all have one length."""
        self.latencies: list[float] = []
        self._answered = 0
        self._stopped = True
        self._since_start = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._bodies = bodies
        self._failed = failed
        size = len(bodies(0))
        self._head = f"{head}Content-Length: {size}\r\n\r\n".encode()
        self._rest = b""
        self._since = 0.0
        self._transport: asyncio.Transport | None = None

    async def dial(self, port: int) -> None:
        """Connected."""
        await asyncio.get_running_loop().create_connection(lambda: self, HOST, port)

    def start(self) -> None:
        """Post one after the other from now on."""
        self._stopped = False
        self._since_start = self._answered
        self._post()

    async def stop(self) -> int:
        """The last answer has come; how many came since the start."""
        self._stopped = True
        self._idle.clear()
        await self._idle.wait()
        return self._answered - self._since_start

    def _post(self) -> None:
        assert self._transport is not None
        self._since = perf_counter()
        self._transport.write(self._head + self._bodies(self._answered))

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"ontent-length: ")
        if end < 0 or len(data) < end + 4 + int(data[at + 15 : data.index(b"\r\n", at)]):
            self._rest = data
            return
        self._rest = b""
        if not data.startswith(b"HTTP/1.1 200"):
            self._failed(PeerError(f"a request was answered with {data[:400]!r}"))
            return
        self._answered += 1
        self.latencies.append(perf_counter() - self._since)
        if self._stopped:
            self._idle.set()
        else:
            self._post()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self._failed(PeerError(f"the server closed a connection ({exc})"))


class EventStream(asyncio.Protocol):
    """Reads server-sent events and throws them away; `told` is given what has come after the first one."""

    def __init__(self, path: str, token: str, act_as: str = "", told: Callable[[bytes], None] = lambda _: None) -> None:
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False
        self._event = told
        acting = f"X-Act-As: {act_as}\r\n" if act_as else ""
        self._request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n{acting}Authorization: Bearer {token}\r\n\r\n".encode()
        self._transport: asyncio.Transport | None = None

    async def dial(self, port: int) -> None:
        """Open: its first event has come. Raises `PeerError`."""
        await asyncio.get_running_loop().create_connection(lambda: self, HOST, port)
        await self.open

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.open.done():
            self._event(data)
        elif not data.startswith(b"HTTP/1.1 200") and b"event: " not in data:
            self.open.set_exception(PeerError(f"a stream was answered with {data[:300]!r}"))
        elif b"event: " in data:
            self.open.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.open.done():
            self.open.set_exception(PeerError(f"a stream was not opened ({exc})"))
        self.closed = True
