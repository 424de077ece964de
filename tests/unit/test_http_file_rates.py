"""The bytes of files are paid for: those that are read, and those that come without being said before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqtt_im.core import costs
from mqtt_im.http import files
from mqtt_im.shares import Bounds
from mqtt_im.transport.held import Held

PIECE = 256 << 10


class Rate:
    """A user's rate, as the transport tells it."""

    def __init__(self) -> None:
        self.charged = self.owed = 0.0

    def charge(self, user: str, units: float) -> None:
        assert user == "alice"
        self.charged += units

    def owes(self, user: str) -> float:
        return self.owed


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


class Pieces:
    """A file of ten pieces."""

    closed = False
    left = 10 * PIECE

    async def read(self, most: int) -> bytes:
        self.left -= most
        return b"x" * most

    async def pieces(self) -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * PIECE

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("said", "beyond"), [(0, 10), (10 * PIECE, 0), (7 * PIECE, 3)])
def test_what_was_not_said_before_is_paid_for_as_it_comes(said: int, beyond: int, slept: list[float]) -> None:
    """An upload in chunks cost no more than an empty one."""
    rate: Any = Rate()
    rate.owed = 30.0

    async def take() -> int:
        services: Any = SimpleNamespace(transport=rate)
        return sum([len(piece) async for piece in files.paid(Pieces().pieces(), services, "alice", said)])

    assert asyncio.run(take()) == 10 * PIECE
    assert rate.charged == pytest.approx(beyond)
    assert slept == [files.PAUSE_S] * beyond


class Connection:
    """A connection whose client reads the first `takes` pieces, and is gone then."""

    def __init__(self, takes: int = 1_000) -> None:
        self.takes = takes
        self.places = SimpleNamespace(held=Held(Bounds()))

    async def is_read(self) -> bool:
        self.takes -= 1
        return self.takes >= 0


@pytest.mark.parametrize("owed", [0.0, 0.25])
def test_what_is_read_is_paid_for_piece_by_piece(owed: float, slept: list[float]) -> None:
    """One user could have files of gigabytes a second, for five units each, and with them the whole server."""
    rate: Any = Rate()
    rate.owed = owed
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    content: Any = Pieces()
    services: Any = SimpleNamespace(transport=rate)
    receive: Any = None
    scope = {"type": "http", "mqtt_im.connection": Connection()}
    asyncio.run(files.Sending(content, 200, {}, services, "alice", asyncio.Semaphore())(scope, receive, send))
    assert sum(len(message.get("body", b"")) for message in sent) == 10 * PIECE and content.closed
    assert rate.charged == pytest.approx(costs.of_reading(10 * PIECE)) == pytest.approx(2.5)
    assert slept == ([owed] * 10 if owed else [])


def test_a_file_is_not_read_on_for_who_is_gone() -> None:
    """All of it was, at the rate of its user."""
    rate: Any = Rate()
    content: Any = Pieces()
    receive: Any = None

    async def send(message: Any) -> None:
        pass

    sending = files.Sending(content, 200, {}, cast(Any, SimpleNamespace(transport=rate)), "alice", asyncio.Semaphore())
    asyncio.run(sending({"type": "http", "mqtt_im.connection": Connection(takes=3)}, receive, send))
    assert content.left == 7 * PIECE and content.closed
