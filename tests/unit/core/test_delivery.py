"""Delivery: one device's stream, step by step (INV-10 … INV-13, INV-16)."""

from __future__ import annotations

import json

import pytest

from mqtt_im.core import delivery as module
from mqtt_im.core import offered
from mqtt_im.core.delivery import APP_AHEAD, BATCH_ITEMS, ITEM_IDS, MAX_BUFFERED, item_packet_id
from mqtt_im.core.entries import void_entry
from mqtt_im.protocol.requests import MAX_BATCH

from .inbox import NOW, Inbox, items, message, positions

# Order, window, cursor.


def test_backlog_comes_first_and_live_items_continue_it() -> None:
    inbox = Inbox(head=3)
    first = inbox.take()
    assert first is None
    assert inbox.fetch()
    inbox.add()
    inbox.add()
    assert positions(inbox.pump()) == [1, 2, 3, 4, 5]
    assert inbox.fetches == 1, "live items were taken from memory"


def test_live_is_never_ahead_of_backlog() -> None:
    inbox = Inbox(head=3)
    inbox.add()
    assert inbox.take() is None
    assert positions(inbox.pump()) == [1, 2, 3, 4]


def test_a_live_item_that_does_not_continue_what_is_in_memory_is_fetched_in_its_turn() -> None:
    inbox = Inbox()
    inbox.add()
    inbox.add(live=False)
    inbox.add()
    assert [pos for pos, _ in inbox.delivery._buffer] == [1]
    assert positions(inbox.pump()) == [1, 2, 3]
    assert inbox.fetches == 1


def test_a_hint_without_item_is_fetched() -> None:
    inbox = Inbox()
    inbox.add(live=False)
    assert positions(inbox.pump()) == [1]


def test_what_is_kept_in_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(window=0)
    for _ in range(MAX_BUFFERED + 50):
        inbox.add()
    assert len(inbox.delivery._buffer) == MAX_BUFFERED
    monkeypatch.setattr(module, "MAX_BUFFERED_BYTES", 100)
    inbox = Inbox(window=0)
    for _ in range(50):
        inbox.add()
    assert sum(entry.size for _, entry in inbox.delivery._buffer) < 200
    inbox.delivery.window = 100
    assert positions(inbox.pump()) == list(range(1, 51))


def test_the_next_items_are_asked_for_before_those_in_memory_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED", 10)
    inbox = Inbox(head=30, window=4)
    assert inbox.fetch() and not inbox.fetch(), "ten are enough for now"
    first = [inbox.take() for _ in range(4)]
    assert inbox.take() is None and inbox.delivery.want() is None
    assert first[0] is not None
    inbox.delivery.acked(first[0].packet_id)
    assert inbox.take() is not None and inbox.take() is None
    assert inbox.delivery.want() == (10, 5)
    assert inbox.delivery.want() is None, "nothing is asked for twice"
    inbox.delivery.fetched(inbox.page(10, 5), 30)
    assert [pos for pos, _ in inbox.delivery._buffer] == list(range(6, 16))


def test_at_most_a_window_is_unacknowledged() -> None:
    inbox = Inbox(head=10, window=3)
    assert positions(inbox.pump()) == [1, 2, 3]
    assert inbox.delivery.want() is None
    assert inbox.delivery.acked(1)
    assert positions(inbox.pump()) == [4]


def test_acknowledgements_count_as_far_as_they_are_contiguous() -> None:
    inbox = Inbox(head=4)
    inbox.pump()
    delivery = inbox.delivery
    assert not delivery.acked(2) and not delivery.acked(3)
    assert (delivery.cursor, delivery.delivered()) == (0, [])
    assert delivery.acked(1)
    assert (delivery.cursor, list(delivery.flights)) == (3, [4])
    assert delivery.delivered() == ["ann:bob", 3] and delivery.delivered() == []


@pytest.mark.parametrize("packet_id", [0, 3, 32_768, 65_535])
def test_an_acknowledgement_of_what_was_not_sent_moves_nothing(packet_id: int) -> None:
    inbox = Inbox(head=2)
    inbox.pump()
    assert not inbox.delivery.acked(packet_id)
    assert not inbox.delivery.acked(2) and not inbox.delivery.acked(2), "twice is once"
    assert inbox.delivery.cursor == 0


