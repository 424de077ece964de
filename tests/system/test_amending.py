"""PROTOCOL.md §3: `edit`, `recall`, `react`: a message is shown as it is now."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.im import ImClient, direct
from tests.system.conftest import Clients, Name


@pytest.fixture
def pair(im: Clients, name: Name) -> tuple[ImClient, ImClient]:
    return im.online(name("alice")), im.online(name("bob"))


Pair = tuple[ImClient, ImClient]


def shown(client: ImClient, conv: str, seq: int) -> dict[str, Any]:
    page = client.must("history", conv=conv, after=seq - 1, limit=1)
    assert page["items"][0]["seq"] == seq
    return dict(page["items"][0])


def test_every_member_gets_the_item_edited(pair: Pair, im: Clients) -> None:
    alice, bob = pair
    laptop = im.online(alice.user, "laptop")
    sent = alice.say(bob.user, "frist")
    conv = sent["conv"]
    answer = alice.must("edit", conv=conv, seq=1, body="first", id="e")
    assert (answer.op, answer["id"]) == ("ok", "e")
    for client in (alice, bob, laptop):
        item = client.wait("edited")
        assert (item["pos"], item["conv"], item["seq"], item["by"], item["body"]) == (2, conv, 1, alice.user, "first")
        assert item["ts"] >= sent["ts"]
        now = shown(client, conv, 1)
        assert (now["body"], now["edited"]) == ("first", True)


def test_every_member_gets_the_item_recalled(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "secret")["conv"]
    assert alice.must("recall", conv=conv, seq=1).op == "ok"
    for client in pair:
        item = client.wait("recalled")
        assert (item["pos"], item["conv"], item["seq"], item["by"]) == (2, conv, 1, alice.user)
        assert "body" not in item
        now = shown(client, conv, 1)
        assert now["recalled"] is True
        assert "body" not in now
        assert "body" not in client.must("convs")["convs"][0]["last"]


def test_what_was_edited_before_it_was_offered_carries_the_new_body(pair: Pair, im: Clients, name: Name) -> None:
    """Also the `edited` item itself follows the rule."""
    alice, _ = pair
    carol = name("carol")
    conv = alice.say(carol, "one")["conv"]
    alice.must("edit", conv=conv, seq=1, body="two")
    alice.must("edit", conv=conv, seq=1, body="three")
    items = im.online(carol).drain()
    assert [(item.op, item["pos"], item["body"]) for item in items] == [
        ("msg", 1, "three"), ("edited", 2, "three"), ("edited", 3, "three"),
    ]  # fmt: skip
    assert items[0]["edited"] is True


def test_what_was_recalled_before_it_was_offered_carries_no_body(pair: Pair, im: Clients, name: Name) -> None:
    alice, _ = pair
    carol = name("carol")
    conv = alice.say(carol, "secret-one")["conv"]
    alice.must("edit", conv=conv, seq=1, body="secret-two")
    alice.must("recall", conv=conv, seq=1)
    client = im.online(carol)
    items = client.drain()
    assert [item["pos"] for item in items] == [1, 2, 3]
    assert items[0]["recalled"] is True
    assert all(b"secret" not in item.packet.payload for item in items)


def test_a_recalled_body_is_gone_from_the_store(own_server: ServerProcess, own_im: Clients) -> None:
    """… here, in `history` and in the store."""
    alice = own_im.online("alice")
    needle = "unmistakable-needle-in-the-store"
    sent = alice.say("bob", needle)
    alice.say("bob", "stays")
    alice.must("recall", conv=sent["conv"], seq=sent["seq"])
    alice.flush()
    assert own_server.stop() == 0
    assert own_server.command("store", "compact").returncode in (0, 2)
    for file in own_server.data_dir.rglob("*"):
        if file.is_file():
            assert needle.encode() not in file.read_bytes(), f"the recalled body is still in {file.name}"


def test_only_ones_own_messages_are_edited_or_recalled(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "mine")["conv"]
    bob.refused("edit", "forbidden", conv=conv, seq=1, body="yours")
    bob.refused("recall", "forbidden", conv=conv, seq=1)
    assert shown(bob, conv, 1)["body"] == "mine"


def test_group_admins_recall_any_message_and_edit_none(im: Clients, name: Name) -> None:
    alice, bob, carol = (im.online(name(word)) for word in ("alice", "bob", "carol"))
    group = name("#g")
    alice.must("group.create", group=group, members=[bob.user, carol.user])
    alice.must("group.role", group=group, user=bob.user, role="admin")
    for body in ("a", "b"):
        carol.say(group, body)
    bob.refused("edit", "forbidden", conv=group, seq=3, body="x")
    bob.must("recall", conv=group, seq=3)
    alice.must("recall", conv=group, seq=4)
    alice.say(group, "c")
    carol.refused("recall", "forbidden", conv=group, seq=5)
    assert carol.wait("recalled", seq=3)["by"] == bob.user


@pytest.mark.parametrize("op", ["edit", "recall", "react"])
def test_amending_what_is_not_there(pair: Pair, op: str, name: Name) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "x")["conv"]
    fields = {"body": "y", "emoji": "👍"}
    for seq in (0, 2, 99):
        answer = alice.ask(op, conv=conv, seq=seq, **fields)
        assert answer["code"] in ("not_found", "bad_field")
    alice.refused(op, "not_member", conv=direct(bob.user, name("carol")), seq=1, **fields)
    alice.refused(op, "not_member", conv="#none", seq=1, **fields)


@pytest.mark.parametrize("op", ["edit", "recall"])
def test_system_messages_stay_as_they_are(im: Clients, name: Name, op: str) -> None:
    alice = im.online(name("alice"))
    group = name("#g")
    alice.must("group.create", group=group, members=[])
    answer = alice.ask(op, conv=group, seq=1, body="x")
    assert answer.op == "error"
    assert "system" in shown(alice, group, 1)


def test_a_recalled_message_is_not_edited(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "x")["conv"]
    alice.must("recall", conv=conv, seq=1)
    answer = alice.ask("edit", conv=conv, seq=1, body="y")
    assert answer.op == "error"
    assert "body" not in shown(alice, conv, 1)


def test_repeats_of_an_edit(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "x")["conv"]
    alice.must("edit", conv=conv, seq=1, body="y", id="e")
    alice.must("edit", conv=conv, seq=1, body="z", id="f")
    assert alice.must("edit", conv=conv, seq=1, body="y", id="e")["dup"] is True
    alice.refused("edit", "conflict", conv=conv, seq=1, body="other", id="e")
    assert shown(bob, conv, 1)["body"] == "z"
    assert len([item for item in bob.drain() if item.op == "edited"]) == 2


def test_too_large_an_edit(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "x")["conv"]
    alice.refused("edit", "too_large", conv=conv, seq=1, body="x" * 70_000)


@pytest.mark.parametrize("own_server", [{"messaging.edit_window_s": 0}], indirect=True)
def test_the_window_of_edits_can_be_closed(own_im: Clients) -> None:
    """messaging.edit_window_s = 0: no edits or recalls; too late is `forbidden`."""
    alice = own_im.online("alice")
    conv = alice.say("bob", "x")["conv"]
    alice.refused("edit", "forbidden", conv=conv, seq=1, body="y")
    alice.refused("recall", "forbidden", conv=conv, seq=1)
    alice.must("react", conv=conv, seq=1, emoji="👍")


# Reactions


def test_every_member_gets_the_item_reacted(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "x")["conv"]
    assert bob.must("react", conv=conv, seq=1, emoji="👍").op == "ok"
    for client in pair:
        item = client.wait("reacted")
        assert (item["pos"], item["conv"], item["seq"], item["by"], item["emoji"]) == (2, conv, 1, bob.user, "👍")
        assert isinstance(item["ts"], int)
        assert shown(client, conv, 1)["reactions"] == {"👍": [bob.user]}


def test_reactions_are_one_each_and_can_be_taken_away(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "x")["conv"]
    alice.must("react", conv=conv, seq=1, emoji="👍")
    bob.must("react", conv=conv, seq=1, emoji="👍")
    assert {key: sorted(value) for key, value in shown(bob, conv, 1)["reactions"].items()} == {
        "👍": sorted([alice.user, bob.user])
    }
    bob.must("react", conv=conv, seq=1, emoji="🎉")
    assert shown(bob, conv, 1)["reactions"] == {"👍": [alice.user], "🎉": [bob.user]}
    alice.must("react", conv=conv, seq=1, emoji="")
    bob.must("react", conv=conv, seq=1, emoji="")
    assert not shown(bob, conv, 1).get("reactions")


@pytest.mark.parametrize(
    ("emoji", "good"), [("x" * 32, True), ("x" * 33, False), ("🙂" * 8, True), ("🙂" * 9, False), (5, False), (None, False)]
)
def test_an_emoji_has_at_most_32_bytes(pair: Pair, emoji: Any, good: bool) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "x")["conv"]
    if good:
        bob.must("react", conv=conv, seq=1, emoji=emoji)
    else:
        bob.refused("react", "bad_field", conv=conv, seq=1, emoji=emoji)


def test_amendments_survive_sigkill(own_im: Clients) -> None:
    alice = own_im.online("alice")
    conv = alice.say("bob", "a")["conv"]
    for body in ("b", "c"):
        alice.say("bob", body)
    alice.must("edit", conv=conv, seq=1, body="A")
    alice.must("recall", conv=conv, seq=2)
    alice.must("react", conv=conv, seq=3, emoji="👍")
    own_im.server.restart(kill=True)
    bob = own_im.online("bob")
    items = bob.drain()
    assert [item.op for item in items] == ["msg", "msg", "msg", "edited", "recalled", "reacted"]
    assert (items[0]["body"], items[1]["recalled"], items[2]["reactions"]) == ("A", True, {"👍": ["alice"]})
