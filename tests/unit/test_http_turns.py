"""HTTP's part of a turn of the loop."""

from __future__ import annotations

import asyncio
import itertools
import socket

import h11
import pytest

from mqtt_im.config import Config, HttpConfig
from mqtt_im.http import HttpServer
from mqtt_im.http.connection import EVENTS, Bounded
from mqtt_im.http.turns import PER_TURN, TURN_S, Turns
from mqtt_im.metrics import Metrics
from mqtt_im.pacing import LONG_S, Share
from mqtt_im.transport.accepting import AT_ONCE


def _short() -> Share:
    """However long a turn takes here, it counts as a short one."""
    return Share(lambda: 0.0)


async def _ready() -> dict[str, str]:
    return {}


def test_a_turn_has_so_many_steps_and_addresses_take_turns() -> None:
    async def scenario() -> None:
        turns, done = Turns(share=_short()), list[str]()
        for number in range(3 * PER_TURN):
            turns.take("flood", lambda number=number: done.append(f"flood {number}"))  # type: ignore[misc]
        assert not turns.take("other", lambda: done.append("other"))
        assert len(done) == PER_TURN, "as many as there is time for in this turn"
        await asyncio.sleep(0)
        assert len(done) == 2 * PER_TURN
        assert done[PER_TURN : PER_TURN + 2] == [f"flood {PER_TURN}", "other"], "another address waits for one step, not for all"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [entry for entry in done if entry != "other"] == [f"flood {number}" for number in range(3 * PER_TURN)]
        for _ in range(3):
            await asyncio.sleep(0)
        for _ in range(3 * PER_TURN):
            turns.take("flood", lambda: done.append("flood again"))
        turns.take("flood", lambda: done.append("health"), urgent=True)
        await asyncio.sleep(0)
        assert done[-PER_TURN] == "health", "it comes before all that waits"
        for _ in range(9):
            await asyncio.sleep(0)
        assert turns.take("late", lambda: done.append("late")), "nobody waits"

    asyncio.run(scenario())


def test_a_mistake_in_a_step_keeps_nothing_from_the_others() -> None:
    """HTTP would have answered nothing any more, health included, until a restart."""

    def broken() -> None:
        raise RuntimeError("a mistake")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        turns, done = Turns(share=_short()), list[str]()
        for urgent in (True, False):
            for _ in range(PER_TURN):
                turns.take("a", lambda: None)
            turns.take("a", broken, urgent=urgent)
            turns.take("b", lambda: done.append("b"))
            turns.take("c", lambda: done.append("c"), urgent=True)
            for _ in range(9):
                await asyncio.sleep(0)
        assert sorted(done) == ["b", "b", "c", "c"]
        assert turns.take("late", lambda: None)

    asyncio.run(scenario())


def test_a_turn_ends_by_time_too() -> None:
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        turns, done = Turns(lambda: now, _short()), list[int]()

        def step(number: int) -> None:
            nonlocal now
            done.append(number)
            now += 0.75 * TURN_S

        for number in range(6):
            turns.take("flood", lambda number=number: step(number))  # type: ignore[misc]
        counts = [len(done)]
        while len(done) < 6:
            await asyncio.sleep(0)
            counts.append(len(done))
        assert counts == [2, 4, 6] and done == [0, 1, 2, 3, 4, 5]

    asyncio.run(scenario())


