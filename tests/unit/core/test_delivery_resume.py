"""Resuming a kept session: what was in flight comes again (MQTT-4.4.0-1), as it is now (INV-13)."""

from __future__ import annotations

import json

import pytest

from mqtt_im.core.delivery import MAX_BUFFERED, item_packet_id
from mqtt_im.core.entries import void_entry
from mqtt_im.protocol.requests import MAX_BATCH

from .inbox import NOW, Inbox, again, items, message, positions, recalled


def test_what_was_in_flight_comes_again_with_dup_and_its_identifier() -> None:
    inbox = Inbox(head=5, window=3)
    sent = inbox.pump()
    following = inbox.again(inbox.delivery.in_flight(), window=4)
    repeated = following.pump()
    assert again(repeated) == [(1, True), (2, True), (3, True), (4, False)]
    assert [packet.payload for packet in repeated[:3]] == [packet.payload for packet in sent]
    for packet_id in (1, 2, 3):
        assert following.delivery.acked(packet_id)
    assert following.delivery.delivered() == ["ann:bob", 3]


def test_what_was_acknowledged_out_of_order_is_not_sent_again() -> None:
    inbox = Inbox(head=3)
    inbox.pump()
    inbox.delivery.acked(2)
    following = inbox.again(inbox.delivery.in_flight())
    assert again(following.pump()) == [(1, True), (3, True)]
    assert following.delivery.acked(1) and following.delivery.cursor == 2


def test_what_was_acknowledged_out_of_order_is_over_where_all_before_it_is() -> None:
    """It was waited for, though no PUBACK comes of it: in the window, and where large packets in flight are too much."""
    inbox = Inbox(4)
    inbox.pump()
    inbox.delivery.acked(item_packet_id(2))
    following = inbox.again(inbox.delivery.in_flight(), window=1)
    for pos in (1, 3, 4):
        assert positions(following.pump()) == [pos]
        assert following.delivery.acked(item_packet_id(pos))
    assert not following.pump()
    assert following.delivery.cursor == 4 and following.delivery.idle


def test_to_an_app_that_says_itself_what_it_has_it_is_sent_all_the_same() -> None:
    """A PUBACK moves nothing then, so there would be a gap in the stream of what it has not processed."""
    inbox = Inbox(head=4, app=True)
    inbox.pump()
    inbox.delivery.acked(2)
    inbox.delivery.acked(3)
    following = inbox.again(inbox.delivery.in_flight(), app=True)
    assert again(following.pump()) == [(1, True), (2, False), (3, False), (4, True)]
    assert list(following.delivery.in_flight()) == [1, 2, 3, 4]


def test_what_is_not_repeated_yet_stays_in_flight_for_the_next_connection() -> None:
    inbox = Inbox(head=3)
    inbox.pump()
    following = inbox.again(inbox.delivery.in_flight(), window=1)
    assert again(following.pump()) == [(1, True)]
    assert list(following.delivery.in_flight()) == [1, 2, 3]
    assert again(following.again(following.delivery.in_flight()).pump()) == [(1, True), (2, True), (3, True)]


def test_batches_come_again_as_they_were_also_to_a_device_that_asks_for_none() -> None:
    inbox = Inbox(head=4)
    inbox.delivery.batch = MAX_BATCH
    sent = inbox.pump()
    inbox.add()
    following = inbox.again(inbox.delivery.in_flight())
    repeated = following.pump()
    assert again(repeated) == [(4, True), (5, False)]
    assert repeated[0].payload == sent[0].payload


def test_a_new_batch_ends_where_a_former_packet_begins() -> None:
    inbox = Inbox(head=8)
    inbox.pump()
    flights = {packet_id: flight for packet_id, flight in inbox.delivery.in_flight().items() if packet_id in (4, 5)}
    following = inbox.again(flights)
    following.delivery.batch = MAX_BATCH
    packets = following.pump()
    assert positions(packets) == list(range(1, 9))
    assert again(packets) == [(3, False), (4, True), (5, True), (8, False)]


def test_what_was_recalled_or_replaced_meanwhile_comes_as_it_is_now_and_an_edit_as_it_was() -> None:
    inbox = Inbox(head=3)
    inbox.pump()
    inbox.entries.update({1: recalled(), 2: void_entry("replaced"), 3: message("edited")})
    following = items(inbox.again(inbox.delivery.in_flight()).pump())
    assert [(item["op"], item.get("body")) for item in following] == [("msg", "gone"), ("void", None), ("msg", "m3")]


