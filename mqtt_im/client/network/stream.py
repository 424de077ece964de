"""A byte stream over asyncio that looks like a non-blocking socket to paho-mqtt, with or without WebSocket frames.

The loop reads and writes; paho takes bytes out of memory and puts bytes into it. So TLS and name resolution never block,
every loop that asyncio has will do, and each byte that comes is seen when it comes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from .addresses import Address, context_for

if TYPE_CHECKING:
    from websockets.client import ClientProtocol

HIGH_WATER = 1024 * 1024
"""Bytes that may wait for the socket; more wait where they come from."""


class StreamFailed(OSError):
    """The other side is no MQTT over WebSocket, or the connection ended while it was set up."""


class Stream(asyncio.Protocol):
    """See the module. `on_bytes` is told how many bytes came, `on_end` that no more will come."""

    def __init__(self) -> None:
        self.on_bytes: Callable[[int], None] = lambda _count: None
        self.on_end: Callable[[Exception | None], None] = lambda _error: None
        self.ended = False
        self.allowed = 0
        """So many bytes `recv` still gives, whoever asks: paho reads many packets at a time."""
        self._transport: asyncio.Transport | None = None
        self._inbound = bytearray()
        self._outbound = bytearray()
        self._taken = 0
        self._websocket: ClientProtocol | None = None
        self._opened: asyncio.Future[None] | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, and another class
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._websocket is None:
            self._inbound += data
        else:
            self._websocket.receive_data(data)
            self._after_websocket(self._websocket)
        self.on_bytes(len(data))

    def eof_received(self) -> None:
        """See `asyncio.Protocol`; the transport closes itself."""
        if self._websocket is not None:
            self._websocket.receive_eof()
            self._after_websocket(self._websocket)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.ended = True
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(StreamFailed("the connection ended during the WebSocket handshake"))
        self.on_end(error)

    # WebSocket

    async def upgrade(self, address: Address) -> None:
        """Open the WebSocket. Raises `StreamFailed`."""
        from websockets.client import ClientProtocol
        from websockets.typing import Subprotocol
        from websockets.uri import parse_uri

        websocket = ClientProtocol(parse_uri(str(address)), subprotocols=[Subprotocol("mqtt")], max_size=None)
        self._opened = asyncio.get_running_loop().create_future()
        self._websocket = websocket
        websocket.send_request(websocket.connect())
        self._flush(websocket)
        await self._opened

    def _after_websocket(self, websocket: ClientProtocol) -> None:
        from websockets.frames import Frame, Opcode

        for event in websocket.events_received():
            if isinstance(event, Frame):
                if event.opcode in (Opcode.BINARY, Opcode.CONT):
                    self._inbound += event.data
            elif self._opened is not None and not self._opened.done():
                if websocket.handshake_exc is None:
                    self._opened.set_result(None)
                else:
                    self._opened.set_exception(StreamFailed(f"no WebSocket here: {websocket.handshake_exc}"))
        if websocket.handshake_exc is not None and self._opened is not None and not self._opened.done():
            self._opened.set_exception(StreamFailed(f"no WebSocket here: {websocket.handshake_exc}"))
        self._flush(websocket)

    def _flush(self, websocket: ClientProtocol) -> None:
        for data in websocket.data_to_send():
            if data:
                self._write(data)
            else:  # the end of the stream, as websockets tells it
                self.close()

    # paho's side, as of a socket

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes that have come. Raises `BlockingIOError` where there are none; empty at the end."""
        start = self._taken
        data = bytes(self._inbound[start : start + min(size, self.allowed)])
        self.allowed -= len(data)
        if not data:
            if self.ended and not self.pending():
                return b""
            raise BlockingIOError
        self._taken += len(data)
        if self._taken == len(self._inbound):
            self._inbound.clear()
            self._taken = 0
        elif self._taken > 65_536:
            del self._inbound[: self._taken]
            self._taken = 0
        return data

    def send(self, data: bytes | bytearray) -> int:
        """Take all of `data`."""
        if self.ended or self._transport is None:
            raise ConnectionResetError("the connection is closed")
        if not self._outbound:
            asyncio.get_running_loop().call_soon(self._send_all)
        self._outbound += data
        return len(data)

    def _send_all(self) -> None:
        """What was sent in one turn of the loop leaves together."""
        data, self._outbound = bytes(self._outbound), bytearray()
        if not data or self.ended:
            return
        if self._websocket is not None:
            self._websocket.send_binary(data)
            self._flush(self._websocket)
        else:
            self._write(data)

    def close(self) -> None:
        """End the connection, what was written first."""
        self._send_all()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def fileno(self) -> int:
        """There is none."""
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def pending(self) -> int:
        """Bytes that have come and were not taken."""
        return len(self._inbound) - self._taken

    @property
    def backlog(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


async def connected(address: Address, raw: Any, tls: ssl.SSLContext | None) -> Stream:
    """A stream over a connected socket, TLS (the app's context, if it has one) and WebSocket set up.

    Raises `OSError`; the socket is closed then, and where it is cancelled.
    """
    loop = asyncio.get_running_loop()
    try:
        context = context_for(address, tls)
        _, stream = await loop.create_connection(
            Stream, sock=raw, ssl=context, server_hostname=address.host if context is not None else None
        )
    except BaseException:
        raw.close()
        raise
    if address.path is not None:
        try:
            await stream.upgrade(address)
        except BaseException:
            stream.abort()
            raise
    return stream
