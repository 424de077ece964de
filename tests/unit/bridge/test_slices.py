"""Work for many is done in turns, and whom it is for is charged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqtt_im.bridge import slices
from mqtt_im.bridge.slices import Slices
from mqtt_im.logs import RateLimited
from mqtt_im.store.jobs.reads import FetchJob
from tests.support.bridge import BridgeWorld, FakeLink
from tests.unit.transport.harness import on_loop


def crowd(world: BridgeWorld, count: int) -> list[FakeLink]:
    """So many users are connected, who are about to be the members of `#g`."""
    links = [world.connect(f"user{number}") for number in range(count)]
    world.batch()
    world.ask(links[0], "group.create", id="g", group="#g", members=[link.user for link in links[1:]])
    return links


def test_work_is_done_in_turns_and_in_its_order() -> None:
    done: list[str] = []

    def work(name: str, steps: int) -> Iterator[int]:
        for number in range(steps):
            done.append(f"{name}{number}")
            yield 1

    async def scenario() -> None:
        line, turns = Slices(lambda: 0.0).line(), list[int]()
        line.start(work("a", 2 * slices.PER_TURN))
        line.start(work("b", 2))
        while len(done) < 2 * slices.PER_TURN + 2:
            await asyncio.sleep(0)
            turns.append(len(done))
        assert turns == [slices.PER_TURN, 2 * slices.PER_TURN, 2 * slices.PER_TURN + 2]
        assert done[-2:] == ["b0", "b1"]

    asyncio.run(scenario())


def test_lines_take_turns_and_share_what_a_turn_of_the_loop_has() -> None:
    done: list[str] = []

    def work(name: str, steps: int) -> Iterator[int]:
        for _ in range(steps):
            done.append(name)
            yield 1

    async def scenario() -> None:
        sliced, each = Slices(lambda: 0.0), slices.PER_TURN
        for name in "abc":
            sliced.line().start(work(name, each))
        await asyncio.sleep(0)
        assert len(done) == each and all(0 < done.count(name) <= each // 2 for name in "abc")
        while len(done) < 3 * each:  # noqa: ASYNC110 - each turn of the loop does some
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_a_turn_ends_by_time_too() -> None:
    now, done = 0.0, list[int]()

    def work() -> Iterator[int]:
        nonlocal now
        for number in range(4):
            done.append(number)
            now += 0.003  # far more than it says
            yield 1

    async def scenario() -> None:
        Slices(lambda: now).line().start(work())
        await asyncio.sleep(0)
        assert done == [0, 1]
        await asyncio.sleep(0)
        assert done == [0, 1, 2], "the turn before was a long one"
        await asyncio.sleep(0)
        assert done == [0, 1, 2, 3]
        await asyncio.sleep(0)

    asyncio.run(scenario())


def test_next_to_nothing_is_done_while_another_thread_does_what_everybody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def work() -> Iterator[int]:
        for number in range(2 * slices.PER_TURN):
            done.append(number)
            yield 1

    async def scenario() -> None:
        busy = True
        monkeypatch.setattr(slices, "_GIVING_WAY_S", 0.0)
        Slices(lambda: 0.0, lambda: busy).line().start(work())
        await asyncio.sleep(0)
        assert len(done) == slices.PER_TURN // 8
        busy = False
        while len(done) < 2 * slices.PER_TURN:  # noqa: ASYNC110 - it goes on by itself
            await asyncio.sleep(0)

        monkeypatch.setattr(slices, "_GIVING_WAY_S", 3600.0)
        done.clear()
        busy = True
        Slices(lambda: 0.0, lambda: busy).line().start(work())
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(done) == slices.PER_TURN // 8

    asyncio.run(scenario())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many mistakes the log tells of."""
    monkeypatch.setattr(slices, "_log", RateLimited(logging.getLogger("mistakes"), 1_000))
    return lambda: len([record for record in caplog.records if record.exc_info])


def test_a_mistake_costs_its_own_work_alone(told: Callable[[], int]) -> None:
    done: list[int] = []

    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("a mistake")

    def fine() -> Iterator[int]:
        done.append(1)
        yield 1

    async def scenario() -> None:
        line = Slices(lambda: 0.0).line()
        line.start(broken())
        line.start(fine())
        for _ in range(4):
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert done == [1]
    assert told() == 1


