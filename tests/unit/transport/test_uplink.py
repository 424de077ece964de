"""What a device publishes on its `up`: the order of acknowledgements, QoS 2, refusals, and backpressure."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from mqtt_im.transport.accepting import SILENT_S, is_lost
from mqtt_im.transport.api import FIRST_PLAIN_PACKET_ID
from mqtt_im.transport.embedded.connection import Connection
from tests.support import packets
from tests.unit.transport.harness import Server, on_loop

UP = "im/v1/alice/phone/up"


@pytest.mark.parametrize("size", [0, 1, 90, 200, 16_300, 16_400, 200_000])
@on_loop
async def test_every_size_arrives_and_leaves_whole(tmp_path: Path, size: int) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        payload = bytes(index % 251 for index in range(size))
        client.send(packets.publish(UP, payload, packet_id=1))
        await client.expect(packets.PUBACK, 1)
        link, received, *_ = server.handler.uplinks[0]
        assert received == payload
        link.publish(b"im/v1/alice/down", payload, 77)
        message = await client.message()
        assert (message.payload, message.qos, message.packet_id, message.dup) == (payload, 1, 77, False)
        link.publish(b"im/v1/alice/down", payload, 0, retain=True)
        message = await client.message()
        assert (message.payload, message.qos, message.retain) == (payload, 0, True)


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
@on_loop
async def test_packets_may_be_cut_anywhere(tmp_path: Path, piece: int) -> None:
    async with Server(tmp_path) as server:
        client = await server.open()
        stream = packets.connect("phone", username="alice")
        for number in range(1, 4):
            stream += packets.publish(UP, b"x" * 100 * number, packet_id=number)
        stream += packets.acknowledge(packets.PUBACK, 9) + packets.packet(packets.PINGREQ)
        for at in range(0, len(stream), piece):
            client.send(stream[at : at + piece])
            await asyncio.sleep(0)
        kinds = [(await client.packet()).kind for _ in range(5)]
        assert kinds == [packets.CONNACK, packets.PUBACK, packets.PUBACK, packets.PUBACK, packets.PINGRESP]
        assert ("acked", "phone", 9) in server.handler.log


@on_loop
async def test_acknowledgements_leave_in_the_order_of_arrival(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("open",)) as server:
        handler = server.handler
        handler.answer_at_once = False
        client = await server.connect()
        client.send(
            packets.publish(UP, b"a", packet_id=11)
            + packets.publish("open", b"", packet_id=12)
            + packets.publish(UP, b"b", qos=2, packet_id=13)
            + packets.publish("closed", b"", packet_id=14)
            + packets.publish(UP, b"c", packet_id=15)
            + packets.publish(UP, b"d", qos=0)
        )
        await handler.until(lambda: len(handler.uplinks) == 4)
        await client.silent()
        tokens = {payload: token for _, payload, token, *_ in handler.uplinks}
        link = handler.links[0]
        assert tokens[b"d"] == 0
        link.done(tokens[b"c"])
        link.done(tokens[b"b"])
        await client.silent()
        link.done(tokens[b"a"])
        answers = [await client.packet() for _ in range(5)]
        assert [(packet.kind, packet.packet_id) for packet in answers] == [
            (packets.PUBACK, 11),
            (packets.PUBACK, 12),
            (packets.PUBREC, 13),
            (packets.PUBACK, 14),
            (packets.PUBACK, 15),
        ]


@on_loop
async def test_a_failed_uplink_closes_after_the_answers_before_it(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        handler = server.handler
        handler.answer_at_once = False
        client = await server.connect()
        client.send(b"".join(packets.publish(UP, b"%d" % number, packet_id=number) for number in (1, 2, 3)))
        await handler.until(lambda: len(handler.uplinks) == 3)
        link = handler.links[0]
        first, second, third = (token for _, _, token, *_ in handler.uplinks)
        link.done(third)
        link.publish(b"im/v1/alice/down", b"error", 0)
        link.fail(second)
        client.send(packets.publish(UP, b"4", packet_id=4))
        await client.message()
        link.done(first)
        assert [packet.packet_id for packet in await client.gone()] == [1]
        assert len(handler.uplinks) == 3
        await handler.saw("detached", "alice", "phone")


@on_loop
async def test_a_failed_qos_0_uplink_closes_too(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        server.handler.links[0].fail(0)
        assert await client.gone() == []


@on_loop
async def test_qos_2_is_handed_in_once(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect(clean=False)
        publish = packets.publish(UP, b"once", qos=2, packet_id=7)
        client.send(publish + publish)
        await client.expect(packets.PUBREC, 7)
        client.send(packets.publish(UP, b"once", qos=2, packet_id=7, dup=True))
        await client.expect(packets.PUBREC, 7)
        await client.close()
        await server.handler.saw("detached", "alice", "phone")
        again = await server.connect(clean=False, present=True)
        again.send(packets.publish(UP, b"once", qos=2, packet_id=7, dup=True))
        await again.expect(packets.PUBREC, 7)
        crash = server.copy_of_disk(tmp_path.parent / f"{tmp_path.name}-crash")
        assert len(server.handler.uplinks) == 1
    async with Server(crash) as server:
        client = await server.connect(clean=False, present=True)
        client.send(packets.publish(UP, b"once", qos=2, packet_id=7, dup=True))
        await client.expect(packets.PUBREC, 7)
        assert not server.handler.uplinks
        client.send(packets.acknowledge(packets.PUBREL, 7))
        await client.expect(packets.PUBCOMP, 7)
        client.send(packets.acknowledge(packets.PUBREL, 7))
        await client.expect(packets.PUBCOMP, 7)
        client.send(packets.publish(UP, b"another", qos=2, packet_id=7))
        await client.expect(packets.PUBREC, 7)
        assert [payload for _, payload, *_ in server.handler.uplinks] == [b"another"]


@on_loop
async def test_a_qos_2_uplink_without_an_answer_is_handed_in_again(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        handler = server.handler
        handler.answer_at_once = False
        client = await server.connect(clean=False)
        client.send(packets.publish(UP, b"lost", qos=2, packet_id=7))
        await handler.until(lambda: bool(handler.uplinks))
        handler.links[0].fail(handler.uplinks[0][2])
        assert await client.gone() == []
        client = await server.connect(clean=False, present=True)
        client.send(packets.publish(UP, b"lost", qos=2, packet_id=7, dup=True))
        await handler.until(lambda: len(handler.uplinks) == 2)
        handler.links[1].done(handler.uplinks[1][2])
        await client.expect(packets.PUBREC, 7)


@on_loop
async def test_dup_and_identifier_are_handed_on_and_retain_is_ignored(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        client = await server.connect()
        client.send(packets.publish(UP, b"x", packet_id=300, dup=True, retain=True))
        await client.expect(packets.PUBACK, 300)
        assert ("uplink", "phone", b"x", 300, True) in server.handler.log
        assert not server.hub.plain.retained.messages


@on_loop
async def test_pubacks_of_items_go_to_the_bridge_and_others_do_not(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        for packet_id in (1, FIRST_PLAIN_PACKET_ID - 1, FIRST_PLAIN_PACKET_ID, 65_535):
            client.send(packets.acknowledge(packets.PUBACK, packet_id))
        await client.silent()
        acked = [entry[2] for entry in server.handler.log if entry[0] == "acked"]
        assert acked == [1, FIRST_PLAIN_PACKET_ID - 1]


@on_loop
async def test_publishes_outside_ones_own_up_are_dropped_and_in_the_end_cost_the_connection(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"forbidden_publishes_per_minute": 5}) as server:
        client = await server.connect()
        topics = ["im/v1/bob/phone/up", "im/v1/alice/down", "im/v1/alice/tablet/up", "other", "$SYS/x", "im/v1/alice/phone/up/x"]
        for number, topic in enumerate(topics, start=1):
            client.send(packets.publish(topic, b"", packet_id=number))
        assert [packet.packet_id for packet in await client.gone()] == [1, 2, 3, 4, 5]
        assert server.counts["forbidden_publishes"] == 6
        assert not server.handler.uplinks


@on_loop
async def test_a_window_full_of_unanswered_uplinks_stops_reading_more(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_inflight": 1, "max_packet_bytes": 4096}) as server:
        handler = server.handler
        handler.answer_at_once = False
        client = await server.connect()
        window = server.hub.max_pending
        many = 20 * window
        client.send(b"".join(packets.publish(UP, b"x" * 1000, packet_id=number) for number in range(1, many + 1)))
        client.send(packets.packet(packets.PINGREQ))
        await handler.until(lambda: len(handler.uplinks) == window)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(handler.uplinks) == window
        handler.answer_at_once = True
        # Out of order: they leave in one go.
        for link, _, token, *_ in reversed(handler.uplinks[:]):
            link.done(token)
        acknowledged = [packet.packet_id for packet in [await client.packet() for _ in range(many + 1)] if packet.body]
        assert acknowledged == list(range(1, many + 1))


@on_loop
async def test_who_has_gone_is_noticed_also_where_nothing_is_read_from_it_and_no_keep_alive_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that does not read a socket is not told that it is lost, and then its client was online for ever."""
    monkeypatch.setattr("mqtt_im.transport.embedded.socket._LOOK_S", 0.01)
    async with Server(tmp_path, limits={"max_inflight": 1, "max_packet_bytes": 4096}) as server:
        server.handler.answer_at_once = False
        client = await server.connect(keepalive=0)
        many = 20 * server.hub.max_pending
        client.send(b"".join(packets.publish(UP, b"x" * 1000, packet_id=number) for number in range(1, many)))
        (connection,) = server.hub.live.values()
        assert isinstance(connection, Connection)
        while not connection._paused:  # noqa: ASYNC110 - nobody is told of that
            await asyncio.sleep(0)
        assert not is_lost(connection.transport.get_extra_info("socket")), "as long as it is there"
        there = client.writer.get_extra_info("socket")
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # what the kernel does is all there is
        client.writer.transport.abort()
        await server.counted("closes:lost")


