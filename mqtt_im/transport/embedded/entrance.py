"""What may stand between accept and the first MQTT packet: a PROXY header (version 2 of HAProxy's specification), TLS.

The socket belongs to its connection from accept on, so handshakes count against every limit, and the time for CONNECT runs.
Bytes of a header are read one piece at a time and never beyond its end, so what follows is TLS's or MQTT's alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mqtt_im.pacing import pace

if TYPE_CHECKING:
    from mqtt_im.transport.embedded.connection import Connection

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16
"""Bytes of a header before its addresses."""
_MAX_REST: Final = 4096
"""Addresses and what proxies add to them; more than that is no header."""
_LOCAL, _PROXY = 0x20, 0x21
_INET, _INET6 = 0x1, 0x2
"""Address families, in the upper half of the fourteenth byte."""


class WrongHeader(Exception):
    """What came is no PROXY header, version 2."""


class Entrance(asyncio.BufferedProtocol):
    """Takes a socket that was accepted through header and handshake, then hands it to its connection."""

    def __init__(self, connection: Connection, tls: Callable[[], ssl.SSLContext] | None, *, proxied: bool) -> None:
        """`tls` gives the context of handshakes that begin now; `proxied` says that a PROXY header comes first."""
        self._connection = connection
        self._tls = tls
        self._proxied = proxied
        self._header = bytearray(_FIXED)
        self._have = 0
        self._handed_over = False
        self._socket: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket was accepted."""
        self._socket = transport  # type: ignore[assignment]
        connection = self._connection
        connection.accepted(self._socket)
        if connection.closed:
            return
        if not self._proxied:
            connection.came_from(connection.address)
            self._go_on()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the rest of the header goes."""
        return memoryview(self._header)[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        """A piece of the header came in."""
        self._have += nbytes
        if self._connection.closed or self._handed_over or self._have < len(self._header):
            return
        try:
            if self._have == _FIXED and (rest := rest_of_header(self._header)):
                self._header = self._header + bytes(rest)  # a new one: the loop still holds a view of the old
                return
            address = address_in_header(self._header)
        except WrongHeader as wrong:
            self._connection.turn_away("proxy_protocol", f"no PROXY header, version 2: {wrong}")
            return
        self._connection.came_from(address or self._connection.address)
        self._go_on()

    def _go_on(self) -> None:
        """The address is known: next is TLS, or MQTT."""
        connection = self._connection
        if connection.closed:
            return
        if self._tls is not None:
            self._secure(self._tls())
        else:
            self._socket.set_protocol(connection)

    def _secure(self, context: ssl.SSLContext) -> None:
        """Begin TLS, on a transport of its own.

        The one that was accepted reads on as long as it lives, whoever asks it to pause, and what it reads would be missing
        from the handshake. So it lets go of the socket at once, before it can read.
        """
        self._handed_over = True
        taken = socket.socket(fileno=os.dup(self._socket.get_extra_info("socket").fileno()))
        self._socket.abort()
        handshake = Handshake(self._connection, taken)
        self._connection.transport = handshake
        self._connection.hub.handshake(handshake.run(context))

    def eof_received(self) -> bool:
        """The peer will send no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone before the header was there, or was handed over."""
        if not self._handed_over:
            self._connection.connection_lost(exc)


class Handshake(asyncio.Transport):
    """Stands for a connection's transport as long as TLS is not there: nothing can be written yet, but it can end."""

    def __init__(self, connection: Connection, taken: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._socket = taken
        self._task: asyncio.Task[None] | None = None

    async def run(self, context: ssl.SSLContext) -> None:
        """Afterwards the connection has its transport, or has ended."""
        connection = self._connection
        hub = connection.hub
        self._task = asyncio.current_task()
        try:
            await hub.loop.connect_accepted_socket(
                lambda: _Secured(connection),
                self._socket,
                ssl=context,
                ssl_handshake_timeout=hub.limits.connect_timeout_s,
            )
        except OSError as error:  # of which ssl.SSLError and TimeoutError are some
            connection.turn_away("tls", f"no TLS: {getattr(error, 'reason', None) or error or type(error).__name__}")
        finally:
            if connection.transport is self:
                self._task = None
                self._socket.close()
                connection.connection_lost(None)

    def abort(self) -> None:
        """End the handshake."""
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """End the handshake."""
        self.abort()

    def is_closing(self) -> bool:
        """It ends with its task."""
        return False

    def pause_reading(self) -> None:
        """The handshake reads nothing that is ours."""


class _Secured(asyncio.Protocol):
    """Gives the connection its transport, and its place behind it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = self._connection
        connection.transport = transport  # type: ignore[assignment]
        pace(connection.transport)
        connection.transport.set_protocol(connection)
        if connection.closed:
            connection.transport.abort()


def rest_of_header(fixed: bytes | bytearray) -> int:
    """How many bytes follow the first sixteen. Raises `WrongHeader`."""
    if not fixed.startswith(_SIGNATURE):
        raise WrongHeader("it begins with something else")
    if fixed[12] not in (_LOCAL, _PROXY):
        raise WrongHeader(f"version and command are 0x{fixed[12]:02x}")
    rest = int.from_bytes(fixed[14:16], "big")
    if rest > _MAX_REST:
        raise WrongHeader(f"it is {rest} bytes long")
    return rest


def address_in_header(header: bytes | bytearray) -> str | None:
    """The address of the client; None where the proxy speaks for itself, or of what has no IP address. Raises `WrongHeader`."""
    if header[12] == _LOCAL:
        return None
    family, rest = header[13] >> 4, bytes(header[_FIXED:])
    try:
        if family == _INET:
            return str(ipaddress.IPv4Address(struct.unpack_from("!4s4sHH", rest)[0]))
        if family == _INET6:
            return str(ipaddress.IPv6Address(struct.unpack_from("!16s16sHH", rest)[0]))
    except struct.error:
        raise WrongHeader("its addresses are cut off") from None
    return None
