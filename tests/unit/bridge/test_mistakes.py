"""A mistake with one answer, or one word about somebody, keeps nobody waiting for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mqtt_im.bridge.telling import Telling
from mqtt_im.bridge.uplink import Uplink
from tests.support.bridge import BridgeWorld

PATIENCE_S = 60.0


@pytest.mark.parametrize("op", ["send", "devices"])
def test_a_device_whose_answer_met_a_mistake_comes_back_and_asks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    """It waited for its acknowledgement for as long as it was connected, and when it came back, for its former connection."""

    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    async def scenario() -> None:
        with BridgeWorld(tmp_path) as world:
            ann = world.connect("ann")
            world.settle()
            fields = {"to": "bob", "body": 1} if op == "send" else {}
            with monkeypatch.context() as patch:
                patch.setattr(Telling, "tell", broken)
                patch.setattr(Uplink, "_done", broken)
                world.ask(ann, op, id="a", **fields)
                world.leave(ann)
                ann.closed = False
                world.settle()
            assert ann.closed
            await asyncio.wait_for(world.bridge.quiesced("ann", "phone"), PATIENCE_S)
            back = world.connect("ann")
            world.settle()
            world.ask(back, op, id="a", **fields)
            world.settle()
            assert any(item.get("id") == "a" for item, _, _ in back.sent)

    asyncio.run(scenario())


def test_who_is_told_of_presence_is_told_again_after_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    async def scenario() -> None:
        with BridgeWorld(tmp_path) as world:
            ann, bob = world.connect("ann"), world.connect("bob")
            world.settle()
            world.ask(ann, "send", id="a", to="bob", body=1)
            world.settle()
            world.bridge.watch(bob, "ann", 0, False)
            world.settle()

            def told() -> int:
                return sum(1 for item, _, _ in bob.sent if "state" in item)

            with monkeypatch.context() as patch:
                patch.setattr(bob, "publish", broken)
                world.bridge.presence.changed("ann")
                world.settle()
            before = told()
            world.bridge.presence.changed("ann")
            world.settle()
            assert told() == before + 1
            world.bridge.presence.stop()

    asyncio.run(scenario())
