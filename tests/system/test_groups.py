"""PROTOCOL.md §3: groups: roles, system messages, joining and leaving."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.im import Event, ImClient
from tests.system.conftest import Clients, Name

CONFIG = {"limits.group_members": 20}


class Party:
    """Alice owns a group in which Bob is admin and Carol member; Dave is outside."""

    def __init__(self, im: Clients, name: Name) -> None:
        self.group = name("#ops")
        self.alice, self.bob, self.carol, self.dave = (im.online(name(word)) for word in ("alice", "bob", "carol", "dave"))
        self.alice.must("group.create", group=self.group, name="Ops", members=[self.bob.user, self.carol.user])
        self.alice.must("group.role", group=self.group, user=self.bob.user, role="admin")

    def of(self, word: str) -> ImClient:
        client = getattr(self, word)
        assert isinstance(client, ImClient)
        return client

    def members(self) -> dict[str, str]:
        info = self.alice.must("group.info", group=self.group)
        return {entry["user"]: entry["role"] for entry in info["members"]}


@pytest.fixture
def party(im: Clients, name: Name) -> Party:
    return Party(im, name)


def system(items: list[Event], group: str) -> list[dict[str, Any]]:
    return [item["system"] for item in items if item.data.get("conv") == group and "system" in item]


def test_create_answers_with_the_group_and_tells_every_member(im: Clients, name: Name) -> None:
    """The creator is owner and need not be named."""
    alice, bob, carol = (im.online(name(word)) for word in ("alice", "bob", "carol"))
    group = name("#ops")
    answer = alice.must("group.create", group=group, name="Ops", members=[bob.user, carol.user], id="c")
    assert (answer.op, answer["id"], answer["group"]) == ("ok", "c", group)
    for client in (alice, bob, carol):
        got = client.wait("msg", conv=group)
        assert (got["seq"], got["from"], got["pos"]) == (1, alice.user, 1)
        assert "body" not in got
        assert got["system"]["event"] == "group.create"
        assert sorted(got["system"]["members"]) == sorted([alice.user, bob.user, carol.user]) or sorted(
            got["system"]["members"]
        ) == sorted([bob.user, carol.user])
        assert got["system"]["name"] == "Ops"


def test_the_server_makes_a_group_id_where_none_is_given(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    one = alice.must("group.create", members=[bob.user])["group"]
    other = alice.must("group.create", members=[bob.user])["group"]
    assert one.startswith("#")
    assert one != other
    assert alice.say(one, "hi")["seq"] == 2


def test_a_repeat_of_create_answers_the_same_group(im: Clients, name: Name) -> None:
    alice = im.online(name("alice"))
    first = alice.must("group.create", members=[], id="c")
    again = alice.must("group.create", members=[], id="c")
    assert (again["group"], again["dup"]) == (first["group"], True)
    alice.refused("group.create", "conflict", members=[name("bob")], id="c")


def test_an_existing_group_id_is_a_conflict(party: Party) -> None:
    party.dave.refused("group.create", "conflict", group=party.group, members=[])
    party.alice.refused("group.create", "conflict", group=party.group, members=[])


@pytest.mark.parametrize("fields", [
    {"group": "ops", "members": []}, {"group": "#", "members": []}, {"group": "#a b", "members": []}, {},
    {"group": "#" + "x" * 65, "members": []}, {"members": "bob"}, {"members": ["a b"]}, {"members": [1]},
    {"members": [], "name": 5},
], ids=repr)  # fmt: skip
def test_create_with_wrong_fields(im: Clients, name: Name, fields: dict[str, Any]) -> None:
    im.online(name("alice")).refused("group.create", "bad_field", **fields)


def test_group_size_is_limited(im: Clients, name: Name) -> None:
    """limits.group_members, 20 here, the creator included."""
    alice = im.online(name("alice"))
    group = name("#g")
    everybody = [name(f"m{number}") for number in range(19)]
    answer = alice.ask("group.create", group=name("#big"), members=[*everybody, name("one-more")])
    assert (answer.op, answer["code"]) == ("error", "too_large")
    alice.must("group.create", group=group, members=everybody)
    answer = alice.ask("group.add", group=group, members=[name("one-more")])
    assert (answer.op, answer["code"]) == ("error", "too_large")
    assert len(alice.must("group.info", group=group)["members"]) == 20


def test_info(party: Party) -> None:
    info = party.carol.must("group.info", group=party.group)
    assert (info["group"], info["name"], info["seq"]) == (party.group, "Ops", 2)
    assert {entry["user"]: entry["role"] for entry in info["members"]} == {
        party.alice.user: "owner", party.bob.user: "admin", party.carol.user: "member",
    }  # fmt: skip
    party.dave.refused("group.info", "not_member", group=party.group)


def test_messages_reach_every_member_in_the_same_order(party: Party) -> None:
    for client in (party.alice, party.bob, party.carol):
        client.say(party.group, f"from {client.user}")
    for client in (party.alice, party.bob, party.carol):
        client.drain()
        seqs = [item["seq"] for item in client.items if item.data.get("conv") == party.group]
        assert seqs == [1, 2, 3, 4, 5]
    assert all(item.data.get("conv") != party.group for item in party.dave.drain())


def test_only_members_send(party: Party) -> None:
    party.dave.refused("send", "not_member", to=party.group, body="x")
    party.dave.refused("send", "not_member", to="#no-such-group", body="x")


# Who may do what


@pytest.mark.parametrize(("who", "allowed"), [("alice", True), ("bob", True), ("carol", False)])
def test_who_may_add(party: Party, who: str, allowed: bool) -> None:
    client = party.of(who)
    if allowed:
        answer = client.must("group.add", group=party.group, members=[party.dave.user])
        assert answer["seq"] == 3
        assert party.members()[party.dave.user] == "member"
        assert party.dave.wait("msg")["system"]["event"] == "group.add"
    else:
        client.refused("group.add", "forbidden", group=party.group, members=[party.dave.user])
        assert party.dave.user not in party.members()


@pytest.mark.parametrize(
    ("who", "whom", "allowed"),
    [("alice", "carol", True), ("alice", "bob", True), ("bob", "carol", True), ("bob", "alice", False), ("bob", "bob", False),
     ("carol", "bob", False), ("carol", "alice", False), ("alice", "alice", False)],
)  # fmt: skip
def test_who_may_remove(party: Party, who: str, whom: str, allowed: bool) -> None:
    """Admins remove members, not owners or admins; the last owner can't be removed."""
    client, target = party.of(who), party.of(whom)
    if allowed:
        assert client.must("group.remove", group=party.group, members=[target.user])["seq"] == 3
        assert target.user not in party.members()
    else:
        client.refused("group.remove", "forbidden", group=party.group, members=[target.user])
        assert target.user in party.members()


