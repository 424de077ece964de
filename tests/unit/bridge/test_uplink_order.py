"""What one device publishes is committed in the order in which it was published, also where a commit fails in between."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from unittest.mock import patch

import pytest

from mqtt_im.protocol.errors import Undecided
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.refusals import undecided
from tests.support.bridge import BridgeWorld


@pytest.mark.parametrize("version", [4, 5])
def test_nothing_is_committed_behind_what_may_have_been_stored(tmp_path: Path, version: int) -> None:
    """INV-4: in MQTT 5 too, where a request that was refused for now does not hold up those behind it."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann = world.connect("ann")
        ann.version = version
        world.settle()
        for body in ("one", "two", "three"):
            world.ask(ann, "send", to="bob", body=body, id=body)
        one, two, three = list(world.ledger.waiting)
        world.ledger.waiting.clear()
        one.refuse(undecided())
        one.done()
        for job in (two, three):
            world.store.run([job], world.now)
            assert isinstance(job.refusal, Undecided) and job.commits is None
        assert ann.failed == [1, 2, 3] and ann.closed and not ann.answered
        world.close()

    asyncio.run(play())


def test_nothing_is_committed_behind_what_was_refused_for_now(tmp_path: Path) -> None:
    """INV-4, in MQTT 3.1.1: the connection is closed, but what it had handed in behind waits for the ledger already."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob")
        world.settle()
        for body in ("one", "two"):
            world.ask(ann, "send", to="bob", body=body, id=body)
        one, two = list(world.ledger.waiting)
        world.ledger.waiting.clear()
        with patch.object(world.store.engine.log, "append", side_effect=sqlite3.OperationalError("disk I/O error")):
            world.store.run([one], world.now)
        world.store.run([two], world.now)
        assert isinstance(two, RequestJob)
        assert two.refusal is not None and two.refusal.retry
        assert ann.failed == [1, 2] and ann.closed
        world.leave(ann)
        again = world.connect("ann")
        for body in ("one", "two"):
            world.ask(again, "send", to="bob", body=body, id=body)
        world.settle()
        assert [item["body"] for item in bob.of("msg")] == ["one", "two"]
        world.close()

    asyncio.run(play())
