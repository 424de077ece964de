"""Groups: who may do what, and what the members are told."""

from __future__ import annotations

from typing import Any

import pytest

from .world import GHOST, World


def staffed(**limits: Any) -> World:
    """`#g` with ann as owner, bob as admin, cat and dan as members."""
    world = World(**limits)
    world.group("ann", "bob", "cat", "dan", name="#g")
    world.ask("ann", "group.role", id="r", group="#g", user="bob", role="admin")
    return world


def told(world: World, user: str) -> dict[str, Any]:
    """What the newest item of a user says of a group."""
    system: dict[str, Any] = world.inbox(user)[-1]["system"]
    return system


def test_the_creator_is_the_owner_and_everybody_is_told() -> None:
    world = World()
    reply = world.reply("ann", "group.create", id="1", name="Us", members=["bob", "ann", "bob"])
    assert reply == {"op": "ok", "id": "1", "group": "#made", "seq": 1}
    assert world.roles("#made") == {"ann": "owner", "bob": "member"}
    assert world.state.conv_for("#made").title == "Us"
    for user in ("ann", "bob"):
        assert told(world, user) == {"event": "group.create", "members": ["ann", "bob"], "name": "Us"}
    assert world.reply("ann", "group.create", id="1", name="Us", members=["bob", "ann", "bob"]) == {**reply, "dup": True}


@pytest.mark.parametrize("changed", [{"group": "#h"}, {"name": "h"}, {"members": ["cat"]}], ids=str)
def test_a_repeat_with_anything_changed_is_a_conflict(changed: dict[str, Any]) -> None:
    world = World()
    first: dict[str, Any] = {"id": "1", "group": "#g", "name": "g", "members": ["bob"]}
    world.ask("ann", "group.create", **first)
    assert world.refused("ann", "group.create", **{**first, **changed}) == "conflict"
    assert world.reply("ann", "group.create", n=5, **first)["dup"] is True


def test_what_can_t_be_created() -> None:
    world = staffed(group_members=4)
    assert world.refused("dan", "group.create", id="1", group="#g", members=[]) == "conflict"
    assert world.refused("dan", "group.create", id="1", members=["ann", GHOST]) == "not_found"
    assert world.refused("dan", "group.create", id="1", members=["a1", "a2", "a3", "a4"]) == "too_large"
    world.ask("dan", "group.create", id="1", members=["a1", "a2", "a3", "dan"])


REQUESTS: dict[str, dict[str, Any]] = {
    "group.add": {"members": ["eve"]},
    "group.remove": {"members": ["dan"]},
    "group.rename": {"name": "new"},
    "group.role": {"user": "dan", "role": "admin"},
}


@pytest.mark.parametrize(
    ("op", "roles"),
    [
        ("group.add", {"ann", "bob"}),
        ("group.remove", {"ann", "bob"}),
        ("group.rename", {"ann", "bob"}),
        ("group.role", {"ann"}),
    ],
)
def test_who_may_do_what(op: str, roles: set[str]) -> None:
    for user in ("ann", "bob", "cat"):
        world = staffed()
        if user in roles:
            assert world.reply(user, op, id="1", group="#g", **REQUESTS[op]) == {"op": "ok", "id": "1", "seq": 3}
        else:
            assert world.refused(user, op, id="1", group="#g", **REQUESTS[op]) == "forbidden"
    for op_, fields in {**REQUESTS, "group.leave": {}}.items():
        assert staffed().refused("eve", op_, id="1", group="#g", **fields) == "not_member"


@pytest.mark.parametrize(
    ("op", "what"),
    [
        ("group.add", {"members": ["eve"]}),
        ("group.remove", {"members": ["dan"]}),
        ("group.rename", {"name": "new"}),
        ("group.role", {"user": "dan", "role": "admin"}),
    ],
)
def test_every_member_is_told_and_a_repeat_changes_nothing(op: str, what: dict[str, Any]) -> None:
    world = staffed()
    first = world.reply("ann", op, id="1", group="#g", **what)
    for user in ("ann", "bob", "cat", "dan"):
        assert told(world, user) == {"event": op, **what}
        assert world.inbox(user)[-1]["seq"] == first["seq"] == 3
    before = world.log()
    assert world.reply("ann", op, id="1", group="#g", **what) == {**first, "dup": True}
    assert world.log() == before
    assert world.refused("ann", op, id="1", group="#other", **what) == "conflict"


