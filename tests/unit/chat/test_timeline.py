"""What is known of a conversation."""

from __future__ import annotations

from typing import Any

from mqtt_im.chat.timeline import Timeline
from mqtt_im.client import Edited, Message, Reacted, Recalled, Receipt


def message(seq: int, sender: str = "bob", body: Any = "hi", **fields: Any) -> Message:
    return Message({"conv": "alice:bob", "seq": seq, "from": sender, "body": body, "ts": seq, **fields})


def test_messages_stand_in_order_whenever_they_come() -> None:
    timeline = Timeline("alice:bob", "alice")
    for seq in (3, 1, 2, 3):
        timeline.add(message(seq))
    assert [line.seq for line in timeline.ordered()] == [1, 2, 3]
    assert (timeline.head, timeline.peer, timeline.to) == (3, "bob", "bob")


def test_what_became_of_a_message() -> None:
    timeline = Timeline("alice:bob", "alice")
    timeline.add(message(1))
    timeline.change(Reacted(5, "alice:bob", 1, "alice", "👍", 9))
    timeline.change(Reacted(6, "alice:bob", 1, "bob", "👍", 9))
    timeline.change(Reacted(7, "alice:bob", 1, "alice", "", 9))
    timeline.change(Edited(8, "alice:bob", 1, "bob", "ho", 9))
    line = timeline.lines[1]
    assert (line.text, line.edited, line.reactions) == ("ho", True, {"👍": ["bob"]})
    timeline.change(Recalled(9, "alice:bob", 1, "bob", 9))
    assert line.text == "(recalled)"
    timeline.change(Edited(10, "alice:bob", 7, "bob", "of nothing known", 9))


def test_marks_only_grow() -> None:
    timeline = Timeline("alice:bob", "alice")
    timeline.mark(Receipt("alice:bob", "bob", delivered=2))
    assert [timeline.state_of(seq) for seq in (2, 3)] == ["delivered", "sent"]
    timeline.mark(Receipt("alice:bob", "bob", read=3))
    timeline.mark(Receipt("alice:bob", "bob", delivered=1, read=1))
    assert [timeline.state_of(seq) for seq in (3, 4)] == ["read", "sent"]


def test_who_stops_typing_without_a_word_is_forgotten() -> None:
    now = [0.0]
    timeline = Timeline("#ops", "alice", lambda: now[0])
    timeline.types("bob", on=True)
    timeline.types("carol", on=True)
    assert timeline.typing == ["bob", "carol"]
    timeline.types("carol", on=False)
    now[0] = 9.0
    assert timeline.typing == []
