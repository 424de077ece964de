"""What waits for sessions elsewhere is bounded, also after the database was away."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqtt_im.cluster import Neighbours
from mqtt_im.transport.embedded.sessions import abroad
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from mqtt_im.transport.embedded.sessions.shared import SharedPersistence


def test_what_could_not_be_trimmed_is_trimmed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never was again, whatever was written since, so what waits for one session was bounded by nothing."""
    monkeypatch.setattr(abroad, "TRIM_S", 0.0)
    trimmed = asyncio.Event()

    class Store(SharedPersistence):
        fails = 2

        def __init__(self) -> None:
            """No thread, and no database."""

        async def look(self, read: Any) -> Any:
            self.fails -= 1
            if self.fails >= 0:
                raise StoreFailed("away")
            assert read.args[0] == ["s1"]
            trimmed.set()
            return 0

        def write(self, sql: str, *parameters: object) -> None:
            """Nowhere."""

    async def scenario() -> None:
        limits = SimpleNamespace(max_queued_messages=1, max_queued_bytes_per_user=1)
        access = SimpleNamespace(topics=SimpleNamespace(owns=lambda _: False))
        ground = SimpleNamespace(access=access, limits=limits, store=Store(), log=logging.getLogger("abroad"))
        one = abroad.Abroad(cast(Any, ground), Neighbours())
        one._open = True
        message = SimpleNamespace(topic="t", payload=b"", qos=1, retain=False, properties=b"", expires=0)
        one._write_for(one.nowhere(), cast(Any, SimpleNamespace(id="s1")), cast(Any, message), [1])
        await asyncio.wait_for(trimmed.wait(), 60.0)
        assert not one._written
        one.stop()

    asyncio.run(scenario())
