"""Limits: the counting alone, and each limit as a client meets it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path

import pytest

from mqtt_im.process import raise_file_limit
from mqtt_im.transport.embedded import guests
from mqtt_im.transport.embedded.buckets import Bucket, Buckets, SharedBucket
from mqtt_im.transport.embedded.limits import PerMinute, Quiet
from mqtt_im.transport.guest import Guest
from tests.support import packets
from tests.unit.transport.harness import Client, Server, on_loop


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    bucket = Bucket(10)
    assert [bucket.take(100.0) for _ in range(20)] == [0.0] * 20
    assert bucket.take(100.0) == pytest.approx(0.1)
    assert bucket.take(100.0) == pytest.approx(0.1), "asking costs nothing"
    assert bucket.take(100.1) == 0.0
    assert bucket.take(100.1) == pytest.approx(0.1)
    assert [bucket.take(200.0) for _ in range(20)] == [0.0] * 20
    assert bucket.take(200.0) == pytest.approx(0.1)


def test_a_bucket_never_exceeds_burst_and_rate_over_any_time() -> None:
    bucket, now, taken = Bucket(50), 0.0, 0
    while now < 10:
        wait = bucket.take(now)
        if wait:
            now += wait
        else:
            taken += 1
    assert taken == pytest.approx(100 + 500, abs=1)


def test_buckets_that_tell_each_other_let_one_rate_through() -> None:
    spent: list[dict[str, float]] = [{}, {}]
    buckets = [SharedBucket(50, "alice", each) for each in spent]
    taken = 0
    for tick in range(20):
        for now in (tick + part / 100 for part in range(100)):
            for bucket in buckets:
                while not bucket.take(now):
                    taken += 1
        for own, other in ((0, 1), (1, 0)):
            buckets[own].spent_elsewhere(spent[other].get("alice", 0.0), tick + 1.0)
        for each in spent:
            each.clear()
    assert 20 * 50 <= taken <= 20 * 50 + 2 * (100 + 50), "the rate, with the burst of each and what it did not know of"


def test_per_minute_counts_in_windows() -> None:
    counter = PerMinute()
    assert [counter.add(now) for now in (5.0, 6.0, 64.9, 65.0, 66.0, 200.0)] == [1, 2, 3, 1, 2, 1]


def test_a_quiet_log_tells_how_much_it_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    left_out: Counter[str] = Counter()

    def count(name: str, amount: float = 1, **labels: str) -> None:
        left_out[name] += int(amount)

    quiet = Quiet(logging.getLogger("test.quiet"), lambda: now, count, burst=2, period=10)
    for number in range(5):
        quiet.note("flood", "192.0.2.1", "line %d", number)
    quiet.note("other", "192.0.2.1", "another kind")
    quiet.note("flood", "192.0.2.2", "another address")
    now = 11.0
    quiet.note("flood", "192.0.2.1", "line %d", 5)
    left_out_line = "3 more lines of the kind 'flood' from 192.0.2.1 were left out"
    assert caplog.messages == ["line 0", "line 1", "another kind", "another address", left_out_line, "line 5"]
    assert left_out == {"log_lines_suppressed": 3}


def test_buckets_are_forgotten_when_they_are_full_again() -> None:
    buckets = Buckets(1)
    for number in range(5_000):
        buckets.take(f"came once {number}", now=float(number))
        assert len(buckets) <= 1_025
    assert [buckets.take("comes often", 5_000.0) for _ in range(2)] == [0.0, 0.0]
    for number in range(5_000):
        buckets.take(f"another {number}", now=5_000.0)
    assert buckets.take("comes often", 5_000.0) > 0


@on_loop
async def test_connections_are_bounded(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_connections": 2}) as server:
        first = await server.connect("a")
        await server.connect("b", "bob")
        third = await server.open()
        third.send(packets.connect("c", username="carol"))
        assert [packet.body for packet in await third.gone()] == [b"\x00\x03"]
        await first.disconnect()
        await server.connect("c", "carol")
        assert server.counts["connects_refused:max_connections"] == 1


@on_loop
async def test_a_full_house_lets_a_device_take_over_its_own_place(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_connections": 2}) as server:
        await server.connect("a")
        half_open = await server.connect("b", "bob")
        await server.connect("b", "bob")
        assert await half_open.gone() == []
        another = await server.open()
        another.send(packets.connect("b", username="alice"))  # not bob's, so no place of its own
        assert [packet.body for packet in await another.gone()] == [b"\x00\x03"]


@on_loop
async def test_logins_and_ends_of_connections_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mqtt_im.mqtt")
    async with Server(tmp_path) as server:
        first = await server.connect()
        await server.connect()
        await first.gone()
        third = await server.connect("c", "bob")
        third.send(packets.packet(packets.DISCONNECT))
        await server.counted("closes:disconnect")
        told = [(line.message, *(line.__dict__.get(name) for name in ("user", "device", "reason"))) for line in caplog.records]
        assert told == [
            ("logged in", "alice", "phone", None),
            ("connection ended", "alice", "phone", "taken_over"),
            ("logged in", "alice", "phone", None),
            ("logged in", "bob", "c", None),
            ("connection ended", "bob", "c", "disconnect"),
        ]
        assert {line.__dict__["address"] for line in caplog.records} == {"127.0.0.1"}


@on_loop
async def test_sockets_far_above_the_limit_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.hub._OVERFLOW", 1)
    async with Server(tmp_path, limits={"max_connections": 1}) as server:
        silent = [await server.open() for _ in range(2)]
        third = await server.open()
        assert await third.gone() == []
        await server.counted("connects_refused:max_connections")
        await silent[0].close()


@on_loop
async def test_a_users_connections_are_bounded_and_a_take_over_is_none_more(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_connections_per_user": 2}) as server:
        await server.connect("a")
        second = await server.connect("b")
        third = await server.open()
        third.send(packets.connect("c", username="alice"))
        assert [packet.body for packet in await third.gone()] == [b"\x00\x03"]
        await server.connect("b")
        await second.gone()
        await server.connect("c", "bob")


@on_loop
async def test_who_comes_and_goes_too_fast_waits_in_a_short_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.hub.MAX_DEBT_S", 3600.0)
    async with Server(tmp_path, limits={"max_connections_per_user": 1}) as server:
        hub = server.hub
        hub.user("alice").bucket.paid_until = hub.clock() + 3600
        waiting = [await server.open() for _ in range(4)]
        for number, client in enumerate(waiting):
            client.send(packets.connect(f"a{number}", username="alice"))
        await server.handler.until(lambda: hub.user("alice").logins == 4)
        late = await server.open()
        late.send(packets.connect("late", username="alice"))
        assert [packet.body for packet in await late.gone()] == [b"\x00\x03"]
        assert await guests.join(hub, Guest("alice", "")) == "logins"
        await server.connect("c", "bob")
        hub.user("alice").bucket.paid_until = 0.0
        assert (await waiting[0].packet()).body == b"\x00\x00", "in its turn"
        for client in waiting:
            await client.close()
        await server.handler.until(lambda: not hub.user("alice").logins)


@on_loop
async def test_of_many_that_are_lost_at_once_a_few_are_told_in_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.hub._ENDS", 1)
    async with Server(tmp_path, limits={"max_connections_per_user": 4}) as server:
        hub = server.hub
        hub._may_settle = 1
        for device in "abcd":
            await server.connect(device)
        lost = [hub.live["alice", device] for device in "abcd"]
        for connection in lost:
            connection.end("lost")
        assert all(connection.closed for connection in lost)
        assert list(hub.live) == [("alice", device) for device in "bcd"], "one in this turn"
        lost[2].end("taken_over")
        assert ("alice", "c") not in hub.live, "who comes in its place waits for no turn"
        assert not hub.has_no_room(("alice", "e")), "nor does who needs a place"
        assert not hub.live
        while hub._lost:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        await server.connect("a")


@on_loop
async def test_an_addresses_connections_are_bounded(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_connections_per_address": 2}) as server:
        first, _ = await server.open(), await server.open()
        third = await server.open()
        assert await third.gone() == []
        await first.close()
        await server.handler.until(lambda: len(server.hub.sockets) == 1)
        await server.connect()


@on_loop
async def test_an_address_connects_only_so_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(tmp_path, limits={"connects_per_second_per_address": 3}) as server:
        monkeypatch.setattr(server.hub, "clock", lambda: 1_000.0)
        clients = [await server.open() for _ in range(6)]
        seventh = await server.open()
        seventh.send(packets.connect("seventh", username="alice"))
        assert await seventh.gone() == []
        await server.counted("connects_refused:connects_per_second_per_address")
        for number, client in enumerate(clients):
            client.send(packets.connect(str(number), username="alice"))
            await client.expect(packets.CONNACK)
        monkeypatch.setattr(server.hub, "clock", lambda: 1_001.0)
        await server.connect("later")


@on_loop
async def test_sockets_that_are_refused_do_not_make_room_at_their_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.hub._OVERFLOW", 0)
    async with Server(tmp_path, limits={"max_connections": 2, "max_connections_per_address": 3}) as server:
        stays = [await server.open() for _ in range(2)]
        for _ in range(3):
            assert await (await server.open()).gone() == []
        assert server.counts["connects_refused:max_connections"] == 3
        await stays[0].close()
        await server.handler.until(lambda: len(server.hub.sockets) == 1)
        assert server.hub._addresses == {"127.0.0.1": 1}


@on_loop
async def test_a_thousand_clients_that_come_at_once_are_all_served(tmp_path: Path) -> None:
    raise_file_limit()  # both ends of each connection are in this process
    async with Server(tmp_path) as server:

        async def come(number: int) -> None:
            user = f"user{number % 500}"
            client = await server.open()
            client.send(packets.connect(f"device{number}", username=user, clean=number % 3 > 0, keepalive=60))
            await client.expect(packets.CONNACK)
            assert await client.subscribe((f"im/v1/{user}/down", 1)) == [1]
            client.send(packets.publish(f"im/v1/{user}/device{number}/up", b"here", packet_id=1))
            await client.expect(packets.PUBACK, 1)

        await asyncio.gather(*(come(number) for number in range(1_000)))
        assert server.transport.connection_count == 1_000
        assert len(server.handler.uplinks) == 1_000
        assert not server.counts["connects_refused"]


def stop_reading(client: Client) -> None:
    """Read nothing more; the kernel's buffers fill."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]


