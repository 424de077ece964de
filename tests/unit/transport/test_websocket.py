"""MQTT over WebSocket: the handshake, and packets that are smaller or larger than a frame."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.support import packets
from tests.support.packets import Packet, Parser, Publish, Will
from tests.unit.transport.harness import PATIENCE_S, Server, on_loop

MQTT = [Subprotocol("mqtt")]
UP = "im/v1/alice/phone/up"


def url(server: Server, path: str = "/mqtt") -> str:
    host, port = server.transport.addresses["websocket"]
    return f"ws://{host}:{port}{path}"


async def read(socket: ClientConnection, number: int) -> list[Packet]:
    parser, found = Parser(), list[Packet]()
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < number:
            data = await socket.recv()
            assert isinstance(data, bytes)
            found += parser.feed(data)
    return found


@on_loop
async def test_packets_and_frames_need_not_agree(tmp_path: Path) -> None:
    async with Server(tmp_path) as server, connect(url(server), subprotocols=MQTT) as socket:
        assert socket.subprotocol == "mqtt"
        stream = packets.connect("phone", username="alice") + packets.publish(UP, b"split", packet_id=1)
        for at in range(0, len(stream), 5):
            await socket.send(stream[at : at + 5])
        assert [packet.kind for packet in await read(socket, 2)] == [packets.CONNACK, packets.PUBACK]
        await socket.send(b"".join(packets.publish(UP, b"joined", packet_id=number) for number in (2, 3, 4)))
        assert [packet.packet_id for packet in await read(socket, 3)] == [2, 3, 4]
        await socket.send([packets.publish(UP, b"frag", packet_id=5)[:9], packets.publish(UP, b"frag", packet_id=5)[9:]])
        assert [packet.packet_id for packet in await read(socket, 1)] == [5]


@on_loop
async def test_large_packets_pass_where_the_limit_allows(tmp_path: Path) -> None:
    payload = b"x" * 2_000_000
    async with (
        Server(tmp_path, limits={"max_packet_bytes": 3_000_000}) as server,
        connect(url(server), subprotocols=MQTT, max_size=None) as socket,
    ):
        await socket.send(packets.connect("phone", username="alice"))
        await read(socket, 1)
        await socket.send(packets.publish(UP, payload, packet_id=1))
        await read(socket, 1)
        link, received, *_ = server.handler.uplinks[0]
        assert received == payload
        link.publish(b"im/v1/alice/down", payload, 1)
        assert Publish.of((await read(socket, 1))[0]).payload == payload


@pytest.mark.parametrize(
    ("path", "subprotocols", "origin", "status"),
    [
        ("/other", MQTT, None, 404),
        ("/mqtt", None, None, 400),
        ("/mqtt", [Subprotocol("chat")], None, 400),
        ("/mqtt", MQTT, Origin("https://evil.example"), 403),
    ],
)
@on_loop
async def test_the_handshake_is_refused(
    tmp_path: Path, path: str, subprotocols: list[Subprotocol] | None, origin: Origin | None, status: int
) -> None:
    async with Server(tmp_path, websocket={"origins": ("https://chat.example",)}) as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(server, path), subprotocols=subprotocols, origin=origin)
        assert refused.value.response.status_code == status
        await server.counted(f"connects_refused:http_{status}")


@on_loop
async def test_allowed_origins_and_programs_without_one_may_connect(tmp_path: Path) -> None:
    async with Server(tmp_path, websocket={"origins": ("https://chat.example",), "path": "/"}) as server:
        for origin in (Origin("https://chat.example"), None):
            async with connect(url(server, "/?x=1"), subprotocols=MQTT, origin=origin) as socket:
                await socket.send(packets.connect("phone", username="alice"))
                await read(socket, 1)


@on_loop
async def test_text_and_garbage_are_refused(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        async with connect(url(server), subprotocols=MQTT) as socket:
            await socket.send("text")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1003
        client = await server.open("websocket")
        client.send(b"\x10\x20garbage\r\n\r\n")
        await client.gone()
        async with connect(url(server), subprotocols=MQTT) as socket:
            await socket.send(b"\x00\x00")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert server.counts["malformed_packets"] == 2


@on_loop
async def test_an_end_without_disconnect_fires_the_will(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        async with connect(url(server), subprotocols=MQTT) as socket:
            await socket.send(packets.connect("phone", username="alice", will=Will(UP, b"gone")))
            await read(socket, 1)
        await server.handler.saw("will", "alice", "phone", b"gone")
        async with connect(url(server), subprotocols=MQTT) as socket:
            await socket.send(packets.connect("phone", username="alice", will=Will(UP, b"never")))
            await read(socket, 1)
            await socket.send(packets.packet(packets.DISCONNECT))
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert server.handler.log.count(("detached", "alice", "phone")) == 2
        assert ("will", "alice", "phone", b"never") not in server.handler.log


@on_loop
async def test_the_handshake_must_come_in_time(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"connect_timeout_s": 0.05}) as server:
        client = await server.open("websocket")
        assert await client.gone() == []
        async with connect(url(server), subprotocols=MQTT) as socket:
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        assert server.counts["closes:connect_timeout"] == 2


async def ask(server: Server, request: bytes) -> str:
    """The status line of what the server answers; it ends the connection."""
    client = await server.open("websocket")
    client.send(request)
    async with asyncio.timeout(PATIENCE_S):
        answer = (await client.reader.read()).decode()
    await client.close()
    return answer.partition("\r\n")[0]


def request(*headers: str) -> bytes:
    lines = ("Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", *headers)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    return "\r\n".join(("GET /mqtt HTTP/1.1", *lines, key, "Sec-WebSocket-Protocol: mqtt", "", "")).encode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(f"Cookie: sso={'x' * 9_000}"), "431 Request Header Fields Too Large"),
        (request(*(f"X-{number}: {'x' * 1_000}" for number in range(70))), "431 Request Header Fields Too Large"),
        (request(*(f"X-{number}: x" for number in range(200))), "431 Request Header Fields Too Large"),
        (b"x" * 100_000, "431 Request Header Fields Too Large"),
        (b"POST /mqtt HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "400 Bad Request"),
        (b"nonsense\r\n\r\n", "400 Bad Request"),
        (b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n", "426 Upgrade Required"),
    ],
)
@on_loop
async def test_a_request_that_is_none_is_answered_counted_and_told(
    tmp_path: Path, sent: bytes, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mqtt_im.mqtt")
    async with Server(tmp_path) as server:
        assert await ask(server, sent) == f"HTTP/1.1 {status}"
        assert server.counts[f"connects_refused:http_{status[:3]}"] == 1
        assert f"a WebSocket from 127.0.0.1 is refused: {status}" in caplog.text


@on_loop
async def test_headers_within_the_limits_pass(tmp_path: Path) -> None:
    async with (
        Server(tmp_path) as server,
        connect(url(server), subprotocols=MQTT, additional_headers={"Cookie": "x" * 8_000}) as socket,
    ):
        await socket.send(packets.connect("phone", username="alice"))
        await read(socket, 1)


@pytest.mark.parametrize(("proxies", "address"), [(("127.0.0.0/8",), "192.0.2.7"), ((), "127.0.0.1")])
@on_loop
async def test_a_trusted_proxy_tells_the_clients_address(tmp_path: Path, proxies: tuple[str, ...], address: str) -> None:
    async with (
        Server(tmp_path, trusted_proxies=proxies) as server,
        connect(url(server), subprotocols=MQTT, additional_headers={"X-Forwarded-For": "6.6.6.6, 192.0.2.7"}) as socket,
    ):
        await socket.send(packets.connect("phone", username="alice"))
        await read(socket, 1)
        (connection,) = server.hub.live.values()
        assert connection.address == address
