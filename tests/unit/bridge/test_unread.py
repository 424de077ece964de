"""Who does not read: replies that wait are bounded in number and in bytes; and who asks for the same again pays for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mqtt_im.bridge import channel, reading, uplink
from mqtt_im.core import costs
from mqtt_im.core.rules import Who
from mqtt_im.store.interface import Readable
from mqtt_im.store.queries import listings
from tests.support.bridge import BridgeWorld
from tests.support.im import encode
from tests.unit.transport.harness import on_loop


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> int:
    """The bytes of a page above which pages are short."""
    monkeypatch.setattr(uplink, "MAX_LATE_BYTES", 50_000)
    return 50_000


def _stored(world: BridgeWorld, count: int, size: int) -> None:
    alice = world.connect("alice")
    world.settle()
    for number in range(count):
        world.ask(alice, "send", id=f"m{number}", to="bob", body="x" * size)
    world.settle()


@on_loop
async def test_pages_are_short_for_who_takes_none(tmp_path: Path, large: int) -> None:
    with BridgeWorld(tmp_path) as world:
        _stored(world, 20, 5_000)
        bob = world.connect("bob")
        world.settle()
        bob.room = 0
        kept = world.bridge._channels[bob]
        sizes = []
        for _ in range(4):
            before = kept.late_bytes
            world.ask(bob, "sync", after=0)
            world.settle()
            sizes.append(kept.late_bytes - before)
        assert sizes[0] > large
        assert max(sizes[1:]) < 11_000, "an item or two, whatever was asked for"
        bob.room = 65_536
        kept.flush_late()
        assert kept.late_bytes == 0
        assert len(bob.of("page")) == 4


@on_loop
async def test_of_who_reads_none_few_replies_are_kept_and_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INV-16, and: what the device acknowledges may stand behind all that it asks."""
    monkeypatch.setattr(channel, "MAX_UNREAD", 3)

    with BridgeWorld(tmp_path) as world:
        bob = world.connect("bob")
        world.settle()
        for number in range(10):
            world.ask(bob, "sync", after=0, id=f"s{number}")
            world.settle()
        kept = world.bridge._channels[bob]
        assert [packet_id > 0 for _, packet_id, _ in bob.sent] == [True] * 3 + [False] * 7
        assert (kept.unread, len(bob.answered)) == (3, 10)
        world.read(bob, "s1")
        for number in (10, 11):
            world.ask(bob, "sync", after=0, id=f"s{number}")
            world.settle()
        assert [packet_id > 0 for _, packet_id, _ in bob.sent[-2:]] == [True, False], "there was room for one"


