"""Statements of MQTT 5 about messages on plain topics that stand in no other test (docs/mqtt.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import packets, packets5
from tests.unit.transport.harness import on_loop
from tests.unit.transport.test_v5_plain import KEEP, publish, server


@on_loop
async def test_dup_is_not_handed_on(tmp_path: Path) -> None:
    """MQTT5-3.3.1-3."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        await reader.subscribe(("q", 2))
        for qos in (1, 2):
            await publish(writer, "q", b"", qos=qos, dup=True)
            message = await reader.receive()
            assert (message.qos, message.dup) == (qos, False)


@on_loop
async def test_retained_messages_keep_their_qos_until_an_empty_one_takes_them_away(tmp_path: Path) -> None:
    """MQTT5-3.3.1-5, 3.3.1-6, 3.3.1-8: what is not to be retained changes nothing."""
    async with server(tmp_path) as here:
        writer = await here.connect5("w")

        async def retained(name: str) -> list[tuple[bytes, int]]:
            reader = await here.connect5(name)
            await reader.subscribe(("r", 2))
            reader.send(packets.packet(packets.PINGREQ))
            found = []
            while (got := await reader.packet()).kind == packets.PUBLISH:
                message = packets5.Publish.of(got)
                assert message.retain
                found.append((message.payload, message.qos))
            return found

        for qos in (0, 1, 2):
            await publish(writer, "r", b"kept", qos=qos, retain=True)
            await publish(writer, "r", b"passes by")
            await publish(writer, "r", b"")
            assert await retained(f"with{qos}") == [(b"kept", qos)]
        await publish(writer, "r", b"", retain=True)
        assert await retained("without") == []


@on_loop
async def test_an_alias_is_its_connections_alone(tmp_path: Path) -> None:
    """MQTT5-3.3.2-7: nobody else has it, nor the same session on its next connection."""
    async with server(tmp_path) as here:
        one, other = await here.connect5("one", given=KEEP), await here.connect5("other")
        await publish(one, "t", b"", given={packets5.ALIAS: 1})
        other.send(packets5.publish("", b"", qos=0, given={packets5.ALIAS: 1}))
        assert await other.goodbye() == 0x82
        await publish(one, "", b"", given={packets5.ALIAS: 1})
        await one.disconnect()
        one = await here.connect5("one", clean=False, present=True, given=KEEP)
        one.send(packets5.publish("", b"", qos=0, given={packets5.ALIAS: 1}))
        assert await one.goodbye() == 0x82


@on_loop
async def test_every_alias_up_to_our_maximum_is_taken(tmp_path: Path) -> None:
    """MQTT5-3.3.2-12; one more is 0x94 (3.3.2-9)."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        await reader.subscribe(("#", 0))
        most = writer.connack.properties[packets5.ALIAS_MAX]
        for number in range(1, most + 1):
            await publish(writer, f"t/{number}", b"", given={packets5.ALIAS: number})
        for number in range(1, most + 1):
            await publish(writer, "", b"", given={packets5.ALIAS: number})
        wanted = [f"t/{number}" for number in range(1, most + 1)]
        assert [(await reader.receive()).topic for _ in range(2 * most)] == wanted * 2
        writer.send(packets5.publish("t", b"", qos=0, given={packets5.ALIAS: most + 1}))
        assert await writer.goodbye() == 0x94


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
@on_loop
async def test_messages_come_with_the_lower_qos(tmp_path: Path, published: int, granted: int) -> None:
    """MQTT5-3.8.4-8."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        assert await reader.subscribe(("q", granted)) == [granted]
        await publish(writer, "q", b"", qos=published)
        assert (await reader.receive()).qos == min(published, granted)


@on_loop
async def test_the_same_filter_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """MQTT5-3.8.4-3: its QoS, its identifier, and one copy of each message."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        await reader.subscribe(("q/+", 2), given={packets5.SUB_ID: 1})
        await reader.subscribe(("q/+", 0), given={packets5.SUB_ID: 2})
        await publish(writer, "q/x", b"")
        message = await reader.receive()
        assert (message.qos, message.properties) == (0, [(packets5.SUB_ID, 2)])
        await reader.silent()


@on_loop
async def test_unsubscribing_takes_the_filter_with_the_same_characters(tmp_path: Path) -> None:
    """MQTT5-3.10.4-1, 3.10.4-2, 3.10.4-5, 3.11.3-1: a code for each in their order, then nothing more comes."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        await reader.subscribe(("q/+", 1), ("q/X", 1), ("$share/g/s", 1))
        reader.send(packets5.unsubscribe(7, "q/#", "q/x", "q/+", "$share/h/s", "$share/g/s"))
        assert packets5.codes_of(await reader.expect(packets.UNSUBACK, 7)) == [0x11, 0x11, 0, 0x11, 0]
        for topic in ("q/x", "s"):
            await publish(writer, topic, b"")
        await reader.silent()
        await publish(writer, "q/X", b"still")
        assert (await reader.receive()).payload == b"still"


