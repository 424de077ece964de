"""The process ends where nobody can aim from outside: between a commit and its report, between an answer and what follows it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from unittest.mock import patch

import pytest

from mqtt_im.store.refusals import undecided
from tests.support.bridge import BridgeWorld, FakeLink
from tests.support.im import encode


def with_bob(test: Callable[[BridgeWorld, FakeLink], Coroutine[None, None, None]]) -> Callable[..., None]:
    """Bob's phone keeps its session, was offered ten messages, and has acknowledged eight."""

    def run(tmp_path: Path) -> None:
        async def play() -> None:
            world = BridgeWorld(tmp_path)
            ann, bob = world.connect("ann"), world.connect("bob", clean=False)
            world.settle()
            for number in range(10):
                world.ask(ann, "send", to="bob", body=number)
            world.settle()
            world.puback(bob, *range(1, 9))
            await test(world, bob)

        asyncio.run(play())

    run.__doc__ = test.__doc__
    return run


def came_again(world: BridgeWorld) -> FakeLink:
    """What waits is committed, and the process ends before anybody is told. Bob's phone is back, at the next one's."""
    world.batch(told=False)
    after = world.crashed()
    bob = after.connect("bob", clean=False, resumed=True)
    after.settle()
    after.close()
    return bob


@with_bob
async def test_a_hello_that_was_committed_and_not_answered_holds(world: BridgeWorld, bob: FakeLink) -> None:
    """Also against what was acknowledged before it, and while it was under way."""
    world.ask(bob, "hello", id="h", after=3)
    world.puback(bob, 9, 10)
    assert came_again(world).positions == list(range(4, 11))
    assert not bob.of("welcome")


@with_bob
async def test_what_was_acknowledged_behind_it_dies_with_the_process(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "hello", id="h", after=3)
    world.settle()
    world.puback(bob, 4, 5)
    assert came_again(world).positions == list(range(4, 11))


@with_bob
async def test_what_was_written_of_that_counts_though_nobody_was_told(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "hello", id="h", after=3)
    world.settle()
    world.puback(bob, 4, 5)
    world.bridge.cursors.write()
    assert came_again(world).positions == list(range(6, 11))


@with_bob
async def test_a_hello_that_was_not_committed_leaves_nothing(world: BridgeWorld, bob: FakeLink) -> None:
    world.bridge.cursors.write()
    world.settle()
    world.ask(bob, "hello", id="h", after=3)
    world.ledger.waiting.clear()
    assert came_again(world).positions == [9, 10]


@with_bob
async def test_between_the_answer_and_the_first_item(world: BridgeWorld, bob: FakeLink) -> None:
    """What was offered before the `hello` may be the same packets, so they say so."""
    bob.writable = False
    world.ask(bob, "hello", id="h", after=3)
    world.settle()
    assert bob.of("welcome")[-1]["pos"] == 3 and bob.positions[10:] == []
    again = came_again(world)
    assert [(item["pos"], dup) for item, _, dup in again.sent if item["op"] == "msg"] == [(pos, True) for pos in range(4, 11)]


@with_bob
async def test_the_choice_of_ack_that_was_committed_and_not_answered_holds(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "hello", id="h", ack="app", after=2)
    world.puback(bob, 9, 10)
    world.batch(told=False)
    after = world.crashed()
    again = after.connect("bob", clean=False, resumed=True)
    after.settle()
    assert again.positions == list(range(3, 11))
    after.puback(again, *range(3, 11))
    after.bridge.cursors.write()
    after.settle()
    assert after.cursor("bob") == 2
    after.close()


@with_bob
async def test_an_ack_that_was_committed_and_not_acknowledged_counts(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "hello", id="h", ack="app")
    world.settle()
    token = world.ask(bob, "ack", pos=9)
    assert came_again(world).positions == [10]
    assert token not in bob.answered


@with_bob
async def test_a_send_that_was_committed_and_not_answered_is_one_message(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "send", id="s", to="ann", body="once")
    world.batch(told=False)
    after = world.crashed()
    again, ann = after.connect("bob"), after.connect("ann")
    after.ask(again, "send", id="s", to="ann", body="once")
    after.settle()
    assert [item["dup"] for item in again.of("sent") if "dup" in item] == [True]
    assert [item["body"] for item in ann.of("msg")] == ["once"]
    after.close()


_BETWEEN = [
    "nothing",
    "connection without offers",
    "connection that is gone before it begins",
    "connection that is gone before the store is back",
    "hello back",
    "PUBACKs alone, to an app",
]


