"""Cursors are written late (INV-11): never over what a device has said since, and again where a batch has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from mqtt_im.bridge.cursors import AT_ONCE
from mqtt_im.store.jobs.delivering import CursorsJob
from tests.support.bridge import BridgeWorld, FakeLink


def with_bob(test: Callable[[BridgeWorld, FakeLink], Coroutine[None, None, None]]) -> Callable[..., None]:
    """Bob's phone is connected, and was offered ten messages."""

    def run(tmp_path: Path) -> None:
        async def play() -> None:
            world = BridgeWorld(tmp_path)
            try:
                ann, bob = world.connect("ann"), world.connect("bob")
                world.settle()
                for number in range(10):
                    world.ask(ann, "send", to="bob", body=number)
                world.settle()
                assert bob.positions == list(range(1, 11))
                await test(world, bob)
            finally:
                world.close()

        asyncio.run(play())

    run.__doc__ = test.__doc__
    return run


def delivered(world: BridgeWorld, user: str) -> int:
    conv = world.store.engine.state.conv("ann:bob")
    assert conv is not None
    return conv.members[user].delivered


@with_bob
async def test_what_was_acknowledged_before_a_hello_does_not_overrun_it(world: BridgeWorld, bob: FakeLink) -> None:
    world.puback(bob, 1, 2, 3, 4, 5)
    world.ask(bob, "hello", id="h", after=2)
    world.bridge.cursors.write()  # anybody's `convs` or `devices`, or the timer
    world.settle()
    assert bob.of("welcome")[-1]["pos"] == 2
    assert world.cursor("bob") == 2
    assert bob.positions[10:] == list(range(3, 11))
    assert delivered(world, "bob") == 5, "what was delivered stays so"


@with_bob
async def test_what_is_acknowledged_while_a_hello_is_under_way_is_void(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "hello", id="h", after=2)
    world.puback(bob, 1, 2, 3, 4, 5)
    world.bridge.cursors.write()
    world.settle()
    world.bridge.cursors.write()
    world.settle()
    assert world.cursor("bob") == 2
    assert bob.positions[10:] == list(range(3, 11))
    assert delivered(world, "bob") == 5


@with_bob
async def test_what_is_acknowledged_after_a_hello_counts(world: BridgeWorld, bob: FakeLink) -> None:
    world.puback(bob, 1, 2, 3, 4, 5)
    world.ask(bob, "hello", id="h", after=0)
    world.settle()
    world.puback(bob, 1, 2, 3)
    world.leave(bob)
    again = world.connect("bob")
    world.settle()
    assert world.cursor("bob") == 3
    assert again.positions[0] == 4


def _goes_back(world: BridgeWorld, bob: FakeLink) -> None:
    """It is one that acknowledges replies, and says with the `second` that it has four items."""
    world.ask(bob, "hello", id="first")
    world.settle()
    world.read(bob, "first")
    world.ask(bob, "hello", id="second", after=4)
    world.settle()


@with_bob
async def test_pubacks_that_were_on_their_way_when_a_hello_was_heard_do_not(world: BridgeWorld, bob: FakeLink) -> None:
    """What it had in hand it has thrown away, and the connection breaks before it has what it was offered instead."""
    _goes_back(world, bob)
    for pos in range(5, 11):
        world.puback(bob, pos)  # of each the first one, of two
    world.leave(bob)
    again = world.connect("bob")
    world.settle()
    assert world.cursor("bob") == 4
    assert again.positions == list(range(5, 11))


@with_bob
async def test_the_welcome_tells_them_apart(world: BridgeWorld, bob: FakeLink) -> None:
    _goes_back(world, bob)
    world.read(bob, "second")
    world.puback(bob, *range(5, 11))
    world.leave(bob)
    again = world.connect("bob")
    world.settle()
    assert world.cursor("bob") == 10
    assert again.positions == []


@with_bob
async def test_those_that_come_before_the_item_is_offered_again_are_over(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "hello", id="first")
    world.settle()
    world.read(bob, "first")
    world.ask(bob, "hello", id="second", after=7, window=1)
    world.settle()
    assert bob.positions[10:] == [8]
    world.puback(bob, 10, 8, 8)
    world.settle()
    world.puback(bob, 9, 9)
    world.settle()
    assert bob.positions[10:] == [8, 9, 10]
    world.puback(bob, 10)
    world.bridge.cursors.write()
    world.settle()
    assert world.cursor("bob") == 10


