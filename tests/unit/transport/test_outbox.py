"""An outbox: numbers, window, bounds, and what is sent again."""

from __future__ import annotations

from mqtt_im.transport.api import FIRST_PLAIN_PACKET_ID
from mqtt_im.transport.embedded.sessions.session import RELEASED, SENT, WAITING, Message, Outbox, Room


def room(total: int = 1 << 30, per_user: int = 1 << 24) -> Room:
    return Room(total, per_user)


def put(outbox: Outbox, number: int, qos: int = 1, payload: bytes = b"x") -> list[int]:
    """Queue so many messages; returns the numbers of those that were dropped."""
    return [gone.seq for _ in range(number) for gone in outbox.ready(outbox.create(b"t", payload, qos, retain=False))]


def test_messages_leave_in_order_within_the_window() -> None:
    outbox = Outbox(window=2, limit=10, room=room())
    assert put(outbox, 3) == []
    first, second = outbox.next(), outbox.next()
    assert first is not None
    assert second is not None
    assert (first.seq, second.seq, outbox.next()) == (1, 2, None)
    assert outbox.acknowledged(second.packet_id) is second
    third = outbox.next()
    assert third is not None
    assert third.seq == 3
    assert list(outbox.in_flight.values()) == [first, third]
    assert not outbox.empty


def test_the_oldest_that_waits_is_dropped_first() -> None:
    outbox = Outbox(window=2, limit=3, room=room())
    assert put(outbox, 5) == [1, 2]
    in_flight = outbox.next()
    assert in_flight is not None
    assert in_flight.seq == 3
    assert put(outbox, 2) == [4], "what is in flight stays"


def test_an_empty_queue_still_uses_the_window() -> None:
    outbox = Outbox(window=2, limit=0, room=room())
    assert put(outbox, 3) == [1]


def test_a_queue_is_bounded_in_bytes_too() -> None:
    outbox = Outbox(window=1, limit=1000, room=room())
    assert put(outbox, 20, payload=b"x" * 1_000_000) == [1, 2, 3, 4]
    assert put(outbox, 1, payload=b"x" * 20_000_000) == list(range(5, 21))


def test_the_queues_of_a_user_share_a_bound_and_all_queues_another() -> None:
    shared = room(total=100, per_user=60)
    alice, her_other, bob = (Outbox(1, 1000, shared, user) for user in ("alice", "alice", "bob"))
    assert put(alice, 2, payload=b"x" * 19) == []
    assert put(her_other, 1, payload=b"x" * 19) == []
    assert put(alice, 1, payload=b"x" * 19) == [1], "a queue loses of its own"
    assert put(bob, 2, payload=b"x" * 19) == []
    assert put(bob, 1, payload=b"x" * 19) == [1], "all together have no more room"
    assert shared.taken == 100
    assert bob.next() is not None
    her_other.clear()
    assert put(bob, 1, payload=b"x" * 19) == [], "there is room again"
    for outbox in (alice, bob):
        outbox.clear()
    assert shared.taken == 0


def test_only_the_right_acknowledgement_finishes_a_message() -> None:
    outbox = Outbox(window=5, limit=5, room=room())
    put(outbox, 1, qos=1)
    put(outbox, 1, qos=2)
    once, twice = outbox.next(), outbox.next()
    assert once is not None
    assert twice is not None
    assert outbox.acknowledged(twice.packet_id) is None
    assert outbox.completed(twice.packet_id) is None, "not before PUBREC"
    assert outbox.received(once.packet_id) is None
    assert outbox.acknowledged(1) is None
    assert outbox.received(twice.packet_id) is twice
    assert twice.stage == RELEASED
    assert outbox.completed(twice.packet_id) is twice
    assert outbox.acknowledged(once.packet_id) is once
    assert outbox.empty


def test_identifiers_stay_in_their_range_and_are_not_used_twice_at_a_time() -> None:
    outbox = Outbox(window=20_000, limit=100_000, room=room())
    put(outbox, 40_000)
    seen = set()
    while (message := outbox.next()) is not None:
        seen.add(message.packet_id)
    assert min(seen) == FIRST_PLAIN_PACKET_ID
    assert max(seen) == 65_535
    assert len(seen) == len(outbox.in_flight) == 65_536 - FIRST_PLAIN_PACKET_ID


def test_a_restored_outbox_goes_on_where_it_was() -> None:
    outbox = Outbox(window=5, limit=5, room=room())
    stages = {3: SENT, 4: RELEASED, 6: WAITING}
    outbox.restore(Message(seq, b"t", b"x", 2, retain=False, stage=stage) for seq, stage in stages.items())
    assert [(message.seq, message.stage) for message in outbox.in_flight.values()] == [(3, SENT), (4, RELEASED)]
    waiting = outbox.next()
    assert waiting is not None
    assert waiting.seq == 6
    assert outbox.create(b"t", b"", 1, retain=False).seq == 7


def test_what_is_in_flight_has_its_place_too() -> None:
    shared = room(total=1_000, per_user=60)
    outbox = Outbox(8, 1000, shared, "alice")
    assert put(outbox, 2, payload=b"x" * 19) == []
    first, second = outbox.next(), outbox.next()
    assert first is not None
    assert second is not None
    assert shared.taken == 40
    assert put(outbox, 2, payload=b"x" * 19) == [3], "one waits, whatever is in flight"
    assert outbox.next() is not None, "there is room for it now"
    assert put(outbox, 1, payload=b"x" * 19) == []
    assert outbox.next() is None, "who acknowledges nothing has one at a time in flight"
    outbox.acknowledged(first.packet_id)
    outbox.forget(second)
    assert outbox.next() is not None
    outbox.clear()
    assert shared.taken == 0