@pytest.mark.parametrize(("who", "allowed"), [("alice", True), ("bob", True), ("carol", False)])
def test_who_may_rename(party: Party, who: str, allowed: bool) -> None:
    client = party.of(who)
    if allowed:
        assert client.must("group.rename", group=party.group, name="New")["seq"] == 3
        assert party.carol.wait("msg", seq=3)["system"] == {"event": "group.rename", "name": "New"}
        assert party.carol.must("group.info", group=party.group)["name"] == "New"
    else:
        client.refused("group.rename", "forbidden", group=party.group, name="New")


@pytest.mark.parametrize(("who", "allowed"), [("alice", True), ("bob", False), ("carol", False)])
def test_who_may_change_roles(party: Party, who: str, allowed: bool) -> None:
    """Owners may do everything; admins don't make admins."""
    client = party.of(who)
    if allowed:
        assert client.must("group.role", group=party.group, user=party.carol.user, role="admin")["seq"] == 3
        told = party.bob.wait("msg", seq=3)
        assert told["from"] == client.user
        assert told["system"] == {"event": "group.role", "user": party.carol.user, "role": "admin"}
        assert party.members()[party.carol.user] == "admin"
    else:
        client.refused("group.role", "forbidden", group=party.group, user=party.carol.user, role="admin")