@with_bob
async def test_two_hellos_at_once_are_two(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "hello", id="one", after=4)
    world.ask(bob, "hello", id="two", after=7)
    world.settle()
    assert [welcome["pos"] for welcome in bob.of("welcome")] == [4, 7]
    assert world.cursor("bob") == 7


@with_bob
async def test_a_hello_that_is_refused_makes_nothing_void(world: BridgeWorld, bob: FakeLink) -> None:
    world.ask(bob, "hello", id="h", after=99)
    world.puback(bob, 1, 2, 3)
    world.bridge.cursors.write()
    world.settle()
    assert bob.of("error")[-1]["code"] == "bad_field"
    world.bridge.cursors.write()
    world.settle()
    assert world.cursor("bob") == 3


@with_bob
async def test_pubacks_do_not_count_once_only_ack_does(world: BridgeWorld, bob: FakeLink) -> None:
    world.puback(bob, 1, 2)
    world.ask(bob, "hello", id="h", ack="app")
    world.puback(bob, 3, 4, 5)
    world.settle()
    world.bridge.cursors.write()
    world.settle()
    assert bob.of("welcome")[-1]["pos"] == 2
    assert world.cursor("bob") == 2


@with_bob
async def test_a_hello_of_another_store_moves_nothing(world: BridgeWorld, bob: FakeLink) -> None:
    world.puback(bob, 1, 2, 3)
    world.ask(bob, "hello", id="h", epoch="another", after=9, n=40)
    world.settle()
    assert (bob.of("welcome")[-1]["pos"], bob.of("welcome")[-1]["n"]) == (3, 0)
    world.ask(bob, "hello", id="h2", epoch=world.ledger.epoch, after=9, n=40)
    world.settle()
    assert (bob.of("welcome")[-1]["pos"], bob.of("welcome")[-1]["n"]) == (9, 40)


@with_bob
async def test_what_a_failed_batch_has_not_kept_is_written_again(world: BridgeWorld, bob: FakeLink) -> None:
    world.puback(bob, 1, 2, 3, 4)
    world.bridge.cursors.write()
    world.batch(fails=True)
    assert world.cursor("bob") == 0
    world.bridge.cursors.write()
    world.settle()
    assert world.cursor("bob") == 4
    assert delivered(world, "bob") == 4


@with_bob
async def test_who_left_meanwhile_is_not_forgotten(world: BridgeWorld, bob: FakeLink) -> None:
    world.puback(bob, *range(1, 11))
    world.leave(bob)
    world.bridge.cursors.write()
    world.batch(fails=True)
    world.bridge.cursors.write()
    world.settle()
    assert world.cursor("bob") == 10
    device = world.store.engine.state.device("bob", "phone")
    assert device is not None and not device.exposed


@with_bob
async def test_who_comes_back_meanwhile_stays_marked(world: BridgeWorld, bob: FakeLink) -> None:
    """INV-12: that it had left is written late, and must not say that nothing is being offered now."""
    world.puback(bob, *range(1, 11))
    world.leave(bob)
    world.bridge.cursors.write()
    world.batch(fails=True)
    world.connect("bob")
    world.settle()
    world.bridge.cursors.write()
    world.settle()
    device = world.store.engine.state.device("bob", "phone")
    assert device is not None and device.exposed


@with_bob
async def test_a_failed_cursor_does_not_come_back_over_a_hello(world: BridgeWorld, bob: FakeLink) -> None:
    world.puback(bob, 1, 2, 3, 4)
    world.bridge.cursors.write()
    waiting = list(world.ledger.waiting)
    world.ask(bob, "hello", id="h", after=1)
    said = [job for job in world.ledger.waiting if job not in waiting]
    world.ledger.waiting[:] = waiting
    world.batch(fails=True)
    world.ledger.waiting[:] = said
    world.settle()
    world.bridge.cursors.write()
    world.settle()
    assert world.cursor("bob") == 1
    assert delivered(world, "bob") == 4


