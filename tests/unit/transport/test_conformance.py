"""Statements of MQTT 3.1.1 that no other test holds, each by raw bytes. docs/mqtt.md lists all of them with their tests."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from tests.support import packets
from tests.support.packets import Will, packet, text
from tests.unit.transport.harness import Client, Server, on_loop

OPEN = ("#",)
UP = "im/v1/alice/phone/up"


async def publish(client: Client, topic: str, payload: bytes, *, packet_id: int = 1, retain: bool = False) -> None:
    client.send(packets.publish(topic, payload, packet_id=packet_id, retain=retain))
    await client.expect(packets.PUBACK, packet_id)


def connect_with(flags: int, *fields: bytes) -> bytes:
    """A CONNECT whose payload need not be what its flags say."""
    return packet(packets.CONNECT, text("MQTT") + bytes((4, flags)) + b"\0\0" + b"".join(fields))


@on_loop
async def test_texts_are_compared_as_they_came(tmp_path: Path) -> None:
    """MQTT-1.5.3-3, MQTT-4.7.3-4: neither a byte order mark nor another way to write a letter is taken away."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client = await server.connect()
        await client.subscribe(("caf\u00e9", 0), ("a", 0))
        for topic in ("\ufeffa", "cafe\u0301", "Caf\u00e9", "a ", "A", "a/", "/a"):
            client.send(packets.publish(topic, b"other", qos=0))
        client.send(packets.publish("caf\u00e9", b"same", qos=0))
        message = await client.message()
        assert (message.topic, message.payload) == ("caf\u00e9", b"same")
        await client.silent()


@on_loop
async def test_topics_are_up_to_65535_bytes_long(tmp_path: Path) -> None:
    """MQTT-4.7.3-3."""
    topic = "\u20ac" * (65_535 // 3)
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client = await server.connect(clean=False)
        assert await client.subscribe((topic, 1)) == [1]
        client.send(packets.publish(topic, b"long", packet_id=1))
        seen = [await client.packet(), await client.packet()]
        assert sorted(each.kind for each in seen) == [packets.PUBLISH, packets.PUBACK]


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        (0x02, (text("a"), text("alice"))),
        (0x82, (text("a"),)),
        (0x82, (text("a"), text("alice"), text("secret"))),
        (0xC2, (text("a"), text("alice"))),
        (0x02, (text("a"), text("will"), text("message"))),
        (0x06, (text("a"),)),
        (0x06, (text("a"), text("will"))),
        (0x82, (text("a"), text(b"\xff"))),
        (0x06, (text("a"), text(b"\xff"), text("message"))),
        (0x02, (text(b"\xff"),)),
        (0x02, ()),
    ],
)
@on_loop
async def test_the_fields_of_connect_are_those_of_its_flags(tmp_path: Path, flags: int, fields: tuple[bytes, ...]) -> None:
    """MQTT-3.1.2-9, -11, -18 to -21, MQTT-3.1.3-3, -4, -10, -11; MQTT-3.1.4-1: closed without a CONNACK."""
    async with Server(tmp_path) as server:
        client = await server.open()
        client.send(connect_with(flags, *fields))
        assert await client.gone() == []
        assert server.counts["malformed_packets"] == 1


@on_loop
async def test_the_fields_of_connect_stand_in_their_order(tmp_path: Path) -> None:
    """MQTT-3.1.3-1."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        watcher = await server.connect("watcher")
        await watcher.subscribe(("last", 0))
        client = await server.open()
        client.send(connect_with(0xC6, text("phone"), text("last"), text(b"words\0"), text("bob"), text(b"\xffsecret")))
        await client.expect(packets.CONNACK)
        assert ("login", "bob", "phone", b"\xffsecret") in server.handler.log
        await client.close()
        message = await watcher.message()
        assert (message.topic, message.payload) == ("last", b"words\0")


@pytest.mark.parametrize("client_id", ["a", "Z9", string.digits + string.ascii_lowercase[:13], string.ascii_uppercase[:23]])
@on_loop
async def test_client_ids_of_1_to_23_letters_and_digits_are_allowed(tmp_path: Path, client_id: str) -> None:
    """MQTT-3.1.3-5."""
    async with Server(tmp_path) as server:
        client = await server.connect(client_id)
        await client.silent()


@on_loop
async def test_nothing_behind_a_refused_connect_is_handled(tmp_path: Path) -> None:
    """MQTT-3.1.4-5, MQTT-3.2.2-5."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        watcher = await server.connect("watcher")
        await watcher.subscribe(("#", 1))
        client = await server.open()
        client.send(
            packets.connect("phone", username="bob", password="wrong", will=Will("will", b"never"))
            + packets.publish("a", b"never", packet_id=1)
            + packets.publish("im/v1/bob/phone/up", b"never", packet_id=2)
        )
        assert [each.body for each in await client.gone()] == [b"\x00\x04"]
        assert not server.handler.uplinks
        await watcher.silent()


