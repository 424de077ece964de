"""A bad network on loopback: a TCP proxy with a round trip, a rate, stalls, cuts and silence, and a count of what passes.

TCP's own handshake and its headers are not seen here: a connection begins when its socket is accepted, bytes are payload.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_SEGMENT = 1_400
_BUFFER = 64


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of network does to bytes."""

    name: str
    round_trip_s: float = 0.0
    bits_per_s: float = 0.0
    """Each way; 0: without end."""
    stalls: float = 0.0
    """The share of segments that wait for a second before they go on, and what is behind them with them."""
    cut_every_s: float = 0.0
    """So often every connection breaks, and none comes about for `cut_for_s`."""
    cut_for_s: float = 0.0
    silent_at_s: float = 0.0
    """From then on (0: never) nothing passes for `silent_for_s`, and what was connected before never does again."""
    silent_for_s: float = 0.0


CLEAR = Profile("clear")
FAR = Profile("far", round_trip_s=0.6)
EDGE = Profile("EDGE", round_trip_s=0.6, bits_per_s=40_000)
LOSSY_3G = Profile("3G, lossy", round_trip_s=0.3, bits_per_s=1_000_000, stalls=0.05)
TUNNEL = Profile("tunnel", round_trip_s=0.1, bits_per_s=5_000_000, cut_every_s=20.0, cut_for_s=5.0)
LIFT = Profile("lift", round_trip_s=0.1, bits_per_s=5_000_000, silent_at_s=10.0, silent_for_s=30.0)


class Line:
    """Listens on a free port of loopback and passes connections on to `target_port` as `profile` says."""

    def __init__(self, target_port: int, profile: Profile) -> None:
        self.profile = profile
        self.port = 0
        self.up = 0
        """Bytes from the client so far, on all connections."""
        self.down = 0
        self.accepted_at = 0.0
        """When the newest connection was accepted (`time.perf_counter`)."""
        self._target_port = target_port
        self._dice = random.Random(11)
        self._closed = False
        self._lost: set[_Connection] = set()
        self._connections: set[_Connection] = set()
        self._silent = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_SEGMENT * _BUFFER)
        self.port = self._server.sockets[0].getsockname()[1]
        if self.profile.cut_every_s:
            self._tasks.append(asyncio.create_task(self._cut()))
        if self.profile.silent_at_s:
            self._tasks.append(asyncio.create_task(self._fall_silent()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    def silence(self) -> None:
        """From now on nothing passes on the connections that there are; nobody is told."""
        self._lost |= self._connections

    async def _cut(self) -> None:
        while True:
            await asyncio.sleep(self.profile.cut_every_s)
            self._closed = True
            for connection in list(self._connections):
                connection.abort()
            await asyncio.sleep(self.profile.cut_for_s)
            self._closed = False

    async def _fall_silent(self) -> None:
        await asyncio.sleep(self.profile.silent_at_s)
        self._silent = True
        self.silence()
        await asyncio.sleep(self.profile.silent_for_s)
        self._silent = False
        self.silence()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        self.accepted_at = time.perf_counter()
        connection = _Connection(writer)
        self._connections.add(connection)
        if self._silent:
            self._lost.add(connection)
        with contextlib.suppress(OSError, asyncio.CancelledError):  # cancelled where the loop ends
            target_reader, connection.target = await asyncio.open_connection("127.0.0.1", self._target_port)
            ways = [
                asyncio.create_task(self._pass(connection, reader, connection.target, self._count_up)),
                asyncio.create_task(self._pass(connection, target_reader, writer, self._count_down)),
            ]
            await asyncio.wait([*ways, asyncio.ensure_future(connection.ended.wait())], return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        connection.abort()
        self._connections.discard(connection)
        self._lost.discard(connection)

    def _count_up(self, count: int) -> None:
        self.up += count

    def _count_down(self, count: int) -> None:
        self.down += count

    async def _pass(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
    ) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_BUFFER)
        arriving = asyncio.create_task(self._arrive(connection, under_way, writer))
        free_at = 0.0
        try:
            while data := await reader.read(_SEGMENT):
                count(len(data))
                free_at = max(free_at, time.perf_counter())
                if self.profile.bits_per_s:
                    free_at += len(data) * 8 / self.profile.bits_per_s
                if self._dice.random() < self.profile.stalls:
                    free_at += 1.0
                await under_way.put((free_at + self.profile.round_trip_s / 2, data))
            await under_way.put((free_at + self.profile.round_trip_s / 2, b""))
            await arriving
        finally:
            arriving.cancel()

    async def _arrive(
        self, connection: _Connection, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            at, data = await under_way.get()
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            if connection in self._lost:
                await _for_ever()
            if not data:
                return
            writer.write(data)
            await writer.drain()


class _Connection:
    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.client = client
        self.target: asyncio.StreamWriter | None = None
        self.ended = asyncio.Event()

    def abort(self) -> None:
        self.client.transport.abort()
        if self.target is not None:
            self.target.transport.abort()
        self.ended.set()


def _for_ever() -> Awaitable[bool]:
    return asyncio.Event().wait()
