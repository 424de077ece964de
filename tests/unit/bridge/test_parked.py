"""What a device had not acknowledged when its connection ended comes again as things are now, in the new one's form."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mqtt_im.core.delivery import BATCH_FIRST, BATCH_MOST
from tests.support.bridge import BridgeWorld


def test_a_recalled_body_does_not_come_again_in_a_reply(tmp_path: Path) -> None:
    """INV-9: replies that show messages are made anew, and nothing of them is kept."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob", clean=False)
        world.settle()
        world.ask(ann, "send", to="bob", body="TOP-SECRET")
        world.settle()
        world.puback(bob, 1)
        for op, fields in (("history", {"conv": "ann:bob"}), ("convs", {}), ("sync", {"after": 0})):
            world.ask(bob, op, id=op, **fields)
        world.settle()
        before = {reply["id"]: packet_id for reply, packet_id, _ in bob.sent if reply.get("id") in ("history", "convs", "sync")}
        assert len(before) == 3
        world.leave(bob)
        world.ask(ann, "recall", id="r", conv="ann:bob", seq=1)
        world.settle()
        again = world.connect("bob", clean=False, resumed=True)
        world.settle()
        replies = {reply["id"]: (packet_id, dup) for reply, packet_id, dup in again.sent if "id" in reply and "pos" not in reply}
        assert replies == {name: (packet_id, True) for name, packet_id in before.items()}
        assert "TOP-SECRET" not in str(again.sent)
        world.close()

    asyncio.run(play())


def test_a_reply_comes_again_in_the_codec_of_the_new_connection(tmp_path: Path) -> None:
    async def play() -> None:
        world = BridgeWorld(tmp_path)
        bob = world.connect("bob", clean=False)
        world.settle()
        world.ask(bob, "hello", id="h", codec="msgpack")
        world.settle()
        world.ask(bob, "settings", id="s")
        world.settle()
        world.leave(bob)
        again = world.connect("bob", clean=False, resumed=True)
        world.settle()
        assert {reply["id"] for reply in again.of("ok")} == {"s"}
        assert again.raw and all(payload[:1] == b"{" for payload in again.raw)
        world.close()

    asyncio.run(play())


def test_batches_grow_with_each_puback(tmp_path: Path) -> None:
    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob")
        world.settle()
        world.leave(bob)
        for _ in range(400):
            world.ask(ann, "send", to="bob", body="x" * 200)
        world.settle()
        bob = world.connect("bob")
        world.ask(bob, "hello", id="h", batch=True, window=1)
        world.settle()
        sizes = []
        while bob.of("batch") and bob.of("batch")[-1]["pos"] < 400:
            sizes.append(max(len(payload) for payload in bob.raw[-1:]))
            world.puback(bob, bob.of("batch")[-1]["pos"])
            world.settle()
        assert sizes[0] <= BATCH_FIRST
        assert all(later <= 2 * BATCH_FIRST * 2**index for index, later in enumerate(sizes))
        assert BATCH_MOST // 2 < max(sizes) <= BATCH_MOST
        world.close()

    asyncio.run(play())
