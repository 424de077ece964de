"""HTTP's part of a turn of the loop."""

from __future__ import annotations

import asyncio

import h11

from mqtt_im.http.connection import EVENTS, Bounded
from mqtt_im.http.turns import PER_TURN, Turns


def test_a_turn_has_so_many_steps_and_addresses_take_turns() -> None:
    async def scenario() -> None:
        turns, done = Turns(), list[str]()
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
