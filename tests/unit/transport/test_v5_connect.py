"""MQTT 5: CONNECT and CONNACK, sessions and their expiry, the end of a connection (PROTOCOL §7)."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import packets, packets5
from tests.support.packets import packet, text
from tests.support.packets5 import Connack
from tests.unit.transport.harness import Server, on_loop


async def refused(server: Server, connect: bytes) -> Connack:
    client = await server.open()
    client.send(connect)
    (answer,) = await client.gone()
    return Connack.of(answer)


@on_loop
async def test_connack_tells_what_the_server_takes(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_inflight": 20, "max_packet_bytes": 70_000}) as server:
        client = await server.connect5(keepalive=30, given={packets5.SESSION_EXPIRY: 100})
        told = client.connack.properties
        assert told[packets5.RECEIVE_MAX] == 20
        assert told[packets5.MAX_PACKET] == 70_000
        assert told[packets5.ALIAS_MAX] >= 4
        assert told[packets5.SHARED] == 1
        assert not told.keys() & {packets5.SESSION_EXPIRY, packets5.KEEP_ALIVE, packets5.ASSIGNED, packets5.MAX_QOS}


@on_loop
async def test_what_is_capped_is_told(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"session_expiry_s": 50, "max_keepalive_s": 60}) as server:
        client = await server.connect5(keepalive=0, given={packets5.SESSION_EXPIRY: 0xFFFF_FFFF})
        assert client.connack.properties[packets5.SESSION_EXPIRY] == 50
        assert client.connack.properties[packets5.KEEP_ALIVE] == 60
        other = await server.connect5("tablet", keepalive=30)
        assert packets5.KEEP_ALIVE not in other.connack.properties


@on_loop
async def test_an_empty_client_id_is_assigned_one_that_names_no_device(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        client = await server.connect5("", clean=False, given={packets5.SESSION_EXPIRY: 60})
        name = client.connack.properties[packets5.ASSIGNED]
        assert name.startswith("~")
        assert await client.subscribe(("a", 1)) == [1]
        await client.disconnect()
        again = await server.connect5(name, clean=False, present=True, given={packets5.SESSION_EXPIRY: 60})
        assert packets5.ASSIGNED not in again.connack.properties
        other = await server.connect5("")
        assert other.connack.properties[packets5.ASSIGNED] != name


REFUSED: dict[str, tuple[bytes, int]] = {
    "client id too long": (packets5.connect("a" * 257, username="alice"), 0x85),
    "wrong password": (packets5.connect("a", username="alice", password="wrong"), 0x86),
    "authentication method": (packets5.connect("a", username="alice", given={packets5.AUTH_METHOD: "SCRAM"}), 0x8C),
    "authentication data alone": (packets5.connect("a", username="alice", given={packets5.AUTH_DATA: b"x"}), 0x82),
    "Receive Maximum 0": (packets5.connect("a", username="alice", given={packets5.RECEIVE_MAX: 0}), 0x82),
    "Maximum Packet Size 0": (packets5.connect("a", username="alice", given={packets5.MAX_PACKET: 0}), 0x82),
    "Request Problem Information 2": (packets5.connect("a", username="alice", given={packets5.PROBLEMS: 2}), 0x82),
    "property twice": (packets5.connect("a", given=[(packets5.SESSION_EXPIRY, 1), (packets5.SESSION_EXPIRY, 1)]), 0x82),
    "property of another packet": (packets5.connect("a", given={packets5.EXPIRY: 1}), 0x81),
    "property that is none": (packets5.connect("a", given=b"\x7e"), 0x81),
    "property cut off": (packets5.connect("a", given=b"\x11\0\0"), 0x81),
    "U+0000": (packets5.connect("a\0"), 0x81),
    "no UTF-8": (packet(packets.CONNECT, text("MQTT") + b"\5\2\0\0\0" + text(b"\xed\xa0\x80")), 0x81),
    "will topic with wildcard": (packets5.connect("a", will=packets5.Will("t/+", b"")), 0x81),
    "will property of another packet": (
        packets5.connect("a", will=packets5.Will("t", b"", properties={packets5.SESSION_EXPIRY: 1})),
        0x81,
    ),
    "will's Response Topic with wildcard": (
        packets5.connect("a", will=packets5.Will("t", b"", properties={packets5.RESPONSE_TOPIC: "#"})),
        0x82,
    ),
    "reserved flag": (packet(packets.CONNECT, text("MQTT") + b"\5\3\0\0\0" + text("a")), 0x81),
    "will QoS 3": (packet(packets.CONNECT, text("MQTT") + b"\5\x1e\0\0\0" + text("a")), 0x81),
    "another version": (packets.connect("a", level=6), 0x84),
    "too large": (packet(packets.CONNECT, text("MQTT") + b"\5\2\0\0\0" + text("a") + bytes(70_000)), 0x95),
}


@pytest.mark.parametrize("name", REFUSED)
@on_loop
async def test_a_refused_connect_says_why(tmp_path: Path, name: str) -> None:
    """CONNACK is all that comes, then the connection is closed."""
    connect, code = REFUSED[name]
    async with Server(tmp_path, limits={"max_packet_bytes": 60_000}) as server:
        answer = await refused(server, connect)
        assert (answer.code, answer.present) == (code, False)
        assert not server.hub.live


@on_loop
async def test_codes_of_what_the_server_has_no_room_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with Server(tmp_path / "a", limits={"max_connections": 2, "max_connections_per_user": 1}) as server:
        await server.connect5("a")
        assert (await refused(server, packets5.connect("b", username="alice"))).code == 0x97
        await server.connect5("a", "bob")
        assert (await refused(server, packets5.connect("b", username="carol"))).code == 0x89
    async with Server(tmp_path / "b") as server:
        server.handler.refuse = {"alice": 3, "bob": 5}
        assert (await refused(server, packets5.connect("a", username="alice"))).code == 0x88
        assert (await refused(server, packets5.connect("a", username="bob"))).code == 0x87
        with server.broken_disk():
            assert (await refused(server, packets5.connect("a", username="carol", clean=False))).code == 0x88


@on_loop
async def test_who_connects_too_often_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(tmp_path, limits={"connects_per_second_per_address": 1}) as server:
        monkeypatch.setattr(server.hub, "clock", lambda: 1_000.0)
        for number in range(2):
            await server.connect5(str(number))
        assert (await refused(server, packets5.connect("2"))).code == 0x9F
        assert server.hub.turned_away == 0


@on_loop
async def test_a_session_lives_as_long_as_was_agreed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]
    expiry = {packets5.SESSION_EXPIRY: 100}
    async with Server(tmp_path, plain_topics=("#",)) as server:
        monkeypatch.setattr(server.hub.ground.clock, "steady", lambda: int(now[0] * 1000))
        for seconds, present in ((98, True), (102, False)):
            client = await server.connect5("phone", given=expiry)
            assert await client.subscribe(("a", 1)) == [1]
            await client.disconnect()
            now[0] += seconds
            client = await server.connect5("phone", clean=False, given=expiry, present=present)
            await client.disconnect()
        # Without a word about it, it ends with the connection.
        await (await server.connect5("tablet")).disconnect()
        await server.connect5("tablet", clean=False)


@on_loop
async def test_sessions_expire_by_themselves(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        for name in ("phone", "x y"):
            client = await server.connect5(name, given={packets5.SESSION_EXPIRY: 1})
            await client.subscribe(("a", 1))
            await client.disconnect()
        await server.handler.saw("session_ended", "alice", "phone")
        server.hub.sessions.before_end = lambda key: server.handler.note("ended", *key)
        await server.handler.until(lambda: not server.hub.sessions.in_memory or server.handler.told()[0] == "ended")


@on_loop
async def test_time_counts_while_the_server_is_down(tmp_path: Path) -> None:
    async def left_by(folder: Path, *, leaves: bool) -> Path:
        async with Server(folder) as server:
            client = await server.connect5("phone", given={packets5.SESSION_EXPIRY: 100})
            other = await server.connect5("tablet", given={packets5.SESSION_EXPIRY: 1000})
            if leaves:
                await client.disconnect()
                await other.disconnect()
            await server.stored()
            return server.copy_of_disk(folder.with_suffix(".copy"))

    for leaves in (True, False):
        (tmp_path / str(leaves)).mkdir()
        folder = await left_by(tmp_path / str(leaves), leaves=leaves)
        alive = folder / "broker.alive"
        if leaves:
            shift_clock(folder, 500)
        else:
            alive.write_text(str(int(alive.read_text()) - 500))
        async with Server(folder) as server:
            await server.connect5("phone", clean=False)
            await server.connect5("tablet", clean=False, present=True)


def shift_clock(folder: Path, seconds: int) -> None:
    """As if what is on disk had been written so long ago."""
    database = sqlite3.connect(folder / "broker.db")
    database.execute("UPDATE session SET seen = seen - ? WHERE seen > 0", (seconds,))
    database.commit()
    database.close()


@on_loop
async def test_disconnect_may_change_the_expiry(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect5("phone", given={packets5.SESSION_EXPIRY: 100})
        client.send(packets5.disconnect(0, {packets5.SESSION_EXPIRY: 0}))
        assert await client.gone() == []
        client = await server.connect5("phone", clean=False)
        assert server.handler.links[-1].clean
        client.send(packets5.disconnect(0, {packets5.SESSION_EXPIRY: 5}))
        assert await client.goodbye() == 0x82
        client = await server.connect5("phone", given={packets5.SESSION_EXPIRY: 1})
        client.send(packets5.disconnect(0, {packets5.SESSION_EXPIRY: 100}))
        assert await client.gone() == []
        found = await server.hub.sessions.find(("alice", "phone"))
        assert found is not None
        assert found.expiry == 100


@on_loop
async def test_a_session_survives_a_change_of_version(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        old = await server.connect("phone", clean=False)
        assert await old.subscribe(("a", 1), ("im/v1/alice/down", 1)) == [1, 1]
        await old.disconnect()
        new = await server.connect5("phone", clean=False, present=True, given={packets5.SESSION_EXPIRY: 100})
        new.send(packets5.publish("a", b"1", packet_id=1))
        assert {(await new.packet()).kind for _ in range(2)} == {packets.PUBLISH, packets.PUBACK}
        await new.close()
        await server.handler.saw("detached", "alice", "phone")
        old = await server.connect("phone", clean=False, present=True)
        message = await old.message()
        assert (message.topic, message.payload, message.dup) == ("a", b"1", True)
        await old.disconnect()
        await server.connect5("phone", clean=True)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("account_removed", 0x98),
        ("password_changed", 0x98),
        ("unavailable", 0x80),
    ],
)
@on_loop
async def test_the_server_says_why_it_closes(tmp_path: Path, reason: str, code: int) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect5()
        server.handler.links[-1].close(reason)
        assert await client.goodbye() == code


@on_loop
async def test_what_ends_a_connection_has_its_code(tmp_path: Path) -> None:
    limits = {"forbidden_publishes_per_minute": 1, "max_keepalive_s": 1}
    server = Server(tmp_path, limits=limits)
    async with server:
        first = await server.connect5("phone", keepalive=1)
        await server.connect5("phone", keepalive=1)
        assert await first.goodbye() == 0x8E
        forgotten = await server.connect5("tablet")
        await server.transport.forget("alice", "tablet")
        assert await forgotten.goodbye() == 0x98
        closed = await server.connect5("x")
        for number in (1, 2):
            closed.send(packets5.publish("im/v1/bob/down", b"", packet_id=number))
        assert packets5.code_of(await closed.expect(packets.PUBACK, 1))[0] == 0x87
        assert await closed.goodbye() == 0x97
        silent = await server.connect5("y")
        assert await silent.goodbye() == 0x8D
        last = await server.connect5("z", keepalive=1)
        drained = asyncio.create_task(server.transport.drain(10))
        assert await last.goodbye() == 0x8B
        await drained


def without_id(kind: int, flags: int = 0) -> bytes:
    return packet(kind, b"\0\0", flags)


VIOLATIONS: dict[str, tuple[int, bytes]] = {
    "reserved type": (0x81, packet(0)),
    "flags of PUBACK": (0x81, packet(4, b"\0\1", 1)),
    "flags of PUBREC": (0x81, packet(5, b"\0\1", 2)),
    "flags of PUBREL": (0x81, packet(6, b"\0\1")),
    "flags of PUBCOMP": (0x81, packet(7, b"\0\1", 1)),
    "flags of UNSUBSCRIBE": (0x81, packet(10, b"\0\1\0" + text("a"))),
    "flags of PINGREQ": (0x81, packet(12, b"", 1)),
    "flags of DISCONNECT": (0x81, packet(14, b"", 1)),
    "flags of SUBSCRIBE": (0x81, packet(8, b"\0\1\0" + text("a") + b"\0")),
    "QoS 3": (0x81, packet(3, text("a") + b"\0\1\0", 6)),
    "DUP at QoS 0": (0x81, packet(3, text("a") + b"\0", 8)),
    "topic with U+0000": (0x81, packet(3, text("a\0b") + b"\0")),
    "topic with #": (0x81, packets5.publish("a/#", b"", qos=0)),
    "filter that is no text": (0x81, packet(8, b"\0\1\0" + text(b"\xff") + b"\0", 2)),
    "filter to unsubscribe that is no text": (0x81, packet(10, b"\0\1\0" + text(b"\xff"), 2)),
    "Response Topic that is no text": (0x81, packets5.publish("a", b"", qos=0, given=b"\x08" + text(b"\xff"))),
    "User Property that is no text": (0x81, packets5.publish("a", b"", qos=0, given=b"\x26" + text("a") + text(b"\xff"))),
    "text that is none": (0x81, packet(3, text(b"\xff") + b"\0")),
    "wildcard in a topic": (0x81, packets5.publish("a/+", b"", qos=0)),
    "AUTH": (0x82, packet(15)),
    "a server's packet": (0x82, packet(2, b"\0\0\0")),
    "second CONNECT": (0x82, packets5.connect("a")),
    "packet id 0": (0x82, packets5.publish("a", b"")),
    "packet id 0 of SUBSCRIBE": (0x82, packets5.subscribe(0, ("a", 0))),
    "packet id 0 of UNSUBSCRIBE": (0x82, packets5.unsubscribe(0, "a")),
    "no topic": (0x82, packets5.publish("", b"", qos=0)),
    "no filters": (0x82, packet(8, b"\0\1\0", 2)),
    "no filters to unsubscribe": (0x82, packet(10, b"\0\1\0", 2)),
    "no filter": (0x8F, packets5.subscribe(1, ("a/#/b", 0))),
    "+ beside something": (0x8F, packets5.subscribe(1, ("a/b+", 0))),
    "# beside something": (0x8F, packets5.subscribe(1, ("a/b#", 0))),
    "share's name with #": (0x8F, packets5.subscribe(1, ("$share/g#/a", 0))),
    "no filter to unsubscribe": (0x8F, packets5.unsubscribe(1, "a#")),
    "share without name": (0x8F, packets5.subscribe(1, ("$share//a", 0))),
    "share without filter": (0x8F, packets5.subscribe(1, ("$share/g", 0))),
    "share with wildcard": (0x8F, packets5.subscribe(1, ("$share/+/a", 0))),
    "share with No Local": (0x82, packets5.subscribe(1, ("$share/g/a", 4))),
    "Retain Handling 3": (0x82, packets5.subscribe(1, ("a", 0x30))),
    "reserved options": (0x81, packets5.subscribe(1, ("a", 0x40))),
    "QoS 3 asked for": (0x82, packets5.subscribe(1, ("a", 3))),
    "Subscription Identifier 0": (0x82, packets5.subscribe(1, ("a", 0), given={packets5.SUB_ID: 0})),
    "Subscription Identifier in PUBLISH": (0x82, packets5.publish("a", b"", qos=0, given={packets5.SUB_ID: 1})),
    "alias 0": (0x94, packets5.publish("a", b"", qos=0, given={packets5.ALIAS: 0})),
    "alias too high": (0x94, packets5.publish("a", b"", qos=0, given={packets5.ALIAS: 9999})),
    "alias unknown": (0x82, packets5.publish("", b"", qos=0, given={packets5.ALIAS: 1})),
    "Response Topic with wildcard": (0x82, packets5.publish("a", b"", qos=0, given={packets5.RESPONSE_TOPIC: "a/#"})),
    "property twice": (0x82, packets5.publish("a", b"", qos=0, given=b"\1\0\1\0")),
    "property of another packet": (0x81, packets5.publish("a", b"", qos=0, given={packets5.WILL_DELAY: 1})),
    "property that is none": (0x81, packets5.publish("a", b"", qos=0, given=b"\x7f")),
    "properties longer than the packet": (0x81, packet(3, text("a") + b"\x7f")),
    "reason code that is none": (0x82, packets5.acknowledge(4, 1, 0x42)),
    "DISCONNECT's code of a server": (0x82, packets5.disconnect(0x8B)),
    "Server Reference from a client": (0x81, packets5.disconnect(0, {packets5.REFERENCE: "x"})),
    "too large": (0x95, b"\x30\xff\xff\xff\x7f"),
    "length of five bytes": (0x81, b"\x30\xff\xff\xff\xff\x01"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
@on_loop
async def test_a_violation_is_answered_with_its_code(tmp_path: Path, name: str) -> None:
    code, data = VIOLATIONS[name]
    async with Server(tmp_path, plain_topics=("#",)) as server:
        client = await server.connect5()
        client.send(data)
        assert await client.goodbye() == code
        await server.counted("malformed_packets")


@on_loop
async def test_reasons_are_left_out_where_they_are_not_wanted(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        for wanted, told in ((1, True), (0, False)):
            client = await server.connect5(given={packets5.PROBLEMS: wanted})
            client.send(packets5.publish("closed", b"", packet_id=1))
            code, found = await client.acknowledged(packets.PUBACK, 1)
            assert code == 0x87
            assert (packets5.REASON in found) is told
            client.send(packets5.subscribe(2, ("closed", 1)))
            found = dict(packets5.read_properties((await client.expect(packets.SUBACK)).body, 2)[0])
            assert told or not found
        small: dict[int, Any] = {packets5.MAX_PACKET: 40}
        client = await server.connect5(given=small)
        client.send(packets5.publish("closed", b"", packet_id=1))
        assert await client.acknowledged(packets.PUBACK, 1) == (0x87, {})


@on_loop
async def test_filters_whose_answer_the_client_would_not_take_are_refused(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        small: dict[int, Any] = {packets5.MAX_PACKET: 40}
        client = await server.connect5(given=small)
        assert len(await client.subscribe(*[(f"t/{number}", 1) for number in range(35)])) == 35
        client.send(packets5.subscribe(2, *[(f"t/{number}", 1) for number in range(36)]))
        (last,) = await client.gone()
        assert (last.kind, last.body[0]) == (packets.DISCONNECT, 0x95)
        assert server.counts["malformed_packets:answer_too_large"] == 1
        client = await server.connect5("tablet", given=small)
        client.send(packets5.unsubscribe(1, *[f"t/{number}" for number in range(36)]))
        (last,) = await client.gone()
        assert (last.kind, last.body[0]) == (packets.DISCONNECT, 0x95)