def test_own_messages_and_what_is_no_message_deliver_nothing() -> None:
    inbox = Inbox()
    inbox.add(message(by="bob", seq=9), message(seq=0), message(seq=7), message(seq=5), message(seq=9, expires=NOW))
    inbox.pump()
    for packet_id in range(1, 6):
        inbox.delivery.acked(packet_id)
    assert inbox.delivery.delivered() == ["ann:bob", 7]


def test_at_qos_0_the_cursor_moves_with_the_packet() -> None:
    inbox = Inbox(head=3, qos=0, window=1)
    packets = inbox.pump()
    assert [(packet.packet_id, packet.dup) for packet in packets] == [(0, False)] * 3
    assert (inbox.delivery.cursor, inbox.delivery.delivered(), inbox.delivery.in_flight()) == (3, ["ann:bob", 3], {})


def test_what_has_expired_when_it_is_offered_is_void() -> None:
    inbox = Inbox()
    inbox.add(message(expires=NOW + 1), message(expires=NOW))
    assert [item["op"] for item in items(inbox.pump())] == ["msg", "void"]


def test_pages_that_overlap_or_begin_elsewhere_are_cut_to_what_is_next() -> None:
    inbox = Inbox(head=6, cursor=2)
    assert inbox.delivery.want() == (2, MAX_BUFFERED)
    inbox.delivery.fetched([(pos, inbox.entries[pos]) for pos in (1, 2, 3, 5, 4)], 6)
    assert positions(inbox.pump()) == [3, 4, 5, 6]


def test_a_page_that_holds_nothing_may_be_asked_for_again() -> None:
    inbox = Inbox(head=1)
    assert inbox.delivery.want() is not None
    inbox.delivery.fetched([], 1)
    assert positions(inbox.pump()) == [1]


def test_an_amended_item_that_is_not_offered_yet_is_fetched_as_it_is_now() -> None:
    inbox = Inbox(head=2)
    inbox.fetch()
    inbox.entries[2] = message("edited")
    inbox.delivery.amended()
    assert [item["body"] for item in items(inbox.pump())] == ["m1", "edited"]


def test_looking_again_finds_what_it_was_not_told_of() -> None:
    inbox = Inbox(head=1)
    inbox.pump()
    inbox.add()
    inbox.head, inbox.entries[3] = 3, message("m3")
    after, limit = inbox.delivery.look_again()
    assert (after, inbox.delivery.waiting) == (1, True)
    inbox.delivery.fetched(inbox.page(after, limit), inbox.head)
    assert positions(inbox.pump()) == [2, 3]


# `ack: "app"`.


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("batch", [False, True])
def test_delivery_pauses_ahead_of_what_an_app_has_acknowledged(qos: int, batch: bool) -> None:
    inbox = Inbox(head=APP_AHEAD + 50, qos=qos, app=True)
    inbox.delivery.batch = MAX_BATCH * batch
    assert positions(inbox.pump()) == list(range(1, APP_AHEAD + 1))
    for packet_id in list(inbox.delivery.flights):
        assert not inbox.delivery.acked(packet_id), "PUBACKs move nothing"
    assert inbox.pump() == [] and inbox.delivery.cursor == 0
    inbox.delivery.confirmed(30)
    assert positions(inbox.pump()) == list(range(APP_AHEAD + 1, APP_AHEAD + 31))


def test_what_an_app_confirms_beyond_what_was_offered_is_not_offered() -> None:
    inbox = Inbox(head=5, app=True)
    inbox.fetch()
    inbox.delivery.confirmed(3)
    inbox.delivery.confirmed(1)
    assert (inbox.delivery.cursor, positions(inbox.pump())) == (3, [4, 5])


def test_just_the_next_item_may_be_confirmed() -> None:
    inbox = Inbox(head=2)
    inbox.fetch()
    inbox.delivery.confirmed(1)
    assert positions(inbox.pump()) == [2]


def test_what_an_app_confirms_is_not_repeated() -> None:
    inbox = Inbox(head=3, app=True)
    inbox.pump()
    following = inbox.again(inbox.delivery.in_flight(), app=True)
    following.delivery.confirmed(2)
    assert list(following.delivery.in_flight()) == [3]
    assert [(packet.packet_id, packet.dup) for packet in following.pump()] == [(3, True)]


