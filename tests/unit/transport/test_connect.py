"""CONNECT: versions, refusals, take-over, kept sessions, and what may come before and after."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mqtt_im.transport.embedded.sessions.away import weight
from tests.support import packets
from tests.support.packets import Will
from tests.unit.transport.harness import Server, on_loop

MALFORMED_CONNECTS = {
    "reserved flag": bytes.fromhex("100d 0004 4d515454 04 03 0000 0001 61".replace(" ", "")),
    "will QoS 3": packets.packet(1, packets.text("MQTT") + b"\x04\x1e\0\0" + packets.text("a") * 3),
    "will QoS without a will": packets.packet(1, packets.text("MQTT") + b"\x04\x0a\0\0" + packets.text("a")),
    "will retain without a will": packets.packet(1, packets.text("MQTT") + b"\x04\x22\0\0" + packets.text("a")),
    "password without username": packets.packet(1, packets.text("MQTT") + b"\x04\x42\0\0" + packets.text("a") * 2),
    "trailing byte": packets.packet(1, packets.text("MQTT") + b"\x04\x02\0\0" + packets.text("a") + b"x"),
    "too short": packets.packet(1, packets.text("MQTT") + b"\x04\x02\0\0\0\x09a"),
    "bad UTF-8": packets.packet(1, packets.text("MQTT") + b"\x04\x02\0\0" + packets.text(b"\xff")),
    "surrogate": packets.packet(1, packets.text("MQTT") + b"\x04\x02\0\0" + packets.text(b"\xed\xa0\x80")),
    "NUL": packets.packet(1, packets.text("MQTT") + b"\x04\x02\0\0" + packets.text("a\0")),
    "wildcard in will topic": packets.connect("a", will=Will("a/#", b"")),
    "empty will topic": packets.connect("a", will=Will("", b"")),
    "protocol name": packets.connect("a", protocol="HTTP"),
    "flags of the header": b"\x11" + packets.connect("a")[1:],
    "PINGREQ first": packets.packet(packets.PINGREQ),
    "PUBLISH first": packets.publish("a", b""),
    "an HTTP request": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED_CONNECTS)
@on_loop
async def test_what_is_no_connect_is_closed_without_an_answer(tmp_path: Path, name: str) -> None:
    async with Server(tmp_path) as server:
        client = await server.open()
        client.send(MALFORMED_CONNECTS[name])
        assert await client.gone() == []
        await server.counted("malformed_packets")
        assert not any(entry[0] == "login" for entry in server.handler.log)


@pytest.mark.parametrize(
    ("connect", "answer"),
    [
        (packets.connect("a", protocol="MQIsdp", level=3), b"\x00\x01"),
        (packets.connect("a", level=6), b"\x00\x84\x00"),
        (packets.connect("a", level=0x84), b"\x00\x01"),
        (packets.connect("", clean=False), b"\x00\x02"),
        (packets.connect("a" * 257), b"\x00\x02"),
    ],
)
@on_loop
async def test_other_versions_and_ids_are_refused_in_words_they_know(tmp_path: Path, connect: bytes, answer: bytes) -> None:
    async with Server(tmp_path) as server:
        client = await server.open()
        client.send(connect)
        assert [packet.body for packet in await client.gone()] == [answer]


@on_loop
async def test_a_refused_login_gets_its_code_and_touches_no_session(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        victim = await server.connect("phone", "alice")
        server.handler.refuse["alice"] = 4
        thief = await server.open()
        thief.send(packets.connect("phone", username="alice", password="guess"))
        assert [packet.body for packet in await thief.gone()] == [b"\x00\x04"]
        await victim.silent()
        assert ("detached", "alice", "phone") not in server.handler.log


@on_loop
async def test_a_login_that_breaks_is_told_that_the_server_is_unavailable(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        server.handler.login_gate = None
        server.handler.refuse = None  # type: ignore[assignment]
        client = await server.open()
        client.send(packets.connect("phone", username="alice"))
        assert [packet.body for packet in await client.gone()] == [b"\x00\x03"]


@on_loop
async def test_connect_comes_once(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        client.send(packets.connect("phone", username="alice"))
        assert await client.gone() == []
        await server.counted("malformed_packets:second_connect")


@on_loop
async def test_connect_must_be_complete_in_time(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"connect_timeout_s": 0.05}) as server:
        silent, half = await server.open(), await server.open()
        half.send(packets.connect("phone")[:9])
        assert await silent.gone() == []
        assert await half.gone() == []
        assert server.counts["closes:connect_timeout"] == 2


@on_loop
async def test_a_slow_login_is_not_the_clients_fault(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"connect_timeout_s": 0.05}) as server:
        server.handler.login_gate = asyncio.Event()
        client = await server.open()
        client.send(packets.connect("phone", username="alice"))
        silent = await server.open()
        await silent.gone()
        server.handler.login_gate.set()
        await client.expect(packets.CONNACK)


@on_loop
async def test_what_follows_connect_waits_for_the_login(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        server.handler.login_gate = asyncio.Event()
        client = await server.open()
        client.send(
            packets.connect("phone", username="alice")
            + packets.packet(packets.PINGREQ)
            + packets.publish("im/v1/alice/phone/up", b"early", packet_id=5)
        )
        other = await server.open()
        other.send(packets.connect("tablet", username="alice"))
        assert not server.handler.uplinks
        server.handler.login_gate.set()
        assert [(await client.packet()).kind for _ in range(3)] == [packets.CONNACK, packets.PINGRESP, packets.PUBACK]
        await other.expect(packets.CONNACK)


@on_loop
async def test_take_over_closes_the_first_and_waits_for_what_it_handed_in(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        handler = server.handler
        handler.answer_at_once = False
        handler.quiet["phone"] = asyncio.Event()
        handler.quiet["phone"].set()
        first = await server.connect("phone")
        first.send(packets.publish("im/v1/alice/phone/up", b"one", packet_id=1))
        await handler.until(lambda: bool(handler.uplinks))
        handler.quiet["phone"].clear()
        second = await server.open()
        second.send(
            packets.connect("alice:phone", username="alice") + packets.publish("im/v1/alice/phone/up", b"two", packet_id=1)
        )
        assert await first.gone() == []
        await handler.saw("detached", "alice", "phone")
        assert len(handler.uplinks) == 1
        link, _, token, *_ = handler.uplinks[0]
        link.done(token)
        handler.quiet["phone"].set()
        await second.expect(packets.CONNACK)
        await handler.until(lambda: len(handler.uplinks) == 2)
        names = [entry[0] for entry in handler.log if entry[0] in ("attached", "detached", "uplink")]
        assert names == ["attached", "uplink", "detached", "attached", "uplink"]
        link, _, token, *_ = handler.uplinks[1]
        link.done(token)
        await second.expect(packets.PUBACK, 1)


@on_loop
async def test_users_never_meet(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        alice = await server.connect("phone", "alice", clean=False)
        bob = await server.connect("phone", "bob", clean=False)
        assert await alice.subscribe(("a", 1)) == [1]
        await alice.silent()
        await bob.disconnect()
        await alice.disconnect()
        await server.connect("phone", "bob", clean=True)
        await server.connect("phone", "alice", clean=False, present=True)


@on_loop
async def test_a_kept_session_goes_on_after_a_restart(tmp_path: Path) -> None:
    handler_log = []
    async with Server(tmp_path) as server:
        server.handler.watchable = {"bob"}
        client = await server.connect("phone", clean=False)
        session = server.handler.links[0].session
        filters = (("im/v1/alice/down", 1), ("im/v1/alice/phone/down", 0), ("im/v1/bob/presence", 1))
        assert await client.subscribe(*filters) == [1, 0, 1]
        crash = server.copy_of_disk(tmp_path.parent / f"{tmp_path.name}-crash")
    async with Server(crash) as server:
        await server.connect("phone", clean=False, present=True)
        handler_log = server.handler.log
        assert ("attached", "alice", "phone", False, True, 1, 0) in handler_log
        assert ("watch", "phone", "bob", 1) in handler_log
        assert server.handler.links[0].session == session
        await server.connect("phone", clean=True)
        assert ("session_ended", "alice", "phone") in handler_log
        assert server.handler.links[1].session != session
    async with Server(crash) as server:
        await server.connect("phone", clean=False)


@on_loop
async def test_catch_up_leaves_with_connack(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        server.handler.on_attached = lambda link: link.publish(b"im/v1/alice/down", b"missed", 1, dup=True)
        client = await server.open()
        client.send(packets.connect("phone", username="alice"))
        data = await client.reader.read(1000)
        assert data == b"\x20\x02\x00\x00" + packets.publish("im/v1/alice/down", b"missed", packet_id=1, dup=True)


@on_loop
async def test_nobody_has_plain_topics_only(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("open/#",)) as server:
        client = await server.connect("some client", None)
        twin = await server.connect("", None)
        other = await server.connect("", None)
        codes = await client.subscribe(("open/+", 1), ("im/v1/alice/down", 1), ("im/v1/#", 0), ("#", 0))
        assert codes == [1, 0x80, 0x80, 0]
        twin.send(packets.publish("open/door", b"hello", qos=1, packet_id=3))
        await twin.expect(packets.PUBACK, 3)
        assert (await client.message()).payload == b"hello"
        await other.silent()


@on_loop
async def test_keep_alive_is_enforced_at_one_and_a_half(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        forever = await server.connect("forever")
        client = await server.connect("phone", keepalive=1, will=Will("im/v1/alice/phone/up", b"gone"))
        assert await client.gone() == []
        await server.handler.saw("will", "alice", "phone", b"gone")
        assert server.counts["closes:keep_alive"] == 1
        await forever.silent()


@on_loop
async def test_forget_removes_the_kept_session(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect("phone", clean=False)
        await client.subscribe(("im/v1/alice/down", 1))
        await server.transport.forget("alice", "phone")
        assert await client.gone() == []
        await server.connect("phone", clean=False)
        assert [link.device for link in server.transport.links("alice")] == ["phone"]


@on_loop
async def test_kept_sessions_of_one_user_are_bounded_and_the_longest_unseen_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.sessions.keeper.MAX_KEPT_SESSIONS", 3)
    clock = iter(range(1_000, 2_000))
    async with Server(tmp_path, plain_topics=("#",)) as server:
        monkeypatch.setattr(server.hub.ground.clock, "steady", lambda: 1000 * next(clock))
        stays = await server.connect("stays", clean=False)
        for name in ("a", "b", "c"):
            client = await server.connect(name, clean=False)
            await client.subscribe(("t", 1))
            await client.disconnect()
        await server.connect("a", "bob", clean=False)
        assert [entry for entry in server.handler.log if entry[0] == "session_ended"] == [("session_ended", "alice", "a")]
        await server.connect("b", clean=False, present=True)
        await server.connect("c", clean=False, present=True)
        await stays.silent()
        await stays.disconnect()
        await server.connect("stays", clean=False, present=True)


@on_loop
async def test_kept_sessions_of_all_users_are_bounded_by_what_they_weigh(tmp_path: Path) -> None:
    """Those that are away longest end, and whoever is there stays."""
    filters = [(f"t/{number}", 1) for number in range(20)]
    limits = {"max_kept_session_bytes": 8 * 3 * weight(dict(filters))}
    async with Server(tmp_path, limits=limits, plain_topics=("#",)) as server:
        stays = await server.connect("stays", clean=False)
        await stays.subscribe(*filters)
        for name in ("a", "b", "c", "d"):
            client = await server.connect(name, clean=False)
            await client.subscribe(*filters)
            await client.disconnect()
        await server.handler.saw("session_ended", "alice", "a")
        assert server.counts["sessions_given_up"] == 1
        await stays.silent()
        await stays.disconnect()
        await server.handler.saw("session_ended", "alice", "b")
        for name in ("c", "d", "stays"):
            await server.connect(name, clean=False, present=True)
        await server.connect("a", clean=False)
    async with Server(tmp_path, limits=limits, plain_topics=("#",)) as server:
        assert server.hub.sessions._away.bytes >= 3 * weight(dict(filters))


@on_loop
async def test_who_comes_and_goes_in_debt_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer for each time filled the memory, as long as somebody went on."""
    async with Server(tmp_path) as server:
        hub, timers = server.hub, list[tuple[Any, ...]]()
        monkeypatch.setattr(hub, "loop", SimpleNamespace(call_later=lambda *given: timers.append(given)))
        for _ in range(50):
            hub.user("mallory").bucket.charge(1e9, hub.clock())
            hub.release_user("mallory")
        assert len(timers) == 1
        _, look, *given = timers.pop()
        look(*given)
        assert len(timers) == 1, "it still owes something"
        hub.user("mallory").bucket.paid_until = 0.0
        _, look, *given = timers.pop()
        look(*given)
        assert not timers and "mallory" not in hub._users


