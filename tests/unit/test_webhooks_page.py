"""docs/webhooks.md: its examples are what the server makes, and its verification accepts what the server signs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mqtt_im.hooks.sender import signature
from mqtt_im.protocol import requests as rq
from tests.unit.bridge.hooks_world import World

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")


def examples(event: str) -> list[dict[str, Any]]:
    found = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]
    return [example for example in found if example["event"] == event]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def shape(value: Any) -> Any:
    """Names and types, without values."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value)


def test_the_example_of_a_message(world: World) -> None:
    desk = world.events(include_body=True)
    world.say("alice", "bob", "Hello Bob", mentions=["bob"], push={"title": "Alice"})
    assert [shape(event) for event in world.step(desk)] == [shape(example) for example in examples("message")]


def test_the_example_of_a_group(world: World) -> None:
    desk = world.events()
    world.request("alice", rq.GroupCreate(id="g", group="#ops", name="Operations", members=["bob"]))
    assert [shape(event) for event in world.step(desk)] == [shape(example) for example in examples("group")]


def test_the_examples_of_presence(world: World) -> None:
    desk = world.events()
    for online in (True, False):
        desk.presence("alice", online, world.now)
        (event,) = world.step(desk)
        assert shape(event) == shape(examples("presence")[0 if online else 1])
        world.answer(desk)


def test_the_example_of_a_push(world: World) -> None:
    world.request("alice", rq.GroupCreate(id="g", group="#ops", name="Operations", members=["bob", "carol"]))
    desk = world.pushes(delay_s=0)
    for number in range(5):
        world.say("alice", "bob", number, push={"title": "Alice"})
    world.say("alice", "#ops")
    world.say("carol", "#ops", mentions=["bob"])
    push = next(push for push in world.step(desk) if push["user"] == "bob")
    (example,) = examples("push")
    assert shape(push) == shape(example)
    assert [entry["conv"] for entry in push["conversations"]] == ["#ops", "alice:bob"]
    assert push["count"] == example["count"]


def test_the_verification_of_the_page() -> None:
    source = re.search(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert source is not None
    names: dict[str, Any] = {}
    exec(source[1], names)
    is_genuine = cast(Callable[[str, dict[str, str], bytes], bool], names["is_genuine"])

    def headers(timestamp: float, body: bytes) -> dict[str, str]:
        text = str(int(timestamp))
        return {"MQTT-IM-Timestamp": text, "MQTT-IM-Signature": signature("secret", text, body)}

    assert is_genuine("secret", headers(time.time(), b"{}"), b"{}")
    assert not is_genuine("secret", headers(time.time(), b"{}"), b"[]")
    assert not is_genuine("other", headers(time.time(), b"{}"), b"{}")
    assert not is_genuine("secret", headers(time.time() - 3600, b"{}"), b"{}")