def test_where_turns_are_long_fewer_steps_are_done_in_one() -> None:
    """What a step sets off, such as a task that takes in a file, counts too: a thousand uploads made turns of 10 ms."""
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        turns, done = Turns(share=Share(lambda: now)), list[int]()
        for number in range(10 * PER_TURN):
            turns.take("flood", lambda number=number: done.append(number))  # type: ignore[misc]
        counts = [len(done)]
        for _ in range(5):
            now += 2 * LONG_S
            await asyncio.sleep(0)
            counts.append(len(done))
        each = [after - before for before, after in itertools.pairwise(counts)]
        assert each == [PER_TURN // 2, PER_TURN // 4, PER_TURN // 8, 1, 1]
        while len(done) < 10 * PER_TURN:  # noqa: ASYNC110 - it goes on by itself
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_whoever_asks_for_health_keeps_nobody_else_from_a_step_in_each_turn() -> None:
    """Where turns were long, two such requests in each were all that was done: who sent many of them had HTTP for themselves."""
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        turns, done = Turns(lambda: now, Share(lambda: now)), list[str]()

        def healthy() -> None:
            nonlocal now
            done.append("health")
            now += TURN_S

        for _ in range(100):
            turns.take("flood", healthy, urgent=True)
            turns.take("flood", lambda: done.append("flood"), urgent=False)
        for number in range(3):
            turns.take(f"other {number}", lambda: done.append("other"))
        for _ in range(20):
            now += 2 * LONG_S
            turns.take("flood", lambda: healthy(), urgent=True)  # noqa: PLW0108 - another step each time
            turns.take("flood", lambda: healthy(), urgent=True)  # noqa: PLW0108
            await asyncio.sleep(0)
        assert done.count("other") == 3
        assert done.count("health") > 20

    asyncio.run(scenario())


def test_who_is_gone_does_not_wait_any_more() -> None:
    async def scenario() -> None:
        turns, done = Turns(share=_short()), list[str]()
        for _ in range(PER_TURN):
            turns.take("flood", lambda: None)

        def step() -> None:
            done.append("gone")

        turns.take("flood", step)
        turns.take("flood", lambda: done.append("stays"))
        turns.take("health", step, urgent=True)
        turns.drop("flood", step)
        turns.drop("health", step)
        turns.drop("nobody", step)
        for _ in range(3):
            await asyncio.sleep(0)
        assert done == ["stays"]

    asyncio.run(scenario())


def test_what_has_come_is_not_kept_for_a_turn_once_its_connection_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """65,000 connections of 30 KB each stood in line, long after they were cut."""
    monkeypatch.setattr(Turns, "take", lambda turns, address, step, urgent: turns._waiting.put(address, step))

    async def scenario() -> None:
        server = HttpServer(Config(http=HttpConfig(bind="127.0.0.1:0")), _ready, Metrics())
        await server.start()
        address = server.addresses["http"]
        async with asyncio.timeout(60):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(b"GET / HTTP/1.1\r\n")
            while not server.places.turns._waiting:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            for connection in list(server.places.all):
                connection.cut()
            assert not server.places.turns._waiting
            writer.close()
            await server.stop()

    asyncio.run(scenario())


def test_few_of_many_that_have_come_are_accepted_in_a_turn() -> None:
    async def scenario() -> None:
        server = HttpServer(Config(http=HttpConfig(bind="127.0.0.1:0")), _ready, Metrics())
        await server.start()
        address = server.addresses["http"]
        waiting = [socket.create_connection((address.host, address.port), timeout=60) for _ in range(10 * AT_ONCE)]
        before = 0
        async with asyncio.timeout(60):
            while before < len(waiting):
                await asyncio.sleep(0)
                now = len(server.places.all)
                assert now <= before + AT_ONCE
                before = now
        for client in waiting:
            client.close()
        await server.stop()

    asyncio.run(scenario())


def test_what_has_come_in_small_chunks_is_taken_in_a_few_at_a_time() -> None:
    """Forty thousand chunks of one byte, which one read of a socket has room for, held up everybody for seconds."""
    bounded = Bounded(h11.SERVER)
    bounded.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100 + b"0\r\n\r\n")
    steps, found = 0, b""
    while bounded.their_state is not h11.DONE:
        steps, events, bounded.left = steps + 1, 0, EVENTS
        while (event := bounded.next_event()) is not h11.NEED_DATA:
            events += 1
            found += bytes(event.data) if isinstance(event, h11.Data) else b""
            if isinstance(event, h11.EndOfMessage):
                break
        assert events <= EVENTS
    assert found == b"x" * 100 and steps >= 100 // EVENTS