@on_loop
async def test_a_mistake_amid_a_crowd_leaves_nothing_for_which_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], int]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    with BridgeWorld(tmp_path) as world:
        links = crowd(world, 300)
        world.batch()
        monkeypatch.setattr("mqtt_im.bridge.channel.Channel.event", broken)
        world.bridge.telling.event_here([link.user for link in links], {"op": "typing"})
        monkeypatch.setattr("mqtt_im.core.delivery.Delivery.live", broken)
        for _ in range(10_000):  # what is told in the log makes turns long, so that each of them does little
            await asyncio.sleep(0)
            world.batch()
            if told() == 2 * len(links):
                break
        assert told() == 2 * len(links), "and keeps nothing from those behind it"
        assert world.bridge.ledger.gathering.outflow._left == 0


@pytest.mark.parametrize("count", [20, 150])
def test_a_mistake_with_one_of_many_keeps_nothing_from_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, told: Callable[[], int]
) -> None:
    def broken(*_: object) -> bool:
        raise RuntimeError("a mistake")

    async def scenario() -> None:
        with BridgeWorld(tmp_path) as world:
            links = crowd(world, count)
            monkeypatch.setattr(links[count - 10], "publish", broken)
            for _ in range(1_000):
                await asyncio.sleep(0)
                world.batch()
            assert told() == 1
            assert all(link.positions == [1] for link in links if link is not links[count - 10])

    asyncio.run(scenario())  # which logs what the loop is told of


@on_loop
async def test_a_mistake_with_one_keeps_nothing_that_was_recalled_with_the_others(
    tmp_path: Path, told: Callable[[], int]
) -> None:
    with BridgeWorld(tmp_path) as world:
        links = [world.connect(name) for name in ("ann", "bob", "cat")]
        world.batch()
        world.ask(links[0], "group.create", id="g", group="#g", members=["bob", "cat"])
        for number in (2, 3):
            world.ask(links[0], "send", id=f"m{number}", to="#g", body="secret")
        await _turns(world)
        deliveries = [world.bridge.delivery_of(link) for link in links]
        first, second, third = deliveries
        assert first is not None and second is not None and third is not None
        second.flights[2].entries = None  # type: ignore[assignment]
        for number in (2, 3):
            world.ask(links[0], "recall", id=f"r{number}", conv="#g", seq=number)
            await _turns(world)
        assert told() >= 2, "for each recall"
        for delivery in (first, third):
            shown = [entry for flight in delivery.flights.values() for _, entry in flight.entries]
            assert not any(b"secret" in entry.tail for entry in shown)


async def _turns(world: BridgeWorld) -> None:
    for _ in range(50):
        world.settle()
        await asyncio.sleep(0)


@on_loop
async def test_a_message_to_a_crowd_leaves_in_turns_complete_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BridgeWorld(tmp_path) as world:
        monkeypatch.setattr("mqtt_im.store.threads.writer.thread_time", lambda: 0.0)
        links = crowd(world, 300)
        for number in range(5):
            world.ask(links[0], "send", id=f"m{number}", to="#g", body=number)
        world.batch()
        at_first = sum(len(link.positions) for link in links)
        turns = 0
        while any(len(link.positions) < 6 for link in links):
            await asyncio.sleep(0)
            world.batch()
            turns += 1
            assert turns < 1_000
        assert at_first == 0
        assert turns >= 300 * 6 // slices.PER_TURN
        assert all(link.positions == [1, 2, 3, 4, 5, 6] for link in links)
        # The sender has paid for them: by their number and bytes, and not as if each were to one user, nor for a slow thread.
        sent = sum(8192 + len(payload) for link in links for payload in link.raw)
        assert links[0].charged == pytest.approx(30 + 6 * 298 / 20 + sent / 65_536, abs=2)


@on_loop
async def test_what_was_replaced_before_a_crowd_has_it_is_offered_to_nobody(tmp_path: Path) -> None:
    """INV-12: whoever had not been told of it yet was offered it all the same, and the user's next device saw that it is void."""

    with BridgeWorld(tmp_path) as world:
        links = crowd(world, 300)
        world.settle()
        world.ask(links[0], "send", to="#g", body="former", key="k")
        world.ask(links[0], "send", to="#g", body="newer", key="k")
        world.batch()
        while any(link.positions[-1:] != [3] for link in links):
            await asyncio.sleep(0)
            world.batch()
        assert all([item["why"] for item in link.of("void")] == ["replaced"] for link in links[1:])
        assert all(link.of("msg")[-1]["body"] == "newer" for link in links[1:])
        while world.claims._taken:  # noqa: ASYNC110 - they are settled in turns too
            await asyncio.sleep(0)


