"""The client library in tests: an event loop for each test, and readers with an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mqtt_im.client import Client, Message
from mqtt_im.client.iterators import Reader

PATIENCE_S = 60.0
"""How long a test waits for what must happen; only a failing test ever waits that long."""


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine on a loop of its own."""
    asyncio.run(asyncio.wait_for(main(), 300.0))


async def following(reader: Reader[Any]) -> Any:
    """The next thing that it yields."""
    async with asyncio.timeout(PATIENCE_S):
        return await anext(reader)


async def take(client: Client, count: int) -> list[Message]:
    """The next messages, all of them done."""
    found: list[Message] = []
    messages = client.messages()
    while len(found) < count:
        found.append(await following(messages))
    await found[-1].done()
    await messages.aclose()
    return found


async def event(reader: Reader[Any], kind: type) -> Any:
    """The next event of a kind."""
    while not isinstance(found := await following(reader), kind):
        pass
    return found


async def until(probe: Callable[[], object], what: str) -> None:
    """Wait for what nobody tells."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not probe():
        assert asyncio.get_running_loop().time() < deadline, f"not within {PATIENCE_S} s: {what}"
        await asyncio.sleep(0.02)
