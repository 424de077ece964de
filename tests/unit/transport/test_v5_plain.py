"""MQTT 5 on plain topics: options, identifiers, properties, expiry, shares, wills (PROTOCOL §7)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import packets, packets5
from tests.support.packets5 import Will
from tests.unit.transport.harness import Client5, Server, on_loop

KEEP: dict[int, Any] = {packets5.SESSION_EXPIRY: 100}
NO_LOCAL, AS_PUBLISHED, IF_NEW, NEVER = 4, 8, 0x10, 0x20


def server(folder: Path, **limits: Any) -> Server:
    return Server(folder, plain_topics=("#",), limits=limits)


async def publish(client: Client5, topic: str, payload: bytes, *, qos: int = 1, **options: Any) -> None:
    """Published, and answered with success; what else comes meanwhile is no PUBACK."""
    client.send(packets5.publish(topic, payload, qos=qos, packet_id=9 if qos else 0, **options))
    if qos == 1:
        assert await client.acknowledged(packets.PUBACK, 9) == (0, {})
    elif qos == 2:
        assert await client.acknowledged(packets.PUBREC, 9) == (0, {})
        client.send(packets5.acknowledge(packets.PUBREL, 9))
        assert await client.acknowledged(packets.PUBCOMP, 9) == (0, {})


@on_loop
async def test_properties_pass_unaltered_and_in_order(tmp_path: Path) -> None:
    given = [
        (packets5.USER, ("b", "1")),
        (packets5.CONTENT_TYPE, "text/x"),
        (packets5.USER, ("a", "2")),
        (packets5.FORMAT, 1),
        (packets5.RESPONSE_TOPIC, "answers/here"),
        (packets5.CORRELATION, b"\0\xff"),
        (packets5.USER, ("b", "1")),
    ]
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        old = await here.connect("old")
        assert await reader.subscribe(("t", 2)) == [2]
        assert await old.subscribe(("t", 1)) == [1]
        await publish(writer, "t", b"kept", retain=True, given=given)
        assert (await reader.receive()).properties == given
        assert (await old.message()).payload == b"kept"
        late = await here.connect5("l")
        await late.subscribe(("t", 0))
        message = await late.receive()
        assert (message.properties, message.retain) == (given, True)


@on_loop
async def test_subscription_options(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        client = await here.connect5("c")
        assert await client.subscribe(("quiet", 1 | NO_LOCAL), ("own/#", 1), ("own/+", 1 | NO_LOCAL)) == [1, 1, 1]
        await publish(client, "quiet", b"")
        client.send(packets5.publish("own/x", b"once", packet_id=3))
        assert {(await client.packet()).kind for _ in range(2)} == {packets.PUBLISH, packets.PUBACK}
        await client.silent()
        plain, kept = await here.connect5("p"), await here.connect5("k")
        await plain.subscribe(("r/#", 0))
        await kept.subscribe(("r/#", AS_PUBLISHED))
        await publish(client, "r/1", b"x", retain=True)
        assert not (await plain.receive()).retain
        assert (await kept.receive()).retain
        await publish(client, "r/1", b"y")
        assert not (await kept.receive()).retain


@on_loop
async def test_retain_handling(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        writer, reader = await here.connect5("w"), await here.connect5("r")
        await publish(writer, "r", b"x", retain=True)
        for options, comes in ((NEVER, False), (IF_NEW, False), (0, True), (IF_NEW, False), (0, True)):
            await reader.subscribe(("r", options))
            if comes:
                assert (await reader.receive()).retain
            await reader.silent()
        reader.send(packets5.unsubscribe(5, "r", "r", "x"))
        assert packets5.codes_of(await reader.expect(packets.UNSUBACK, 5)) == [0, 0x11, 0x11]
        await reader.subscribe(("r", IF_NEW))
        assert (await reader.receive()).retain


@on_loop
async def test_all_identifiers_that_match_come_back_in_one_message(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r", given=KEEP), await here.connect5("w")
        await reader.subscribe(("a/+", 1), given={packets5.SUB_ID: 1})
        await reader.subscribe(("a/#", 0), given={packets5.SUB_ID: 268_435_455}, packet_id=2)
        await reader.subscribe(("a/b", 0), packet_id=3)
        await publish(writer, "a/b", b"")
        message = await reader.receive()
        assert message.qos == 1
        assert sorted(value for key, value in message.properties if key == packets5.SUB_ID) == [1, 268_435_455]
        await reader.close()
        await here.handler.saw("detached", "alice", "r")
        await publish(writer, "a/c", b"")
        again = await here.connect5("r", clean=False, present=True, given=KEEP)
        for dup in (True, False):
            message = await again.receive()
            assert message.dup is dup
            assert sorted(value for key, value in message.properties if key == packets5.SUB_ID) == [1, 268_435_455]


@on_loop
async def test_messages_expire_while_they_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]
    monkeypatch.setattr("mqtt_im.clock.Clock.steady", lambda _: int(now[0] * 1000))
    (tmp_path / "a").mkdir()
    async with server(tmp_path / "a") as here:
        reader, writer = await here.connect5("r", given=KEEP), await here.connect5("w")
        await reader.subscribe(("q", 1))
        await reader.disconnect()
        await publish(writer, "q", b"short", given={packets5.EXPIRY: 5})
        await publish(writer, "q", b"long", given={packets5.EXPIRY: 50})
        await publish(writer, "q", b"ever")
        await publish(writer, "kept", b"r", retain=True, given={packets5.EXPIRY: 20})
        await here.stored()
        copy = here.copy_of_disk(tmp_path / "copy")
        now[0] += 10
    async with server(copy) as here:
        reader = await here.connect5("r", clean=False, present=True, given=KEEP)
        message = await reader.receive()
        assert (message.payload, dict(message.properties)) == (b"long", {packets5.EXPIRY: 40})
        assert (await reader.receive()).payload == b"ever"
        late = await here.connect5("l")
        await late.subscribe(("kept", 0))
        assert dict((await late.receive()).properties) == {packets5.EXPIRY: 10}
        now[0] += 11
        await late.subscribe(("kept", 0))
        await late.silent()
        assert not here.hub.plain.retained.messages
        await here.counted("plain_expired")


@on_loop
async def test_a_share_gets_each_message_once(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        members = [await here.connect5(f"m{number}", user) for number, user in enumerate(("alice", "alice", "bob"))]
        for member in members:
            assert await member.subscribe(("$share/g/s/#", 1), given={packets5.SUB_ID: 4}) == [1]
        alone, writer = await here.connect5("a"), await here.connect5("w")
        await alone.subscribe(("s/#", 1))
        await publish(writer, "s/0", b"", retain=True)
        for number in range(1, 6):
            await publish(writer, f"s/{number}", b"")
        assert [(await alone.receive()).topic for _ in range(6)] == [f"s/{number}" for number in range(6)]
        got = [[await member.receive() for _ in range(2)] for member in members]
        assert sorted(message.topic for each in got for message in each) == [f"s/{number}" for number in range(6)]
        assert all(message.properties == [(packets5.SUB_ID, 4)] for each in got for message in each)
        assert await members[0].subscribe(("$share/h/s/#", 0), packet_id=2) == [0]
        await members[0].silent()  # no retained ones


@on_loop
async def test_what_a_member_leaves_goes_to_another(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        one, writer = await here.connect5("one"), await here.connect5("w")
        await one.subscribe(("$share/g/s", 2))
        for number in range(3):
            await publish(writer, "s", str(number).encode(), qos=1 + number % 2)
        for _ in range(3):
            await one.receive()
        two = await here.connect5("two", given=KEEP)
        await two.subscribe(("$share/g/s", 1))
        await one.close()
        got = [await two.receive() for _ in range(2)]
        assert sorted(message.payload for message in got) == [b"0", b"2"]  # at QoS 2 nobody else gets what one was sent
        await two.silent()
        await two.disconnect()
        await publish(writer, "s", b"later")
        again = await here.connect5("two", clean=False, present=True, given=KEEP)
        assert b"later" in {(await again.receive()).payload for _ in range(3)}


@on_loop
async def test_codes_of_subscriptions(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("open/#",), limits={"max_subscriptions": 3}) as here:
        client = await here.connect5("phone")
        asked = ("im/v1/bob/down", "$share/g/im/v1/alice/down", "closed", "$share/g/closed", "im/v1/alice/down", "open/1")
        codes = await client.subscribe(*((name, 2) for name in asked), ("$share/g/open/+", 1), ("open/2", 1))
        assert codes == [0x87, 0x9E, 0x87, 0x87, 1, 2, 1, 0x97]


@on_loop
async def test_the_clients_receive_maximum_holds_for_plain_messages(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r", given={packets5.RECEIVE_MAX: 2, **KEEP}), await here.connect5("w")
        await reader.subscribe(("q", 2))
        for number in range(6):
            await publish(writer, "q", str(number).encode(), qos=1 + number % 2)
        first, second = await reader.receive(), await reader.receive()
        await reader.silent()
        reader.send(packets5.acknowledge(packets.PUBREC, second.packet_id))
        assert (await reader.acknowledged(packets.PUBREL, second.packet_id))[0] == 0
        await reader.silent()
        reader.send(packets5.acknowledge(packets.PUBCOMP, second.packet_id))
        third = await reader.receive()
        reader.send(packets5.acknowledge(packets.PUBACK, 60_000))  # one that nobody sent makes no room
        await reader.silent()
        reader.send(packets5.acknowledge(packets.PUBACK, first.packet_id, 0x80))
        fourth = await reader.receive()
        assert [message.payload for message in (first, second, third, fourth)] == [b"0", b"1", b"2", b"3"]
        reader.send(packets5.acknowledge(packets.PUBREC, fourth.packet_id, 0x97))  # refused: over
        fifth = await reader.receive()
        assert fifth.payload == b"4"
        await here.counted("refused_by_clients", 2)
        await reader.close()
        await here.handler.saw("detached", "alice", "r")
        again = await here.connect5("r", clean=False, present=True, given={packets5.RECEIVE_MAX: 1, **KEEP})
        assert (await again.receive()).payload == b"2"
        await again.silent()


@on_loop
async def test_who_exceeds_the_servers_receive_maximum_is_disconnected(tmp_path: Path) -> None:
    async with server(tmp_path, max_inflight=3) as here:
        here.handler.answer_at_once = False
        client = await here.connect5("phone")
        up = "im/v1/alice/phone/up"
        client.send(b"".join(packets5.publish(up, b"{}", packet_id=number) for number in (1, 2, 3)))
        await client.silent()
        client.send(packets5.publish(up, b"{}", packet_id=4))
        assert await client.goodbye() == 0x93
        client = await here.connect5("x")
        for number in (1, 2, 3):
            client.send(packets5.publish("q", b"", qos=2, packet_id=number))
            await client.expect(packets.PUBREC, number)
        client.send(packets5.publish("q", b"", qos=0))
        await client.silent()
        client.send(packets5.publish("q", b"", qos=2, packet_id=4))
        assert await client.goodbye() == 0x93


@on_loop
async def test_what_is_larger_than_the_client_takes_is_left_out(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r", given={packets5.MAX_PACKET: 100}), await here.connect5("w")
        await reader.subscribe(("q", 1))
        for size in (20, 200, 30):
            await publish(writer, "q", bytes(size))
        assert [len((await reader.receive()).payload) for _ in range(2)] == [20, 30]
        await reader.silent()


@on_loop
async def test_topic_aliases_of_a_client(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        await reader.subscribe(("#", 0))
        for topic, alias in (("one", 1), ("two", 2), ("", 1), ("three", 1), ("", 1), ("", 2)):
            writer.send(packets5.publish(topic, b"", qos=0, given={packets5.ALIAS: alias}))
        messages = [await reader.receive() for _ in range(6)]
        assert [message.topic for message in messages] == ["one", "two", "one", "three", "three", "two"]
        assert all(not message.properties for message in messages)
        up = "im/v1/alice/w/up"
        writer.send(packets5.publish(up, b"1", packet_id=1, given={packets5.ALIAS: 3}))
        writer.send(packets5.publish("", b"2", packet_id=2, given={packets5.ALIAS: 3}))
        for number in (1, 2):
            await writer.acknowledged(packets.PUBACK, number)
        assert [payload for _, payload, *_ in here.handler.uplinks] == [b"1", b"2"]


@on_loop
async def test_wills(tmp_path: Path) -> None:
    properties = [(packets5.USER, ("a", "b")), (packets5.EXPIRY, 50), (packets5.CONTENT_TYPE, "x")]
    async with server(tmp_path) as here:
        reader = await here.connect5("r")
        await reader.subscribe(("w/#", 1))
        for topic, end, comes in (
            ("w/lost", None, True),
            ("w/goodbye", packets5.disconnect(), False),
            ("w/0x04", packets5.disconnect(4), True),
            ("w/error", packets5.disconnect(0x80), True),
        ):
            client = await here.connect5("c", will=Will(topic, b"gone", properties=properties))
            if end is None:
                await client.close()
            else:
                client.send(end)
                await client.gone()
            if comes:
                message = await reader.receive()
                assert message.topic == topic
                assert dict(message.properties) == {packets5.USER: ("a", "b"), packets5.EXPIRY: 50, packets5.CONTENT_TYPE: "x"}
            await reader.silent()


def delayed(topic: str, seconds: int) -> Will:
    return Will(topic, b"gone", properties={packets5.WILL_DELAY: seconds})


@on_loop
async def test_a_delayed_will_waits_for_its_session(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        reader = await here.connect5("r")
        await reader.subscribe(("w/#", 1))
        # The session comes back: no will.
        client = await here.connect5("c", given=KEEP, will=delayed("w/back", 1))
        await client.close()
        await here.handler.saw("detached", "alice", "c")
        client = await here.connect5("c", clean=False, present=True, given=KEEP, will=delayed("w/taken over", 60))
        # A take-over that goes on with the session: none either.
        other = await here.connect5("c", clean=False, present=True, given=KEEP, will=delayed("w/discarded", 60))
        assert await client.goodbye() == 0x8E
        await reader.silent()
        # One that discards it: at once.
        await here.connect5("c", given=KEEP, will=delayed("w/expires", 60))
        assert await other.goodbye() == 0x8E
        assert (await reader.receive()).topic == "w/discarded"
        # Without a session of its own it does not wait, and no longer than the session lives.
        client = await here.connect5("d", will=delayed("w/unkept", 60))
        await client.close()
        assert (await reader.receive()).topic == "w/unkept"
        client = await here.connect5("e", given={packets5.SESSION_EXPIRY: 1}, will=delayed("w/ends", 60))
        await client.close()
        assert (await reader.receive()).topic == "w/ends"
        client = await here.connect5("f", given=KEEP, will=delayed("w/delayed", 1))
        await client.close()
        assert (await reader.receive()).topic == "w/delayed"


@on_loop
async def test_a_running_will_survives_a_restart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    async with server(tmp_path / "a") as here:
        for name, seconds in (("c", 1), ("d", 600)):
            client = await here.connect5(name, given=KEEP, will=delayed(f"w/{name}", seconds))
            await client.close()
            await here.handler.saw("detached", "alice", name)
        await here.stored()
        crash = here.copy_of_disk(tmp_path / "crash")
    async with server(crash) as here:
        reader = await here.connect5("r")
        await reader.subscribe(("w/#", 1))
        assert (await reader.receive()).topic == "w/c"
        await here.connect5("d", clean=False, present=True)
        await here.stored()
        assert here.hub.ground.store.wills() == []


@on_loop
async def test_versions_meet_on_plain_topics(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        new, old = await here.connect5("new"), await here.connect("old")
        await new.subscribe(("t", 2))
        await old.subscribe(("t", 2))
        old.send(packets.publish("t", b"from old", packet_id=1))
        assert (await new.receive()).payload == b"from old"
        assert {(await old.packet()).kind for _ in range(2)} == {packets.PUBACK, packets.PUBLISH}
        await publish_ignoring(new, "t", b"from new")
        message = await old.message()
        assert (message.payload, message.topic) == (b"from new", "t")


async def publish_ignoring(client: Client5, topic: str, payload: bytes) -> None:
    client.send(packets5.publish(topic, payload, packet_id=9, given={packets5.USER: ("a", "b")}))
    assert {(await client.packet()).kind for _ in range(2)} == {packets.PUBACK, packets.PUBLISH}


@on_loop
async def test_what_cannot_be_stored_is_refused_and_the_connection_stays(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r", given=KEEP), await here.connect5("w")
        await reader.subscribe(("q", 2))
        with here.full_disk():
            writer.send(packets5.publish("q", b"lost", packet_id=1))
            assert (await writer.acknowledged(packets.PUBACK, 1))[0] == 0x80
            writer.send(packets5.publish("q", b"lost", qos=2, packet_id=2))
            assert (await writer.acknowledged(packets.PUBREC, 2))[0] == 0x80
        await publish(writer, "q", b"kept")
        assert (await reader.receive()).payload == b"kept"


@on_loop
async def test_unknown_identifiers_are_named(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        client = await here.connect5("c")
        client.send(packets5.acknowledge(packets.PUBREL, 7))
        assert (await client.acknowledged(packets.PUBCOMP, 7))[0] == 0x92
        client.send(packets5.acknowledge(packets.PUBREC, 7))
        assert (await client.acknowledged(packets.PUBREL, 7))[0] == 0x92


@on_loop
async def test_many_members_come_and_go(tmp_path: Path) -> None:
    async with server(tmp_path) as here:
        writer = await here.connect5("w")
        for number in range(5):
            member = await here.connect5(f"m{number}")
            await member.subscribe(("$share/g/s/+", 1))
            await publish(writer, "s/x", b"")
            await member.close()
            await here.handler.saw("detached", "alice", f"m{number}")
        await asyncio.sleep(0)
        assert not here.hub.plain.subscribers("s/x")
