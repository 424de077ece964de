"""What is held for connections is bounded as a sum over all, and costs those who have most of it (INV-16)."""

from __future__ import annotations

import asyncio
import gc
import struct
from pathlib import Path

import pytest
from websockets.server import ServerProtocol

from mqtt_im.shares import Bounds
from mqtt_im.transport.embedded.connection import Connection
from mqtt_im.transport.embedded.hub import USUAL_WRITE_BUFFER
from mqtt_im.transport.embedded.sessions import wills
from mqtt_im.transport.under_way import LARGE, UnderWay
from tests.support import packets, packets5
from tests.support.packets import Will
from tests.unit.transport.harness import Client, Server, on_loop

QUOTA = 0x97
LITTLE = {"memory_mb": 100}
"""The least that may be set: 3 MB are held for connections."""
BIG = 250_000
UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)
FRAME = b"\x82\xff" + struct.pack(">Q", BIG + 1) + b"\0\0\0\0" + b"x" * BIG
"""One that lacks its last byte."""


async def greedy(server: Server, count: int, data: bytes, listener: str = "mqtt") -> list[Client]:
    """So many clients of one user, each of which has sent this."""
    clients = []
    for number in range(count):
        if listener == "mqtt":
            client = await server.connect(f"d{number}", "mallory")
            client.send(data)
        else:
            client = await server.open(listener)
            client.send(data)
        clients.append(client)
    return clients


async def is_bounded(server: Server, gone: int = 1) -> None:
    """Some had to go, and no more is held than may be."""
    await server.counted("closes:memory", gone)
    hub = server.hub
    assert 0 < hub.held.bytes <= hub.held.most
    assert hub.held.bytes == sum(wire.held for wire in hub.sockets if isinstance(wire, Connection) and wire.held > 0)


def half(payload: bytes = b"x" * BIG) -> bytes:
    """A publish that lacks its last byte."""
    return packets.publish("im/v1/mallory/d0/up", payload, packet_id=1)[:-1]


@on_loop
async def test_half_packets_of_one_user_leave_room_for_those_of_others(tmp_path: Path) -> None:
    async with Server(tmp_path, limits=LITTLE) as server:
        alice = await server.connect("phone", "alice")
        whole = packets.publish("im/v1/alice/phone/up", b"y" * 60_000, packet_id=7)
        alice.send(whole[:50_000])
        await greedy(server, 16, half())
        await is_bounded(server)
        alice.send(whole[50_000:])
        await alice.expect(packets.PUBACK, 7)
        assert server.counts["closes:memory"] < 16
        assert {link.user for link in server.handler.links if link.closed} == {"mallory"}


@on_loop
async def test_mqtt_5_is_told_why(tmp_path: Path) -> None:
    async with Server(tmp_path, limits=LITTLE) as server:
        first = await server.connect5("d0", "mallory", given={packets5.SESSION_EXPIRY: 0})
        publish = packets5.publish("im/v1/mallory/d0/up", b"x" * BIG, packet_id=1)[:-1]
        first.send(publish)
        await held(server, len(publish))
        for number in range(1, 16):
            (await server.connect(f"d{number}", "mallory")).send(half())
        assert await first.goodbye() == QUOTA


@on_loop
async def test_what_was_held_is_free_when_it_is_whole_or_its_client_is_gone(tmp_path: Path) -> None:
    async with Server(tmp_path, limits=LITTLE) as server:
        alice = await server.connect("phone", "alice")
        whole = packets.publish("im/v1/alice/phone/up", b"y" * 60_000, packet_id=7)
        for number in range(6):
            alice.send(whole[number * 10_000 : (number + 1) * 10_000])
            await asyncio.sleep(0)
        alice.send(whole[60_000:])
        await alice.expect(packets.PUBACK, 7)
        assert server.hub.held.bytes == 0
        alice.send(whole[:-1])
        await held(server, len(whole) - 1)
        await alice.close()
        await held(server, 0)


async def held(server: Server, size: int) -> None:
    """Wait until so much is held."""
    async with asyncio.timeout(60):
        while server.hub.held.bytes != size:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)


@on_loop
async def test_frames_that_were_begun_count_before_and_after_the_login(tmp_path: Path) -> None:
    async with Server(tmp_path, limits=LITTLE) as server:
        alice = await server.connect("phone", "alice")
        for client in await greedy(server, 32, UPGRADE, "websocket"):
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            client.send(FRAME)
        await is_bounded(server)
        await alice.silent()


@on_loop
async def test_what_came_on_a_websocket_goes_with_it(tmp_path: Path) -> None:
    """Not when all memory is looked through for circles, which may be half an hour later."""
    async with Server(tmp_path) as server:
        client = await server.open("websocket")
        client.send(UPGRADE)
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        gc.disable()
        try:
            client.send(FRAME)
            await held(server, BIG)
            assert large_buffers()
            await client.close()
            await held(server, 0)
            while server.hub.sockets:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            assert not large_buffers()
        finally:
            gc.enable()


def large_buffers() -> list[ServerProtocol]:
    """The WebSockets that keep what has come of a frame."""
    return [one for one in gc.get_objects() if isinstance(one, ServerProtocol) and len(one.reader.buffer) > 1_000]


@on_loop
async def test_topics_that_stand_behind_an_alias_count(tmp_path: Path) -> None:
    async with Server(tmp_path, limits=LITTLE, plain_topics=("#",)) as server:
        alice = await server.connect("phone", "alice")
        for number in range(8):
            client = await server.connect5(f"d{number}", "mallory")
            for alias in range(1, 17):
                topic = f"a{alias}/" + "x" * 60_000
                client.send(packets5.publish(topic, b"", qos=0, given={packets5.ALIAS: alias}))
        await is_bounded(server)
        await alice.silent()


