"""Devices that take packets up to a size: batches are split, and what fits nowhere is void for that device alone."""

from __future__ import annotations

import json
from typing import Any

from mqtt_im.core.delivery import Delivery
from mqtt_im.core.entries import Entry
from mqtt_im.protocol.requests import MAX_BATCH

NOW = 1


def entry(seq: int, size: int) -> Entry:
    return Entry("ann", "phone", "ann:bob", seq, b'{"op":"msg","pos":', b',"body":"%b"}' % (b"x" * size), None)


def delivery(sizes: list[int], *, qos: int = 1, limit: int = 0, batch: bool = True) -> Delivery:
    made = Delivery("bob", "tab", 0, 0, qos=qos, window=100, app=False)
    made.batch, made.limit = batch, limit
    for number, size in enumerate(sizes, 1):
        made.live(number, entry(number, size))
    return made


def taken(made: Delivery) -> list[tuple[int, dict[str, Any]]]:
    found = []
    while (packet := made.take(NOW, lambda *_: True)) is not None:
        found.append((packet[0], json.loads(packet[1])))
    return found


def positions(packets: list[tuple[int, dict[str, Any]]]) -> list[int]:
    return [item["pos"] for _, data in packets for item in data.get("items", [data])]


def test_a_batch_is_no_larger_than_the_device_takes() -> None:
    packets = taken(delivery([50] * 20, limit=300))
    assert len(packets) > 1
    assert all(len(json.dumps(data)) < 400 for _, data in packets)
    assert positions(packets) == list(range(1, 21))


def test_what_was_too_large_at_once_comes_in_parts() -> None:
    for qos in (1, 0):
        made = delivery([50] * 6, qos=qos)
        first = made.take(NOW, lambda *_: True)
        assert first is not None
        made.put_back(first[0])
        assert not made.flights
        assert made.cursor == 0
        made.limit = 150
        packets = taken(made)
        assert positions(packets) == [1, 2, 3, 4, 5, 6]
        for packet_id, _ in packets if qos else ():
            made.acked(packet_id)
        assert made.cursor == 6


def test_parts_come_behind_what_is_in_flight() -> None:
    made = delivery([10], batch=False)
    first = made.take(NOW, lambda *_: True)
    assert first is not None
    made.batch = MAX_BATCH
    for pos in (2, 3, 4):
        made.live(pos, entry(pos, 50))
    second = made.take(NOW, lambda *_: True)
    assert second is not None
    made.put_back(second[0])
    assert list(made.flights) == [first[0]]
    made.limit = 1
    rest = taken(made)
    assert positions(rest) == [2, 3, 4]
    for packet_id in (first[0], *(packet_id for packet_id, _ in rest)):
        made.acked(packet_id)
    assert made.cursor == 4
    assert made.delivered() == ["ann:bob", 4]


def test_what_fits_nowhere_is_void_and_delivers_nothing() -> None:
    made = delivery([900], batch=False)
    packet = made.take(NOW, lambda *_: True)
    assert packet is not None
    assert json.loads(made.too_large(packet[0])) == {"op": "void", "pos": 1, "from": 1, "why": "too_large"}
    assert made.acked(packet[0])
    assert made.cursor == 1
    assert made.delivered() == []
