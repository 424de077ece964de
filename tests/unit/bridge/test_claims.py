"""INV-12: an item is offered or replaced, and never both, however many others there are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from mqtt_im.bridge.claims import Claims
from tests.support.bridge import BridgeWorld


@pytest.fixture
def small() -> Iterator[None]:
    with patch("mqtt_im.bridge.claims.MAX_OFFERED", 10), patch("mqtt_im.bridge.claims.MAX_USERS", 3):
        yield


def test_what_was_offered_is_never_taken_back(small: None) -> None:
    claims = Claims()
    assert claims.offer("lamp", 1)
    for number in range(100):
        assert claims.offer(f"other{number}", number + 1)
    assert not claims.take_back("lamp", 1)


def test_what_was_taken_back_is_never_offered(small: None) -> None:
    claims = Claims()
    assert claims.take_back("lamp", 1)
    for number in range(100):
        claims.take_back(f"other{number}", 1)
        claims.offer(f"another{number}", 1)
    assert not claims.offer("lamp", 1)
    claims.release("lamp", 1)
    assert claims.offer("lamp", 1)


def test_memory_is_bounded(small: None) -> None:
    claims = Claims()
    for number in range(1000):
        claims.offer(f"user{number % 50}", number)
        claims.take_back("lamp", number)
        claims.settle([("lamp", number)])
    assert claims._count <= 10
    assert len(claims._upto) <= 3
    assert not claims._taken


def test_who_holds_a_replaced_item_fetches_it_again(tmp_path: Path) -> None:
    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, lamp = world.connect("ann"), world.connect("lamp")
        world.settle()
        lamp.writable = False
        world.ask(ann, "send", to="lamp", body="on", key="power")
        world.settle()
        world.ask(ann, "send", to="lamp", body="off", key="power")
        world.settle()
        assert not world.claims._taken, "the store says so from now on"
        lamp.writable = True
        world.bridge.writable(lamp)
        world.settle()
        assert [item.get("body", item.get("why")) for item, _, _ in lamp.sent if "pos" in item] == ["replaced", "off"]
        world.close()

    asyncio.run(play())