def test_adding_members_again_or_removing_strangers_changes_nothing() -> None:
    world = staffed()
    before = world.log()
    assert world.reply("ann", "group.add", id="1", group="#g", members=["bob"]) == {"op": "ok", "id": "1", "seq": 2}
    assert world.reply("ann", "group.remove", id="1", group="#g", members=["eve"]) == {"op": "ok", "id": "1", "seq": 2}
    assert world.reply("ann", "group.role", id="1", group="#g", user="bob", role="admin")["seq"] == 2
    assert world.log() == before
    world.ask("ann", "group.add", id="1", group="#g", members=["bob", "eve", "eve"])
    assert told(world, "eve")["members"] == ["eve"]


def test_members_that_are_no_accounts() -> None:
    world = staffed(group_members=5)
    assert world.refused("ann", "group.add", id="1", group="#g", members=["eve", GHOST]) == "not_found"
    assert world.refused("ann", "group.remove", id="1", group="#g", members=["dan", GHOST]) == "not_found"
    assert world.refused("ann", "group.role", id="1", group="#g", user="eve", role="admin") == "not_found"
    assert world.refused("ann", "group.add", id="1", group="#g", members=["eve", "fay"]) == "too_large"
    assert list(world.roles()) == ["ann", "bob", "cat", "dan"]


@pytest.mark.parametrize(("gone", "allowed"), [("cat", True), ("bob", False), ("ann", False)])
def test_admins_remove_members_alone(gone: str, allowed: bool) -> None:
    world = staffed()
    if allowed:
        world.ask("bob", "group.remove", id="1", group="#g", members=[gone])
    else:
        assert world.refused("bob", "group.remove", id="1", group="#g", members=["cat", gone]) == "forbidden"
    assert (gone in world.roles()) is not allowed


def test_the_last_owner_can_be_neither_removed_nor_demoted() -> None:
    world = staffed()
    assert world.refused("ann", "group.remove", id="1", group="#g", members=["ann", "cat"]) == "forbidden"
    assert world.refused("ann", "group.role", id="1", group="#g", user="ann", role="member") == "forbidden"
    world.ask("ann", "group.role", id="1", group="#g", user="cat", role="owner")
    assert world.refused("ann", "group.remove", id="2", group="#g", members=["ann", "cat"]) == "forbidden"
    world.ask("cat", "group.role", id="2", group="#g", user="ann", role="member")
    assert world.roles() == {"ann": "member", "bob": "admin", "cat": "owner", "dan": "member"}


@pytest.mark.parametrize(("admins", "heir"), [([], "bob"), (["dan"], "dan"), (["dan", "cat"], "cat")])
def test_when_the_last_owner_leaves_the_longest_standing_admin_else_member_follows(admins: list[str], heir: str) -> None:
    world = World()
    world.group("ann", "bob", "cat", "dan")
    for name in admins:
        world.ask("ann", "group.role", id=name, group="#g", user=name, role="admin")
    head = world.state.conv_for("#g").head
    assert world.reply("ann", "group.leave", id="1", group="#g")["seq"] == head + 1
    assert world.roles()[heir] == "owner" and "ann" not in world.roles()
    assert world.reply("ann", "group.leave", id="1", group="#g") == {"op": "ok", "id": "1", "seq": head + 1, "dup": True}
    assert told(world, "ann") == {"event": "group.leave", "user": "ann"}
    for user in ("bob", "cat", "dan"):
        assert [item["seq"] for item in world.inbox(user)][-2:] == [head + 1, head + 2]
        assert [item["pos"] for item in world.inbox(user)][-2:] == [head + 1, head + 2]
        assert told(world, user) == {"event": "group.role", "user": heir, "role": "owner"}


