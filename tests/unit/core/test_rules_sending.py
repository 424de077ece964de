"""`send` and `report`: numbers, repeats, counters, keys (INV-2, INV-3, INV-4, INV-6, INV-7, INV-12)."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_im.core.records import Message
from mqtt_im.protocol.errors import Refusal

from .world import GHOST, World

FULL: dict[str, Any] = {
    "to": "bob", "body": {"a": 1, "b": [2]}, "reply_to": 1, "ttl": 9, "key": "k", "mentions": ["bob"], "push": {"title": "t"},
}  # fmt: skip
CHANGED: list[dict[str, Any]] = [
    {"to": "cat"}, {"body": "other"}, {"reply_to": 2}, {"key": "other"}, {"mentions": ["*"]}, {"push": {}},
    {"reply_to": None}, {"key": None}, {"mentions": None}, {"push": None},
]  # fmt: skip


def full() -> World:
    """`FULL` was sent as `1`, as the third message; `cat` has two messages too."""
    world = World()
    for to in ("bob", "bob", "cat", "cat"):
        world.ask("ann", "send", to=to, body="before")
    world.ask("ann", "send", id="1", cts=5, **FULL)
    return world


def test_messages_of_a_conversation_are_numbered_densely_whoever_sends() -> None:
    world = World()
    for sender, to in (("ann", "bob"), ("bob", "ann"), ("ann", "cat"), ("ann", "bob")):
        world.ask(sender, "send", to=to, body="hi")
    assert [(item["conv"], item["seq"], item["pos"]) for item in world.inbox("ann")] == [
        ("ann:bob", 1, 1),
        ("ann:bob", 2, 2),
        ("ann:cat", 1, 3),
        ("ann:bob", 3, 4),
    ]
    assert [item["pos"] for item in world.inbox("bob")] == [1, 2, 3]


def test_to_oneself_is_one_item() -> None:
    world = World()
    world.ask("ann", "send", to="ann", body="note")
    assert [(item["conv"], item["body"]) for item in world.inbox("ann")] == [("ann:ann", "note")]


@pytest.mark.parametrize("drop", [False, True])
def test_a_name_without_account_or_a_group_of_others_gets_nothing(drop: bool) -> None:
    world = World(drop_blocked=drop)
    world.group("ann", "bob")
    assert world.refused("ann", "send", to=GHOST, body="hi") == "not_found"
    assert world.refused("cat", "send", to="#g", body="hi") == "not_member"
    assert world.refused("cat", "send", to="#none", body="hi") == "not_member"


def test_a_blocked_sender_is_refused_in_direct_conversations_alone() -> None:
    world = World()
    world.group("ann", "bob")
    world.ask("bob", "block", id="1", user="ann")
    assert world.refused("ann", "send", to="bob", body="hi") == "blocked"
    world.ask("bob", "send", to="ann", body="a block is one way")
    world.ask("ann", "send", to="#g", body="groups are not touched")
    assert [item.get("body") for item in world.inbox("bob")][1:] == ["a block is one way", "groups are not touched"]


def test_a_dropped_message_has_its_number_and_is_its_senders_alone() -> None:
    world = World(drop_blocked=True)
    world.ask("ann", "send", to="bob", body="seen", key="k")
    world.ask("bob", "block", id="1", user="ann")
    world.ask("ann", "send", id="2", to="bob", body="dropped", key="k", packet=("s", 1, False))
    world.ask("bob", "unblock", id="3", user="ann")
    world.ask("ann", "send", to="bob", body="seen again")
    assert world.reply("ann", "send", id="2", to="bob", body="dropped", key="k")["pos"] == 2
    assert [(item["seq"], item["body"]) for item in world.inbox("bob")] == [(1, "seen"), (3, "seen again")]
    assert [item["seq"] for item in world.inbox("ann")] == [1, 2, 3]
    assert world.refused("bob", "send", to="ann", body="re", reply_to=2) == "bad_field"
    assert world.state.unread([(world.state.conv_for("ann:bob"), 1, 9)], world.state.user("bob")) == {"ann:bob": (2, 0)}


def test_a_dropped_publish_without_id_is_told_from_its_repeat() -> None:
    world = World(drop_blocked=True)
    world.ask("bob", "block", id="1", user="ann")
    world.ask("ann", "send", to="bob", body="x", packet=("s", 7, False))
    assert world.reply("ann", "send", to="bob", body="x", packet=("s", 7, True))["dup"] is True
    assert world.heads("ann", "bob") == (1, 0)


def test_every_field_of_a_message_arrives() -> None:
    item = full().inbox("bob")[-1]
    assert item == {
        "op": "msg", "pos": 3, "conv": "ann:bob", "seq": 3, "from": "ann", "id": "1", "body": FULL["body"], "ts": 1_000_000,
        "cts": 5, "reply_to": 1, "mentions": ["bob"],
    }  # fmt: skip


def test_the_sending_device_sees_sent_and_all_others_msg() -> None:
    world = World()
    world.ask("ann", "send", id="1", to="bob", body="hi")
    assert [world.inbox("ann", device)[0]["op"] for device in ("tel", "pc")] == ["sent", "msg"]
    assert world.inbox("bob", "tel")[0]["op"] == "msg"


@pytest.mark.parametrize("reply_to", [3, 99])
def test_a_reply_needs_a_message_before_it(reply_to: int) -> None:
    world = World()
    for _ in range(2):
        world.ask("ann", "send", to="bob", body="hi")
    assert world.refused("ann", "send", to="bob", body="re", reply_to=reply_to) == "bad_field"
    assert world.refused("ann", "send", to="cat", body="re", reply_to=1) == "bad_field"
    world.ask("ann", "send", to="bob", body="re", reply_to=2)


# One id, one effect.


def test_a_repeat_is_answered_as_the_first_was_and_does_nothing() -> None:
    world = full()
    before = world.log()
    assert world.reply("ann", "send", "pc", id="1", cts=6, n=9, **FULL) == {
        "op": "sent", "pos": 5, "id": "1", "conv": "ann:bob", "seq": 3, "ts": 1_000_000, "dup": True,
    }  # fmt: skip
    assert world.log() == before


@pytest.mark.parametrize("changed", CHANGED, ids=str)
def test_the_same_id_with_anything_changed_is_a_conflict(changed: dict[str, Any]) -> None:
    fields = {name: value for name, value in {**FULL, **changed}.items() if value is not None}
    assert full().refused("ann", "send", id="1", **fields) == "conflict"


def test_bodies_are_compared_as_the_bytes_that_came() -> None:
    world = full()
    assert world.refused("ann", "send", id="1", **{**FULL, "body": dict(reversed(FULL["body"].items()))}) == "conflict"


def test_a_repeat_with_another_ttl_or_cts_is_a_repeat() -> None:
    world = full()
    assert world.reply("ann", "send", id="1", **{**FULL, "ttl": FULL.get("ttl", 0) + 1, "cts": 9})["dup"] is True


def test_a_repeat_that_carries_the_next_n_uses_it_up() -> None:
    """So a device that sets its counter back with `hello` can send everything that has no answer again at once."""
    world = World()
    world.ask("ann", "hello", "pc")
    for number in (1, 2, 3):
        world.ask("ann", "send", "pc", id=f"m{number}", to="bob", body=number, n=number)
    world.ask("ann", "hello", "pc", n=1)
    for number in (2, 3):
        assert world.reply("ann", "send", "pc", id=f"m{number}", to="bob", body=number, n=number)["dup"] is True
    world.ask("ann", "send", "pc", id="m4", to="bob", body=4, n=4)
    assert world.heads("bob") == (4,)
    assert world.reply("ann", "send", "pc", id="m1", to="bob", body=1, n=1)["dup"] is True
    assert world.refused("ann", "send", "pc", id="m6", to="bob", body=6, n=6) == "out_of_order"


def test_the_same_id_with_another_op_is_a_conflict() -> None:
    world = full()
    world.ask("ann", "edit", id="2", conv="ann:bob", seq=1, body="x")
    assert world.refused("ann", "edit", id="1", conv="ann:bob", seq=1, body="x") == "conflict"
    assert world.refused("ann", "group.create", id="1", members=[]) == "conflict"
    assert world.refused("ann", "send", id="2", to="bob", body="x") == "conflict"
    world.ask("bob", "send", id="1", to="ann", body="ids of two users never meet")


@pytest.mark.parametrize("changed", [{}, {"body": "other"}, {"push": {}}, {"push": None}], ids=str)
def test_a_repeat_is_still_told_after_the_content_is_gone(changed: dict[str, Any]) -> None:
    world = full()
    world.ask("ann", "recall", id="2", conv="ann:bob", seq=3)
    kept = world.state.request("ann", "1")
    assert isinstance(kept, Message) and kept.body is None and kept.extra is not None and "push" not in kept.extra
    fields = {name: value for name, value in {**FULL, **changed}.items() if value is not None}
    if changed:
        assert world.refused("ann", "send", id="1", **fields) == "conflict"
    else:
        assert world.reply("ann", "send", id="1", **fields)["dup"] is True


@pytest.mark.parametrize("sender", ["ann", "bob", "cat"])
def test_a_repeat_to_a_group_tells_the_senders_own_place(sender: str) -> None:
    world = World()
    world.ask("cat", "send", to="cat", body="so that positions differ")
    world.ask("bob", "send", to="bob", body="so that positions differ")
    world.ask("bob", "send", to="bob", body="so that positions differ")
    world.group("ann", "bob", "cat")
    world.ask(sender, "send", id="1", to="#g", body="hi")
    assert world.reply(sender, "send", id="1", to="#g", body="hi")["pos"] == world.inbox(sender)[-1]["pos"]


@pytest.mark.parametrize("sender", ["ann", "bob"])
def test_a_repeat_to_a_user_tells_the_senders_own_place(sender: str) -> None:
    world = World()
    world.ask("bob", "send", to="bob", body="so that positions differ")
    to = {"ann": "bob", "bob": "ann"}[sender]
    world.ask(sender, "send", id="1", to=to, body="hi")
    assert world.reply(sender, "send", id="1", to=to, body="hi")["pos"] == world.inbox(sender)[-1]["pos"]


@pytest.mark.parametrize(
    ("packet", "body", "repeat"),
    [
        (("s", 7, True), "x", True),
        (("s", 7, False), "x", False),
        (("s", 8, True), "x", False),
        (("t", 7, True), "x", False),
        (("s", 7, True), "y", False),
        (None, "x", False),
    ],
)
def test_a_publish_without_id_is_a_repeat_by_dup_identifier_session_and_payload(
    packet: tuple[str, int, bool] | None, body: str, repeat: bool
) -> None:
    world = World()
    world.ask("ann", "send", to="bob", body="x", packet=("s", 7, False))
    decision = world.ask("ann", "send", to="bob", body=body, packet=packet)
    assert (decision.records == []) is repeat
    assert world.heads("bob") == (1 if repeat else 2,)
    if repeat:
        assert decision.reply == {"op": "sent", "pos": 1, "conv": "ann:bob", "seq": 1, "ts": 1_000_000, "dup": True}


# `n` never skips.


def counting() -> World:
    """A device `tel` of ann, which has used 1."""
    world = World()
    world.ask("ann", "hello")
    world.ask("ann", "send", id="1", n=1, to="bob", body="1")
    return world


@pytest.mark.parametrize("n", [1, 3, 4])
def test_n_is_the_next_one_or_it_is_out_of_order(n: int) -> None:
    with pytest.raises(Refusal) as refusal:
        counting().ask("ann", "send", id="2", n=n, to="bob", body="2")
    assert (refusal.value.code, refusal.value.expected, refusal.value.retry) == ("out_of_order", 2, False)


def test_a_refused_request_leaves_its_n_and_its_id_free() -> None:
    world = counting()
    assert world.refused("ann", "send", id="2", n=2, to=GHOST, body="2") == "not_found"
    world.ask("ann", "send", id="2", n=2, to="bob", body="2")
    world.ask("ann", "send", id="1", n=1, to="bob", body="1")
    world.ask("ann", "group.create", id="3", n=3, group="#g", members=[])
    world.ask("ann", "group.rename", id="4", n=4, group="#g", name="g")
    assert world.state.device_for("ann", "tel", 0).n == 4


def test_n_is_used_up_by_what_changes_nothing() -> None:
    world = counting()
    world.group("ann", "bob")
    world.ask("ann", "group.add", id="2", n=2, group="#g", members=["bob"])
    assert world.state.device_for("ann", "tel", 0).n == 2
    assert world.refused("ann", "group.add", id="3", n=2, group="#g", members=["bob"]) == "out_of_order"


@pytest.mark.parametrize(("device", "listening"), [("tel", False), ("new", True), ("new", False)])
def test_n_of_a_device_that_would_not_learn_of_refusals_is_ignored(device: str, listening: bool) -> None:
    world = counting()
    decision = world.ask("ann", "send", device, listening=listening, id="2", n=77, to="bob", body="2")
    assert decision.n == 0 and decision.records
    assert world.state.device("ann", "new") is None and world.state.device_for("ann", "tel", 0).n == 1


# `key`: offered or replaced, never both.


def ops(world: World, user: str) -> list[tuple[str, Any]]:
    return [(item["op"], item.get("body", item.get("why"))) for item in world.inbox(user)]


def test_a_key_replaces_what_nobody_was_offered() -> None:
    world = World()
    for body in ("1", "2", "3"):
        world.ask("ann", "send", to="bob", body=body, key="k")
    assert ops(world, "bob") == [("void", "replaced"), ("void", "replaced"), ("msg", "3")]
    assert ops(world, "ann") == [("msg", "1"), ("msg", "2"), ("msg", "3")]


@pytest.mark.parametrize("how", ["offered", "acknowledged"])
def test_what_was_offered_is_not_replaced(how: str) -> None:
    world = World()
    world.ask("ann", "send", to="bob", body="1", key="k")
    if how == "offered":
        assert world.claims.offer("bob", 1)
    else:
        world.ask("bob", "hello")
        world.ask("bob", "ack", pos=1)
    world.ask("ann", "send", to="bob", body="2", key="k")
    assert ops(world, "bob") == [("msg", "1"), ("msg", "2")]


@pytest.mark.parametrize(
    ("sender", "to", "key"), [("bob", "ann", "k"), ("ann", "cat", "k"), ("ann", "bob", "other"), ("ann", "bob", None)]
)
def test_a_key_is_of_one_sender_in_one_conversation(sender: str, to: str, key: str | None) -> None:
    world = World()
    world.ask("ann", "send", to="bob", body="1", key="k")
    fields: dict[str, Any] = {} if key is None else {"key": key}
    world.ask(sender, "send", to=to, body="2", **fields)
    assert ops(world, "bob")[0] == ("msg", "1") and ops(world, "ann")[0] == ("msg", "1")


def test_a_key_in_a_group_replaces_for_each_who_was_not_offered_it() -> None:
    world = World()
    world.group("bob", "ann", "cat")
    world.ask("ann", "send", to="#g", body="1", key="k")
    assert world.claims.offer("cat", 2)
    world.ask("ann", "send", to="#g", body="2", key="k")
    assert ops(world, "bob")[1:] == [("void", "replaced"), ("msg", "2")]
    assert ops(world, "cat")[1:] == [("msg", "1"), ("msg", "2")]
    assert ops(world, "ann")[1:] == [("msg", "1"), ("msg", "2")]


def test_a_key_to_oneself_replaces_nothing() -> None:
    world = World()
    for body in ("1", "2"):
        world.ask("ann", "send", to="ann", body=body, key="k")
    assert ops(world, "ann") == [("msg", "1"), ("msg", "2")]


# `report`.


def commanded() -> World:
    world = World()
    world.ask("ann", "send", id="1", to="bob", body="open")
    return world


@pytest.mark.parametrize("drop", [False, True])
def test_a_report_of_a_blocked_user_does_not_reach_the_blocker(drop: bool) -> None:
    """Its `result` is as good as a message."""
    world = World(drop_blocked=drop)
    world.ask("ann", "send", id="1", to="bob", body="open")
    world.ask("ann", "block", id="b", user="bob")
    report = {"conv": "ann:bob", "seq": 1, "state": "executed", "result": "and something else"}
    if drop:
        assert world.reply("bob", "report", id="9", **report) == {"op": "ok", "id": "9"}
    else:
        assert world.refused("bob", "report", id="9", **report) == "blocked"
    assert world.heads("ann", "bob") == (1, 1)
    world.ask("ann", "unblock", id="u", user="bob")
    assert world.reply("bob", "report", id="10", **report) == {"op": "ok", "id": "10"}
    assert world.heads("ann", "bob") == (2, 1)


@pytest.mark.parametrize("result", [None, {"took": 3}])
def test_a_report_is_an_item_of_the_messages_sender(result: Any) -> None:
    world = commanded()
    told = {} if result is None else {"result": result}
    assert world.reply("bob", "report", id="9", conv="ann:bob", seq=1, state="failed", **told) == {"op": "ok", "id": "9"}
    assert world.inbox("ann")[1:] == [
        {"op": "report", "pos": 2, "conv": "ann:bob", "seq": 1, "by": "bob", "state": "failed", **told, "ts": 1_000_000}
    ]
    assert world.heads("bob") == (1,)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"result": {"b": 2, "a": 1}}, False),
        ({"result": None}, False),
        ({"result": 1}, False),
        ({"seq": 2}, False),
        ({"state": "executed"}, False),
    ],
    ids=str,
)
def test_repeats_of_a_report(changed: dict[str, Any], same: bool) -> None:
    world = commanded()
    world.ask("ann", "send", to="bob", body="again")
    first: dict[str, Any] = {"id": "9", "conv": "ann:bob", "seq": 1, "state": "failed", "result": {"a": 1, "b": 2}}
    world.ask("bob", "report", **first)
    fields = {name: value for name, value in {**first, **changed}.items() if value is not None}
    if same:
        assert world.reply("bob", "report", **fields) == {"op": "ok", "id": "9", "dup": True}
    else:
        assert world.refused("bob", "report", **fields) == "conflict"
    assert world.heads("ann") == (3,)


def test_a_report_without_result_is_not_repeated_with_one() -> None:
    world = commanded()
    world.ask("bob", "report", id="9", conv="ann:bob", seq=1, state="failed")
    assert world.refused("bob", "report", id="9", conv="ann:bob", seq=1, state="failed", result=1) == "conflict"
    assert world.reply("bob", "report", id="9", conv="ann:bob", seq=1, state="failed")["dup"] is True


def test_nothing_is_reported_of_what_is_not_there() -> None:
    world = commanded()
    world.group("ann", "bob")
    assert world.refused("bob", "report", id="9", conv="ann:bob", seq=2, state="failed") == "not_found"
    assert world.refused("cat", "report", id="9", conv="ann:bob", seq=1, state="failed") == "not_member"
    assert world.refused("bob", "report", id="9", conv="bob:cat", seq=1, state="failed") == "not_member"
    assert world.refused("bob", "report", id="9", conv="#g", seq=1, state="failed") == "forbidden"