@pytest.mark.parametrize("listener", ["mqtt", "websocket"])
@on_loop
async def test_the_kernel_asks_whether_anybody_is_there(tmp_path: Path, listener: str) -> None:
    async with Server(tmp_path) as server:
        await server.open(listener)
        await server.handler.until(lambda: bool(server.hub.sockets))
        (accepted,) = server.hub.sockets
        assert isinstance(accepted, Connection)
        there = accepted.transport.get_extra_info("socket")
        assert there.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert there.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == SILENT_S


@on_loop
async def test_pingreq_and_puback_pass_what_waits(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_inflight": 1}) as server:
        handler = server.handler
        handler.answer_at_once = False
        client = await server.connect()
        many = server.hub.max_pending + 5
        client.send(b"".join(packets.publish(UP, b"x", packet_id=number) for number in range(1, many + 1)))
        client.send(packets.acknowledge(packets.PUBACK, 42))
        await client.silent()
        assert ("acked", "phone", 42) in handler.log
        assert len(handler.uplinks) == server.hub.max_pending
        for link, _, token, *_ in handler.uplinks[:]:
            link.done(token)
        await handler.until(lambda: len(handler.uplinks) == many)
        for link, _, token, *_ in handler.uplinks[-5:]:
            link.done(token)


@on_loop
async def test_the_request_rate_delays_and_is_shared_by_a_users_connections(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"requests_per_second": 50}) as server:
        phone, tablet = await server.connect("phone"), await server.connect("tablet")
        for number in range(1, 56):
            phone.send(packets.publish(UP, b"x", packet_id=number))
            tablet.send(packets.publish("im/v1/alice/tablet/up", b"x", packet_id=number))
        for client in (phone, tablet):
            for number in range(1, 56):
                await client.expect(packets.PUBACK, number)
        assert server.counts["throttled"]
        assert not [entry for entry in server.handler.log if entry[0] == "rate_limited"]


