"""Who shares a conversation with an event stream, told a step at a time: what comes and goes meanwhile is told in its order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mqtt_im.bridge import presence
from mqtt_im.store.queries import visibility
from tests.support.bridge import BridgeWorld, FakeLink


def test_who_goes_before_its_step_is_not_online_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visibility, "AT_ONCE", 1)
    monkeypatch.setattr(presence, "OFFLINE_DELAY_S", 0.0)

    async def play() -> None:
        with BridgeWorld(tmp_path) as world:
            others = [world.connect(name) for name in ("bob", "cat", "dan")]
            world.settle()
            for link in others:
                world.ask(link, "send", to="ann", body="hi")
            world.settle()
            stream = FakeLink("ann", "")
            nearby = world.bridge.presence.nearby
            nearby.add(stream)
            world.batch()
            world.leave(others[-1])
            await asyncio.sleep(0.01)
            world.settle()
            told = [(event["user"], event["state"]) for event, _, _ in stream.sent]
            assert told == [("bob", "online"), ("cat", "online"), ("dan", "offline")]

    asyncio.run(play())
