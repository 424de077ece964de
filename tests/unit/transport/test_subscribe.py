"""SUBSCRIBE under the prefix: what is granted, at which QoS, and what the bridge is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import packets
from tests.unit.transport.harness import Server, on_loop


@pytest.mark.parametrize(
    ("topic_filter", "asked", "granted"),
    [
        ("im/v1/alice/down", 2, 1),
        ("im/v1/alice/phone/down", 0, 0),
        ("im/v1/alice/#", 2, 1),
        ("im/v1/alice/+/down", 1, 1),
        ("im/v1/alice/+", 2, 1),
        ("im/v1/alice/presence", 1, 1),
        ("im/v1/alice/tablet/down", 1, 1),
        ("im/v1/alice/phone/up", 1, 1),
        ("im/v1/alice", 1, 0x80),
        ("im/v1/bob/presence", 1, 1),
        ("im/v1/carol/presence", 1, 0x80),
        ("im/v1/+/presence", 1, 0x80),
        ("im/v1/bob/down", 1, 0x80),
        ("im/v1/bob/phone/down", 1, 0x80),
        ("im/v1/#", 1, 0x80),
        ("im/v1/+/down", 1, 0x80),
        ("im/v1/+/+/down", 1, 0x80),
        ("im/v1", 1, 0x80),
        ("im/#", 1, 0x80),
        ("#", 1, 0x80),
        ("+/v1/alice/down", 1, 0x80),
        ("$share/g/im/v1/alice/down", 1, 0x80),
        ("$SYS/#", 1, 0x80),
        ("/im/v1/alice/down", 1, 0x80),
    ],
)
@on_loop
async def test_what_is_granted(tmp_path: Path, topic_filter: str, asked: int, granted: int) -> None:
    async with Server(tmp_path) as server:
        server.handler.watchable = {"bob"}
        client = await server.connect()
        assert await client.subscribe((topic_filter, asked)) == [granted]
        assert server.counts["refused_subscriptions"] == (granted == 0x80)


@on_loop
async def test_who_has_suback_is_registered(tmp_path: Path) -> None:
    """What is committed from then on, at whichever server, is offered to the device."""
    async with Server(tmp_path) as server:
        handler = server.handler
        client = await server.connect()
        handler.registered.clear()
        client.send(packets.subscribe(1, ("im/v1/alice/down", 1)))
        await handler.until(lambda: handler.registering == 1)
        client.send(packets.packet(packets.PINGREQ))
        assert (await client.packet()).kind == packets.PINGRESP
        handler.registered.set()
        assert (await client.packet()).kind == packets.SUBACK
        assert handler.told()[0] == "subscribe"


@on_loop
async def test_the_bridge_learns_the_highest_qos_of_the_filters_that_match(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        log, told = server.handler.log, server.handler.told
        client = await server.connect()
        assert ("attached", "alice", "phone", True, False, -1, -1) in log
        await client.subscribe(("im/v1/alice/down", 0))
        assert told() == ("subscribe", "phone", "im/v1/alice/down", 0, -1)
        await client.subscribe(("im/v1/alice/+/down", 1))
        assert told() == ("subscribe", "phone", "im/v1/alice/+/down", 0, 1)
        await client.subscribe(("im/v1/alice/#", 1))
        assert ("subscribe", "phone", "im/v1/alice/#", 1, 1) in log
        assert told() == ("watch", "phone", "alice", 1)
        length = len(log)
        await client.subscribe(("im/v1/alice/down", 0))
        assert len(log) == length, "a repeat is not newly granted"
        client.send(packets.unsubscribe(2, "im/v1/alice/+/down"))
        await client.expect(packets.UNSUBACK, 2)
        assert len(log) == length, "nothing went down"
        client.send(packets.unsubscribe(3, "im/v1/alice/#"))
        await client.expect(packets.UNSUBACK, 3)
        await client.silent()
        assert ("unsubscribed", "phone", 0, -1) in log
        assert ("unwatch", "phone", "alice") in log


@on_loop
async def test_presence_is_watched_with_each_subscribe(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        server.handler.watchable = {"bob"}
        client = await server.connect()
        for _ in range(2):
            await client.subscribe(("im/v1/bob/presence", 2))
        await client.silent()
        assert server.handler.log.count(("watch", "phone", "bob", 1)) == 2
        client.send(packets.unsubscribe(2, "im/v1/bob/presence"))
        await client.expect(packets.UNSUBACK, 2)
        await server.handler.saw("unwatch", "phone", "bob")


@on_loop
async def test_a_client_without_a_device_has_nothing_under_the_prefix(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        client = await server.connect("not a device")
        codes = await client.subscribe(("im/v1/alice/down", 1), ("im/v1/alice/presence", 1), ("#", 1))
        assert codes == [0x80, 0x80, 1]
        client.send(packets.publish("im/v1/alice/phone/up", b"", packet_id=4))
        await client.expect(packets.PUBACK, 4)
        assert not server.handler.uplinks
        assert not server.transport.links("bob")


@on_loop
async def test_subscriptions_are_bounded(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",), limits={"max_subscriptions": 3}) as server:
        client = await server.connect()
        assert await client.subscribe(*((f"a/{number}", 0) for number in range(5))) == [0, 0, 0, 0x80, 0x80]
        assert await client.subscribe(("a/0", 1), ("a/" * 200, 1)) == [1, 0x80]


@on_loop
async def test_a_subscription_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        client = await server.connect(clean=False)
        await client.subscribe(("kept", 1))
        with server.full_disk():
            assert await client.subscribe(("a", 1), ("im/v1/alice/down", 1)) == [0x80, 0x80]
        assert server.counts["session_store_failures"] == 1
        client.send(packets.publish("a", b"", qos=0))
        await client.silent()
        assert await client.subscribe(("a", 1), ("im/v1/alice/down", 1)) == [1, 1]
        assert server.handler.told() == ("subscribe", "phone", "im/v1/alice/down", 1, -1)


@on_loop
async def test_a_plain_publish_that_cannot_be_stored_is_not_acknowledged(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        subscriber = await server.connect("s", clean=False)
        await subscriber.subscribe(("a", 2))
        for qos in (1, 2):
            publisher = await server.connect("p", clean=False, present=qos == 2)
            with server.full_disk():
                publisher.send(packets.publish("a", b"lost", qos=qos, packet_id=3))
                assert await publisher.gone() == []
        publisher = await server.connect("p", clean=False, present=True)
        publisher.send(packets.publish("a", b"found", qos=2, packet_id=3, dup=True))
        await publisher.expect(packets.PUBREC, 3)
        assert (await subscriber.message()).payload == b"found"
        await subscriber.silent()