@pytest.mark.parametrize("op", ["group.add", "group.remove", "group.rename", "group.role", "group.leave", "group.info"])
def test_outsiders_may_do_nothing(party: Party, op: str) -> None:
    fields = {"members": [party.dave.user], "name": "x", "user": party.dave.user, "role": "owner"}
    party.dave.refused(op, "not_member", group=party.group, **fields)
    party.dave.refused(op, "not_member", group="#no-such-group", **fields)


@pytest.mark.parametrize("role", ["king", "", 5, None])
def test_role_is_one_of_three(party: Party, role: Any) -> None:
    party.alice.refused("group.role", "bad_field", group=party.group, user=party.carol.user, role=role)


# Joining and leaving


def test_who_joins_sees_what_came_from_the_joining_on(party: Party) -> None:
    """In the inbox and in `history`."""
    party.alice.say(party.group, "before")
    joined = party.alice.must("group.add", group=party.group, members=[party.dave.user])["seq"]
    party.alice.say(party.group, "after")
    got = [item for item in party.dave.drain() if item.data.get("conv") == party.group]
    assert [item["seq"] for item in got] == [joined, joined + 1]
    assert got[0]["system"]["event"] == "group.add"
    assert got[0]["system"]["members"] == [party.dave.user]
    page = party.dave.must("history", conv=party.group)
    assert [item["seq"] for item in page["items"]] == [joined, joined + 1]
    assert party.dave.must("history", conv=party.group, before=joined)["items"] == []


@pytest.mark.parametrize("how", ["remove", "leave"])
def test_who_goes_gets_that_message_as_the_last_and_keeps_the_history(party: Party, how: str) -> None:
    party.alice.say(party.group, "before")
    if how == "remove":
        seq = party.alice.must("group.remove", group=party.group, members=[party.carol.user])["seq"]
    else:
        seq = party.carol.must("group.leave", group=party.group)["seq"]
    party.alice.say(party.group, "after")
    party.carol.drain()
    ours = [item for item in party.carol.items if item.data.get("conv") == party.group]
    assert ours[-1]["seq"] == seq
    assert ours[-1]["system"]["event"] == f"group.{how}"
    assert ours[-1]["from"] == (party.alice if how == "remove" else party.carol).user
    page = party.carol.must("history", conv=party.group)
    assert [item["seq"] for item in page["items"]] == list(range(1, seq + 1))
    party.carol.refused("send", "not_member", to=party.group, body="x")
    party.carol.refused("group.info", "not_member", group=party.group)


def test_who_comes_back_sees_both_stays_and_nothing_between(party: Party) -> None:
    party.alice.must("group.remove", group=party.group, members=[party.carol.user])
    party.alice.say(party.group, "unseen")
    back = party.alice.must("group.add", group=party.group, members=[party.carol.user])["seq"]
    party.alice.say(party.group, "seen")
    party.carol.drain()
    seqs = [item["seq"] for item in party.carol.items if item.data.get("conv") == party.group]
    assert seqs == [1, 2, 3, back, back + 1]
    page = party.carol.must("history", conv=party.group)
    assert [item["seq"] for item in page["items"]] in ([1, 2, 3, back, back + 1], [back, back + 1])


@pytest.mark.parametrize("own_server", [{"messaging.new_members_see_history": True}], indirect=True)
def test_new_members_may_be_shown_the_history(own_im: Clients) -> None:
    """messaging.new_members_see_history: in `history`; the inbox begins with the joining all the same."""
    alice, bob = own_im.online("alice"), own_im.online("bob")
    alice.must("group.create", group="#g", members=[])
    alice.say("#g", "before")
    alice.must("group.add", group="#g", members=["bob"])
    assert [item["seq"] for item in bob.drain()] == [3]
    assert [item["seq"] for item in bob.must("history", conv="#g")["items"]] == [1, 2, 3]


