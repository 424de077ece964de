"""What the server says last arrives, at a client too that goes on sending and reads only then."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from websockets.frames import OP_BINARY, Frame

from tests.support import packets, packets5
from tests.unit.transport.harness import PATIENCE_S, FakeHandler, Server, on_loop
from tests.unit.transport.test_tls import trusting, write

UP = "im/v1/alice/phone/up"
MORE = packets.publish("open/a", b"x" * 60_000)
UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)
LISTENERS = ["mqtt", "mqtts", "websocket"]


class Deaf:
    """A blocking client that reads only when it is told to. Its calls are made in threads."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None, *, frames: bool) -> None:
        self._socket: socket.socket = socket.create_connection(address, PATIENCE_S)
        if context is not None:
            self._socket = context.wrap_socket(self._socket, server_hostname="localhost", suppress_ragged_eofs=True)
        self._frames = frames
        if frames:
            self._socket.sendall(UPGRADE)
            assert self.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")

    def send(self, data: bytes) -> None:
        self._socket.sendall(Frame(OP_BINARY, data).serialize(mask=True) if self._frames else data)

    def read_until(self, expected: bytes) -> bytes:
        read = b""
        while expected not in read:
            piece = self._socket.recv(4096)
            assert piece, read
            read += piece
        return read

    def read_all(self) -> bytes:
        """What comes until the server has closed its side. Raises `OSError` where the connection was reset."""
        read = b""
        while piece := self._socket.recv(65_536):
            read += piece
        return read

    def close(self) -> None:
        self._socket.close()


class Host(Server):
    """A server on all listeners."""

    def __init__(self, folder: Path, handler: FakeHandler | None = None, **limits: int) -> None:
        authority = trustme.CA()
        self._context = trusting(authority)
        given = {"max_packet_bytes": 100_000, **limits}
        super().__init__(folder, plain_topics=("open/#",), tls=write(folder, authority), handler=handler, limits=given)

    async def deaf(self, listener: str, connect: bytes | None = None) -> Deaf:
        context = self._context if listener == "mqtts" else None
        client = await asyncio.to_thread(Deaf, self.address(listener), context, frames=listener == "websocket")
        if connect is not None:
            await asyncio.to_thread(client.send, connect)
            await asyncio.to_thread(client.read_until, b"\x20")
        return client

    async def last_words(self, client: Deaf) -> bytes:
        """What the client reads when it has sent much more to a connection that has ended already."""
        await self.handler.until(lambda: self.counts["closes"] > 0)
        try:
            for _ in range(10):
                await asyncio.to_thread(client.send, MORE)
            return await asyncio.to_thread(client.read_all)
        finally:
            client.close()


CONNECT5 = packets5.connect("phone", username="alice")
ENDS: dict[str, tuple[bytes, int]] = {
    "malformed": (b"\x00\x00", 0x81),
    "protocol error": (CONNECT5, 0x82),
    "too large": (b"\x30\xff\xff\x7f" + MORE, 0x95),
    "forbidden": (packets5.publish("closed/a", b"x", qos=0) * 2, 0x97),
}


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("end", ENDS)
@on_loop
async def test_why_a_connection_is_closed(tmp_path: Path, listener: str, end: str) -> None:
    wrong, code = ENDS[end]
    async with Host(tmp_path, forbidden_publishes_per_minute=1) as server:
        client = await server.deaf(listener, CONNECT5)
        publish = packets5.publish(UP, b"{}", qos=1, packet_id=7)
        await asyncio.to_thread(client.send, publish + wrong)
        read = await server.last_words(client)
        assert re.search(b"\x40.\x00\x07.*\xe0[\x01\x02]" + bytes((code,)), read, re.DOTALL), read


def _take_over(server: Host) -> None:
    server.hub.live["alice", "phone"].end("taken_over")


def _remove(server: Host) -> None:
    for link in server.transport.links("alice"):
        link.close("account_removed")


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(("cause", "code"), [(_take_over, 0x8E), (_remove, 0x98)], ids=["taken over", "account removed"])
@on_loop
async def test_why_the_server_wants_it_to_end(tmp_path: Path, listener: str, cause: Callable[[Host], None], code: int) -> None:
    async with Host(tmp_path) as server:
        client = await server.deaf(listener, CONNECT5)
        cause(server)
        read = await server.last_words(client)
        assert re.search(b"\xe0[\x01\x02]" + bytes((code,)), read), read


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("version", [4, 5])
@on_loop
async def test_why_somebody_is_not_let_in(tmp_path: Path, listener: str, version: int) -> None:
    connect, connack = {
        4: (packets.connect("phone", username="alice", password="wrong"), b"\x20\x02\x00\x04"),
        5: (packets5.connect("phone", username="alice", password="wrong"), b"\x00\x86"),
    }[version]
    async with Host(tmp_path) as server:
        client = await server.deaf(listener)
        await asyncio.to_thread(client.send, connect + MORE)
        assert connack in await server.last_words(client)


@pytest.mark.parametrize("listener", LISTENERS)
@on_loop
async def test_the_answers_before_a_request_that_is_to_be_repeated(tmp_path: Path, listener: str) -> None:
    handler = FakeHandler()
    handler.answer_at_once = False
    async with Host(tmp_path, handler) as server:
        client = await server.deaf(listener, packets.connect("phone", username="alice"))
        await asyncio.to_thread(client.send, b"".join(packets.publish(UP, b"{}", packet_id=number) for number in (1, 2)))
        await handler.until(lambda: len(handler.uplinks) == 2)
        (link, _, first, _, _), (_, _, second, _, _) = handler.uplinks
        link.fail(second)
        link.done(first)
        read = await server.last_words(client)
        assert b"\x40\x02\x00\x01" in read
        assert b"\x40\x02\x00\x02" not in read


@pytest.mark.parametrize("listener", LISTENERS)
@on_loop
async def test_nobody_waits_long_for_who_reads_nothing(tmp_path: Path, listener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.socket._LINGER_S", 0.1)
    monkeypatch.setattr("mqtt_im.transport.embedded.socket._LAST_BYTES_S", 0.1)
    async with Host(tmp_path) as server:
        client = await server.deaf(listener, CONNECT5)
        _take_over(server)
        await server.counted("closes")
        server.hub.draining = True
        await server.hub.closed()
        client.close()