@on_loop
async def test_a_will_is_published_once_and_belongs_to_its_connection(tmp_path: Path) -> None:
    """MQTT-3.1.2-8, -10, -12: the next connection of the same session has no will of its own."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        watcher = await server.connect("watcher")
        await watcher.subscribe(("will", 0))
        client = await server.connect(clean=False, will=Will("will", b"once"))
        await client.close()
        assert (await watcher.message()).payload == b"once"
        client = await server.connect(clean=False, present=True)
        await client.close()
        await server.counted("closes:lost", 2)
        await watcher.silent()


@on_loop
async def test_retained_messages_are_no_part_of_a_session(tmp_path: Path) -> None:
    """MQTT-3.1.2-7."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        publisher = await server.connect("publisher")
        await publish(publisher, "a", b"kept", retain=True)
        await publisher.disconnect()
        await server.connect("publisher")
        client = await server.connect()
        await client.subscribe(("a", 0))
        assert (await client.message()).payload == b"kept"


@on_loop
async def test_a_retained_message_is_replaced_by_retained_ones_alone(tmp_path: Path) -> None:
    """MQTT-3.3.1-5, -7, -11, -12: by one at QoS 0 too; not by a message without RETAIN, empty or not."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client = await server.connect()
        await publish(client, "a", b"first", retain=True)
        await publish(client, "a", b"not retained")
        await publish(client, "a", b"")
        await client.subscribe(("a", 2))
        message = await client.message()
        assert (message.payload, message.qos, message.retain) == (b"first", 1, True)
        client.send(packets.acknowledge(packets.PUBACK, message.packet_id))
        client.send(packets.publish("a", b"second", qos=0, retain=True))
        assert (await client.message()).retain is False
        await client.subscribe(("a", 2))
        message = await client.message()
        assert (message.payload, message.qos, message.retain) == (b"second", 0, True)
        await publish_and_take(client, "a", b"", retain=True)
        await client.subscribe(("a", 2))
        await client.silent()


async def publish_and_take(client: Client, topic: str, payload: bytes, *, retain: bool = False) -> None:
    """Publish to oneself at QoS 1 and finish both handshakes."""
    client.send(packets.publish(topic, payload, packet_id=1, retain=retain))
    for _ in range(2):
        answer = await client.packet()
        if answer.kind == packets.PUBLISH:
            client.send(packets.acknowledge(packets.PUBACK, packets.Publish.of(answer).packet_id))
        else:
            assert answer.kind == packets.PUBACK


@on_loop
async def test_dup_is_not_handed_on(tmp_path: Path) -> None:
    """MQTT-3.3.1-3; MQTT-4.3.2-2: once it was acknowledged, the identifier names a new message, DUP or not."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        subscriber, publisher = await server.connect("s"), await server.connect("p")
        await subscriber.subscribe(("a", 1))
        for _ in range(2):
            publisher.send(packets.publish("a", b"x", packet_id=7, dup=True))
            await publisher.expect(packets.PUBACK, 7)
        messages = [await subscriber.message() for _ in range(2)]
        assert not any(message.dup for message in messages)
        assert messages[0].packet_id != messages[1].packet_id


@on_loop
async def test_subscribing_again_replaces_and_brings_what_is_retained(tmp_path: Path) -> None:
    """MQTT-3.8.4-3, -4, -6."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client, publisher = await server.connect(clean=False), await server.connect("p")
        await publish(publisher, "a", b"kept", retain=True)
        for qos in (2, 0):
            assert await client.subscribe(("b", 1), ("a", qos), ("b", 0)) == [1, qos, 0]
            message = await client.message()
            assert (message.payload, message.qos, message.retain) == (b"kept", min(qos, 1), True)
            if message.qos:
                client.send(packets.acknowledge(packets.PUBACK, message.packet_id))
        for topic in ("a", "b"):
            await publish(publisher, topic, b"live")
            message = await client.message()
            assert (message.topic, message.qos, message.retain) == (topic, 0, False)
        await client.silent()


@on_loop
async def test_unsubscribing_takes_exactly_the_filter_it_names(tmp_path: Path) -> None:
    """MQTT-3.10.4-1, -2, -6."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client = await server.connect()
        await client.subscribe(("a/b", 0), ("c/+", 0), ("d", 0), ("e", 0))
        client.send(packets.unsubscribe(9, "a/+", "#", "c/#", "c/x", "d", "e"))
        await client.expect(packets.UNSUBACK, 9)
        for topic in ("d", "e", "a/b", "c/d"):
            client.send(packets.publish(topic, b"", qos=0))
        assert [(await client.message()).topic for _ in range(2)] == ["a/b", "c/d"]
        await client.silent()


