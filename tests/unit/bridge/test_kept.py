"""What the bridge keeps for a connection beside its delivery is told to the transport, and goes when it is over (INV-16)."""

from __future__ import annotations

import gc
from pathlib import Path

from mqtt_im.bridge.changing import UplinkJob
from mqtt_im.bridge.extras import MAX_AWAITED
from mqtt_im.mqtt import V5
from mqtt_im.transport.api import Extra
from mqtt_im.transport.under_way import LARGE
from tests.support.bridge import BridgeWorld, FakeLink
from tests.support.im import encode
from tests.unit.transport.harness import on_loop

WORDS = b"c" * 50_000


def send(world: BridgeWorld, link: FakeLink, number: int, body: str, correlation: bytes | None = None) -> None:
    payload = encode({"op": "send", "id": f"m{number}", "to": "bob", "body": body})
    world.bridge.uplink(link, payload, number, number, False, None if correlation is None else Extra(correlation))


@on_loop
async def test_a_large_request_counts_until_it_is_answered_and_then_nothing_of_it_is_in_memory(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        ann = world.connect("ann")
        world.settle()
        send(world, ann, 1, "x" * 60_000)
        assert ann.loaded > 60_000
        world.settle()
        assert ann.loaded == 0
        gc.collect()
        assert [job for job in gc.get_objects() if isinstance(job, UplinkJob)] == []
        send(world, ann, 2, "x" * 60_000)
        world.refuse()
        assert ann.loaded == 0
        send(world, ann, 3, "x" * (LARGE // 2))
        assert ann.loaded == 0
        world.settle()
        world.ask(ann, "group.create", id="g", members=[f"member{number}" for number in range(1_000)])
        assert ann.loaded > 100_000, "a name takes more than its letters"
        world.settle()
        assert ann.loaded == 0


@on_loop
async def test_correlation_data_counts_until_it_was_handed_back(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        ann = world.connect("ann")
        ann.version = V5
        world.settle()
        send(world, ann, 1, "hi", WORDS)
        assert ann.kept == len(WORDS)
        ann.writable = False
        world.settle()
        assert ann.kept == len(WORDS), "it waits for the `sent` item"
        ann.writable = True
        world.bridge.writable(ann)
        world.settle()
        assert ann.kept == 0
        world.bridge.uplink(ann, b"nonsense", 2, 2, False, Extra(WORDS))
        world.settle()
        assert ann.kept > len(WORDS), "the error has it, until its PUBACK"
        packet_id = next(packet_id for item, packet_id, _ in ann.sent if item["op"] == "error")
        world.bridge.acked(ann, [packet_id])
        assert ann.kept == 0


@on_loop
async def test_of_correlation_data_that_waits_too_long_the_oldest_goes(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        ann = world.connect("ann")
        ann.version = V5
        world.settle()
        ann.writable = False
        for number in range(1, MAX_AWAITED + 3):
            send(world, ann, number, "hi", b"1234")
            world.batch()
        assert ann.kept == 4 * MAX_AWAITED


@on_loop
async def test_replies_that_wait_for_room_count(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        ann = world.connect("ann")
        ann.version = V5
        for number in range(1, 20):
            send(world, ann, number, "x" * 10_000)
        world.settle()
        ann.room = 0
        world.ask(ann, "history", id="h", conv="ann:bob")
        world.settle()
        assert ann.kept > 150_000
        ann.room = 10
        world.bridge.writable(ann)
        world.settle()
        assert ann.kept == 0, "a page is not kept until its PUBACK, but asked for again"


@on_loop
async def test_nothing_of_a_connection_that_is_gone_stays_with_what_it_has_asked_for(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        ann = world.connect("ann")
        ann.version = V5
        world.settle()
        send(world, ann, 1, "x" * 10_000)
        world.settle()
        channel = world.bridge._channels[ann]

        def hangs() -> list[object]:
            return [each for each in (channel.delivery, channel.correlations, channel.awaited, channel.replies) if each]

        world.bridge.uplink(ann, encode({"op": "devices"}), 2, 2, False, Extra(WORDS))
        send(world, ann, 3, "hi", WORDS)
        assert len(hangs()) == 2 and len(channel.correlations or ()) == 2
        world.leave(ann)
        assert channel.waiting == 2, "both are on their way"
        assert not hangs()
        world.settle()
        assert channel.waiting == 0 and not hangs()