def test_who_came_back_stands_behind_those_who_stayed() -> None:
    world = World()
    world.group("ann", "bob", "cat")
    world.ask("bob", "group.leave", id="1", group="#g")
    world.ask("ann", "group.add", id="1", group="#g", members=["bob"])
    world.ask("ann", "group.leave", id="2", group="#g")
    assert world.roles() == {"cat": "owner", "bob": "member"}


def test_owners_who_leave_others_behind_name_no_heir_and_the_last_member_may_go() -> None:
    world = World()
    world.group("ann", "bob", "cat")
    world.ask("ann", "group.role", id="1", group="#g", user="bob", role="owner")
    world.ask("cat", "group.leave", id="1", group="#g")
    world.ask("ann", "group.leave", id="2", group="#g")
    world.ask("bob", "group.leave", id="2", group="#g")
    assert world.roles() == {} and world.state.conv_for("#g").head == 5
    assert world.refused("bob", "send", to="#g", body="hi") == "not_member"
    assert world.refused("bob", "group.add", id="3", group="#g", members=["bob"]) == "not_member"


def test_a_group_that_everybody_has_left_can_be_made_anew_and_hides_what_was_said_in_it() -> None:
    world = World(new_members_see_history=True)
    world.group("ann", "bob")
    world.ask("ann", "send", to="#g", body="former")
    assert world.refused("cat", "group.create", id="1", group="#g", members=[]) == "conflict"
    for name in ("ann", "bob"):
        world.ask(name, "group.leave", id="2", group="#g")
    assert world.reply("cat", "group.create", id="3", group="#g", members=["bob"]) == {
        "op": "ok",
        "id": "3",
        "group": "#g",
        "seq": 6,
    }
    world.ask("cat", "group.add", id="4", group="#g", members=["dan"])
    assert world.roles() == {"cat": "owner", "bob": "member", "dan": "member"}
    group = world.state.conv_for("#g")
    sees = {name: [seq for seq in range(1, 8) if group.members[name].sees(seq)] for name in ("ann", "bob", "cat", "dan")}
    assert sees == {"ann": [1, 2, 3], "bob": [1, 2, 3, 4, 5, 6, 7], "cat": [6, 7], "dan": [6, 7]}
    assert world.refused("ann", "send", to="#g", body="hi") == "not_member"


@pytest.mark.parametrize("op", ["group.leave", "group.remove"])
def test_who_goes_gets_that_message_as_the_last_and_has_marks_no_more(op: str) -> None:
    world = staffed()
    world.ask("dan", "mute", id="0", conv="#g", until=5)
    if op == "group.leave":
        world.ask("dan", op, id="1", group="#g")
    else:
        world.ask("ann", op, id="1", group="#g", members=["dan"])
    world.ask("ann", "send", to="#g", body="without dan")
    assert told(world, "dan")["event"] == op
    assert world.state.conv_for("#g").members["dan"].spans == [[1, 3]]
    assert world.refused("dan", "read", conv="#g", seq=3) == "not_member"
    assert world.refused("dan", "mute", id="2", conv="#g", until=6) == "not_member"
    world.ask("dan", "mute", id="3", conv="#g", until=0)
    assert world.state.user("dan").mutes == {}
    assert world.refused("dan", "mute", id="4", conv="#g", until=0) == "not_member"


@pytest.mark.parametrize(("history", "spans"), [(False, [[1, 3], [5, 2**62]]), (True, [[1, 2**62]])])
def test_who_comes_back_sees_both_stays_or_all(history: bool, spans: list[list[int]]) -> None:
    world = staffed(new_members_see_history=history)
    world.ask("dan", "group.leave", id="1", group="#g")
    world.ask("ann", "send", to="#g", body="without dan")
    world.ask("ann", "group.add", id="1", group="#g", members=["dan", "eve"])
    members = world.state.conv_for("#g").members
    assert members["dan"].spans == spans and members["dan"].role == "member"
    assert members["eve"].spans == spans[-1:]