def test_what_has_expired_meanwhile_is_void() -> None:
    inbox = Inbox()
    inbox.add(message(expires=NOW + 1))
    inbox.pump()
    following = inbox.again(inbox.delivery.in_flight())
    following.now += 1
    assert [(item["op"], item["why"]) for item in items(following.pump())] == [("void", "expired")]


@pytest.mark.parametrize("floor", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("kept", [(1, 2, 3, 4, 5), (2, 3), (3, 5), (5,), ()], ids=str)
def test_what_retention_took_meanwhile_is_void_in_packets_that_keep_their_identifiers(
    floor: int, batch: bool, kept: tuple[int, ...]
) -> None:
    inbox = Inbox(head=6, window=5)
    inbox.pump()
    inbox.floor = floor
    following = inbox.again({pos: flight for pos, flight in inbox.delivery.in_flight().items() if pos in kept})
    following.delivery.batch = MAX_BATCH * batch
    packets = following.pump()
    assert [packet.packet_id for packet in packets if packet.dup] == list(kept)
    upto = 0
    for item in items(packets):
        assert item.get("from", item["pos"]) == upto + 1
        assert (item["op"] == "void") == (item["pos"] <= floor)
        upto = item["pos"]
    assert upto == 6


def test_a_batch_that_retention_took_is_one_packet_still() -> None:
    inbox = Inbox(head=4)
    inbox.delivery.batch = MAX_BATCH
    inbox.pump()
    inbox.floor = 2
    found = inbox.again(inbox.delivery.in_flight()).pump()
    assert again(found) == [(4, True)]
    assert [item["op"] for item in items(found)] == ["void", "void", "msg", "msg"]


def test_a_void_that_reaches_beyond_a_batch_is_cut_at_its_end() -> None:
    inbox = Inbox(head=4)
    inbox.delivery.batch = MAX_BATCH
    inbox.pump()
    inbox.add()
    inbox.add()
    following = inbox.again(inbox.delivery.in_flight())
    assert following.delivery.want() == (0, MAX_BUFFERED)
    following.delivery.fetched([(1, inbox.entries[1]), (6, void_entry("retention", 2))], 6)
    repeated, rest = following.pump()
    assert [item["op"] for item in items([repeated])] == ["msg", "void", "void", "void"]
    assert (again([repeated, rest]), items([rest])[0]["from"]) == ([(4, True), (6, False)], 5)


def test_a_void_comes_again_as_it_was() -> None:
    inbox = Inbox(head=4)
    inbox.floor = 3
    sent = inbox.pump()
    following = inbox.again(inbox.delivery.in_flight()).pump()
    assert again(following) == [(3, True), (4, True)]
    assert [packet.payload for packet in following] == [packet.payload for packet in sent]


def test_flights_that_the_cursor_has_passed_or_the_store_has_lost_are_not_resumed() -> None:
    inbox = Inbox(head=4)
    inbox.pump()
    flights = inbox.delivery.in_flight()
    inbox.delivery.cursor = 2
    inbox.head = 3
    following = inbox.again(flights)
    assert again(following.pump()) == [(3, True)]
    following.add(message("another 4"))
    [packet] = following.pump()
    assert (packet.dup, json.loads(packet.payload)["body"]) == (False, "another 4")


def test_of_a_session_known_by_its_cursor_alone_everything_up_to_the_former_head_has_dup() -> None:
    inbox = Inbox(head=3, cursor=1)
    inbox.delivery.resume_blind(2)
    assert again(inbox.pump()) == [(2, True), (3, False)]


def test_a_packet_waits_until_all_of_it_is_known_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch may reach beyond a page; what was recalled in its second part is not sent again as it was."""
    monkeypatch.setattr("mqtt_im.core.offered.BATCH_FIRST", 48 * 1024)
    monkeypatch.setattr("mqtt_im.core.offered.BATCH_MOST", 48 * 1024)
    inbox = Inbox(head=1000, window=2)
    inbox.delivery.batch = MAX_BATCH
    sent = []
    while (packet := inbox.take()) is not None or inbox.delivery.want() is not None:
        if packet is None:
            inbox.delivery.fetched(inbox.page(inbox.delivery.next - 1, 256), 1000)
            continue
        sent.append(packet)
        # The page after this one comes before the socket takes the next packet.
        wanted = inbox.delivery.want()
        if wanted is not None:
            inbox.delivery.fetched(inbox.page(*wanted), 1000)
    assert positions(sent) == list(range(1, 401)) and len(sent) == 2
    inbox.entries[300] = recalled()
    resumed = inbox.again(inbox.delivery.in_flight(), window=2)
    packets = resumed.pump()
    assert again(packets) == [(packet.packet_id, True) for packet in sent]
    assert [item["body"] for item in items(packets)][299] == "gone"
