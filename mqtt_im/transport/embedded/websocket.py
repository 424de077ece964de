"""MQTT over WebSocket (MQTT-6.0.0-1 to -4): frames come off, and the bytes in them go through the same connection code.

The stream of MQTT packets is cut into frames as the client likes, a packet in several or several in one.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Sequence
from typing import Any

from websockets.exceptions import SecurityError
from websockets.frames import OP_BINARY, OP_CONT, OP_TEXT, CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from mqtt_im.config.proxies import TrustedProxies
from mqtt_im.transport.embedded.connection import Connection
from mqtt_im.transport.embedded.hub import Hub

_SUBPROTOCOL = Subprotocol("mqtt")
_SLACK = 64 * 1024
_MAX_HEAD = 64 * 1024
"""Bytes of the request that opens a WebSocket. A line of it has 8 KiB and there are 128 at most, as `websockets` has it."""
_PIECE = 4096
"""So many bytes are taken apart at once."""
_FRAME_S = 0.0002
"""What a frame is paid for with: 5,000 of them a second, and 10,000 at once."""
_CONTROL_S = 0.05
"""The same of a ping or pong, which is answered or for nothing: 20 a second, and 40 at once."""
_BURST_S = 2.0
_CONNECTION, _UNREAD, _FRAMES = 1, 2, 4
"""Why nothing is read: the connection says so, the client does not read, too many frames came."""
_REFUSALS = {
    http.HTTPStatus.BAD_REQUEST: "A WebSocket is opened by a GET request of HTTP/1.1.",
    http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request may have 128 header lines of 8 KiB, and 64 KiB in all.",
}
NO_PROXIES = TrustedProxies(())


class WebSocket(asyncio.Protocol):
    """One WebSocket; towards its connection it is the transport."""

    __slots__ = (
        "_begun",
        "_connection",
        "_frames_until",
        "_head",
        "_path",
        "_pauses",
        "_protocol",
        "_proxies",
        "_rest",
        "_socket",
    )

    def __init__(self, hub: Hub, listener: str, path: str, origins: Sequence[str], proxies: TrustedProxies = NO_PROXIES) -> None:
        """`proxies` may name the client's address."""
        self._path = path
        self._proxies = proxies
        self._head = 0
        self._begun = 0
        """Bytes of a frame, or of frames, that are in memory and not handled."""
        self._rest: list[bytes] | None = None
        """What came behind too many frames to be looked at now."""
        self._frames_until = 0.0
        """The time up to which frames are paid for."""
        self._pauses = 0
        """Why nothing is read at the moment."""
        self._connection = Connection(hub, listener)
        allowed: list[Origin | None] = [None, *map(Origin, origins)]  # programs send no Origin, and need no protection
        self._protocol = ServerProtocol(
            origins=allowed if origins else None,
            subprotocols=[_SUBPROTOCOL],
            max_size=hub.limits.max_packet_bytes + _SLACK,
        )
        self._socket: asyncio.Transport

    # Towards the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket was accepted."""
        self._socket = transport  # type: ignore[assignment]
        connection = self._connection
        connection.accepted(self)  # type: ignore[arg-type]
        if not connection.closed and not self._proxies.trusts(connection.address):
            connection.came_from(connection.address)

    def data_received(self, data: bytes) -> None:
        """Bytes came in: the handshake first, then frames."""
        connection, protocol = self._connection, self._protocol
        if connection.closed:
            return
        if protocol.state is CONNECTING:
            self._head += len(data)
            if not connection.has_room(len(data)):
                return
            if self._head > _MAX_HEAD:
                self._refuse(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
        if self._rest is not None:
            self._rest.append(data)
        elif len(data) <= _PIECE:
            self._take(data)
        else:
            self._take_pieces(data)
        self._keep()

    def _keep(self) -> None:
        """What is in memory of frames is counted for the connection."""
        begun = len(self._protocol.reader.buffer)
        if self._rest is not None:
            begun += sum(map(len, self._rest))
        if begun != self._begun:
            begun, self._begun = begun - self._begun, begun
            self._connection.keep(begun)

    def _take_pieces(self, data: bytes) -> None:
        """Handle bytes in small pieces: the rest waits where the client has sent too many frames, or does not read."""
        for at in range(0, len(data), _PIECE):
            if self._connection.closed:
                return
            if self._stop_reading():
                self._rest = [data[at:]]
                return
            self._take(data[at : at + _PIECE])

    def _stop_reading(self) -> bool:
        """Stop for a while, where that is due."""
        if self._pauses & (_FRAMES | _UNREAD):
            return True
        if not self._connection.writable and self._protocol.state is OPEN:
            self._pause(_UNREAD)
            return True
        loop = self._connection.hub.loop
        if (wait := self._frames_until - loop.time() - _BURST_S) > 0:
            self._connection.hub.count("throttled")
            self._pause(_FRAMES)
            loop.call_later(wait, self._go_on, _FRAMES)
            return True
        return False

    def _go_on(self, reason: int) -> None:
        self._resume(reason)
        if self._rest is not None and not self._pauses & (_FRAMES | _UNREAD) and not self._connection.closed:
            rest, self._rest = b"".join(self._rest), None
            self._take_pieces(rest)
            self._keep()

    def _pause(self, reason: int) -> None:
        if not self._pauses and not self._socket.is_closing():
            self._socket.pause_reading()
        self._pauses |= reason

    def _resume(self, reason: int) -> None:
        was, self._pauses = self._pauses, self._pauses & ~reason
        if was and not self._pauses and not self._socket.is_closing():
            self._socket.resume_reading()

    def _take(self, data: bytes) -> None:
        connection, protocol = self._connection, self._protocol
        protocol.receive_data(data)
        if protocol.state is CONNECTING and protocol.handshake_exc is not None:
            too_large = isinstance(protocol.handshake_exc.__cause__, SecurityError)
            self._refuse(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_large else http.HTTPStatus.BAD_REQUEST)
            return
        price = 0.0
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._handshake(event)
            elif isinstance(event, Frame):
                price += _FRAME_S
                if event.opcode is OP_BINARY or event.opcode is OP_CONT:
                    if event.data:
                        connection.data_received(bytes(event.data))
                elif event.opcode is OP_TEXT:
                    protocol.fail(CloseCode.UNSUPPORTED_DATA, "MQTT needs binary frames")  # MQTT-6.0.0-1
                    connection.hub.count("malformed_packets", reason="websocket_text")
                    connection.end("malformed")
                else:
                    price += _CONTROL_S
        if price:
            self._frames_until = max(self._frames_until, connection.hub.loop.time()) + price
        self._send()
        if protocol.parser_exc is not None or protocol.handshake_exc is not None:
            connection.end("websocket")
        elif self._rest is None:
            self._stop_reading()

    def _handshake(self, request: Request) -> None:
        protocol, connection = self._protocol, self._connection
        if not connection.network:
            forwarded_for = ",".join(request.headers.get_all("X-Forwarded-For"))
            connection.came_from(self._proxies.client(connection.address, forwarded_for))
            if connection.closed:
                return
        if protocol.close_expected():  # a broken frame, or a goodbye, came right behind the request
            self._connection.end("handshake")
            return
        if request.path.partition("?")[0] != self._path:
            response = protocol.reject(http.HTTPStatus.NOT_FOUND, "There is no WebSocket here.\n")
        elif not all(value.isascii() for _, value in request.headers.raw_items()):
            # `accept` would put such a value into its answer, and cannot encode it.
            response = protocol.reject(http.HTTPStatus.BAD_REQUEST, "The headers of a WebSocket are ASCII.\n")
        else:
            response = protocol.accept(request)
        protocol.send_response(response)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._refused(response.status_code, response.reason_phrase)

    def _refuse(self, status: http.HTTPStatus) -> None:
        """Answer what cannot be read as a request, or not in full, and end."""
        body = f"{_REFUSALS[status]}\n".encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
        self._socket.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self._refused(status.value, status.phrase)

    def _refused(self, status: int, phrase: str) -> None:
        connection = self._connection
        hub, address = connection.hub, connection.address
        hub.count("connects_refused", reason=f"http_{status}")
        hub.log.note("handshake", address, "a WebSocket from %s is refused: %d %s", address, status, phrase)
        connection.end("handshake")

    def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.write(data)
            else:
                self._socket.close()

    def eof_received(self) -> bool:
        """The peer will send no more."""
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._connection.connection_lost(exc)
        # This, its connection and the generator that reads frames know each other: what has come would stay until all memory
        # is looked through.
        self._rest = None
        self._protocol.reader.buffer.clear()
        self._protocol.parser.close()

    def pause_writing(self) -> None:
        """The socket's buffer is full: who does not read is not read."""
        self._connection.pause_writing()
        self._pause(_UNREAD)

    def resume_writing(self) -> None:
        """The socket's buffer has room again."""
        self._connection.resume_writing()
        self._go_on(_UNREAD)

    # Towards the connection: what it uses of a transport

    def write(self, data: bytes) -> None:
        """Send bytes as one binary frame."""
        if self._protocol.state is OPEN:
            self._protocol.send_binary(data)
            self._send()

    def close(self) -> None:
        """Say goodbye and close the socket when all has left."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        self._send()
        self._socket.close()

    def abort(self) -> None:
        """Cut the socket."""
        self._socket.abort()

    def is_closing(self) -> bool:
        """Whether the socket is closed or about to be."""
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        """Take nothing more off the socket for now."""
        self._pause(_CONNECTION)

    def resume_reading(self) -> None:
        """Go on reading."""
        self._resume(_CONNECTION)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """How much may wait for the peer before the connection is told."""
        self._socket.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for the peer."""
        return self._socket.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the socket's transport knows."""
        return self._socket.get_extra_info(name, default)
