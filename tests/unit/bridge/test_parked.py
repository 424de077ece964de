"""What a device had not acknowledged when its connection ended comes again as things are now, in the new one's form."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

from mqtt_im.bridge.telling import CROWD
from mqtt_im.core.offered import BATCH_FIRST, BATCH_MOST
from mqtt_im.transport.api import Extra
from tests.support.bridge import BridgeWorld, FakeLink


def told_a_secret(folder: Path) -> tuple[BridgeWorld, FakeLink, FakeLink]:
    """Ann has told bob, whose session is kept."""
    world = BridgeWorld(folder)
    ann, bob = world.connect("ann"), world.connect("bob", clean=False)
    world.settle()
    world.ask(ann, "send", to="bob", body="TOP-SECRET")
    world.settle()
    return world, ann, bob


def test_a_recalled_body_does_not_come_again_in_a_reply(tmp_path: Path) -> None:
    """INV-9: replies that show messages are made anew, and nothing of them is kept."""

    async def play() -> None:
        world, ann, bob = told_a_secret(tmp_path)
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


def test_what_a_hello_has_asked_for_again_comes_with_dup_on_the_next_connection_too(tmp_path: Path) -> None:
    """MQTT-3.3.1-1: it was sent before that, and had not come again when the connection broke."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob", clean=False)
        world.settle()
        for body in ("one", "two", "three"):
            world.ask(ann, "send", to="bob", body=body)
        world.settle()
        world.ask(bob, "hello", id="h", after=0, window=1)
        world.settle()
        assert bob.positions == [1, 2, 3, 1]
        world.leave(bob)
        world.ask(ann, "send", to="bob", body="four")
        again = world.connect("bob", clean=False, resumed=True)
        world.settle()
        offered = [(item["pos"], dup) for item, _, dup in again.sent if item["op"] == "msg"]
        assert offered == [(1, True), (2, True), (3, True), (4, False)]
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


def test_a_reply_that_is_made_anew_waits_where_others_have_taken_the_room(tmp_path: Path) -> None:
    """MQTT5-3.3.4-9: it left in its packet of before though as many as the client takes were with it."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        bob = world.connect("bob", clean=False)
        world.settle()
        world.ask(bob, "convs", id="c")
        world.settle()
        world.leave(bob)
        again = world.connect("bob", clean=False, resumed=True)
        again.version, again.room = 5, 0
        world.settle()
        assert not again.of("convs")
        again.room = 1
        world.bridge.writable(again)
        assert [(reply["id"], dup) for reply, _, dup in again.sent if reply["op"] == "convs"] == [("c", False)]
        world.read(again, "c")
        assert not world.bridge._channels[again].replies
        world.close()

    asyncio.run(play())


def test_replies_that_wait_for_room_outlive_their_connection(tmp_path: Path) -> None:
    """Their requests have had PUBACK, so the client of a kept session does not repeat them."""

    async def play() -> None:
        world, _, bob = told_a_secret(tmp_path)
        bob.version = 5
        world.bridge.uplink(bob, b'{"op":"history","id":"h","conv":"ann:bob"}', 1, 1, False, Extra(b"sent before"))
        world.settle()
        assert [link_id for reply, link_id, _ in bob.sent if reply.get("id") == "h"] != [0]
        bob.room = 0
        world.bridge.uplink(bob, b'{"op":"convs","id":"c"}', 2, 2, False, Extra(b"which one"))
        world.ask(bob, "settings", id="s")
        world.settle()
        assert not bob.of("convs") and not bob.of("ok")
        world.leave(bob)
        assert "TOP-SECRET" not in str(world.bridge._parking.all()[0].waited)
        for left in range(2):  # it goes again before it has them
            again = world.connect("bob", clean=False, resumed=True)
            again.version, again.room = 5, 0
            world.ask(again, "block", id=f"b{left}", user="eve")
            world.settle()
            world.leave(again)
        last = world.connect("bob", clean=False, resumed=True)
        world.settle()
        replies = {reply["id"]: dup for reply, _, dup in last.sent if "id" in reply and "pos" not in reply}
        assert replies == {"h": False, "c": False, "s": False, "b0": False, "b1": False}
        told = {reply["id"]: given for (reply, _, _), given in zip(last.sent, last.properties, strict=True) if "id" in reply}
        assert told["c"].endswith(b"which one") and told["h"].endswith(b"sent before") and not told["s"]
        world.close()

    asyncio.run(play())


def held(world: BridgeWorld) -> str:
    """Everything that the bridge keeps of what it has sent, or is about to send."""
    deliveries = [channel.delivery for channel in world.bridge._channels.values() if channel.delivery is not None]
    entries = [entry for delivery in deliveries for _, entry in (*delivery._buffer, *delivery.offered)]
    flights = [flight for delivery in deliveries for flight in delivery.in_flight().values()]
    flights += [flight for parked in world.bridge._parking.all() for flight in parked.flights.values()]
    return str([entry.tail for flight in flights for _, entry in flight.entries] + [entry.tail for entry in entries])


async def told(world: BridgeWorld) -> None:
    """What is told to many has come to all of them."""
    while world.bridge.telling._telling:  # noqa: ASYNC110 - each turn of the loop tells some
        await asyncio.sleep(0)


def test_packets_without_puback_hold_nothing_that_was_recalled(tmp_path: Path) -> None:
    """INV-9: of who is connected, and of who will come back; what comes again then says that it was recalled."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob, tablet = world.connect("ann"), world.connect("bob", clean=False), world.connect("bob", "tablet")
        world.settle()
        world.ask(ann, "send", to="bob", body="TOP-SECRET", mentions=["bob"])
        world.ask(ann, "edit", id="e", conv="ann:bob", seq=1, body="TOP-SECRET, too")
        world.ask(ann, "send", to="bob", body="harmless")
        world.settle()
        world.leave(bob)
        assert "TOP-SECRET" in held(world)
        world.ask(ann, "recall", id="r", conv="ann:bob", seq=1)
        world.settle()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "TOP-SECRET" not in held(world) and "harmless" in held(world)
        again = world.connect("bob", clean=False, resumed=True)
        world.settle()
        assert [(item["pos"], item["op"], item.get("body"), item.get("recalled")) for item in again.items] == [
            (1, "msg", None, True),
            (2, "edited", None, True),
            (3, "msg", "harmless", None),
            (4, "recalled", None, None),
        ]
        assert "mentions" not in again.items[0]
        world.puback(tablet, 1, 2, 3, 4)
        world.settle()
        delivery = world.bridge.delivery_of(tablet)
        assert delivery is not None and delivery.cursor == 4
        world.close()

    asyncio.run(play())


