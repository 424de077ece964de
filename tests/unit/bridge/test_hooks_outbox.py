"""The outbox: what is kept, for whom, and for how long; and when what failed is tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mqtt_im.hooks import outbox as outboxes
from mqtt_im.hooks.outbox import Event, Outbox, Push
from mqtt_im.hooks.retry import LONGEST_WAIT_MS, Circuit, wait
from mqtt_im.protocol.errors import StoreError
from mqtt_im.tables import Place


@pytest.fixture
def outbox(new_place: Callable[[], Place]) -> Iterator[Outbox]:
    outbox = Outbox(new_place())
    outbox.belongs_to("e", 100)
    yield outbox
    outbox.close()


def test_it_is_of_one_store_only(outbox: Outbox) -> None:
    def fill() -> None:
        outbox.follow("push", 50)
        outbox.add_events([("message", 50)], 0)
        outbox.add_pushes({"bob": (1, 50)}, 0, 0)

    fill()
    outbox.belongs_to("e", 50)
    assert (outbox.position("push"), outbox.waiting("push"), outbox.waiting("hooks")) == (50, 1, 1)
    for epoch, last in (("other", 50), ("other", 49)):
        fill()
        outbox.belongs_to(epoch, last)
        assert (outbox.position("push"), outbox.waiting("push"), outbox.waiting("hooks")) == (None, 0, 0)


def test_a_desk_that_is_switched_off_leaves_the_others_alone(outbox: Outbox) -> None:
    outbox.follow("push", 5)
    outbox.follow("hooks", 6)
    outbox.add_events([("message", 5)], 0)
    outbox.add_presence("ann", True, "{}", 0)
    outbox.add_pushes({"bob": (1, 5)}, 0, 0)
    outbox.forget("hooks")
    assert (outbox.position("hooks"), outbox.waiting("hooks"), outbox.online()) == (None, 0, set())
    assert (outbox.position("push"), outbox.waiting("push")) == (5, 1)
    outbox.forget("push")
    assert (outbox.position("push"), outbox.waiting("push")) == (None, 0)


def test_what_one_transaction_adds_is_kept_together_or_not_at_all(outbox: Outbox, new_place: Callable[[], Place]) -> None:
    def fail() -> None:
        with outbox.transaction():
            outbox.add_events([("message", 1)], 0)
            outbox.follow("hooks", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    other = Outbox(new_place())
    assert (other.waiting("hooks"), other.position("hooks")) == (0, None)
    other.close()


def test_the_oldest_are_due_first_and_what_is_under_way_is_left_out(outbox: Outbox) -> None:
    outbox.add_events([("message", lsn) for lsn in (1, 2, 3)], 10)
    outbox.add_events([("group", 4)], 5)
    assert outbox.due_events(4, 9, ()) == []
    found = outbox.due_events(10, 9, ())
    assert [event.lsn for event in found] == [4, 1, 2, 3]
    assert [event.lsn for event in outbox.due_events(10, 2, {found[0].id, found[2].id})] == [1, 3]
    assert found[0] == Event(4, "group", 4, None, None, 0)


def test_a_replaced_word_of_presence_is_not_taken_for_the_older_one(outbox: Outbox) -> None:
    outbox.add_presence("ann", True, "1", 0)
    (old,) = outbox.due_events(0, 9, ())
    outbox.add_presence("ann", False, "2", 0)
    outbox.event_done(old.id)
    (new,) = outbox.due_events(0, 9, ())
    assert (new.user, new.data) == ("ann", "2")
    assert outbox.online() == set()


def test_dead_events_are_bounded(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "MAX_DEAD", 3)
    outbox.add_events([("message", lsn) for lsn in range(1, 7)], 0)
    for event in outbox.due_events(0, 9, ()):
        outbox.event_failed(event.id, None, "why")
    assert [dead.subject for dead in outbox.dead()] == ["row 4", "row 5", "row 6"]


def test_pushes_of_a_large_group_are_added_in_one_go(outbox: Outbox) -> None:
    outbox.add_pushes({f"u{number}": (7, 9) for number in range(1200)}, 5, 0)
    assert outbox.waiting("push") == 1200
    assert outbox.due_pushes(5, 1, {"u0"})[0].told == 6


def test_what_comes_for_many_who_wait_already_changes_only_how_far_there_is_to_tell(outbox: Outbox) -> None:
    names = [f"u{number:04}" for number in range(40)]
    outbox.add_pushes(dict.fromkeys(names, (7, 9)), 5, 0)
    outbox.push_failed("u0001", None, "why")
    outbox.push_failed("u0002", 50, "why")
    outbox.push_done("u0003", 9, 60, pushed=10)
    outbox.add_pushes(dict.fromkeys(names, (10, 12)), 20, 0)
    due = {push.user: push for push in outbox.due_pushes(100, 2_000, ())}
    assert len(due) == 40 and outbox.dead_count("push") == 0
    assert [due[name] for name in names[:4]] == [
        Push("u0000", 6, 0),
        Push("u0001", 6, 0),
        Push("u0002", 6, 1),
        Push("u0003", 9, 0),
    ]
    for name in names[:5]:
        outbox.push_done(name, 11, 200)
    assert outbox.waiting("push") == 40, "there is more to tell than up to row 11"
    for name in names[:5]:
        outbox.push_done(name, 12, 200)
    assert outbox.waiting("push") == 35


def test_what_was_told_already_is_not_due_again(outbox: Outbox) -> None:
    outbox.add_pushes({"bob": (3, 5)}, 1000, 10)
    assert outbox.due_pushes(1000, 9, ()) == [Push("bob", 2, 0)]
    outbox.push_done("bob", 8, 1010, pushed=1000)
    outbox.add_pushes({"bob": (6, 8)}, 1001, 10)
    assert outbox.waiting("push") == 0
    outbox.add_pushes({"bob": (9, 9)}, 1001, 10)
    assert outbox.due_pushes(1009, 9, ()) == []
    assert outbox.due_pushes(1010, 9, ()) == [Push("bob", 8, 0)]


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / f"{outboxes.NAME}.db").write_text("no database at all, but long enough to be looked at as one\n" * 20)
    with pytest.raises(StoreError):
        Outbox(tmp_path)


# When it is tried again


def test_waits_double_up_to_an_hour() -> None:
    assert [wait(failures, 0.5) for failures in (1, 2, 3, 4)] == [1000, 2000, 4000, 8000]
    assert wait(100, 0.5) == LONGEST_WAIT_MS
    assert (wait(1, 0.0), wait(1, 1.0)) == (750, 1250)


def test_a_circuit_lets_one_attempt_through_at_a_time_while_the_receiver_is_out_of_order() -> None:
    circuit = Circuit()
    assert circuit.slots(0, 16, 3) == 16
    assert circuit.fails(0, 0.5, 0) is True
    assert circuit.fails(999, 0.5, 0) is False
    assert [circuit.slots(now, 16, under_way) for now, under_way in ((999, 0), (1000, 0), (1000, 1))] == [0, 1, 0]
    assert circuit.fails(1000, 0.5, 0) is False
    assert [circuit.slots(now, 16, 0) for now in (2999, 3000)] == [0, 1]
    assert circuit.works() is True
    assert circuit.works() is False
    assert circuit.slots(0, 16, 0) == 16
    assert circuit.fails(3000, 0.5, 90_000) is True
    assert [circuit.slots(now, 16, 0) for now in (92_999, 93_000)] == [0, 1]


def test_what_waits_is_sent_although_the_clock_was_set_back(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    noon, day = 1_000_000_000, 86_400_000
    with outbox.transaction():
        outbox.add_events([("message", 1)], noon)
        outbox.add_pushes({"ann": (1, 1)}, noon, 5000)
    for now in (noon - day, noon):
        assert len(outbox.due_events(now, 10, ())) == 1
        assert len(outbox.due_pushes(now, 10, ())) == 1
    assert outbox.due_events(noon - 1000, 10, ()) == [], "a little while is waited for"
    outbox.close()