@on_loop
async def test_an_alias_that_is_set_again_counts_once(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        client = await server.connect5("d", "mallory")
        for size in (1_000, 60_000, 10):
            client.send(packets5.publish("x" * size, b"", qos=0, given={packets5.ALIAS: 3}))
        await client.silent()
        assert server.hub.held.bytes == 10


@on_loop
async def test_wills_of_connected_clients_count(tmp_path: Path) -> None:
    async with Server(tmp_path, limits=LITTLE, plain_topics=("#",)) as server:
        alice = await server.connect("phone", "alice", will=Will("gone", b"y" * 60_000, 1))
        for number in range(64):
            await server.connect(f"d{number}", f"mallory{number % 4}", will=Will("gone", b"x" * 65_000, 1))
        await is_bounded(server)
        await alice.silent()


@on_loop
async def test_wills_whose_delay_runs_end_their_sessions_where_they_are_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wills, "USUAL_BYTES", 8 * 3 * 61_000)
    kept = {packets5.SESSION_EXPIRY: 1_000}
    async with Server(tmp_path, plain_topics=("#",)) as server:
        reader = await server.connect5("reader", "bob")
        await reader.subscribe(("gone/#", 1))
        for number in range(5):
            client = await server.connect5(
                f"d{number}",
                "mallory",
                given=kept,
                will=packets5.Will(f"gone/{number}", b"x" * 60_000, properties={packets5.WILL_DELAY: 900}),
            )
            await client.close()
            await server.handler.saw("detached", "mallory", f"d{number}")
        seen = []
        for _ in range(2):
            message = await reader.receive()
            seen.append(message.topic)
            reader.send(packets.packet(packets.PUBACK, message.packet_id.to_bytes(2, "big")))
        assert seen == ["gone/0", "gone/1"], "the sessions that are away longest are over, and so is their delay"
        again = await server.connect5("d0", "mallory", given=kept, clean=False)
        await again.disconnect()
        resumed = await server.connect5("d4", "mallory", given=kept, clean=False, present=True)
        await resumed.disconnect()


@on_loop
async def test_what_a_client_asks_for_and_does_not_read_counts(tmp_path: Path) -> None:
    async with Server(tmp_path, limits=LITTLE) as server:
        await server.connect("phone", "alice")
        await greedy(server, 6, b"")
        links = [link for link in server.handler.links if link.user == "mallory"]
        for client in server._clients[1:]:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            while not server.counts["closes:memory"]:
                for link in links:
                    link.publish(b"im/v1/mallory/down", b"x" * 60_000, 1)
                await asyncio.sleep(0)
        assert server.hub.held.bytes <= server.hub.held.most
        assert server.counts["closes:write_buffer"] == 0


@on_loop
async def test_what_others_send_to_a_client_is_held_against_nobody(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        await server.connect("phone", "alice")
        server._clients[0].writer.transport.pause_reading()  # type: ignore[attr-defined]
        (link,) = server.handler.links
        while link.writable:  # as the bridge does it
            link.publish(b"im/v1/alice/down", b"x" * 60_000, 1)
            await asyncio.sleep(0)
        assert server.hub.held.bytes == 0


def test_with_little_memory_less_waits_for_each_client() -> None:
    assert Bounds(100).of(USUAL_WRITE_BUFFER) < USUAL_WRITE_BUFFER


def test_above_the_bound_each_user_has_one_large_publish_under_way() -> None:
    under_way = UnderWay(100)
    for _ in range(10):
        assert not under_way.full("mallory")
        under_way.add("mallory", 10)
    assert under_way.full("mallory") and not under_way.full("alice")
    under_way.add("alice", 10)
    assert under_way.full("alice") and not under_way.full("bob")
    under_way.add("bob", 90)
    assert under_way.full("carol"), "twice of it there never is"
    for _ in range(10):
        under_way.add("mallory", -10)
    under_way.add("bob", -90)
    assert not under_way.full("alice") and under_way.bytes == 10


@on_loop
async def test_large_publishes_wait_in_the_socket_while_others_have_no_answer(tmp_path: Path) -> None:
    async with Server(tmp_path, limits=LITTLE) as server:
        mallory, alice = await server.connect("d0", "mallory"), await server.connect("phone", "alice")
        link = server.handler.links[0]
        link.under_way(server.hub.under_way.most)
        mallory.send(packets.publish("im/v1/mallory/d0/up", b"x" * (LARGE + 1), packet_id=1))
        alice.send(packets.publish("im/v1/alice/phone/up", b"y" * (LARGE + 1), packet_id=2))
        await alice.expect(packets.PUBACK, 2)
        assert [link.user for link, *_ in server.handler.uplinks] == ["alice"]
        link.under_way(-server.hub.under_way.most)
        await mallory.expect(packets.PUBACK, 1)
        assert server.hub.under_way.bytes == 0


@on_loop
async def test_plain_messages_count_until_they_are_on_disk(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        kept = await server.connect("keeper", "bob", clean=False)
        await kept.subscribe(("big", 1))
        await kept.close()
        await server.handler.saw("detached", "bob", "keeper")
        client = await server.connect("d0", "mallory")
        sizes: list[int] = []
        under_way = server.hub.under_way

        def note(party: str, size: int) -> None:
            sizes.append(size)
            UnderWay.add(under_way, party, size)

        under_way.add = note  # type: ignore[method-assign]
        client.send(packets.publish("big", b"x" * 50_000, packet_id=1))
        await client.expect(packets.PUBACK, 1)
        assert sizes == [50_000, -50_000]
        assert server.hub.under_way.bytes == 0
