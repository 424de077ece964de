"""Turns of the loop, and bounds on what costs others memory: nobody holds up another, nobody fills the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from mqtt_im.core import costs
from mqtt_im.mqtt import properties as props
from mqtt_im.mqtt import reasons
from mqtt_im.mqtt.packets import MAX_FILTERS
from mqtt_im.transport.embedded import connection, subscribing
from tests.support import packets, packets5
from tests.unit.transport.harness import PATIENCE_S, Server, on_loop

UP = "im/v1/alice/phone/up"


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


@on_loop
async def test_a_users_packets_have_a_part_of_each_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(tmp_path) as server:
        alice, bob = await server.connect(), await server.connect("phone", "bob")
        monkeypatch.setattr(connection, "_TURN_S", 0.0)  # one packet in each turn
        alice.send(b"".join(packets.publish(UP, b"%d" % number, packet_id=number) for number in range(1, 101)))
        await server.handler.saw("uplink", "phone", b"1", 1, False)
        bob.send(packets.publish("im/v1/bob/phone/up", b"bob's", packet_id=1))
        await bob.expect(packets.PUBACK, 1)
        payloads = [payload for _, payload, *_ in server.handler.uplinks]
        assert payloads.index(b"bob's") < 50, "he has waited for a few of hers, not for all"
        for number in range(1, 101):
            await alice.expect(packets.PUBACK, number)
        assert [payload for payload in (entry[1] for entry in server.handler.uplinks) if payload != b"bob's"] == [
            b"%d" % number for number in range(1, 101)
        ]


@on_loop
async def test_a_subscription_to_much_is_granted_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribing, "_TURN_S", 0.0)
    async with Server(tmp_path, plain_topics=("open/#",)) as server:
        alice, bob = await server.connect(), await server.connect("phone", "bob")
        alice.send(packets.subscribe(1, *((f"open/{number}", 0) for number in range(500))))
        await server.counted("connections_accepted", 2)
        await bob.silent()
        assert (await alice.expect(packets.SUBACK, 1)).codes == [0] * 500
        bob.send(packets.publish("open/499", b"x", qos=0))
        assert (await alice.message()).topic == "open/499"


@on_loop
async def test_the_filters_of_a_session_are_bounded_in_bytes(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect5()
        long = [f"im/v1/alice/{'x' * 60_000}{number}/down" for number in range(5)]
        assert await client.subscribe(*((name, 0) for name in long[:3])) == [0, 0, 0]
        assert await client.subscribe(*((name, 0) for name in long[2:]), packet_id=2) == [0, 0, reasons.QUOTA]
        assert await client.subscribe(("im/v1/alice/down", 1), packet_id=3) == [1], "there is room for short ones"


@on_loop
async def test_a_packet_has_a_bounded_number_of_user_properties(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect5()
        many = [(props.USER_PROPERTY, ("a", "b"))] * (props.MAX_USER_PROPERTIES + 1)
        client.send(packets5.publish(UP, b"x", packet_id=1, given=many[1:]))
        await client.expect(packets.PUBACK, 1)
        client.send(packets5.publish(UP, b"x", packet_id=2, given=many))
        assert await client.goodbye() == reasons.QUOTA


@on_loop
@pytest.mark.parametrize("encode", [packets5.subscribe, packets5.unsubscribe])
async def test_a_packet_has_a_bounded_number_of_filters(tmp_path: Path, encode: Any) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect5()
        one = "x" if encode is packets5.unsubscribe else ("x", 0)
        client.send(encode(1, *[one] * MAX_FILTERS))
        await client.expect(packets.SUBACK if encode is packets5.subscribe else packets.UNSUBACK, 1)
        bucket = server.hub.user("alice").bucket
        before = max(bucket.paid_until, server.hub.clock())
        client.send(encode(2, *[one] * (MAX_FILTERS + 1)))
        assert await client.goodbye() == reasons.QUOTA
        assert bucket.paid_until > before, "the next login pays for it"


@on_loop
async def test_strangers_share_a_bound(tmp_path: Path) -> None:
    """What comes before a login is kept as long as there is room; who has sent little is let in all the same."""
    async with Server(tmp_path) as server:
        server.hub.most_strangers = 20_000
        head = packets.packet(packets.CONNECT, b"\0\4MQTT\4\2\0\0" + b"x" * 200_000)[:16]
        first = await server.open()
        first.send(head + b"x" * 15_000)
        await becomes(lambda: server.hub.strangers > 15_000)
        second = await server.open()
        second.send(head + b"x" * 8_000)
        assert await second.gone() == []
        assert server.counts["closes:strangers"] == 1
        await server.connect()
        await first.close()
        await becomes(lambda: server.hub.strangers == 0)


@on_loop
async def test_who_comes_and_goes_pays_for_it(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"requests_per_second": 1_000}) as server:
        now = server.hub.clock()
        for _ in range(10):
            await (await server.connect(will=packets.Will("closed", b"x"))).close()
        user = server.hub.user("alice")
        assert user.bucket.paid_until - now > 10 * costs.LOGIN / 1_000 - 0.01
        user.bucket.charge(100_000, server.hub.clock())
        client = await server.open()
        client.send(packets.connect("phone", username="alice"))
        await server.handler.until(lambda: len([entry for entry in server.handler.log if entry[0] == "login"]) == 11)
        assert not any(member.user == "alice" for member in server.hub.live.values()), "it waits for what is owed"
        user.bucket.paid_until = 0.0
        await client.expect(packets.CONNACK)


@on_loop
async def test_a_connection_that_cannot_be_written_to_keeps_nothing_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had something to write, and so were thought to be about to: nothing ever left on them again."""

    def broken(_: bytes) -> None:
        raise RuntimeError("a mistake")

    async with Server(tmp_path) as server:
        alice, bob = await server.connect(), await server.connect("phone", "bob")
        wires = {wire.user: wire for wire in server.hub.live.values()}
        socket = wires["alice"].transport  # type: ignore[attr-defined]
        monkeypatch.setattr(wires["alice"], "transport", Mock(wraps=socket, write=broken))
        for name in ("alice", "bob"):
            wires[name].answer(b"\xd0\x00")  # type: ignore[attr-defined]
        assert (await bob.packet()).kind == packets.PINGRESP
        await alice.gone()
