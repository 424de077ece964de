"""HTTP's part of a turn of the loop."""

from __future__ import annotations

import asyncio

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