# Batches.


def large_batches(monkeypatch: pytest.MonkeyPatch, most: int = 48 * 1024) -> None:
    monkeypatch.setattr(offered, "BATCH_FIRST", most)
    monkeypatch.setattr(offered, "BATCH_MOST", most)


def test_a_batch_holds_the_same_stream_and_is_acknowledged_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    large_batches(monkeypatch)
    inbox = Inbox(head=BATCH_ITEMS + 60, window=2)
    inbox.delivery.batch = MAX_BATCH
    packets = inbox.pump()
    assert [packet.packet_id for packet in packets] == [200, MAX_BUFFERED]
    assert positions(packets) == list(range(1, MAX_BUFFERED + 1))
    assert inbox.delivery.acked(200) and inbox.delivery.cursor == 200
    assert positions(inbox.pump()) == list(range(MAX_BUFFERED + 1, BATCH_ITEMS + 61))


def test_one_item_is_no_batch() -> None:
    inbox = Inbox(head=1)
    inbox.delivery.batch = MAX_BATCH
    assert [json.loads(packet.payload)["op"] for packet in inbox.pump()] == ["msg"]


def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(head=200)
    inbox.delivery.batch = 600
    packets = inbox.pump()
    assert positions(packets) == list(range(1, 201))
    assert all(len(packet.payload) <= 600 for packet in packets)
    assert all(len(json.loads(packet.payload)["items"]) > 1 for packet in packets[:-1])


def test_batches_at_qos_0() -> None:
    inbox = Inbox(head=5, qos=0)
    inbox.delivery.batch = MAX_BATCH
    assert positions(inbox.pump()) == [1, 2, 3, 4, 5] and inbox.delivery.cursor == 5


# `key`: offered or replaced, never both.


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("keyed", [[1], [2], [3], [1, 2, 3]])
def test_an_item_that_was_replaced_before_it_was_offered_is_fetched_again(batch: bool, keyed: list[int]) -> None:
    inbox = Inbox()
    inbox.delivery.batch = MAX_BATCH * batch
    inbox.add(*(message(f"m{pos}", seq=pos, keyed=pos in keyed) for pos in (1, 2, 3)))
    inbox.replace(keyed[-1])
    found = items(inbox.pump())
    assert [item["pos"] for item in found] == [1, 2, 3]
    assert [item["pos"] for item in found if item["op"] == "void"] == [keyed[-1]]
    assert sorted(set(inbox.claimed)) == keyed, "only what has a key is claimed"


# Packet identifiers.


@pytest.mark.parametrize(("pos", "packet_id"), [(1, 1), (32_767, 32_767), (32_768, 1), (65_534, 32_767), (65_535, 1)])
def test_packet_identifiers_follow_from_pos(pos: int, packet_id: int) -> None:
    assert item_packet_id(pos) == packet_id


