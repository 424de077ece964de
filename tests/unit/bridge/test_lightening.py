"""What deliveries have in memory is bounded as a sum, and who has most of it is read from the store again (INV-16)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mqtt_im.bridge.lightening import FEW
from mqtt_im.core.delivery import item_packet_id
from mqtt_im.core.flights import LARGE, Flight
from mqtt_im.mqtt import V5
from tests.support.bridge import BridgeWorld, FakeLink
from tests.unit.transport.harness import on_loop

SIZE = 3_000
assert SIZE < LARGE
MOST = 60_000


async def turns(world: BridgeWorld) -> None:
    """What is done in later turns of the loop is done."""
    for _ in range(50):
        world.settle()
        await asyncio.sleep(0)


def flights(world: BridgeWorld, link: FakeLink) -> list[Flight]:
    delivery = world.bridge.delivery_of(link)
    assert delivery is not None
    return list(delivery.flights.values())


def told(world: BridgeWorld, sender: FakeLink, to: str, count: int) -> None:
    for number in range(count):
        world.ask(sender, "send", id=f"{to}{number}", to=to, body=f"{number}" + "x" * SIZE)
        world.settle()


@on_loop
async def test_who_acknowledges_nothing_is_lightened_and_has_all_of_it_again_after_coming_back(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        world.bridge.delivery_memory.most = MOST
        ann, ben = world.connect("ann"), world.connect("ben")
        silent = world.connect("bob", clean=False)
        await turns(world)
        told(world, ann, "ben", 1)
        told(world, ann, "bob", 40)
        await turns(world)
        assert len(flights(world, silent)) == 40
        assert sum(flight.weight for flight in flights(world, silent)) < MOST
        assert all(flight.weight for flight in flights(world, ben)), "who has little keeps it"
        sent = [item["body"] for item in silent.items]
        world.leave(silent)
        back = world.connect("bob", clean=False, resumed=True)
        await turns(world)
        assert [item["body"] for item in back.items] == sent
        assert [(packet_id, dup) for _, packet_id, dup in back.sent] == [(item_packet_id(pos), True) for pos in range(1, 41)]
        world.puback(back, *range(1, 41))
        await turns(world)
        delivery = world.bridge.delivery_of(back)
        assert delivery is not None and delivery.cursor == 40 and delivery.idle


@on_loop
async def test_what_many_have_in_flight_is_in_memory_once_and_counts_so(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        world.bridge.delivery_memory.most = MOST
        ann = world.connect("ann")
        names = [f"m{number}" for number in range(12)]
        links = [world.connect(name) for name in names]
        await turns(world)
        world.ask(ann, "group.create", id="g", group="#g", members=names)
        await turns(world)
        told(world, ann, "#g", 3)
        await turns(world)
        assert [len(link.items) for link in links] == [4] * len(links)
        for link in links:
            assert [flight.entries[0][1].is_light for flight in flights(world, link)] == [False] * 4
        told(world, ann, "m1", 15)
        await turns(world)
        assert any(flight.entries[0][1].is_light for flight in flights(world, links[1])), "who has much alone gives way"
        assert not any(flight.entries[0][1].is_light for flight in flights(world, links[2]))


@on_loop
async def test_what_waits_for_who_does_not_read_is_not_in_memory_and_comes_when_it_does(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        world.bridge.delivery_memory.most = MOST
        ann, bob = world.connect("ann"), world.connect("bob")
        await turns(world)
        bob.writable = False
        told(world, ann, "bob", 60)
        await turns(world)
        delivery = world.bridge.delivery_of(bob)
        assert delivery is not None and delivery.weight(writable=False) < MOST
        bob.writable = True
        world.bridge.writable(bob)
        await turns(world)
        assert [int(item["body"].rstrip("x")) for item in bob.items] == list(range(60))


@on_loop
async def test_what_waits_for_who_takes_no_more_packets_is_not_in_memory_and_comes_when_it_does(tmp_path: Path) -> None:
    """Receive Maximum, which the delivery knows nothing of: its window was open, and so nothing of it was counted."""
    with BridgeWorld(tmp_path) as world:
        world.bridge.delivery_memory.most = MOST
        ann, bob = world.connect("ann"), world.connect("bob")
        await turns(world)
        bob.version, bob.room = V5, 0
        told(world, ann, "bob", 60)
        await turns(world)
        delivery = world.bridge.delivery_of(bob)
        assert delivery is not None and delivery._buffered < MOST
        bob.room = 65_535
        world.bridge.writable(bob)
        await turns(world)
        assert [int(item["body"].rstrip("x")) for item in bob.items] == list(range(60))


@on_loop
async def test_packets_alone_make_windows_smaller_until_there_is_room_again(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        world.bridge.delivery_memory.most = 8_000
        ann, bob, ben = world.connect("ann"), world.connect("bob"), world.connect("ben")
        await turns(world)
        for number in range(60):
            world.ask(ann, "send", id=f"s{number}", to="bob", body="x" * 200)
            await turns(world)
        delivery = world.bridge.delivery_of(bob)
        assert delivery is not None and delivery.window == FEW
        before = len(flights(world, bob))
        assert FEW < before < 60
        told(world, ann, "ben", 1)
        await turns(world)
        assert len(ben.items) == 1, "others have their items"
        for pos in range(1, 61):
            world.puback(bob, pos)
            world.puback(ann, pos)
            await turns(world)
        assert bob.positions == list(range(1, 61))
        world.puback(ben, 1)
        world.puback(ann, 61)
        told(world, ann, "cat", 1)
        await turns(world)
        assert delivery.window > FEW


@on_loop
async def test_where_large_packets_are_too_much_little_is_fetched_for_each_device(tmp_path: Path) -> None:
    with BridgeWorld(tmp_path) as world:
        large = 5 * SIZE
        assert large > LARGE
        ann, gone = world.connect("ann"), world.connect("bob")
        await turns(world)
        world.leave(gone)
        for number in range(6):
            world.ask(ann, "send", id=f"s{number}", to="bob", body=f"{number}" + "x" * large)
            world.settle()
        world.bridge.delivery_memory.most = large
        world.bridge.delivery_memory.bytes += large
        bob = world.connect("bob")
        await turns(world)
        delivery = world.bridge.delivery_of(bob)
        assert delivery is not None and len(bob.items) == 1
        assert delivery._buffered < 2 * large, "and not all that there is"
        for pos in range(1, 7):
            world.puback(bob, pos)
            await turns(world)
        assert [int(item["body"].rstrip("x")) for item in bob.items] == list(range(6))