@on_loop
async def test_what_is_in_flight_is_finished_after_unsubscribing(tmp_path: Path) -> None:
    """MQTT-3.10.4-3, and MQTT-4.4.0-1 when the client reconnects in between."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client, publisher = await server.connect(clean=False), await server.connect("p")
        await client.subscribe(("a", 2))
        publisher.send(packets.publish("a", b"started", qos=2, packet_id=1))
        await publisher.expect(packets.PUBREC, 1)
        message = await client.message()
        client.send(packets.unsubscribe(9, "a"))
        await client.expect(packets.UNSUBACK, 9)
        await client.close()
        client = await server.connect(clean=False, present=True)
        again = await client.message()
        assert (again.payload, again.packet_id, again.dup) == (b"started", message.packet_id, True)
        client.send(packets.acknowledge(packets.PUBREC, again.packet_id))
        await client.expect(packets.PUBREL, again.packet_id)
        client.send(packets.acknowledge(packets.PUBCOMP, again.packet_id))
        await client.silent()


@pytest.mark.parametrize("clean", [True, False])
@on_loop
async def test_pubrels_leave_in_the_order_of_the_pubrecs(tmp_path: Path, clean: bool) -> None:
    """MQTT-4.6.0-4, which binds a server that sends: MQTT-4.6.0-6."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client, publisher = await server.connect(clean=clean), await server.connect("p")
        await client.subscribe(("a", 2))
        for packet_id in range(1, 6):
            publisher.send(packets.publish("a", b"", qos=2, packet_id=packet_id))
        identifiers = [(await client.message()).packet_id for _ in range(5)]
        shuffled = [identifiers[index] for index in (3, 0, 4, 1, 2)]
        client.send(b"".join(packets.acknowledge(packets.PUBREC, packet_id) for packet_id in shuffled))
        assert [(await client.expect(packets.PUBREL)).packet_id for _ in range(5)] == shuffled


@on_loop
async def test_messages_of_one_client_keep_their_order_on_one_topic(tmp_path: Path) -> None:
    """MQTT-4.6.0-5, -6: to who is there and to who is away, whatever is acknowledged first."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        there, away = await server.connect("there"), await server.connect("away", clean=False)
        for client in (there, away):
            await client.subscribe(("a", 1))
        await away.disconnect()
        publisher = await server.connect("p")
        publisher.send(b"".join(packets.publish("a", b"%d" % number, packet_id=number) for number in range(1, 51)))
        wanted = [b"%d" % number for number in range(1, 51)]
        assert [(await there.message()).payload for _ in range(50)] == wanted
        away = await server.connect("away", clean=False, present=True)
        assert [(await away.message()).payload for _ in range(50)] == wanted


@on_loop
async def test_an_uplink_identifier_is_free_after_its_puback(tmp_path: Path) -> None:
    """MQTT-2.3.1-6, MQTT-4.3.2-2: what DUP means for requests without `id` is the bridge's rule, the transport hands all on."""
    async with Server(tmp_path) as server:
        client = await server.connect()
        for dup in (False, False, True):
            client.send(packets.publish(UP, b"x", packet_id=7, dup=dup))
            await client.expect(packets.PUBACK, 7)
        assert [(packet_id, dup) for _, _, _, packet_id, dup in server.handler.uplinks] == [(7, False), (7, False), (7, True)]


@on_loop
async def test_session_state_lasts_as_long_as_its_connection(tmp_path: Path) -> None:
    """MQTT-4.1.0-1, -2: of a clean session too, and not a moment longer."""
    async with Server(tmp_path, plain_topics=OPEN) as server:
        client = await server.connect(clean=True)
        await client.subscribe(("a", 2))
        client.send(packets.publish("a", b"x", qos=2, packet_id=3))
        seen = [await client.packet(), await client.packet()]
        assert sorted(each.kind for each in seen) == [packets.PUBLISH, packets.PUBREC]
        client.send(packets.publish("a", b"x", qos=2, packet_id=3, dup=True))
        await client.expect(packets.PUBREC, 3)
        await client.silent()
        await client.close()
        client = await server.connect(clean=False)
        client.send(packets.publish("a", b"y", qos=2, packet_id=3))
        await client.expect(packets.PUBREC, 3)
        await client.silent()
