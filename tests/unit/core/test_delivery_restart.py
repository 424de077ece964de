"""`hello` with `after`: delivery goes on there, whatever PUBACKs of before are on their way (INV-11)."""

from __future__ import annotations

from .inbox import Inbox, again, positions


def acked(inbox: Inbox, packet_id: int) -> bool:
    """A PUBACK of a device that acknowledges all that it gets."""
    return inbox.delivery.acked(packet_id, twice=True)


def test_pubacks_of_what_was_offered_before_count_for_nothing() -> None:
    inbox = Inbox(head=5)
    inbox.pump()
    inbox.delivery.restart(2, 5)
    assert positions(inbox.pump()) == [3, 4, 5]
    for packet_id in (3, 4, 5):
        assert not acked(inbox, packet_id)
    assert inbox.delivery.cursor == 2
    assert again(inbox.again(inbox.delivery.in_flight()).pump()) == [(3, True), (4, True), (5, True)]


def test_those_of_what_is_offered_since_do() -> None:
    inbox = Inbox(head=5)
    inbox.pump()
    acked(inbox, 3)
    inbox.delivery.restart(2, 5)
    inbox.pump()
    assert acked(inbox, 3), "it had its PUBACK before, so this is the second"
    assert not acked(inbox, 4) and acked(inbox, 4)
    inbox.delivery.caught_up()
    assert acked(inbox, 5)
    assert inbox.delivery.cursor == 5


def test_who_throws_away_what_it_had_in_hand_is_not_stuck() -> None:
    """It acknowledges once, and what it says of a later packet holds for the earlier ones."""
    inbox = Inbox(head=5, window=5)
    inbox.pump()
    inbox.delivery.restart(0, 5)
    inbox.pump()
    for packet_id in (1, 2, 3, 4, 5):
        assert not acked(inbox, packet_id)
    inbox.delivery.caught_up()
    inbox.delivery.window = 6
    inbox.add()
    inbox.pump()
    assert acked(inbox, 6)
    assert inbox.delivery.cursor == 6 and not inbox.delivery.in_flight()


def test_two_of_them_are_told_apart_from_both() -> None:
    inbox = Inbox(head=5)
    inbox.pump()
    inbox.delivery.restart(4, 5)
    inbox.delivery.restart(2, 5)
    assert positions(inbox.pump()) == [3, 4, 5]
    assert not acked(inbox, 3) and not acked(inbox, 4) and not acked(inbox, 5)
    assert acked(inbox, 3)


def test_of_a_device_that_leaves_replies_unacknowledged_each_counts() -> None:
    inbox = Inbox(head=3)
    inbox.pump()
    inbox.delivery.restart(0, 3)
    inbox.pump()
    assert all(inbox.delivery.acked(packet_id) for packet_id in (1, 2, 3))
