"""Whether the store can commit: asked by everybody, looked for seldom."""

from __future__ import annotations

import asyncio

import pytest

from mqtt_im.protocol.errors import Refusal
from mqtt_im.readiness import Readiness

FOREVER = 1e9


class _Store:
    def __init__(self) -> None:
        self.looks = 0
        self.failing: str | None = None
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def probe(self) -> None:
        self.looks += 1
        self.asked.set()
        await self.answers.wait()
        if self.failing is not None:
            raise Refusal("unavailable", "try again", retry=True)


@pytest.mark.parametrize("failing", [None, "disk I/O error"])
def test_who_asks_while_a_look_is_under_way_shares_it(failing: str | None) -> None:
    async def scenario() -> None:
        store = _Store()
        store.failing = failing
        ready = Readiness(store)
        asked = [asyncio.create_task(ready.ask()) for _ in range(100)]
        await store.asked.wait()
        asked[0].cancel()  # that one does not wait any longer, and the others do
        store.answers.set()
        assert await asyncio.gather(*asked[1:]) == [failing or "ok"] * 99
        assert store.looks == 1

    asyncio.run(scenario())


def test_every_later_answer_is_a_new_one() -> None:
    async def scenario() -> None:
        store = _Store()
        store.answers.set()
        ready = Readiness(store, 0.0)
        assert await ready.ask() == "ok"
        store.failing = "no space left"
        assert await ready.ask() == "no space left"
        assert store.looks == 2

    asyncio.run(scenario())


def test_a_look_begins_at_once_and_the_next_one_only_after_a_pause() -> None:
    async def scenario() -> None:
        store = _Store()
        store.answers.set()
        ready = Readiness(store, FOREVER)
        assert await ready.ask() == "ok"
        asked = [asyncio.create_task(ready.ask()) for _ in range(10)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not any(task.done() for task in asked)
        assert store.looks == 1
        for task in asked:
            task.cancel()

    asyncio.run(scenario())
