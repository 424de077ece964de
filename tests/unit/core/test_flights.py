"""What large packets in flight weigh together, and what devices get where that is too much (INV-16)."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_im.core.delivery import item_packet_id
from mqtt_im.core.flights import LARGE, DeliveryMemory

from .inbox import Inbox, again, message, positions

SIZE = 10_000
assert SIZE > LARGE


def inbox(count: int, memory: DeliveryMemory, size: int = SIZE, **options: Any) -> Inbox:
    """A device with so many items that it was not offered yet."""
    made = Inbox(memory=memory, **options)
    for number in range(count):
        made.add(message("x" * size, seq=number + 1), live=False)
    return made


def ack(inbox: Inbox, pos: int) -> None:
    inbox.delivery.acked(item_packet_id(pos))


def test_large_packets_are_counted_as_long_as_they_are_in_memory() -> None:
    memory = DeliveryMemory()
    one = inbox(3, memory)
    assert positions(one.pump()) == [1, 2, 3]
    assert 3 * SIZE < memory.bytes < 4 * SIZE
    ack(one, 1)
    ack(one, 3)
    assert 2 * SIZE < memory.bytes < 3 * SIZE, "the third stays in memory until the second is acknowledged"
    ack(one, 2)
    assert memory.bytes == 0
    small = inbox(100, memory, 100)
    assert len(small.pump()) == 100 and memory.bytes == 0


def test_one_item_that_goes_to_many_is_in_memory_once() -> None:
    """And each packet of it a while, as long as its socket has not taken it: that counts as an eighth."""
    memory, item = DeliveryMemory(), message("x" * SIZE)
    members = [Inbox(memory=memory) for _ in range(80)]
    for one in members:
        one.add(item)
        assert len(one.pump()) == 1
    assert 10 * SIZE < memory.bytes < 12 * SIZE
    for one in members[1:]:
        ack(one, 1)
    assert SIZE < memory.bytes < 1.2 * SIZE
    ack(members[0], 1)
    assert memory.bytes == 0


def test_what_is_acknowledged_is_not_kept() -> None:
    """A thousand members of a crowd kept its five thousand names each, as what they were offered last."""
    one = inbox(2, DeliveryMemory())
    one.pump()
    ack(one, 1)
    assert one.delivery.offered
    ack(one, 2)
    assert not one.delivery.offered


@pytest.mark.parametrize("restarts", [True, False])
def test_what_is_let_go_of_is_not_counted(restarts: bool) -> None:
    memory = DeliveryMemory()
    one = inbox(3, memory)
    one.pump()
    if restarts:
        one.delivery.restart(0, 3)
    else:
        del one
    assert memory.bytes == 0


@pytest.mark.parametrize("live", [True, False])
def test_who_acknowledges_nothing_leaves_one_packet_at_a_time_to_others(live: bool) -> None:
    """Each acknowledgement brings the next one, in order, until there is room again."""
    memory = DeliveryMemory(5 * SIZE)
    silent = inbox(20, memory)
    assert positions(silent.pump()) == [1, 2, 3, 4, 5]
    other = Inbox(memory=memory)
    for number in range(4):
        other.add(message("x" * SIZE, seq=number + 1), live=live)
    for pos in range(1, 5):
        assert positions(other.pump()) == [pos]
        assert not other.pump()
        ack(other, pos)
    assert other.delivery.cursor == 4
    for pos in range(1, 6):
        ack(silent, pos)
    assert positions(silent.pump()) == [6, 7, 8, 9, 10], "what was in memory was given back, and has come again"


def test_small_packets_do_not_wait_for_large_ones() -> None:
    memory = DeliveryMemory(5 * SIZE)
    silent = inbox(20, memory)
    silent.pump()
    other = Inbox(memory=memory)
    for number in range(50):
        other.add(message("hello", seq=number + 1))
    assert len(other.pump()) == 50


def test_batches_are_small_meanwhile() -> None:
    memory = DeliveryMemory(5 * SIZE)
    silent = inbox(20, memory)
    silent.pump()
    other = Inbox(memory=memory)
    other.delivery.batch = True
    other.delivery._batch_bytes = 16_384
    for number in range(100):
        other.add(message("x" * 200, seq=number + 1))
    first, *rest = other.pump()
    assert len(first.payload) > LARGE >= max(len(packet.payload) for packet in rest)
    assert positions([first, *rest]) == list(range(1, 101))


def test_what_is_too_large_for_a_device_is_not_in_flight_to_it() -> None:
    memory = DeliveryMemory()
    one = inbox(1, memory)
    [packet] = one.pump()
    assert memory.bytes > SIZE
    one.delivery.too_large(packet.packet_id)
    assert memory.bytes < 100
    assert one.delivery.in_flight()[packet.packet_id].entries[0][1].void == "too_large"
    ack(one, 1)
    assert memory.bytes == 0 and one.delivery.cursor == 1


def test_what_was_in_flight_before_is_sent_again_and_stays_counted() -> None:
    memory = DeliveryMemory(5 * SIZE)
    silent = inbox(20, memory)
    assert len(silent.pump()) == 5
    following = silent.again(silent.delivery.in_flight(), memory=memory)
    del silent
    before = memory.bytes
    assert before > 5 * SIZE, "it is parked"
    assert again(following.pump()) == [(item_packet_id(pos), True) for pos in range(1, 6)]
    assert memory.bytes == before
    for pos in range(1, 6):
        ack(following, pos)
    assert positions(following.pump()) == [6, 7, 8, 9, 10]


def test_what_is_lightened_counts_as_what_is_left_of_it() -> None:
    memory = DeliveryMemory()
    one = inbox(3, memory)
    one.pump()
    one.delivery.lighten(True, {})
    assert 0 < memory.bytes < 500
    batches = Inbox(memory=memory)
    batches.delivery.batch = True
    batches.delivery._batch_bytes = 16_384
    for number in range(60):
        batches.add(message("x" * 200, seq=number + 1))
    [packet] = batches.pump()
    before = memory.bytes
    assert before > len(packet.payload) > LARGE
    batches.delivery.lighten(True, {})
    assert memory.bytes > before * 3 // 4, "small items stay, and are large together"
    for delivery in (one.delivery, batches.delivery):
        for packet_id in list(delivery.flights):
            delivery.acked(packet_id)
    assert memory.bytes == 0


def test_a_large_packet_weighs_as_much_as_its_item_and_one_of_many_its_part() -> None:
    """Half of it counted, so that all deliveries had twice the memory that there is for them before anybody gave way."""
    memory = DeliveryMemory()
    one = inbox(3, memory)
    one.pump()
    assert 3 * SIZE <= one.delivery.weight(writable=True) < 4 * SIZE
    item = message("x" * SIZE)
    members = [Inbox(memory=memory) for _ in range(80)]
    for member in members:
        member.add(item)
        member.pump()
    weights = sum(flight.weight for member in members for flight in member.delivery.flights.values())
    assert 0.9 * SIZE < weights < 2 * SIZE