@on_loop
async def test_a_client_that_does_not_read_is_told_to_the_bridge_and_goes_on_later(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        stop_reading(client)
        link = server.handler.links[0]
        sent = 0
        while link.writable:
            link.publish(b"im/v1/alice/down", b"x" * 50_000, sent + 1)
            sent += 1
            await asyncio.sleep(0)
        assert not link.closed
        client.send(packets.publish("im/v1/alice/phone/up", b"", packet_id=1))
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert [(await client.message()).packet_id for _ in range(sent)] == list(range(1, sent + 1))
        await server.handler.saw("writable", "phone")
        await client.expect(packets.PUBACK, 1)


@on_loop
async def test_one_turn_of_the_loop_can_fill_the_buffer(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        client = await server.connect()
        stop_reading(client)
        link = server.handler.links[0]
        sent = 0
        while link.writable:
            sent += 1
            link.publish(b"im/v1/alice/down", b"x" * 1000, sent)
        assert sent < 20_000


@on_loop
async def test_a_buffer_that_grows_on_is_cut(tmp_path: Path) -> None:
    async with Server(tmp_path, limits={"max_write_buffer_bytes": 100_000}) as server:
        client = await server.connect()
        stop_reading(client)
        link = server.handler.links[0]
        while not link.closed:
            link.publish(b"im/v1/alice/down", b"x" * 10_000, 1)
            await asyncio.sleep(0)
        assert server.counts["closes:write_buffer"] == 1
        assert ("detached", "alice", "phone") in server.handler.log


@on_loop
async def test_a_buffer_that_does_not_shrink_is_cut_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.transport.embedded.wire._STALLED_S", 0.05)
    async with Server(tmp_path) as server:
        client = await server.connect()
        stop_reading(client)
        link = server.handler.links[0]
        while link.writable:
            link.publish(b"im/v1/alice/down", b"x" * 10_000, 1)
            await asyncio.sleep(0)
        await server.counted("closes:not_reading")


@on_loop
async def test_plain_messages_at_qos_0_are_dropped_for_who_does_not_read(tmp_path: Path) -> None:
    async with Server(tmp_path, plain_topics=("#",)) as server:
        reader, writer = await server.connect("reader"), await server.connect("writer")
        await reader.subscribe(("a", 0))
        stop_reading(reader)
        while not server.counts["plain_dropped"]:
            writer.send(packets.publish("a", b"x" * 50_000, qos=0))
            await writer.silent()
        assert not server.handler.links[0].closed