@on_loop
async def test_what_has_no_answer_is_sent_again_on_the_next_connection(tmp_path: Path) -> None:
    """MQTT5-3.3.1-1, 4.3.2-2, 4.4.0-1, 4.6.0-1: with DUP, the same identifiers, in the first order, and at no other time."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r", given=KEEP), await here.connect5("w")
        await reader.subscribe(("q", 2))
        sent = []
        for number in range(6):
            await publish(writer, "q", bytes([number]), qos=1 + number % 2)
            sent.append(await reader.receive())
            assert not sent[-1].dup
        reader.send(packets5.acknowledge(packets.PUBACK, sent[2].packet_id))
        reader.send(packets5.acknowledge(packets.PUBREC, sent[3].packet_id))
        assert (await reader.acknowledged(packets.PUBREL, sent[3].packet_id))[0] == 0
        await reader.silent()
        await reader.close()
        await here.handler.saw("detached", "alice", "r")
        again = await here.connect5("r", clean=False, present=True, given=KEEP)
        came = [await again.packet() for _ in range(5)]
        assert [packet.packet_id for packet in came if packet.kind == packets.PUBREL] == [sent[3].packet_id]
        repeated = [packets5.Publish.of(packet) for packet in came if packet.kind == packets.PUBLISH]
        wanted = [sent[number] for number in (0, 1, 4, 5)]
        assert [(one.payload, one.packet_id, one.qos) for one in repeated] == [
            (one.payload, one.packet_id, one.qos) for one in wanted
        ]
        assert all(one.dup for one in repeated)
        await again.silent()


@on_loop
async def test_what_was_refused_is_not_sent_again(tmp_path: Path) -> None:
    """MQTT5-4.3.3-4, 4.4.0-2, 4.8.2-6: neither to who has refused it, nor to another member of the share."""
    async with server(tmp_path) as here:
        one, writer = await here.connect5("one", given=KEEP), await here.connect5("w")
        await one.subscribe(("$share/g/s", 2), ("q", 2))
        for topic in ("s", "q"):
            for qos in (1, 2):
                await publish(writer, topic, b"refused", qos=qos)
                message = await one.receive()
                one.send(packets5.acknowledge(packets.PUBACK if qos == 1 else packets.PUBREC, message.packet_id, 0x83))
        await one.silent()
        await here.counted("refused_by_clients", 4)
        await one.close()
        await here.handler.saw("detached", "alice", "one")
        one = await here.connect5("one", clean=False, present=True, given=KEEP)
        await one.silent()
        two = await here.connect5("two")
        await two.subscribe(("$share/g/s", 1))
        one.send(packets5.disconnect(0, {packets5.SESSION_EXPIRY: 0}))
        await one.gone()
        await two.silent()


@on_loop
async def test_after_its_answer_an_identifier_is_a_new_messages(tmp_path: Path) -> None:
    """MQTT5-4.3.2-5, 4.3.3-9: with DUP or without, and after a PUBREC that refuses."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        await reader.subscribe(("q", 0))
        for payload, dup in ((b"first", False), (b"second", False), (b"third", True), (b"third", True)):
            await publish(writer, "q", payload, dup=dup)
            assert (await reader.receive()).payload == payload
        kept = await here.connect5("k", given=KEEP)
        await kept.subscribe(("q", 1))
        with here.full_disk():
            writer.send(packets5.publish("q", b"refused", qos=2, packet_id=5))
            assert (await writer.acknowledged(packets.PUBREC, 5))[0] == 0x80
        writer.send(packets5.acknowledge(packets.PUBREL, 5))
        assert (await writer.acknowledged(packets.PUBCOMP, 5))[0] == 0x92
        writer.send(packets5.publish("q", b"another", qos=2, packet_id=5, dup=True))
        assert (await writer.acknowledged(packets.PUBREC, 5))[0] == 0


@on_loop
async def test_a_message_is_in_the_session_of_everybody_who_is_to_get_it(tmp_path: Path) -> None:
    """MQTT5-4.5.0-1: of those who are away too, after a crash."""
    (tmp_path / "a").mkdir()
    async with server(tmp_path / "a") as here:
        writer = await here.connect5("w")
        for name in ("here", "away", "gone"):
            client = await here.connect5(name, given=KEEP)
            await client.subscribe(("q", 1))
            if name != "here":
                await client.disconnect()
        await publish(writer, "q", b"to all")
        crash = here.copy_of_disk(tmp_path / "crash")
    async with server(crash) as here:
        for name in ("here", "away", "gone"):
            client = await here.connect5(name, clean=False, present=True, given=KEEP)
            assert (await client.receive()).payload == b"to all"


@on_loop
async def test_each_member_of_a_share_has_its_own_qos(tmp_path: Path) -> None:
    """MQTT5-4.8.2-3."""
    async with server(tmp_path) as here:
        writer = await here.connect5("w")
        members = [await here.connect5(f"m{qos}") for qos in (0, 1, 2)]
        for qos, member in enumerate(members):
            assert await member.subscribe(("$share/g/s", qos)) == [qos]
        for _ in range(3):
            await publish(writer, "s", b"", qos=2)
        assert [(await member.receive()).qos for member in members] == [0, 1, 2]


@on_loop
async def test_what_needs_no_quota_goes_on_without_one(tmp_path: Path) -> None:
    """MQTT5-4.9.0-3: QoS 0, pings, subscriptions and the client's own messages."""
    async with server(tmp_path) as here:
        given: dict[int, Any] = {packets5.RECEIVE_MAX: 1}
        reader, writer = await here.connect5("r", given=given), await here.connect5("w")
        await reader.subscribe(("q", 1))
        await publish(writer, "q", b"uses it up")
        assert (await reader.receive()).payload == b"uses it up"
        await publish(writer, "q", b"waits")
        await reader.silent()
        await publish(writer, "q", b"at QoS 0", qos=0)
        assert (await reader.receive()).payload == b"at QoS 0"
        assert await reader.subscribe(("other", 1), packet_id=2) == [1]
        await publish(reader, "else", b"", qos=2)
