"""`edit`, `recall`, `react`: who may, how long, and what is left (INV-9)."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_im.core.records import Edited, Message

from .world import World

CHANGES: dict[str, dict[str, Any]] = {"edit": {"body": "new"}, "recall": {}, "react": {"emoji": "+"}}
ops = pytest.mark.parametrize("op", CHANGES)


def sent(**limits: Any) -> World:
    """`ann:bob` with one message of each, `#g` (ann, bob, cat) with its beginning and one of bob."""
    world = World(**limits)
    world.ask("ann", "send", id="a", to="bob", body="old")
    world.ask("bob", "send", id="b", to="ann", body="old")
    world.group("ann", "bob", "cat")
    world.ask("bob", "send", id="g", to="#g", body="old")
    return world


def change(world: World, user: str, op: str, conv: str = "ann:bob", seq: int = 1, **more: Any) -> dict[str, Any]:
    return world.reply(user, op, **{"id": f"{op} it", "conv": conv, "seq": seq, **CHANGES[op], **more})


def refused(world: World, user: str, op: str, conv: str = "ann:bob", seq: int = 1, **more: Any) -> str:
    return world.refused(user, op, **{"id": f"{op} it", "conv": conv, "seq": seq, **CHANGES[op], **more})


@ops
def test_everybody_in_the_conversation_gets_the_item_and_a_repeat_makes_none(op: str) -> None:
    world = sent()
    assert change(world, "ann", op) == {"op": "ok", "id": f"{op} it"}
    before = world.log()
    assert change(world, "ann", op) == {"op": "ok", "id": f"{op} it", "dup": True}
    assert world.log() == before
    for user in ("ann", "bob"):
        item = world.inbox(user)[-1]
        assert (item["op"], item["conv"], item["seq"], item["by"], item["pos"]) == (
            {"edit": "edited", "recall": "recalled", "react": "reacted"}[op], "ann:bob", 1, "ann", 5,
        )  # fmt: skip
    assert world.heads("cat") == (2,)


@pytest.mark.parametrize(
    ("op", "changed"),
    [
        ("edit", {"conv": "#g"}), ("edit", {"seq": 2}), ("edit", {"body": "other"}),
        ("recall", {"conv": "#g"}), ("recall", {"seq": 2}),
        ("react", {"conv": "#g"}), ("react", {"seq": 2}), ("react", {"emoji": "-"}),
    ],
)  # fmt: skip
def test_the_same_id_with_anything_changed_is_a_conflict(op: str, changed: dict[str, Any]) -> None:
    world = sent()
    change(world, "ann", op)
    assert refused(world, "ann", op, **changed) == "conflict"


@ops
def test_amending_what_one_does_not_see(op: str) -> None:
    world = sent()
    assert refused(world, "ann", op, seq=3) == "not_found"
    assert refused(world, "cat", op) == "not_member"
    assert refused(world, "ann", op, conv="#none") == "not_member"
    world.ask("ann", "group.add", id="2", group="#g", members=["dan"])
    assert refused(world, "dan", op, conv="#g", seq=2) == "not_found"
    world.ask("cat", "group.leave", id="2", group="#g")
    assert refused(world, "cat", op, conv="#g", seq=2) == "not_member"


def test_only_ones_own_messages_are_edited_or_recalled() -> None:
    world = sent()
    assert refused(world, "bob", "edit") == refused(world, "bob", "recall") == "forbidden"
    change(world, "bob", "react")


@pytest.mark.parametrize(("role", "recalls"), [("owner", True), ("admin", True), ("member", False)])
def test_who_runs_a_group_recalls_any_message_and_edits_none(role: str, recalls: bool) -> None:
    world = sent()
    if role != "member":
        world.ask("ann", "group.role", id="r", group="#g", user="cat", role=role)
    assert refused(world, "cat", "edit", conv="#g", seq=2) == "forbidden"
    if recalls:
        change(world, "cat", "recall", conv="#g", seq=2)
    else:
        assert refused(world, "cat", "recall", conv="#g", seq=2) == "forbidden"


def test_a_system_message_is_reacted_to_and_stays_as_it_is() -> None:
    world = sent()
    assert refused(world, "ann", "edit", conv="#g") == refused(world, "ann", "recall", conv="#g") == "forbidden"
    change(world, "bob", "react", conv="#g")
    assert world.inbox("ann")[2]["reactions"] == {"+": ["bob"]}


@pytest.mark.parametrize(("window", "passed", "open_"), [(0, 0, False), (9, 9_000, True), (9, 9_001, False), (-1, 10**12, True)])
def test_the_window_of_edits_and_recalls(window: int, passed: int, open_: bool) -> None:
    for op in ("edit", "recall"):
        world = sent(edit_window_s=window)
        world.now += passed
        if open_:
            change(world, "ann", op)
        else:
            assert refused(world, "ann", op) == "forbidden"
        change(world, "ann", "react", seq=2)


def test_the_newest_edit_is_what_is_shown() -> None:
    world = sent()
    change(world, "ann", "edit", id="1", body=1)
    change(world, "ann", "edit", id="2", body=2)
    shown = [(item["op"], item.get("body"), item.get("edited")) for item in world.inbox("bob") if item["seq"] == 1]
    assert shown == [("msg", 2, True), ("msg", None, None), ("edited", 2, None), ("edited", 2, None)]


def test_of_a_recalled_message_nothing_is_left() -> None:
    world = sent()
    world.ask("ann", "send", id="c", to="bob", body="secret 1", mentions=["bob"], reply_to=1, push={"title": "secret 2"})
    change(world, "ann", "edit", id="1", seq=3, body="secret 3")
    change(world, "bob", "react", id="2", seq=3)
    change(world, "ann", "recall", seq=3)
    assert all(b"secret" not in record for record in world.log())
    assert [record.body for record in world.state.log.values() if isinstance(record, Message | Edited)][-2:] == [None, None]
    message, edited = [item for item in world.inbox("bob") if item["seq"] == 3][:2]
    assert message == {
        "op": "msg", "pos": 5, "conv": "ann:bob", "seq": 3, "from": "ann", "id": "c", "ts": 1_000_000, "reply_to": 1,
        "recalled": True,
    }  # fmt: skip
    assert edited["recalled"] is True and "body" not in edited


def test_a_repeat_of_an_edit_is_told_after_its_content_is_gone() -> None:
    world = sent()
    change(world, "ann", "edit")
    change(world, "ann", "recall")
    assert change(world, "ann", "edit")["dup"] is True
    assert refused(world, "ann", "edit", body="other") == "conflict"


def test_a_recalled_message_takes_no_more_changes() -> None:
    world = sent()
    change(world, "ann", "recall")
    before = world.log()
    assert refused(world, "ann", "edit") == refused(world, "bob", "react") == refused(world, "bob", "recall") == "forbidden"
    assert change(world, "ann", "recall", id="again") == {"op": "ok", "id": "again"}
    assert world.log() == before


def test_reactions_are_one_each_and_can_be_taken_away() -> None:
    world = sent()
    for number, (user, emoji) in enumerate([("bob", "+"), ("ann", "+"), ("bob", "-"), ("bob", "+")]):
        change(world, user, "react", id=str(number), emoji=emoji)
    assert world.inbox("bob")[0]["reactions"] == {"+": ["ann", "bob"]}
    for number, user in enumerate(["bob", "ann", "ann"]):
        change(world, user, "react", id=f"no {number}", emoji="")
    assert "reactions" not in world.inbox("bob")[0]


@pytest.mark.parametrize("op", ["edit", "react"])
def test_nothing_of_a_blocked_user_reaches_the_blocker(op: str) -> None:
    world = sent()
    world.ask("bob", "block", id="1", user="ann")
    assert refused(world, "ann", op) == "blocked"
    change(world, "ann", "recall")
    change(world, "ann", "react", conv="#g", seq=2)
    change(world, "bob", "react", seq=2)


@ops
def test_where_blocked_users_are_dropped_they_are_told_nothing(op: str) -> None:
    world = sent(drop_blocked=True)
    world.ask("bob", "block", id="1", user="ann")
    world.ask("ann", "send", id="c", to="bob", body="dropped")
    heads = world.heads("ann", "bob")
    assert change(world, "ann", op, seq=3) == {"op": "ok", "id": f"{op} it"}
    assert world.heads("ann", "bob") == (heads[0] + 1, heads[1]), "what the blocker never saw is amended for oneself"
    if op != "recall":
        assert change(world, "ann", op, id="seen") == {"op": "ok", "id": "seen"}
        assert world.heads("ann", "bob") == (heads[0] + 1, heads[1]), "what the blocker has seen stays as it is"
    assert refused(world, "bob", "react", seq=3) == "not_found"
