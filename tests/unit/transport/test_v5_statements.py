"""Statements of MQTT 5 about packets, sessions and the ends of connections that stand in no other test (docs/mqtt.md)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import packets, packets5
from tests.support.packets import packet, text
from tests.support.packets5 import Connack, Will
from tests.unit.transport.harness import Server, on_loop
from tests.unit.transport.test_v5_plain import KEEP, publish, server


@on_loop
async def test_at_qos_0_there_is_no_identifier_and_without_properties_their_length_is_0(tmp_path: Path) -> None:
    """MQTT5-2.2.1-2, 2.2.2-1: byte for byte."""
    async with server(tmp_path) as here:
        client = await here.connect5()
        await client.subscribe(("t", 0))
        client.send(packet(packets.PUBLISH, text("t") + b"\0" + b"x"))
        assert (await client.expect(packets.PUBLISH)).body == text("t") + b"\0" + b"x"


@on_loop
async def test_what_we_send_takes_identifiers_that_are_free(tmp_path: Path) -> None:
    """MQTT5-2.2.1-4, also where one in the middle was given back."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        await reader.subscribe(("q", 1))
        used: set[int] = set()
        for number in range(6):
            await publish(writer, "q", bytes([number]))
            found = (await reader.receive()).packet_id
            assert found not in used | {0}
            used.add(found)
            if number == 2:
                reader.send(packets5.acknowledge(packets.PUBACK, found))
                used.remove(found)


@pytest.mark.parametrize("packet_id", [1, 256, 65_535])
@on_loop
async def test_answers_carry_the_identifier_that_they_answer(tmp_path: Path, packet_id: int) -> None:
    """MQTT5-2.2.1-5, 2.2.1-6, 3.3.4-1, 3.8.4-1, 3.10.4-4; at QoS 0 there is no answer."""
    async with server(tmp_path) as here:
        client = await here.connect5()
        client.send(packets5.subscribe(packet_id, ("other", 0)))
        await client.expect(packets.SUBACK, packet_id)
        client.send(packets5.publish("t", b"", packet_id=packet_id))
        await client.expect(packets.PUBACK, packet_id)
        client.send(packets5.publish("t", b"", qos=2, packet_id=packet_id))
        await client.expect(packets.PUBREC, packet_id)
        client.send(packets5.acknowledge(packets.PUBREL, packet_id))
        await client.expect(packets.PUBCOMP, packet_id)
        client.send(packets5.unsubscribe(packet_id, "other"))
        await client.expect(packets.UNSUBACK, packet_id)
        client.send(packets5.publish("t", b"", qos=0))
        await client.silent()


@on_loop
async def test_clean_start_discards_the_session(tmp_path: Path) -> None:
    """MQTT5-3.1.2-4: its subscriptions, and what waited for it."""
    async with server(tmp_path) as here:
        writer = await here.connect5("w")
        client = await here.connect5("c", given=KEEP)
        await client.subscribe(("q", 1))
        await client.disconnect()
        await publish(writer, "q", b"waits")
        client = await here.connect5("c", given=KEEP)
        await publish(writer, "q", b"too late")
        await client.silent()
        await client.disconnect()
        again = await here.connect5("c", clean=False, present=True, given=KEEP)  # the new one, which has nothing
        await publish(writer, "q", b"nor now")
        await again.silent()


@on_loop
async def test_without_an_alias_maximum_there_are_no_aliases(tmp_path: Path) -> None:
    """MQTT5-3.1.2-27."""
    async with server(tmp_path) as here:
        reader, writer = await here.connect5("r"), await here.connect5("w")
        await reader.subscribe(("q", 0))
        for _ in range(3):
            await publish(writer, "q", b"x")
            message = await reader.receive()
            assert (message.topic, message.properties) == ("q", [])


@pytest.mark.parametrize("asked", [None, 0, 1])
@on_loop
async def test_response_information_is_never_sent(tmp_path: Path, asked: int | None) -> None:
    """MQTT5-3.1.2-28."""
    async with Server(tmp_path) as here:
        given: dict[int, Any] = {} if asked is None else {packets5.RESPONSE_INFO: asked}
        assert packets5.INFO not in (await here.connect5(given=given)).connack.properties


@on_loop
async def test_ids_of_1_to_23_letters_and_digits_are_allowed(tmp_path: Path) -> None:
    """MQTT5-3.1.3-5."""
    async with Server(tmp_path) as here:
        for name in ("a", "0123456789abcdefghijklm", "ABCDEFGHIJKLMNOPQRSTUVW", "nopqrstuvwxyzXYZ"):
            client = await here.connect5(name)
            assert packets5.ASSIGNED not in client.connack.properties


