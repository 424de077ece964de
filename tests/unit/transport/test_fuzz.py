"""A few seconds of `python -m tests.fuzz connections`, the same each time; and what longer runs have found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import connections
from tests.unit.transport.harness import Server, on_loop

REQUEST = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: %s\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)
GOODBYE = b"\x88\x80\0\0\0\0"
BROKEN = b"\x83\x80\0\0\0\0"


def test_connections_bear_a_few_seconds_of_it() -> None:
    assert connections.run(seed=20, seconds=0, rounds=200)


@pytest.mark.parametrize("path", [b"/mqtt", b"/other"])
@pytest.mark.parametrize("frame", [GOODBYE, BROKEN])
@on_loop
async def test_a_frame_that_ends_it_right_behind_the_handshake(tmp_path: Path, path: bytes, frame: bytes) -> None:
    """Refusing the handshake, or accepting it, then met an assertion of the WebSocket library."""
    async with Server(tmp_path) as server:
        client = await server.open("websocket")
        client.send(REQUEST % (path, b"13") + frame)
        assert await client.reader.read() == b""
        assert server.counts["closes:handshake"] == 1


@on_loop
async def test_a_header_that_is_not_ascii(tmp_path: Path) -> None:
    """The WebSocket library could not encode its refusal of it."""
    async with Server(tmp_path) as server:
        client = await server.open("websocket")
        client.send(REQUEST % (b"/mqtt", b"\xff13"))
        assert (await client.reader.read()).startswith(b"HTTP/1.1 400 ")
        assert server.counts["connects_refused:http_400"] == 1