@on_loop
async def test_a_session_that_cannot_be_stored_or_read_is_not_kept(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        await (await server.connect("phone", clean=False)).close()
        await server.counted("closes:lost")
        with server.full_disk():
            for clean in (True, False):  # what it had before is over, and what it has now ends with its connection
                client = await server.open()
                client.send(packets.connect("phone", username="alice", clean=clean))
                assert (await client.expect(packets.CONNACK)).body == b"\x00\x00"
                assert await client.subscribe(("im/v1/alice/down", 1)) == [1]
        client = await server.open()
        client.send(packets.connect("phone", username="alice", clean=False))
        assert (await client.expect(packets.CONNACK)).body == b"\x00\x00"
        await client.close()
        client = await server.open()
        client.send(packets.connect("phone", username="alice", clean=False))
        assert (await client.expect(packets.CONNACK)).body == b"\x01\x00"
        client = await server.open()
        with server.broken_disk():
            client.send(packets.connect("tablet", username="alice", clean=False))
            assert [packet.body for packet in await client.gone()] == [b"\x00\x03"]
        await server.connect("tablet", clean=False)


@on_loop
async def test_connections_that_come_at_once_cannot_be_more_than_may_be(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_connections_per_user": 3}) as server:
        server.handler.quiet["0"] = asyncio.Event()
        clients = [await server.open() for _ in range(8)]
        for number, client in enumerate(clients):
            client.send(packets.connect(str(number), username="alice", clean=False))
        server.handler.quiet["0"].set()
        answers = [(await client.expect(packets.CONNACK)).body for client in clients]
        assert sorted(answers) == [b"\x00\x00"] * 3 + [b"\x00\x03"] * 5


@on_loop
async def test_a_client_that_goes_while_it_is_let_in_leaves_nothing(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        handler = server.handler
        handler.quiet["phone"] = asyncio.Event()
        client = await server.open()
        client.send(packets.connect("phone", username="alice", clean=True, will=Will("im/v1/alice/phone/up", b"never")))
        await handler.saw("quiesced", "alice", "phone")
        await client.close()
        await server.counted("closes:lost")
        handler.quiet["phone"].set()
        await server.connect("phone", clean=False)
        assert [entry[0] for entry in handler.log if entry[0] in ("attached", "detached", "will")] == ["attached"]
        assert len(server.hub.sessions.in_memory) == 1
