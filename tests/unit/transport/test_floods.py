"""Packets that nobody pays for as requests, clients that do not read, and what subscriptions cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mqtt_im.core import costs
from mqtt_im.mqtt import properties as props
from mqtt_im.transport.embedded.buckets import MAX_DEBT_S, Bucket
from mqtt_im.transport.embedded.connection import Connection
from tests.support import packets, packets5
from tests.unit.transport.harness import NOTHING_WAITS, Server, on_loop

PING = packets.packet(packets.PINGREQ)


def test_a_bucket_is_charged_afterwards_and_gives_back() -> None:
    bucket = Bucket(10)
    bucket.take(100.0)
    bucket.charge(9, 100.0)
    assert [bucket.take(100.0) for _ in range(10)] == [0.0] * 10
    assert bucket.take(100.0) == pytest.approx(0.1)
    bucket.charge(-5, 100.0)
    assert [bucket.take(100.0) for _ in range(5)] == [0.0] * 5
    bucket.charge(1_000_000, 100.0)
    assert bucket.take(100.0) == pytest.approx(MAX_DEBT_S)
    bucket.charge(1, 100.0)
    assert bucket.take(100.0) == pytest.approx(MAX_DEBT_S)


def only_connection(server: Server) -> Connection:
    (connection,) = server.hub.live.values()
    assert isinstance(connection, Connection)
    return connection


async def waits(server: Server) -> None:
    """Some of what the client has sent is not looked at, and nothing more is read."""
    connection = only_connection(server)
    await server.handler.until(lambda: connection._rest is not None)
    assert connection._paused
    assert server.counts["throttled"] >= 1


@on_loop
async def test_pings_without_end_are_not_looked_at(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        client.send(PING * 10_000 + packets.publish("im/v1/alice/phone/up", b"later", packet_id=1))
        for _ in range(40):
            await client.expect(packets.PINGRESP)
        await waits(server)
        assert not server.handler.uplinks
        other = await server.connect("phone", "bob")
        await other.silent()


@on_loop
async def test_some_pings_at_once_delay_nothing(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        client.send(PING * 30 + packets.publish("im/v1/alice/phone/up", b"at once", packet_id=1))
        for _ in range(30):
            await client.expect(packets.PINGRESP)
        await client.expect(packets.PUBACK, 1)
        assert server.counts["throttled"] == 0


@pytest.mark.parametrize("kind", [packets.PUBACK, packets.PUBREC, packets.PUBCOMP])
@on_loop
async def test_acknowledgements_of_nothing_are_bounded(tmp_path: Path, kind: int) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        packet_id = NOTHING_WAITS if kind == packets.PUBACK else 0xC000
        client.send(packets.acknowledge(kind, packet_id) * 5_000)
        await server.counted("throttled")
        await client.close()


@on_loop
async def test_acknowledgements_that_were_waited_for_are_free(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        client.send(packets.acknowledge(packets.PUBACK, 7) * 5_000)
        await client.silent()
        assert server.counts["throttled"] == 0


@on_loop
@pytest.mark.parametrize("kind", [packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP])
async def test_acknowledgements_count_by_what_is_in_them(tmp_path: Path, kind: int) -> None:
    """With 500 properties each is taken apart for half a millisecond, and there may be 500 a second on each connection."""
    async with Server(tmp_path) as server:
        client = await server.connect5()
        many = [(props.USER_PROPERTY, ("a", "b"))] * props.MAX_USER_PROPERTIES
        client.send(packets5.acknowledge(kind, 7, 0, many) * 60)
        await server.counted("throttled")


@on_loop
async def test_a_publish_is_paid_for_by_its_properties(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("open/#",), limits={"requests_per_second": 1_000}) as server:
        client = await server.connect5()
        bucket = only_connection(server).bucket
        for given, least in (
            ([(props.USER_PROPERTY, ("a", "b"))] * 500, 500 / costs.PARTS),
            ([(props.USER_PROPERTY, ("a", "x" * 40_000))] * 4, 160_000 / costs.BODY_BYTES),
        ):
            before = max(bucket.paid_until, server.hub.clock())
            client.send(packets5.publish("open/x", b"", packet_id=1, given=given))
            await client.expect(packets.PUBACK, 1)
            assert (bucket.paid_until - before) * 1_000 > least


@on_loop
async def test_what_is_held_is_what_came_in_its_order(tmp_path: Path) -> None:
    """Pings behind a flood, cut anywhere, and publishes between them: all are handled in the end."""
    async with Server(tmp_path) as server:
        client = await server.connect()
        publishes = [packets.publish("im/v1/alice/phone/up", b"%d" % number, packet_id=number) for number in range(1, 6)]
        stream = PING * 41 + b"".join(PING + publish for publish in publishes)
        for at in range(0, len(stream), 7):
            client.send(stream[at : at + 7])
            await client.writer.drain()
        seen = [await client.packet() for _ in range(46 + 5)]
        assert [packet.packet_id for packet in seen if packet.kind == packets.PUBACK] == [1, 2, 3, 4, 5]


@on_loop
async def test_subscriptions_are_paid_for_by_their_filters(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"requests_per_second": 1_000, "max_subscriptions": 2_000}) as server:
        client = await server.connect()
        bucket = only_connection(server).bucket

        async def units(*filters: str) -> float:
            before = bucket.paid_until = server.hub.clock() + 1.0  # so that the time that it takes is no part of it
            await client.subscribe(*((name, 0) for name in filters))
            return (bucket.paid_until - before) * 1_000

        one = await units("im/v1/alice/down")
        many = await units(*(f"im/v1/alice/{number}/down" for number in range(500)))
        presences = await units(*(f"im/v1/user{number}/presence" for number in range(100)))
        again = await units("im/v1/alice/down")
        assert one < 3
        assert many > 100
        assert presences > 200
        assert again > 20


def frame(opcode: int, data: bytes = b"") -> bytes:
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return bytes((0x80 | opcode, 0x80 | len(data))) + mask + body


REQUEST = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


@on_loop
async def test_pings_of_a_websocket_are_bounded_before_the_login_too(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.open("websocket")
        client.send(REQUEST)
        await client.reader.readuntil(b"\r\n\r\n")
        client.send(frame(0x9) * 20_000)
        await server.counted("throttled")
        answered = 0
        while answered < 40:
            assert (await client.reader.readexactly(2)) == b"\x8a\x00"
            answered += 1
        other = await server.connect("phone", "bob")
        await other.silent()


@on_loop
async def test_frames_without_end_are_bounded(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"requests_per_second": 1_000_000}) as server:
        client = await server.open("websocket")
        client.send(REQUEST)
        await client.reader.readuntil(b"\r\n\r\n")
        client.send(frame(0x2, packets.connect("phone", username="alice")))
        client.send(frame(0x2, b"") * 15_000)
        await server.counted("throttled")
