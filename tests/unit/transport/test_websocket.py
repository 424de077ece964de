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