@pytest.mark.parametrize("between", _BETWEEN)
def test_what_was_offered_before_the_crash_is_not_replaced_after_it(tmp_path: Path, between: str) -> None:
    """INV-12, of a device that keeps no session, so that the next connection knows of nothing in flight."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob")
        world.settle()
        if between == "PUBACKs alone, to an app":
            world.ask(bob, "hello", id="h", ack="app")
        for number in range(3):
            world.ask(ann, "send", to="bob", body=number, key="state" if number == 1 else None)
        world.settle()
        assert bob.positions == [1, 2, 3]
        if between == "PUBACKs alone, to an app":
            world.puback(bob, 1, 2, 3)
        else:
            world.puback(bob, 1)
        world.leave(bob)
        world.bridge.cursors.write()
        world.settle()
        if "connection" in between or "hello" in between:
            again = world.connect("bob")
            again.writable = False
            if "store" in between:
                world.leave(again)
                world.refuse()
            elif "gone" not in between:
                world.settle()
            if "hello" in between:
                world.ask(again, "hello", id="h", after=0)
                world.settle()
            assert not again.items
            world.leave(again)
            world.bridge.cursors.write()
            world.settle()
        after = world.crashed()
        ann = after.connect("ann")
        after.ask(ann, "send", to="bob", body="newer", key="state")
        after.settle()
        bob = after.connect("bob")
        after.settle()
        assert [item["body"] for item in bob.of("msg") if item["pos"] > 1] == [1, 2, "newer"]
        after.close()

    asyncio.run(play())


def test_a_device_that_is_new_begins_when_it_is_registered(tmp_path: Path) -> None:
    """INV-1: a server that dies before there is room again has told nobody of a device that it does not know any more."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob")
        world.settle()
        world.ask(ann, "send", to="bob", body="before")
        world.settle()
        world.leave(bob)
        new, known, says = world.connect("bob", "pc"), world.connect("bob"), world.connect("bob", "tv")
        says.user_qos = says.device_qos = -1  # it only publishes, so far
        token = world.ask(says, "hello", ack="app")
        for _ in range(2):  # who begins asks for items
            world.batch(fails=True)
            world.bridge.pump.all_ready()
        assert [(error["code"], error["retry"]) for error in new.of("error")] == [("unavailable", True)]
        assert (new.closed, new.items, says.failed) == (True, [], [token])
        assert [item["body"] for item in known.of("msg")] == ["before"], "who is known is served"
        after = world.crashed()
        assert {name for name in ("phone", "pc", "tv") if after.store.engine.state.device("bob", name)} == {"phone"}
        again, ann = after.connect("bob", "pc"), after.connect("ann")
        after.settle()
        after.ask(ann, "send", to="bob", body="behind")
        after.settle()
        assert [item["body"] for item in again.of("msg")] == ["behind"]
        after.close()

    asyncio.run(play())


@pytest.mark.parametrize("version", [4, 5])
def test_what_may_have_been_stored_has_no_acknowledgement(tmp_path: Path, version: int) -> None:
    """Nor in MQTT 5, where a refusal says that nothing was stored, so that the client sends it as a new one."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann = world.connect("ann")
        ann.version = version
        world.settle()
        token = world.ask(ann, "send", to="bob", body="once?")
        world.refuse(undecided())
        assert ann.failed == [token] and not ann.answered and ann.closed
        assert ann.of("error")[-1]["retry"] is True
        world.close()

    asyncio.run(play())


@pytest.mark.parametrize("why", ["the store is away", "the rate"])
@pytest.mark.parametrize(
    ("dup", "fields"), [(False, {}), (True, {}), (True, {"id": "a"})], ids=["first", "again", "again, with id"]
)
def test_a_repeat_without_id_that_is_refused_for_now_has_no_acknowledgement(
    tmp_path: Path, dup: bool, fields: dict[str, str], why: str
) -> None:
    """Else a client of MQTT 5 sends it as a new packet, and nobody knows that it was stored the first time."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann = world.connect("ann")
        ann.version = 5
        world.settle()
        payload = encode({"op": "send", "to": "bob", "body": 1, **fields})
        if why == "the rate":
            world.bridge.rate_limited(ann, payload, 1, 2.0, dup)
        else:
            world.bridge.uplink(ann, payload, 1, 1, dup)
            world.refuse()
        may_be_there = dup and not fields
        assert (ann.failed, ann.answered) == (([1], []) if may_be_there else ([], [1]))
        world.close()

    asyncio.run(play())


def test_a_device_whose_state_can_not_be_read_does_not_begin(tmp_path: Path) -> None:
    """What may have been in flight is not known then, so nothing may be sent as if it were new (MQTT-3.3.1-1)."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        bob = world.connect("bob", clean=False, resumed=True)
        with (
            patch("mqtt_im.store.jobs.delivering._newest_upto", side_effect=sqlite3.OperationalError("disk I/O error")),
            patch.object(type(world.store.engine), "offered_upto", return_value=1),
        ):
            world.settle()
        assert bob.closed
        world.close()

    asyncio.run(play())