def test_who_has_left_a_group_is_not_offered_what_was_recalled_since(tmp_path: Path) -> None:
    """Nothing tells the former member of the recall; what is in hand for it is as things are now all the same."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob")
        world.settle()
        world.ask(bob, "hello", id="h", window=1)
        world.ask(ann, "group.create", id="g", group="#g", members=["bob"])
        for body in ("one", "TOP-SECRET", "mistaken"):
            world.ask(ann, "send", to="#g", body=body)
        world.ask(ann, "group.remove", id="out", group="#g", members=["bob"])
        world.settle()
        world.ask(ann, "recall", id="r", conv="#g", seq=3)
        world.ask(ann, "edit", id="e", conv="#g", seq=4, body="mended")
        world.settle()
        for pos in range(1, 6):
            world.puback(bob, pos)
            world.settle()
        shown = [(item["pos"], item.get("body"), item.get("recalled", False)) for item in bob.items if "system" not in item]
        assert shown == [(2, "one", False), (3, None, True), (4, "mended", False)]
        world.close()

    asyncio.run(play())


def test_a_recall_overtakes_a_message_to_many(tmp_path: Path) -> None:
    async def play() -> None:
        world = BridgeWorld(tmp_path)
        names = [f"u{number:03}" for number in range(3 * CROWD)]
        links = [world.connect(name) for name in names]
        world.settle()
        ann = world.connect("ann")
        world.ask(ann, "group.create", id="g", group="#g", members=names)
        world.settle()
        await told(world)
        world.ask(ann, "send", to="#g", body="TOP-SECRET")
        world.batch()
        world.ask(ann, "recall", id="r", conv="#g", seq=2)
        world.batch()
        await told(world)
        world.settle()
        assert "TOP-SECRET" not in held(world)
        assert sum("TOP-SECRET" in str(link.sent) for link in links) <= CROWD
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


def test_what_was_in_flight_has_dup_after_a_second_restart_too(tmp_path: Path) -> None:
    """MQTT-3.3.1-1: the connection in between has ended before anything was offered, and so has settled nothing."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob", clean=False)
        world.settle()
        for body in ("one", "two"):
            world.ask(ann, "send", to="bob", body=body)
        world.settle()
        assert bob.positions == [1, 2]
        world.close()
        world = BridgeWorld(tmp_path)
        short = world.connect("bob", clean=False, resumed=True)
        world.batch()
        world.leave(short)
        world.bridge.cursors.write()
        world.settle()
        assert short.positions == []
        world.close()
        world = BridgeWorld(tmp_path)
        again = world.connect("bob", clean=False, resumed=True)
        world.settle()
        assert [(item["pos"], dup) for item, _, dup in again.sent if item["op"] == "msg"] == [(1, True), (2, True)]
        world.close()

    asyncio.run(play())


def test_nothing_of_a_connection_that_is_gone_waits_to_be_looked_for_as_garbage(tmp_path: Path) -> None:
    """INV-16: what was in flight to it may be megabytes, and all memory is looked through rarely."""

    async def play() -> None:
        world = BridgeWorld(tmp_path)
        ann, bob = world.connect("ann"), world.connect("bob")
        world.settle()
        for link, to in ((ann, "bob"), (bob, "ann")):
            for number in range(3):
                world.ask(link, "send", id=f"{to}{number}", to=to, body="x" * 1_000)
        world.settle()
        gone = weakref.ref(bob)
        world._tokens.clear()
        gc.collect()
        gc.disable()
        try:
            world.leave(bob)
            del bob, link
            world.settle()
            assert gone() is None
        finally:
            gc.enable()
        world.close()

    asyncio.run(play())