@on_loop
async def test_the_user_properties_of_a_will_keep_their_order(tmp_path: Path) -> None:
    """MQTT5-3.1.3-10, with one that stands there twice."""
    pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("b", "0")]
    async with server(tmp_path) as here:
        reader = await here.connect5("r")
        await reader.subscribe(("w", 1))
        client = await here.connect5("c", will=Will("w", b"", properties=[(packets5.USER, pair) for pair in pairs]))
        await client.close()
        assert [value for key, value in (await reader.receive()).properties if key == packets5.USER] == pairs


@on_loop
async def test_nothing_behind_a_refused_connect_is_handled(tmp_path: Path) -> None:
    """MQTT5-3.1.4-6, 3.14.0-1: the CONNACK is all that comes."""
    async with server(tmp_path) as here:
        reader = await here.connect5("r")
        await reader.subscribe(("#", 0))
        client = await here.open()
        behind = packets5.publish("t", b"", qos=0) + packets5.publish("im/v1/bob/x/up", b"{}", packet_id=1)
        client.send(packets5.connect("x", username="bob", password="wrong") + behind + packet(packets.PINGREQ))
        (answer,) = await client.gone()
        assert Connack.of(answer).code == 0x86
        await reader.silent()
        assert not here.handler.uplinks


@on_loop
async def test_connack_comes_first_and_once(tmp_path: Path) -> None:
    """MQTT5-3.2.0-1, 3.2.0-2, though all else had come with CONNECT, and catch-up waited."""
    async with server(tmp_path) as here:
        kept, writer = await here.connect5("c", given=KEEP), await here.connect5("w")
        await kept.subscribe(("q", 1))
        await kept.disconnect()
        await publish(writer, "q", b"waits")
        client = await here.open()
        stream = packets5.subscribe(1, ("other", 0)) + packets5.publish("t", b"", packet_id=2) + packet(packets.PINGREQ)
        client.send(packets5.connect("c", username="alice", clean=False, given=KEEP) + stream)
        kinds = [(await client.packet()).kind for _ in range(5)]
        assert kinds[0] == packets.CONNACK
        assert sorted(kinds[1:]) == sorted((packets.PUBLISH, packets.SUBACK, packets.PUBACK, packets.PINGRESP))


@on_loop
async def test_the_reason_of_a_refusal_fits_into_the_clients_packets(tmp_path: Path) -> None:
    """MQTT5-3.2.2-19, and no other property is there either (3.2.2-20)."""
    async with Server(tmp_path) as here:
        for most, told in ((0, True), (12, False)):
            client = await here.open()
            given: dict[int, Any] = {packets5.MAX_PACKET: most} if most else {}
            client.send(packets5.connect("x", username="alice", password="wrong", given=given))
            (answer,) = await client.gone()
            assert (packets5.REASON in Connack.of(answer).properties) is told
            assert not most or len(answer.body) + 2 <= most


@on_loop
async def test_pings_are_answered(tmp_path: Path) -> None:
    """MQTT5-3.12.4-1."""
    async with Server(tmp_path) as here:
        client = await here.connect5()
        client.send(packet(packets.PINGREQ) * 3)
        for _ in range(3):
            assert (await client.expect(packets.PINGRESP)).body == b""


@on_loop
async def test_the_servers_disconnect_has_no_session_expiry(tmp_path: Path) -> None:
    """MQTT5-3.14.2-2."""
    async with Server(tmp_path) as here:
        first = await here.connect5("c", given=KEEP)
        await here.connect5("c", given=KEEP)
        (last,) = await first.gone()
        assert (last.kind, last.body[0]) == (packets.DISCONNECT, 0x8E)
        found = packets5.read_properties(last.body, 1)[0] if len(last.body) > 1 else []
        assert packets5.SESSION_EXPIRY not in dict(found)


@on_loop
async def test_no_session_ends_while_its_connection_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MQTT5-4.1.0-1, however long ago it should have, had the client gone."""
    now = [time.time()]
    async with server(tmp_path) as here:
        monkeypatch.setattr(here.hub.ground.clock, "steady", lambda: int(now[0] * 1000))
        client, writer = await here.connect5("c", given={packets5.SESSION_EXPIRY: 1}), await here.connect5("w")
        await client.subscribe(("q", 1))
        now[0] += 10_000
        await here.stored()
        await publish(writer, "q", b"x")
        assert (await client.receive()).payload == b"x"
        again = await here.connect5("c", clean=False, present=True)
        assert (await again.receive()).payload == b"x"