@on_loop
async def test_what_was_replaced_for_a_crowd_is_settled_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message that replaces another to 5,000 held the loop for 6 ms of its own time, twice that beside the ledger."""
    monkeypatch.setattr(slices, "PER_TURN", 30)

    with BridgeWorld(tmp_path) as world:
        links = crowd(world, 300)
        world.settle()
        for link in links:
            link.writable = False
        world.ask(links[0], "send", to="#g", body="former", key="k")
        world.settle()
        world.ask(links[0], "send", to="#g", body="newer", key="k")
        world.batch()
        assert world.claims._taken, "they are still offered to nobody"
        turns = 0
        while world.claims._taken:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 1


@on_loop
async def test_what_can_be_sent_to_many_at_once_is_sent_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.bridge.pump.READY", 20)

    with BridgeWorld(tmp_path) as world:
        links = crowd(world, 50)
        world.batch()
        world.bridge.pump.all_ready()
        assert sum(len(link.positions) for link in links) == 10, "a channel and a packet each"
        newcomer = world.connect("newcomer")
        world.batch()
        world.ask(links[0], "send", to="newcomer", body=1)
        world.batch()
        world.bridge.pump.all_ready()
        assert newcomer.positions == [1], "who comes later does not wait for all of them"
        while any(link.positions[:1] != [1] for link in links):  # noqa: ASYNC110 - each turn of the loop tells some
            await asyncio.sleep(0)


@on_loop
async def test_a_user_whom_many_watch_is_told_of_in_pieces_and_the_last_state_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_im.bridge.presence.AT_ONCE", 10)

    with BridgeWorld(tmp_path) as world:
        members = [f"user{number}" for number in range(35)]
        links = [world.connect(name) for name in members]
        alice = world.connect("alice")
        world.batch()
        world.ask(links[0], "group.create", id="g", group="#g", members=[*members[1:], "alice"])
        world.batch()
        for link in links:
            world.bridge.watch(link, "alice", 0, False)
        before = [len(link.sent) for link in links]

        def told() -> list[list[str]]:
            since = zip(links, before, strict=True)
            return [[item["state"] for item, _, _ in link.sent[start:] if "state" in item] for link, start in since]

        presence = world.bridge.presence
        presence.changed("alice")
        world.batch()
        assert sum(len(states) for states in told()) == 10
        for _ in range(5):
            presence.changed("alice")  # one more time, however often it was
        for _ in range(10):
            world.batch()
            await asyncio.sleep(0)
        assert told() == [["online", "online"]] * 35
        world.leave(alice)
        presence.stop()


@on_loop
async def test_reactions_come_to_a_crowd_without_a_look_at_the_store(tmp_path: Path) -> None:
    """They change what the message shows, and nothing of each other; where that waits to be sent it is looked up again."""

    with BridgeWorld(tmp_path) as world:
        links = crowd(world, 150)

        async def until(count: int) -> int:
            fetched = turns = 0
            while any(len(link.positions) < count for link in links):
                fetched += sum(isinstance(job, FetchJob) for job in world.ledger.waiting)
                world.batch()
                await asyncio.sleep(0)
                turns += 1
                assert turns < 1_000
            return fetched

        await until(1)
        for number, emoji in enumerate("abc"):
            world.ask(links[number], "react", id=f"r{number}", conv="#g", seq=1, emoji=emoji)
        assert await until(4) == 0
        assert all([item["emoji"] for item in link.of("reacted")] == list("abc") for link in links)
        world.ask(links[0], "send", id="m", to="#g", body=1)
        world.ask(links[1], "react", id="r", conv="#g", seq=2, emoji="d")
        assert await until(6) > 0
        for link in links[1:]:
            shown = next(item for item in link.of("msg") if item["seq"] == 2)
            assert shown["reactions"] == {"d": ["user1"]}


@on_loop
async def test_answers_leave_at_once_where_a_crowd_is_served(tmp_path: Path) -> None:
    """Each turn of the loop that they waited for would be one that the crowd fills."""

    with BridgeWorld(tmp_path) as world:
        flushed: list[int] = []
        ann, bob = world.connect("ann"), world.connect("bob")
        world.bridge.transport = cast(Any, SimpleNamespace(flush=lambda: flushed.append(len(bob.positions))))
        world.settle()

        def say() -> None:
            world.ask(ann, "send", to="bob", body=1)
            waiting = list(world.ledger.waiting)
            world.ledger.waiting.clear()
            world.store.run(waiting, world.now)

        say()
        assert not flushed and not bob.positions, "they leave together at the end of this turn"
        await asyncio.sleep(0)
        assert bob.positions == [1]

        def work() -> Iterator[int]:
            while True:
                yield 1

        world.bridge._slices.line().start(work())
        say()
        assert flushed[-1] == 2
