"""Much whose time is over at the same moment, or that nobody takes: each turn of the loop has little of it, a publish nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mqtt_im.transport.embedded import subscribing
from mqtt_im.transport.embedded.sessions import streams
from mqtt_im.transport.embedded.sessions.keeper import Keeper
from mqtt_im.transport.embedded.sessions.message import PlainMessage
from mqtt_im.transport.embedded.sessions.retained import Retained, RetainedMessage
from mqtt_im.transport.embedded.sessions.session import Session
from tests.support import packets5
from tests.unit.transport.harness import Server, on_loop
from tests.unit.transport.test_plain import OPEN
from tests.unit.transport.test_v5_plain import publish

MANY = 30


class Time:
    """The steady time of whoever asks for it, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000_000.0
        monkeypatch.setattr("mqtt_im.clock.Clock.steady", lambda _: int(self.now * 1000))


class Turns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.count += 1
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        self._handle.cancel()


def server(folder: Path, **limits: Any) -> Server:
    return Server(folder, plain_topics=OPEN, limits={"max_retained_messages": MANY, **limits})


@on_loop
async def test_what_is_retained_beyond_the_most_looks_at_nothing_that_has_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time(monkeypatch)
    looked: list[str] = []
    get = Retained.get

    def noted(self: Retained, topic: str) -> RetainedMessage | None:
        looked.append(topic)
        return get(self, topic)

    monkeypatch.setattr(Retained, "get", noted)
    async with server(tmp_path) as here:
        writer = await here.connect5("w")
        for number in range(MANY):
            await publish(writer, f"a/{number}", b"x", retain=True, given={packets5.EXPIRY: 10 if number < 3 else 1_000})
        retained = here.hub.plain.retained
        await publish(writer, "a/1", b"longer", retain=True, given={packets5.EXPIRY: 1_000})
        for number in range(5):
            await publish(writer, f"b/{number}", b"x", retain=True)
        assert not looked and len(retained.messages) == MANY and "b/0" not in retained.messages
        time.now += 11
        await publish(writer, "b/0", b"x", retain=True)
        assert looked == ["a/0"] and "b/0" in retained.messages  # no more than it needs the room of
        await publish(writer, "b/1", b"x", retain=True)
        await publish(writer, "b/2", b"x", retain=True)
        assert len(retained.messages) == MANY and {"a/1", "b/1"} <= retained.messages.keys()
        assert "a/2" not in retained.messages and "b/2" not in retained.messages


@on_loop
async def test_what_is_retained_for_a_moment_again_and_again_is_remembered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Time(monkeypatch)
    async with server(tmp_path, requests_per_second=100_000) as here:
        writer = await here.connect5("w")
        for _ in range(200):
            await publish(writer, "a", b"x", retain=True, given={packets5.EXPIRY: 10})
        assert len(here.hub.plain.retained._ends) < 100


@pytest.mark.parametrize("why", ["expired", "too_large"])
@on_loop
async def test_what_nobody_takes_is_left_out_a_few_in_each_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(streams, "AT_ONCE", 4)
    time = Time(monkeypatch)
    async with server(tmp_path) as here:
        writer = await here.connect5("w")
        for number in range(MANY):
            payload = b"y" if number == MANY - 1 else b"x" * 200
            given = {packets5.EXPIRY: 10} if why == "expired" and number < MANY - 1 else {}
            await publish(writer, f"a/{number}", payload, retain=True, given=given)
        time.now += 11
        reader = await here.connect5("r", given={packets5.MAX_PACKET: 100} if why == "too_large" else {})
        turns = Turns()
        left: dict[int, int] = {}
        get = Retained.get

        def noted(self: Retained, topic: str) -> RetainedMessage | None:
            left[turns.count] = left.get(turns.count, 0) + 1
            return get(self, topic)

        monkeypatch.setattr(Retained, "get", noted)
        await reader.subscribe(("a/+", 0))
        assert (await reader.receive()).payload == b"y"
        for _ in range(MANY):
            await asyncio.sleep(0)
        assert sum(left.values()) == MANY
        turns.stop()
        assert max(left.values()) <= 4


@on_loop
async def test_one_filter_that_matches_thousands_goes_through_a_few_in_each_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribing, "_TURN_S", 0.0)
    async with server(tmp_path, max_retained_messages=2_000) as here:
        for number in range(2_000):
            here.hub.plain.publish(PlainMessage(f"a/{number}", b"x", 0, True))
        reader = await here.connect5("r")
        turns = Turns()
        wanted: dict[int, int] = {}
        want = streams.Streams.want

        def noted(self: streams.Streams, session: Session, topic: str, options: int) -> None:
            wanted[turns.count] = wanted.get(turns.count, 0) + 1
            want(self, session, topic, options)

        monkeypatch.setattr(streams.Streams, "want", noted)
        await reader.subscribe(("a/+", 0))
        await reader.receive()
        turns.stop()
        assert sum(wanted.values()) == 2_000 and max(wanted.values()) <= 100


@on_loop
async def test_sessions_that_end_at_the_same_moment_end_one_in_each_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    ended: list[int] = []
    give_up = Keeper._give_up

    def noted(self: Keeper, session: Session) -> None:
        ended.append(turns.count)
        give_up(self, session)

    monkeypatch.setattr(Keeper, "_give_up", noted)
    async with server(tmp_path) as here:
        keeper = here.hub.sessions
        for number in range(5):
            client = await here.connect5(f"d{number}", given={packets5.SESSION_EXPIRY: 1_000})
            await client.subscribe((f"a/{number}", 1))
            await client.disconnect()
        await here.stored()
        sessions = list(keeper.in_memory.values())
        for session in sessions:
            session.seen -= 2_000
        await keeper._end([session.key for session in sessions])
        assert len(ended) == 5 and len(set(ended)) == 5
        turns.stop()
