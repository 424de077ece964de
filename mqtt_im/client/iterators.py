"""What `async for` goes over: messages, events, states."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Bell:
    """Wakes whoever waits for something new."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """There may be something new."""
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    async def wait(self) -> None:
        """Returns at the next `ring`."""
        each: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(each)
        try:
            await each
        finally:
            self._waiting.discard(each)


class Reader(Generic[T]):
    """An asynchronous iterator. `take` gives the next thing, or raises `StopAsyncIteration` at the end.

    It ends, too, when it is closed or when nobody has it any more; `ended` is told once.
    """

    def __init__(self, take: Callable[[], Awaitable[T]], ended: Callable[[], None]) -> None:
        self._take = take
        self._ended: Callable[[], None] | None = ended

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._ended is None:
            raise StopAsyncIteration
        return await self._take()

    async def aclose(self) -> None:
        """End it; what it handed out last is as far as it was."""
        self.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()

    def __del__(self) -> None:
        self.end()

    def end(self) -> None:
        """End it, at once."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()
