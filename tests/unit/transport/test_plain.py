"""Plain topics: QoS 0, 1, 2 both ways, redelivery, retained messages, queues of clients that are away, wills."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mqtt_im.transport.api import FIRST_PLAIN_PACKET_ID
from tests.support import packets
from tests.support.packets import Will
from tests.unit.transport.harness import Client, Server, all_of, on_loop

OPEN = ("#",)


async def publish(client: Client, topic: str, payload: bytes, qos: int = 1, packet_id: int = 1, retain: bool = False) -> None:
    """Publish, and complete the handshake."""
    client.send(packets.publish(topic, payload, qos=qos, packet_id=packet_id, retain=retain))
    if qos == 1:
        await client.expect(packets.PUBACK, packet_id)
    elif qos == 2:
        await client.expect(packets.PUBREC, packet_id)
        client.send(packets.acknowledge(packets.PUBREL, packet_id))
        await client.expect(packets.PUBCOMP, packet_id)


async def receive(client: Client) -> bytes:
    """Take one message, complete the handshake, return its payload."""
    message = await client.message()
    if message.qos == 1:
        client.send(packets.acknowledge(packets.PUBACK, message.packet_id))
    elif message.qos == 2:
        client.send(packets.acknowledge(packets.PUBREC, message.packet_id))
        await client.expect(packets.PUBREL, message.packet_id)
        client.send(packets.acknowledge(packets.PUBCOMP, message.packet_id))
    return message.payload


@pytest.mark.parametrize("subscribed", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("clean", [True, False])
@on_loop
async def test_every_pair_of_qos(tmp_path: Path, subscribed: int, published: int, clean: bool) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        subscriber, publisher = await server.connect("s", clean=clean), await server.connect("p", clean=clean)
        assert await subscriber.subscribe(("a/+", subscribed)) == [subscribed]
        for number in range(5):
            await publish(publisher, "a/b", b"%d" % number, published, packet_id=9)
        for number in range(5):
            message = await subscriber.message()
            assert (message.payload, message.qos, message.retain) == (b"%d" % number, min(subscribed, published), False)
            if message.qos == 1:
                subscriber.send(packets.acknowledge(packets.PUBACK, message.packet_id))
            if message.qos == 2:
                subscriber.send(packets.acknowledge(packets.PUBREC, message.packet_id))
        if min(subscribed, published) == 2:
            for _ in range(5):
                released = await subscriber.expect(packets.PUBREL)
                subscriber.send(packets.acknowledge(packets.PUBCOMP, released.packet_id))
        await subscriber.silent()


@on_loop
async def test_qos_2_repeats_are_not_routed_again(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        subscriber, publisher = await server.connect("s"), await server.connect("p", clean=False)
        await subscriber.subscribe(("a", 2))
        publisher.send(packets.publish("a", b"x", qos=2, packet_id=5))
        await publisher.expect(packets.PUBREC, 5)
        await publisher.close()
        publisher = await server.connect("p", clean=False, present=True)
        publisher.send(packets.publish("a", b"x", qos=2, packet_id=5, dup=True))
        await publisher.expect(packets.PUBREC, 5)
        assert await receive(subscriber) == b"x"
        await subscriber.silent()


@on_loop
async def test_unacknowledged_messages_come_again_with_dup_and_their_identifier(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        subscriber, publisher = await server.connect("s", clean=False), await server.connect("p")
        await subscriber.subscribe(("a", 2))
        for number, qos in enumerate((1, 2, 2, 1)):
            await publish(publisher, "a", b"%d" % number, qos)
        first = [await subscriber.message() for _ in range(4)]
        assert all(message.packet_id >= FIRST_PLAIN_PACKET_ID for message in first)
        subscriber.send(packets.acknowledge(packets.PUBREC, first[1].packet_id))
        await subscriber.expect(packets.PUBREL, first[1].packet_id)
        await subscriber.close()
        await server.stored()
        crash = server.copy_of_disk(tmp_path.parent / f"{tmp_path.name}-crash")
        subscriber = await server.connect("s", clean=False, present=True)
        await _redelivered(subscriber, first)
    async with Server(crash, plain_topics=OPEN) as server:
        subscriber = await server.connect("s", clean=False, present=True)
        await _redelivered(subscriber, first)
        for message in (first[0], first[3]):
            subscriber.send(packets.acknowledge(packets.PUBACK, message.packet_id))
        subscriber.send(packets.acknowledge(packets.PUBCOMP, first[1].packet_id))
        subscriber.send(packets.acknowledge(packets.PUBREC, first[2].packet_id))
        await subscriber.expect(packets.PUBREL, first[2].packet_id)
        subscriber.send(packets.acknowledge(packets.PUBCOMP, first[2].packet_id))
        await subscriber.disconnect()
        subscriber = await server.connect("s", clean=False, present=True)
        await subscriber.silent()


async def _redelivered(subscriber: Client, first: list[packets.Publish]) -> None:
    for number, before in enumerate(first):
        if number == 1:
            await subscriber.expect(packets.PUBREL, before.packet_id)
            continue
        again = await subscriber.message()
        assert (again.payload, again.packet_id, again.dup) == (before.payload, before.packet_id, True)
    await subscriber.silent()


@on_loop
async def test_messages_for_who_is_away_survive_a_crash_in_order_and_are_not_retained_ones(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        subscriber, publisher = await server.connect("s", clean=False), await server.connect("p")
        await subscriber.subscribe(("a/#", 1))
        await subscriber.disconnect()
        for number in range(200):
            await publish(publisher, "a/b", b"%d" % number)
        await publish(publisher, "a/b", b"gone", qos=0)
        await publisher.silent()
        crash = server.copy_of_disk(tmp_path.parent / f"{tmp_path.name}-crash")
    async with Server(crash, plain_topics=OPEN) as server:
        subscriber = await server.connect("s", clean=False, present=True)
        for number in range(200):
            message = await subscriber.message()
            assert (message.payload, message.retain, message.dup) == (b"%d" % number, False, False)
            subscriber.send(packets.acknowledge(packets.PUBACK, message.packet_id))
        await subscriber.silent()


@on_loop
async def test_the_queue_of_who_is_away_is_bounded(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN, limits={"max_queued_messages": 10, "max_inflight": 3}) as server:
        subscriber, publisher = await server.connect("s", clean=False), await server.connect("p")
        await subscriber.subscribe(("a", 1))
        await subscriber.disconnect()
        for number in range(25):
            await publish(publisher, "a", b"%d" % number)
        assert server.counts["plain_dropped"] == 15
        subscriber = await server.connect("s", clean=False, present=True)
        assert [await receive(subscriber) for _ in range(10)] == [b"%d" % number for number in range(15, 25)]
        await subscriber.silent()


@on_loop
async def test_the_window_is_kept(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN, limits={"max_inflight": 3}) as server:
        subscriber, publisher = await server.connect("s"), await server.connect("p")
        await subscriber.subscribe(("a", 1))
        for number in range(10):
            await publish(publisher, "a", b"%d" % number)
        waiting = [await subscriber.message() for _ in range(3)]
        await subscriber.silent()
        for _ in range(7):
            subscriber.send(packets.acknowledge(packets.PUBACK, waiting.pop(0).packet_id))
            waiting.append(await subscriber.message())
        assert waiting[-1].payload == b"9"


@on_loop
async def test_retained_messages(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#", "!secret/#")) as server:
        publisher = await server.connect("p")
        await publish(publisher, "a/b", b"old", retain=True)
        await publish(publisher, "a/b", b"new", qos=2, retain=True)
        await publish(publisher, "a/c", b"zero", qos=0, retain=True)
        await publish(publisher, "a/d", b"removed", retain=True)
        await publish(publisher, "a/d", b"", retain=True)
        await publish(publisher, "secret/x", b"closed", retain=True)
        subscriber = await server.connect("s", clean=False)
        await subscriber.subscribe(("a/+", 1), ("secret/#", 1))
        seen = {message.topic: message for message in [await subscriber.message() for _ in range(2)]}
        assert {topic: (message.payload, message.qos, message.retain) for topic, message in seen.items()} == {
            "a/b": (b"new", 1, True),
            "a/c": (b"zero", 0, True),
        }
        subscriber.send(packets.acknowledge(packets.PUBACK, seen["a/b"].packet_id))
        await subscriber.silent()
        await publish(publisher, "a/b", b"live", retain=True)
        live = await subscriber.message()
        assert (live.payload, live.retain) == (b"live", False)
        subscriber.send(packets.acknowledge(packets.PUBACK, live.packet_id))
        await subscriber.disconnect()
        subscriber = await server.connect("s", clean=False, present=True)
        await subscriber.silent()
        crash = server.copy_of_disk(tmp_path.parent / f"{tmp_path.name}-crash")
    async with Server(crash, plain_topics=OPEN) as server:
        subscriber = await server.connect("t")
        await subscriber.subscribe(("#", 1))
        assert {await receive(subscriber), await receive(subscriber)} == {b"live", b"zero"}
        await subscriber.silent()


@on_loop
async def test_many_retained_messages_are_sent_as_fast_as_they_are_acknowledged(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN, limits={"max_inflight": 4, "max_retained_messages": 50}) as server:
        publisher = await server.connect("p")
        for number in range(60):
            await publish(publisher, f"a/{number}", b"%d" % number, retain=True)
        assert server.counts["plain_dropped"] == 10
        subscriber = await server.connect("s")
        await subscriber.subscribe(("a/#", 1), ("a/+", 0))
        assert sorted([int(await receive(subscriber)) for _ in range(50)]) == list(range(50))
        await subscriber.silent()


@on_loop
async def test_overlapping_filters_deliver_once_at_the_highest_qos(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client = await server.connect("s")
        await client.subscribe(("a/#", 0), ("a/+", 2), ("a/b", 1), ("+/b", 0))
        client.send(packets.publish("a/b", b"x", qos=2, packet_id=1))
        kinds = [(await client.packet()).kind for _ in range(2)]
        assert sorted(kinds) == [packets.PUBLISH, packets.PUBREC]
        await client.silent()


@on_loop
async def test_closed_topics(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("sensors/#", "!sensors/secret/#")) as server:
        client = await server.connect("s")
        wanted = [("sensors/secret/#", 1), ("other", 1), ("#", 1), ("sensors/+/x", 1), ("im/#", 1), ("$share/g/sensors/a", 1)]
        assert await client.subscribe(*wanted) == [0x80, 0x80, 1, 1, 0x80, 0x80]
        client.send(packets.publish("sensors/secret/x", b"no", qos=0) + packets.publish("sensors/a/x", b"yes", qos=0))
        assert await receive(client) == b"yes"
        await client.silent()


@on_loop
async def test_wildcards_never_show_the_prefix_or_dollar_topics(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        spy = await server.connect("spy", "mallory")
        assert await spy.subscribe(("#", 1), ("+/v1/alice/phone/up", 1), ("im/#", 1), ("im/v1/#", 1), ("im/v1/+/down", 1)) == [
            *(1, 1, 1),
            *(0x80, 0x80),
        ]
        alice = await server.connect("phone", "alice")
        await publish(alice, "im/v1/alice/phone/up", b"secret")
        server.handler.links[-1].publish(b"im/v1/alice/down", b"secret", 0)
        assert (await alice.message()).payload == b"secret"
        await spy.silent()


@on_loop
async def test_unsubscribing(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client = await server.connect("s", clean=False)
        await client.subscribe(("a", 1), ("b/#", 1))
        client.send(packets.unsubscribe(9, "a", "never"))
        await client.expect(packets.UNSUBACK, 9)
        await publish(client, "a", b"")
        await client.silent()
        crash = server.copy_of_disk(tmp_path.parent / f"{tmp_path.name}-crash")
    async with Server(crash, plain_topics=OPEN) as server:
        publisher = await server.connect("p")
        await publish(publisher, "a", b"no")
        await publish(publisher, "b/c", b"yes")
        client = await server.connect("s", clean=False, present=True)
        assert await receive(client) == b"yes"
        await client.silent()


@on_loop
async def test_a_will_fires_on_an_unclean_end_only(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        watcher = await server.connect("w")
        await watcher.subscribe(("will/#", 1))
        polite = await server.connect("polite", will=Will("will/polite", b"never"))
        await polite.disconnect()
        taken = await server.connect("taken", will=Will("will/taken", b"taken over", qos=2, retain=True))
        await server.connect("taken")
        await taken.gone()
        assert await receive(watcher) == b"taken over"
        broken = await server.connect("broken", will=Will("will/broken", b"broken", qos=0))
        await broken.close()
        assert await receive(watcher) == b"broken"
        rude = await server.connect("rude", will=Will("will/rude", b"malformed", qos=1))
        rude.send(b"\x00\x00")
        assert await receive(watcher) == b"malformed"
        late = await server.connect("late")
        await late.subscribe(("will/#", 0))
        message = await late.message()
        assert (message.payload, message.retain) == (b"taken over", True)
        await watcher.silent()


@on_loop
async def test_wills_follow_the_publish_rules(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("open",)) as server:
        for number, topic in enumerate(("im/v1/bob/phone/up", "closed", "im/v1/alice/down"), start=1):
            client = await server.connect("phone", will=Will(topic, b"no"))
            await client.close()
            await server.counted("forbidden_publishes", number)
        assert not [entry for entry in server.handler.log if entry[0] == "will"]


@on_loop
async def test_wills_fire_when_the_server_stops_and_are_kept_for_who_is_away(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        away = await server.connect("away", clean=False)
        await away.subscribe(("will", 1))
        await away.disconnect()
        client = await server.connect("phone", will=Will("will", b"server stopped"))
        _, seen = await all_of(server.transport.drain(5), client.gone())
        assert seen == []
    async with Server(tmp_path, plain_topics=OPEN) as server:
        away = await server.connect("away", clean=False, present=True)
        assert await receive(away) == b"server stopped"


@on_loop
async def test_what_was_sent_before_the_end_is_handled_and_a_goodbye_counts(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=OPEN) as server:
        watcher = await server.connect("w")
        await watcher.subscribe(("#", 0))
        server.handler.login_gate = asyncio.Event()
        hasty = await server.open()
        hasty.send(packets.connect("hasty", username="alice", will=Will("will", b"never")))
        hasty.send(packets.subscribe(1, ("x", 1)) + packets.publish("a", b"sent", qos=0) + packets.packet(packets.DISCONNECT))
        hasty.writer.write_eof()
        server.handler.login_gate.set()
        assert [packet.kind for packet in await hasty.gone()] == [packets.CONNACK, packets.SUBACK]
        assert await receive(watcher) == b"sent"
        await watcher.silent()
        assert server.counts["closes:disconnect"] == 1
