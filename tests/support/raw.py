"""One blocking connection that sends exactly the bytes it is given and reads only when it is asked to.

A client that is not read from fills the kernel's buffers and no more, which is how the tests play a client that
has stopped reading.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from tests.support import packets
from tests.support.packets import Packet, Will

Found = TypeVar("Found")

PATIENCE_S = 60.0
"""How long a test waits for what must happen; only a failing test ever waits that long."""


class Closed(Exception):
    """The server has closed the connection."""


class Refused(Exception):
    """The CONNACK carried a return code other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"CONNACK return code {code}")
        self.code = code


class RawClient:
    def __init__(self, port: int, host: str = "127.0.0.1", receive_buffer: int | None = None, source: str = "") -> None:
        """Connect the socket, from address `source`; `receive_buffer` (bytes) keeps the kernel from taking much for a client
        that does not read."""
        self.socket = socket.socket()
        if source:
            self.socket.bind((source, 0))
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = packets.Parser()
        self._arrived: list[Packet] = []
        self._next_packet_id = 0

    def next_packet_id(self) -> int:
        self._next_packet_id = self._next_packet_id % 65_535 + 1
        return self._next_packet_id

    def send(self, data: bytes) -> None:
        """Raises `Closed` where the server has gone."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def receive(self, timeout_s: float = PATIENCE_S) -> Packet:
        """The next packet. Raises `Closed` at the end of the stream and `TimeoutError` where nothing comes."""
        deadline = time.monotonic() + timeout_s
        while not self._arrived:
            left = deadline - time.monotonic()
            ready = select.poll()  # select takes no descriptor above 1023
            ready.register(self.socket, select.POLLIN)
            if not ready.poll(max(0.0, left) * 1000):
                raise TimeoutError(f"nothing received within {timeout_s} s")
            try:
                data = self.socket.recv(65_536)
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not data:
                raise Closed("end of stream")
            self._arrived += self._parser.feed(data)
        return self._arrived.pop(0)

    def expect(self, kind: int, timeout_s: float = PATIENCE_S) -> Packet:
        """The next packet, which must be of this kind."""
        packet = self.receive(timeout_s)
        assert packet.kind == kind, f"expected a packet of type {kind}, got {packet}"
        return packet

    def until_closed(self, timeout_s: float = PATIENCE_S) -> list[Packet]:
        """Everything that still comes before the server closes the connection. Raises `TimeoutError` where it does not."""
        rest = []
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                rest.append(self.receive(max(0.0, deadline - time.monotonic())))
            except Closed:
                return rest

    def connect(
        self,
        client_id: str,
        *,
        username: str | None = None,
        password: str | None = None,
        clean: bool = True,
        keepalive: int = 0,
        will: Will | None = None,
    ) -> bool:
        """CONNECT, and whether the CONNACK says session present. Raises `Refused`."""
        self.send(packets.connect(client_id, username=username, password=password, clean=clean, keepalive=keepalive, will=will))
        flags, code = self.expect(packets.CONNACK).body
        if code:
            raise Refused(code)
        return bool(flags & 1)

    def close(self) -> None:
        """End the TCP connection without a DISCONNECT, as a lost network would be seen (FIN)."""
        self.socket.close()

    def abort(self) -> None:
        """End it with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def eventually(probe: Callable[[], Found], what: str | Callable[[], str], timeout_s: float = PATIENCE_S) -> Found:
    """The first true value that `probe` returns, for what no packet announces (a metric, a log line, a process that ends).

    `what` says what did not come, at the end where it is called.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.02)
    return found