@on_loop
async def test_few_replies_wait_until_the_device_takes_more_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receive Maximum (MQTT5-3.3.4-9) bounds no packets of QoS 0."""
    monkeypatch.setattr(channel, "MAX_UNREAD", 3)

    with BridgeWorld(tmp_path) as world:
        bob = world.connect("bob")
        world.settle()
        bob.room = 0
        for number in range(10):
            world.bridge.uplink(bob, encode({"op": "sync", "after": 0, "id": f"s{number}"}), 0, 0, False)
            world.settle()
        kept = world.bridge._channels[bob]
        assert (kept.unread, [packet_id for _, packet_id, _ in bob.sent]) == (3, [0] * 7)
        bob.room = 65_536
        kept.flush_late()
        assert [(page["id"], packet_id > 0) for page, packet_id, _ in bob.sent[7:]] == [("s0", True), ("s1", True), ("s2", True)]


@on_loop
async def test_what_is_offered_again_is_paid_for(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        _stored(world, 10, 5_000)
        bob = world.connect("bob")
        world.settle()
        assert len(bob.of("msg")) == 10
        before = bob.charged
        world.ask(bob, "hello", after=0)
        world.settle()
        assert len(bob.of("msg")) == 20
        assert bob.charged - before > 10 * 5_000 / costs.BODY_BYTES


@on_loop
async def test_what_reaches_a_crowd_is_priced_at_the_door(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        alice = world.connect("alice")
        world.settle()
        members = [f"member{number}" for number in range(200)]
        world.ask(alice, "group.create", id="g", group="#crowd", members=members)
        world.settle()
        crowd = costs.of_audience(201)
        for op, fields in [("react", {"emoji": "x"}), ("edit", {"body": "y"}), ("recall", {})]:
            world.ask(alice, "send", id=f"before {op}", to="#crowd", body="x")
            world.settle()
            before = alice.charged
            world.ask(alice, op, id=op, conv="#crowd", seq=2, **fields)
            assert alice.charged - before > crowd - 0.1, op
            world.settle()
            assert alice.charged - before == pytest.approx(crowd, abs=0.1), "once"


@pytest.mark.parametrize(("wait_s", "told_s"), [(0.0001, 0.1), (0.05, 0.1), (0.11, 0.2), (3.0, 3.0)])
@on_loop
async def test_who_is_refused_for_a_while_is_never_told_to_come_back_at_once(
    tmp_path: Path, wait_s: float, told_s: float
) -> None:
    with BridgeWorld(tmp_path) as world:
        bob = world.connect("bob")
        world.settle()
        world.bridge.rate_limited(bob, encode({"op": "devices", "id": "d"}), 1, wait_s, False)
        world.bridge.pump.all_ready()
        error = bob.of("error")[0]
        assert (error["id"], error["code"], error["retry_after"]) == ("d", "rate_limited", told_s)
        assert bob.failed == [1]


@on_loop
async def test_pages_that_nobody_waits_for_any_more_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    convs = listings.convs

    def noted(engine: Readable, who: Who, *rest: Any) -> Any:
        read.append(who.user)
        return convs(engine, who, *rest)

    monkeypatch.setattr(listings, "convs", noted)

    with BridgeWorld(tmp_path) as world:
        _stored(world, 1, 10)
        alice, bob = world.connect("alice"), world.connect("bob")
        world.settle()
        tokens = [world.ask(bob, "convs", id=f"c{number}") for number in range(3)]
        world.ask(bob, "typing", to="alice", on=True)
        world.ask(alice, "convs", id="c")
        world.leave(bob)
        world.settle()
        assert read == ["alice"]
        assert set(tokens) <= set(bob.answered), "the next connection of the device waits for these"
        assert alice.of("typing"), "what is for others is told all the same"


@on_loop
async def test_who_goes_in_the_middle_pays_for_the_steps_that_were_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who has a million unread messages asks again and again, and goes before the last step."""
    monkeypatch.setattr(reading, "STEP", 3)
    monkeypatch.setattr(reading, "thread_time", iter(range(100)).__next__)
    with BridgeWorld(tmp_path) as world:
        _stored(world, 10, 10)
        bob = world.connect("bob")
        world.settle()
        before = bob.charged
        world.ask(bob, "convs", id="c")
        world.batch()
        world.leave(bob)
        world.settle()
        assert bob.charged - before > costs.of_more_time(1.0, 20.0)


@pytest.mark.parametrize("leaves", [False, True])
@on_loop
async def test_what_is_counted_in_steps_is_told_once_and_not_for_who_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """Others are served between two steps."""
    monkeypatch.setattr(reading, "STEP", 3)
    with BridgeWorld(tmp_path) as world:
        _stored(world, 10, 10)
        alice, bob = world.connect("alice"), world.connect("bob")
        world.settle()
        token = world.ask(bob, "convs", id="c")
        world.batch()
        assert not bob.of("convs") and token not in bob.answered
        world.ask(alice, "devices", id="d")
        world.batch()
        world.bridge.pump.all_ready()
        assert alice.of("ok") and not bob.of("convs")
        if leaves:
            world.leave(bob)
        world.settle()
        assert token in bob.answered
        assert [conv["unread"] for page in bob.of("convs") for conv in page["convs"]] == ([] if leaves else [10])
