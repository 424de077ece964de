"""What a member may read of a conversation."""

from __future__ import annotations

import pytest

from mqtt_im.core.model import EVERYTHING, FOREVER, Conv, Member, readers


def member(*spans: list[int]) -> Member:
    made = Member(0)
    made.spans = list(spans)
    return made


@pytest.mark.parametrize(
    ("spans", "head", "newest"),
    [
        ([[1, FOREVER]], 0, 0),
        ([[1, FOREVER]], 7, 7),
        ([[3, 5]], 7, 5),
        ([[3, 5]], 4, 4),
        ([[3, 5], [8, FOREVER]], 7, 5),
        ([[3, 5], [8, FOREVER]], 9, 9),
        ([[8, FOREVER]], 7, 0),
    ],
)
def test_the_newest_message_that_one_may_read(spans: list[list[int]], head: int, newest: int) -> None:
    assert member(*spans).newest(head) == newest


def test_hidden_messages_are_left_out_and_no_others() -> None:
    hiding = member(*EVERYTHING)
    for seq in (1, 2, 5, 6, 8):
        hiding.hide(seq)
    assert hiding.spans == [[3, 4], [7, 7], [9, FOREVER]]
    assert [seq for seq in range(1, 11) if hiding.sees(seq)] == [3, 4, 7, 9, 10]
    assert EVERYTHING == [[1, FOREVER]]


def test_who_learns_of_what_became_of_a_message() -> None:
    direct = Conv(1, "ann:bob")
    direct.members = {"ann": member(*EVERYTHING), "bob": member(*EVERYTHING)}
    direct.members["bob"].hide(1)
    assert (readers(direct, 1), readers(direct, 2)) == (["ann"], ["ann", "bob"])
    group = Conv(2, "#g")
    group.members = {"ann": member([1, FOREVER]), "bob": member([1, 1])}
    group.members["bob"].active = False
    assert readers(group, 1) == ["ann"]