def test_the_timer_writes_and_tries_again(tmp_path: Path) -> None:
    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob")
        world.settle()
        world.ask(ann, "send", to="bob", body=1)
        world.settle()
        world.puback(bob, 1)
        await world.ledger.came.wait()
        world.batch(fails=True)
        await world.ledger.came.wait()
        world.settle()
        assert world.cursor("bob") == 1
        world.close()

    asyncio.run(play())


def test_the_cursors_of_a_crowd_are_handed_in_a_part_at_a_time(tmp_path: Path) -> None:
    """All of them together took the ledger's thread as long as a hundred messages. What has to come before something is whole."""

    async def scenario() -> None:
        world = BridgeWorld(tmp_path)
        members = [f"user{number}" for number in range(AT_ONCE + 50)]
        ann, links = world.connect("ann"), [world.connect(name) for name in members]
        world.settle()

        def all_of_them() -> None:
            for name in members:
                world.ask(ann, "send", to=name, body=1)
            world.settle()
            for link in links:
                world.puback(link, link.positions[-1])

        def handed_in() -> list[int]:
            jobs = [job for job in world.ledger.waiting if isinstance(job, CursorsJob)]
            moved = [sum(1 for move in job.moves if move[0] != "ann") for job in jobs]
            world.settle()
            return moved

        def follows() -> bool:
            return world.bridge.cursors._timer is not None

        all_of_them()
        world.bridge.cursors._write_some()
        assert handed_in() == [AT_ONCE]
        assert follows(), "the rest, by itself"
        world.bridge.cursors._write_some()
        assert handed_in() == [50]
        assert not follows()
        all_of_them()
        world.bridge.cursors.write()
        assert handed_in() == [AT_ONCE, 50]
        assert all(world.cursor(name) == 2 for name in members)
        all_of_them()
        for link in (ann, links[-1]):
            world.ask(link, "convs")
        assert handed_in() == [AT_ONCE, 50], "a part with each who looks"
        all_of_them()
        world.ask(links[-1], "convs")
        assert handed_in() == [AT_ONCE]
        assert world.cursor(members[-1]) == 4, "and what is one's own always"
        for link in links:
            world.leave(link)
        lefts = []
        while world.bridge.cursors._left:
            world.bridge.cursors._write_some()
            lefts += [len(job.left) for job in world.ledger.waiting if isinstance(job, CursorsJob)]
            world.settle()
        assert max(lefts) <= AT_ONCE and sum(lefts) == len(members)
        world.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_that_a_device_of_a_crowd_has_left_is_not_handed_in_before_its_cursor(tmp_path: Path, fails: bool) -> None:
    """A server that ended in between would not know that the device may have been offered more than the store says it has."""

    async def scenario() -> None:
        world = BridgeWorld(tmp_path)
        members = [f"user{number}" for number in range(AT_ONCE + 1)]
        ann, links = world.connect("ann"), [world.connect(name) for name in members]
        world.settle()
        for name in members:
            world.ask(ann, "send", to=name, body=1)
        world.settle()
        for link in links:
            world.puback(link, 1)
        world.leave(links[-1])
        last = members[-1]
        if fails:
            world.bridge.cursors.write()
            world.batch(fails=True)
        for cursor, exposed in ((0, True), (1, False)):
            world.bridge.cursors._write_some()
            world.settle()
            device = world.store.engine.state.device(last, "phone")
            assert device is not None and (device.cursor, device.exposed) == (cursor, exposed)
        world.close()

    asyncio.run(scenario())


def test_who_comes_back_behind_a_crowd_that_has_left_is_not_said_to_have_left_after_it(tmp_path: Path) -> None:
    """INV-12: nor where it was about to say where it stands when it left."""

    async def scenario() -> None:
        world = BridgeWorld(tmp_path)
        links = [world.connect(f"user{number}") for number in range(2 * AT_ONCE)]
        bob = world.connect("bob")
        world.settle()
        for link in links:
            world.leave(link)
        world.ask(bob, "hello", id="h")
        world.leave(bob)
        world.connect("bob")
        while world.bridge.cursors._left:
            world.settle()
            world.bridge.cursors._write_some()
        world.settle()
        device = world.store.engine.state.device("bob", "phone")
        assert device is not None and device.exposed
        world.close()

    asyncio.run(scenario())