@on_loop
async def test_far_beyond_the_rate_requests_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.connection.FAR_BEYOND_S", 0.2)
    async with Server(tmp_path, limits={"requests_per_second": 10}) as server:
        client = await server.connect()
        client.send(b"".join(packets.publish(UP, b"x", packet_id=number) for number in range(1, 101)))
        answers = [packet.packet_id for packet in await client.gone()]
        assert answers == list(range(1, len(answers) + 1))
        assert 17 <= len(answers) < 30  # the login has cost three
        assert ("rate_limited", "phone", b"x") in server.handler.log


@on_loop
async def test_who_says_no_more_still_gets_the_answers(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("open",)) as server:
        handler = server.handler
        handler.answer_at_once = False
        client = await server.connect(clean=False)
        client.send(packets.publish(UP, b"last", packet_id=1) + packets.publish("open", b"", packet_id=2, retain=True))
        client.send(packets.subscribe(3, ("open", 1)))
        client.writer.write_eof()
        await handler.until(lambda: bool(handler.uplinks))
        await server.stored()
        link, _, token, *_ = handler.uplinks[0]
        link.done(token)
        seen = [(packet.kind, packet.packet_id) for packet in await client.gone() if packet.kind != packets.PUBLISH]
        assert sorted(seen) == [(packets.PUBACK, 1), (packets.PUBACK, 2), (packets.SUBACK, 3)]
        assert server.counts["closes:lost"] == 1