def test_adding_a_member_again_or_removing_a_stranger(party: Party) -> None:
    """No change, or a refusal: but never a second membership or a gap."""
    party.alice.ask("group.add", group=party.group, members=[party.carol.user])
    party.alice.ask("group.remove", group=party.group, members=[party.dave.user])
    assert party.members() == {party.alice.user: "owner", party.bob.user: "admin", party.carol.user: "member"}
    party.carol.drain()
    seqs = [item["seq"] for item in party.carol.items if item.data.get("conv") == party.group]
    assert seqs == list(range(1, len(seqs) + 1))


# The last owner


def test_the_last_owner_can_be_neither_removed_nor_demoted(party: Party) -> None:
    party.alice.refused("group.role", "forbidden", group=party.group, user=party.alice.user, role="member")
    party.alice.must("group.role", group=party.group, user=party.bob.user, role="owner")
    party.bob.must("group.role", group=party.group, user=party.alice.user, role="member")
    party.bob.refused("group.remove", "forbidden", group=party.group, members=[party.bob.user])


def test_when_the_last_owner_leaves_the_longest_standing_admin_follows(party: Party) -> None:
    """Told by a `group.role` message."""
    party.alice.must("group.role", group=party.group, user=party.carol.user, role="admin")
    left = party.alice.must("group.leave", group=party.group)["seq"]
    told = party.carol.wait("msg", seq=left + 1)
    assert told["system"] == {"event": "group.role", "user": party.bob.user, "role": "owner"}
    info = party.carol.must("group.info", group=party.group)
    assert {entry["user"]: entry["role"] for entry in info["members"]} == {party.bob.user: "owner", party.carol.user: "admin"}


def test_without_an_admin_the_longest_standing_member_follows(im: Clients, name: Name) -> None:
    alice, bob, carol = (im.online(name(word)) for word in ("alice", "bob", "carol"))
    group = name("#g")
    alice.must("group.create", group=group, members=[])
    alice.must("group.add", group=group, members=[carol.user])
    alice.must("group.add", group=group, members=[bob.user])
    alice.must("group.leave", group=group)
    info = bob.must("group.info", group=group)
    assert {entry["user"]: entry["role"] for entry in info["members"]} == {carol.user: "owner", bob.user: "member"}


def test_the_last_member_may_leave(im: Clients, name: Name) -> None:
    alice = im.online(name("alice"))
    group = name("#g")
    alice.must("group.create", group=group, members=[])
    alice.must("group.leave", group=group)
    alice.refused("send", "not_member", to=group, body="x")
    assert len(alice.must("history", conv=group)["items"]) == 2


def test_repeats_of_group_changes_change_nothing(party: Party) -> None:
    first = party.alice.must("group.add", group=party.group, members=[party.dave.user], id="a")
    again = party.alice.must("group.add", group=party.group, members=[party.dave.user], id="a")
    assert (again["seq"], again["dup"]) == (first["seq"], True)
    party.alice.refused("group.add", "conflict", group=party.group, members=[party.dave.user, "x"], id="a")
    left = party.carol.must("group.leave", group=party.group, id="l")
    assert party.carol.must("group.leave", group=party.group, id="l")["seq"] == left["seq"]
    assert party.alice.must("group.info", group=party.group)["seq"] == left["seq"]


def test_a_system_message_comes_to_all_devices_of_who_did_it(im: Clients, name: Name) -> None:
    """`from` is who did it, on all of that user's devices too: `msg`, not `sent`."""
    alice = name("alice")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    group = name("#g")
    phone.must("group.create", group=group, members=[])
    for client in (phone, laptop):
        assert client.wait("msg", conv=group)["from"] == alice


def test_groups_survive_sigkill(own_im: Clients) -> None:
    alice = own_im.online("alice")
    alice.must("group.create", group="#g", name="G", members=["bob", "carol"])
    alice.must("group.role", group="#g", user="bob", role="admin")
    alice.must("group.remove", group="#g", members=["carol"])
    own_im.server.restart(kill=True)
    info = own_im.online("bob").must("group.info", group="#g")
    assert (info["name"], info["seq"]) == ("G", 3)
    assert {entry["user"]: entry["role"] for entry in info["members"]} == {"alice": "owner", "bob": "admin"}
    assert own_im.online("carol").must("history", conv="#g")["items"][-1]["seq"] == 3
