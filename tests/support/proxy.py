"""A TCP proxy that treats connections as a bad network does: cut, stalled, throttled, delayed, taken apart, half open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.support.dial import dial

_CHUNK = 16_384


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to the bytes of one direction of one connection."""

    delay_s: float = 0.0
    """Each chunk waits so long."""
    bytes_per_s: int = 0
    """0: as fast as it goes."""
    piece: int = 0
    """Bytes forwarded in one write; 0: as they came. 1 splits every header."""
    cut_after: int | None = None
    """After so many bytes both sides get a reset, in the middle of whatever was going on."""
    stall_after: int | None = None
    """After so many bytes nothing passes any more in this direction, not even the end of the stream."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection."""

    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)

    @classmethod
    def half_open(cls, after: int = 0) -> Fault:
        """Both sides believe in a connection over which nothing passes any more."""
        return cls(Way(stall_after=after), Way(stall_after=after))


CLEAR = Fault()


class Proxy:
    """Listens on a free loopback port and passes connections on to `target_port`; runs on the current event loop.

    `choose` says what happens to the next connection; `fault` is a fixed answer for all of them.
    """

    def __init__(self, target_port: int, choose: Callable[[], Fault] | None = None) -> None:
        self.target_port = target_port
        self.port = 0
        self.fault = CLEAR
        self._choose = choose
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        while self._connections:
            await asyncio.wait([asyncio.ensure_future(each.ended.wait()) for each in self._connections])

    def cut(self) -> None:
        """Reset every connection that there is."""
        for connection in list(self._connections):
            connection.abort()

    def stall(self) -> None:
        """Nothing passes any more on the connections that there are; nobody is told."""
        for connection in self._connections:
            connection.stalled = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._choose() if self._choose is not None else self.fault
        connection = _Connection(writer)
        self._connections.add(connection)
        try:
            with contextlib.suppress(OSError):
                target_reader, connection.target = await dial(self.target_port)
                await connection.run(reader, target_reader, fault)
        finally:
            connection.abort()
            connection.ended.set()
            self._connections.discard(connection)


class _Connection:
    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.target: asyncio.StreamWriter | None = None
        self.stalled = False
        self.ended = asyncio.Event()
        self._cut = asyncio.Event()

    async def run(self, from_client: asyncio.StreamReader, from_target: asyncio.StreamReader, fault: Fault) -> None:
        """Pass bytes both ways until one side ends or the connection is cut."""
        assert self.target is not None
        ways = [
            asyncio.ensure_future(self._pass(from_client, self.target, fault.up)),
            asyncio.ensure_future(self._pass(from_target, self.client, fault.down)),
            asyncio.ensure_future(self._cut.wait()),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        """Ends at the end of the stream, or at the byte where this way is cut."""
        passed = 0
        while True:
            room = _CHUNK
            for limit in (way.cut_after, way.stall_after):
                if limit is not None:
                    room = min(room, limit - passed)
            if self.stalled or (way.stall_after is not None and passed >= way.stall_after):
                await asyncio.Event().wait()
            if way.cut_after is not None and passed >= way.cut_after:
                return
            data = await reader.read(room)
            if self.stalled:
                continue
            if not data:
                with contextlib.suppress(OSError):
                    await writer.drain()
                    writer.close()
                return
            passed += len(data)
            if way.delay_s:
                await asyncio.sleep(way.delay_s)
            step = way.piece or len(data)
            for start in range(0, len(data), step):
                writer.write(data[start : start + step])
                await writer.drain()
                if way.piece:
                    await asyncio.sleep(0)
                if way.bytes_per_s:
                    await asyncio.sleep(min(step, len(data) - start) / way.bytes_per_s)

    def abort(self) -> None:
        self._cut.set()
        for writer in (self.client, self.target):
            if writer is not None and not writer.is_closing():
                # Linger 0: the peer gets RST, and what was not yet sent is lost.
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()


class ProxyThread:
    """A `Proxy` on an event loop in a thread of its own, for blocking tests: `with ProxyThread(port) as proxy`."""

    def __init__(self, target_port: int, fault: Fault = CLEAR) -> None:
        self._proxy = Proxy(target_port)
        self._proxy.fault = fault
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def port(self) -> int:
        return self._proxy.port

    def set_fault(self, fault: Fault) -> None:
        """For the connections that come from now on."""
        self._proxy.fault = fault

    def cut(self) -> None:
        self._call(self._run(self._proxy.cut))

    def stall(self) -> None:
        self._call(self._run(self._proxy.stall))

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._proxy.start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._call(self._proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @staticmethod
    async def _run(action: Callable[[], None]) -> None:
        action()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.result(10)
