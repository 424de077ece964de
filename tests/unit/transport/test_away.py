"""Kept sessions whose clients are away are bounded by what they weigh."""

from __future__ import annotations

from mqtt_im.transport.embedded.sessions.away import SHARE, Away, weight

SMALL = weight({})


def test_the_longest_away_go_first() -> None:
    away = Away(10 * SMALL)
    for number in range(10):
        away.add((f"user{number}", "d"), SMALL)
        assert away.too_much(f"user{number}") is None
    away.add(("user0", "d"), SMALL)  # was there, and has gone again
    away.add(("late", "d"), SMALL)
    assert away.too_much("late") == ("user1", "d")
    away.drop(("user1", "d"))
    assert away.too_much("late") is None and away.bytes == 10 * SMALL and len(away) == 10


def test_a_user_with_more_than_a_share_loses_its_own() -> None:
    away = Away(SHARE * 5 * SMALL)
    away.add(("early", "d"), SMALL)
    for number in range(5):
        away.add(("greedy", f"d{number}"), SMALL)
    assert away.too_much("greedy") is None
    away.add(("greedy", "d5"), SMALL)
    assert away.too_much("greedy") == ("greedy", "d0")


def test_nothing_is_left_of_who_has_come_back() -> None:
    away = Away(100 * SMALL)
    away.add(("ann", "d"), weight({"a/#": 1, "b": 0}))
    away.add(("ann", "e"), SMALL)
    for device in "ded":
        away.drop(("ann", device))
    assert (away.bytes, len(away), away._users, away._of_users) == (0, 0, {}, {})
