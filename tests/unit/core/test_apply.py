"""Applying records: a pure function of the log (INV-5), and what each record does that no rule's test shows."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_im.core.apply import apply, recipients
from mqtt_im.core.gone import remembered, without_content
from mqtt_im.core.model import FOREVER, Conv, Member
from mqtt_im.core.records import (
    Act,
    AnyRecord,
    Cursors,
    DeviceChange,
    Edited,
    Gone,
    GroupChange,
    Message,
    Reacted,
    Recalled,
    Reported,
    UserChange,
    decode,
    encode,
)
from mqtt_im.store.memory.state import MemoryState

from .world import World


def eventful() -> World:
    """Something of everything."""
    world = World(drop_blocked=True)
    for user in ("ann", "bob"):
        world.ask(user, "hello", n=0, ack="app")
    world.ask("ann", "send", id="1", n=1, to="bob", body="one", mentions=["bob"], push={"a": 1})
    world.ask("ann", "send", to="bob", body="two", key="k", packet=("s", 1, False))
    world.ask("ann", "send", id="3", to="bob", body="three", key="k")
    world.ask("bob", "ack", pos=1)
    world.ask("bob", "read", conv="ann:bob", seq=1)
    world.ask("bob", "report", id="4", conv="ann:bob", seq=1, state="executed", result=1)
    world.ask("ann", "edit", id="5", conv="ann:bob", seq=1, body="uno")
    world.ask("bob", "react", id="6", conv="ann:bob", seq=1, emoji="+")
    world.ask("ann", "recall", id="7", conv="ann:bob", seq=3)
    world.group("ann", "bob", "cat", title="us")
    world.ask("ann", "send", id="8", to="#g", body="all", mentions=["*"])
    world.ask("ann", "group.role", id="9", group="#g", user="bob", role="admin")
    world.ask("bob", "group.remove", id="9", group="#g", members=["cat"])
    world.ask("bob", "group.add", id="10", group="#g", members=["cat", "dan"])
    world.ask("bob", "group.rename", id="11", group="#g", name="new")
    world.ask("ann", "group.leave", id="12", group="#g")
    world.ask("bob", "block", id="12", user="ann")
    world.ask("ann", "send", id="13", to="bob", body="dropped")
    world.ask("bob", "mute", id="13", conv="#g", until=9)
    world.ask("bob", "settings", id="14", presence=False, read_receipts=False)
    world.ask("ann", "device.forget", id="15", device="tel")
    return world


def seen(thing: Any) -> Any:
    """Plain data of a state, for comparing."""
    if isinstance(thing, dict):
        return {key: seen(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [seen(value) for value in thing]
    slots = getattr(type(thing), "FIELDS", None)
    if slots and not isinstance(thing, AnyRecord):
        return {name: seen(getattr(thing, name)) for name in slots}
    return encode(thing) if isinstance(thing, AnyRecord) else thing


def snapshot(state: MemoryState) -> dict[str, Any]:
    return {name: seen(value) for name, value in vars(state).items() if name not in ("has_account", "claim", "upload", "log")}


def empty() -> MemoryState:
    return MemoryState(lambda _: True, lambda *_: False)


def replayed(log: dict[int, AnyRecord]) -> MemoryState:
    state = empty()
    for lsn, record in log.items():
        state.log[lsn] = decode(encode(record))
        apply(state, lsn, state.log[lsn])
    return state


def test_the_state_is_what_the_log_says() -> None:
    world = eventful()
    assert snapshot(replayed(world.state.log)) == snapshot(world.state)


def test_the_state_after_each_prefix_follows_from_the_prefix() -> None:
    log = eventful().state.log
    state = empty()
    for lsn, record in log.items():
        state.log[lsn] = record
        apply(state, lsn, decode(encode(record)))
        assert snapshot(replayed({row: log[row] for row in range(1, lsn + 1)})) == snapshot(state)


def test_applying_changes_no_record() -> None:
    log = eventful().state.log
    before = {lsn: encode(record) for lsn, record in log.items()}
    state = empty()
    for lsn, record in log.items():
        apply(state, lsn, record)
    assert {lsn: encode(record) for lsn, record in log.items()} == before


def test_positions_are_dense_and_belong_to_the_recipients() -> None:
    world = eventful()
    heads: dict[str, int] = {}
    state = empty()
    for lsn, record in world.state.log.items():
        if isinstance(record, Act):
            to = recipients(state.conv_for(record.conv), record)
            for name, pos in zip(to, record.pos, strict=True):
                assert pos == heads.get(name, 0) + 1
                heads[name] = pos
        apply(state, lsn, record)
    assert set(heads) == {"ann", "bob", "cat", "dan"}


# What became of a message that retention has taken meanwhile.


@pytest.mark.parametrize(
    "record",
    [
        Edited(5, "ann:bob", 1, "ann", "tel", "2", 0, [2, 2], b"1"),
        Recalled(5, "ann:bob", 1, "ann", "tel", "2", 0, [2, 2]),
        Reacted(5, "ann:bob", 1, "ann", "tel", "2", 0, [2, 2], "+"),
    ],
)
def test_a_change_to_a_message_that_is_gone_is_an_item_still(record: Edited | Recalled | Reacted) -> None:
    state = empty()
    conv = state.conv_for("ann:bob")
    apply(state, 7, record)
    assert state.items(state.user("bob"), 0, 9) == [(2, 7)]
    assert state.amended(conv, 1) is None


def test_a_group_change_whose_message_is_gone_changes_the_group() -> None:
    state = empty()
    state.log[1] = GroupChange(5, "#g", 1, "ann", "tel", None, 0, [], "group.create", [], ["ann"], name="g", history_from=1)
    apply(state, 1, state.log[1])
    conv = state.conv_for("#g")
    assert (conv.head, conv.title, list(conv.members), state.message(conv, 1)) == (1, "g", ["ann"], None)
    apply(state, 2, GroupChange(5, "#g", 2, "ann", "tel", None, 0, [], "group.role", [], user="ann", role="admin"))
    assert conv.members["ann"].role == "admin"


@pytest.mark.parametrize(
    ("first", "asked", "answered"),
    [
        (("send", {"to": "bob", "body": "x", "key": "k", "push": {"a": 1}}), {}, {"op": "sent", "pos": 2}),
        (("edit", {"conv": "ann:bob", "seq": 1, "body": "x"}), {"body": "y"}, {"op": "ok"}),
        (("recall", {"conv": "ann:bob", "seq": 1}), {"seq": 2}, {"op": "ok"}),
        (("react", {"conv": "ann:bob", "seq": 1, "emoji": "x"}), {"emoji": "y"}, {"op": "ok"}),
        (("report", {"conv": "ann:bob", "seq": 1, "state": "failed", "result": "x"}), {"result": "y"}, {"op": "ok"}),
        (("report", {"conv": "ann:bob", "seq": 1, "state": "failed"}), {"result": "y"}, {"op": "ok"}),
    ],
    ids=str,
)
def test_what_retention_leaves_tells_a_repeat_and_holds_no_content(
    first: tuple[str, dict[str, Any]], asked: dict[str, Any], answered: dict[str, Any]
) -> None:
    op, fields = first
    world = World()
    world.ask("ann", "send", to="bob", body="before")
    world.ask("ann", op, id="1", **fields)
    record = world.newest()
    assert isinstance(record, Message | Edited | Recalled | Reacted | Reported)
    left = remembered(record)
    assert b'\xa3"x"' not in encode(left)
    world.state.log[world.engine.last] = decode(encode(left))
    gone = world.state.request("ann", "1")
    assert isinstance(gone, Gone)
    world.state.log[world.engine.last] = gone.act
    reply = world.reply("ann", op, id="1", **fields)
    assert {"dup": True, **answered}.items() <= reply.items()
    changed = {**fields, **(asked or {"body": "y"})}
    assert world.refused("ann", op, id="1", **changed) == "conflict"


def test_what_retention_left_is_found_by_id_and_by_packet() -> None:
    world = World()
    world.ask("ann", "send", id="1", to="bob", body="x")
    world.ask("ann", "send", to="bob", body="y", packet=("s", 7, False))
    state = empty()
    for lsn, record in world.state.log.items():
        assert isinstance(record, Message)
        state.log[lsn] = remembered(record)
        apply(state, lsn, state.log[lsn])
    assert state.request("ann", "1") == state.log[1] and state.packet("ann", "tel", "s", 7) == state.log[2]
    assert state.user("bob").head == 0, "numbers are folded away elsewhere"
    apply(state, 3, Gone(5, Reacted(5, "ann:bob", 1, "ann", "tel", None, 0, [], "+")))


@pytest.mark.parametrize("extra", [None, {"ttl": 5}, {"push": {"a": 1}}])
def test_content_is_taken_once(extra: dict[str, Any] | None) -> None:
    record = Message(5, "ann:bob", 1, "ann", "tel", "1", 0, [1, 1], b'"x"', extra)
    bare = without_content(record)
    assert bare.body is None and bare.extra is not None and {"digest"} <= bare.extra.keys() and "push" not in bare.extra
    assert without_content(bare) is bare
    assert record.body == b'"x"' and record.extra == extra


# Devices and marks.


def test_cursors_and_marks_that_come_late_move_nothing_back() -> None:
    state = empty()
    state.conv_for("ann:bob")
    apply(state, 1, Cursors(5, [("bob", "tel", 4, ["ann:bob", 4]), ("bob", "pc", 2, ["ann:bob", 2, "#other", 1])]))
    apply(state, 2, Cursors(6, [("bob", "tel", 3, ["ann:bob", 3])]))
    tel = state.device("bob", "tel")
    assert tel is not None and (tel.cursor, tel.seen) == (4, 6)
    assert state.user("bob").acked == 4 and state.conv_for("ann:bob").members["bob"].delivered == 4


def test_a_device_says_whether_something_may_have_been_offered_to_it() -> None:
    state = empty()
    apply(state, 1, DeviceChange(5, "bob", "tel", created=True, cursor=0, exposed=True))
    apply(state, 2, DeviceChange(6, "bob", "tel", app=True))
    tel = state.device("bob", "tel")
    assert tel is not None and (tel.exposed, tel.app, tel.created, tel.seen) == (True, True, 5, 6)
    apply(state, 3, DeviceChange(7, "bob", "tel", exposed=False))
    assert tel.exposed is False
    apply(state, 4, DeviceChange(8, "bob", "tel", forgotten=True))
    assert state.device("bob", "tel") is None and state.user("bob").registered


def test_members_are_read_when_they_are_first_asked_for() -> None:
    asked: list[Conv] = []

    def load(conv: Conv) -> dict[str, Member]:
        asked.append(conv)
        return {"ann": Member(0)}

    conv = Conv(1, "#g", load)
    assert asked == []
    assert conv.member("ann") is conv.members["ann"] and conv.member("bob") is None
    assert asked == [conv]


def test_a_setting_of_a_newer_program_is_ignored() -> None:
    state = empty()
    before = snapshot(state)
    apply(state, 1, UserChange(5, "bob", "shoe size", "", 43))
    state._users.clear()
    assert snapshot(state) == before


def test_a_member_who_stays_keeps_the_spans() -> None:
    state = empty()
    apply(
        state,
        1,
        GroupChange(5, "#g", 1, "ann", "tel", None, 0, [1, 1], "group.create", ["ann", "bob"], ["ann", "bob"], history_from=1),
    )
    apply(state, 2, GroupChange(5, "#g", 2, "bob", "tel", None, 0, [2, 2], "group.leave", ["ann", "bob"], user="bob"))
    bob = state.conv_for("#g").members["bob"]
    assert (bob.active, bob.spans) == (False, [[1, 2]])
    assert state.conv_for("#g").members["ann"].spans == [[1, FOREVER]]
    apply(state, 3, GroupChange(5, "#g", 3, "ann", "tel", None, 0, [3], "group.leave", ["ann"]))
    assert state.conv_for("#g").member("ann") is None, "a record without user is of who did it"