@pytest.mark.parametrize("batch", [False, True])
def test_packet_identifiers_in_flight_are_distinct(batch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    few = 1_000
    monkeypatch.setattr(module, "ITEM_IDS", few)
    inbox = Inbox(head=few + 600, cursor=300)
    inbox.delivery.batch = MAX_BATCH * batch
    packets = inbox.pump()
    assert len(inbox.delivery.flights) == len(packets)
    assert positions(packets) == list(range(301, positions(packets)[-1] + 1))
    assert few - BATCH_ITEMS <= len(positions(packets)) <= few
    while packets:
        for packet in packets:
            inbox.delivery.acked(packet.packet_id)
        packets = inbox.pump()
    assert inbox.delivery.cursor == few + 600


@pytest.mark.parametrize("batch", [False, True])
def test_a_void_whose_identifier_may_be_in_use_waits(batch: bool) -> None:
    inbox = Inbox(head=ITEM_IDS + 5, window=10)
    inbox.delivery.fetched([(1, inbox.entries[1])], inbox.head)
    first = inbox.take()
    assert first is not None and first.packet_id == 1
    inbox.delivery.batch = MAX_BATCH * batch
    inbox.floor = ITEM_IDS + 1
    assert inbox.fetch() and inbox.take() is None
    assert inbox.delivery.acked(1)
    [void] = items(inbox.pump())
    assert (void["op"], void["from"], void["pos"]) == ("void", 2, ITEM_IDS + 1)
    assert inbox.delivery.acked(1) and inbox.delivery.cursor == ITEM_IDS + 1
    assert positions(inbox.pump()) == list(range(ITEM_IDS + 2, ITEM_IDS + 6))


# What is gone.


def test_one_void_stands_for_everything_that_is_gone() -> None:
    inbox = Inbox(head=7)
    inbox.floor = 5
    assert [(item["op"], item.get("from"), item["pos"]) for item in items(inbox.pump())] == [
        ("void", 1, 5),
        ("msg", None, 6),
        ("msg", None, 7),
    ]
    assert inbox.delivery.acked(5) and inbox.delivery.cursor == 5


def test_a_void_that_began_before_what_is_next_begins_there() -> None:
    inbox = Inbox(head=7)
    inbox.delivery.confirmed(3)
    inbox.delivery.want()
    inbox.delivery.fetched([(5, void_entry("retention", 1)), (6, inbox.entries[6])], 7)
    assert [(item["op"], item.get("from"), item["pos"]) for item in items(inbox.pump())] == [
        ("void", 4, 5),
        ("msg", None, 6),
        ("msg", None, 7),
    ]


def test_a_void_that_does_not_hold_what_is_next_is_fetched_again() -> None:
    inbox = Inbox(head=3)
    inbox.delivery._buffer.append((3, void_entry("retention", 2)))
    assert inbox.take() is None and not inbox.delivery._buffer
    assert positions(inbox.pump()) == [1, 2, 3]


# `hello` with `after`.


def test_a_restart_goes_back_and_what_was_sent_before_has_dup() -> None:
    inbox = Inbox(head=4, window=3)
    inbox.pump()
    inbox.delivery.restart(1, 4)
    assert inbox.delivery.cursor == 1 and not inbox.delivery.flights
    assert [(packet.packet_id, packet.dup) for packet in inbox.pump()] == [(2, True), (3, True), (4, False)]


def test_a_restart_goes_forward() -> None:
    inbox = Inbox(head=9)
    inbox.fetch()
    inbox.delivery.restart(7, 9)
    assert positions(inbox.pump()) == [8, 9]


def test_a_restart_forgets_what_was_to_be_sent_again_but_not_that_it_was_sent() -> None:
    inbox = Inbox(head=4, window=3)
    inbox.pump()
    following = inbox.again(inbox.delivery.in_flight())
    following.delivery.restart(0, 4)
    assert [(packet.packet_id, packet.dup) for packet in following.pump()] == [(1, True), (2, True), (3, True), (4, False)]


# What is kept.


def test_what_was_acknowledged_is_not_kept() -> None:
    inbox = Inbox(head=40)
    inbox.delivery.batch = MAX_BATCH
    for packet in inbox.pump():
        inbox.delivery.acked(packet.packet_id)
    assert inbox.delivery._oldest is inbox.delivery._newest is None and not inbox.delivery.flights
    inbox.add()
    assert positions(inbox.pump()) == [41]
    inbox.delivery.restart(41, 41)
    assert inbox.delivery._oldest is inbox.delivery._newest is None and not inbox.delivery.flights


@pytest.mark.parametrize("app", [False, True])
def test_an_identifier_is_not_taken_again_while_its_packet_has_no_puback(app: bool) -> None:
    """A device may have read ahead with `sync`, and confirmed what it has not sent a PUBACK for."""
    inbox = Inbox(head=ITEM_IDS + 300, window=1, app=app)
    (first,) = inbox.pump()
    inbox.delivery.confirmed(ITEM_IDS)
    inbox.delivery.window = 4
    assert inbox.pump() == []
    inbox.delivery.acked(first.packet_id)
    sent = []
    while packets := inbox.pump():
        sent += packets
        for packet in packets:
            inbox.delivery.acked(packet.packet_id)
        inbox.delivery.confirmed(positions(packets)[-1])
    assert positions(sent) == list(range(ITEM_IDS + 1, ITEM_IDS + 301))
    assert inbox.delivery.cursor == ITEM_IDS + 300
