"""One asyncio connection that speaks in packets."""

from __future__ import annotations

import asyncio
from collections import deque

from tests.support import packets
from tests.support.dial import dial
from tests.support.packets import Packet


class Wire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = packets.Parser()
        self._arrived: deque[Packet] = deque()

    @classmethod
    async def open(cls, port: int, timeout_s: float = 3.0) -> Wire:
        """Raises `OSError` or `TimeoutError`."""
        return cls(*await asyncio.wait_for(dial(port), timeout_s))

    async def next(self, timeout_s: float) -> Packet:
        """The next packet. Raises `TimeoutError`, `EOFError` or `OSError`."""
        while not self._arrived:
            data = await asyncio.wait_for(self._reader.read(65_536), timeout_s)
            if not data:
                raise EOFError
            self._arrived += self._parser.feed(data)
        return self._arrived.popleft()

    def send(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the send buffer has room."""
        await self._writer.drain()

    def abort(self) -> None:
        self._writer.transport.abort()
