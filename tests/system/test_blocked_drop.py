"""`messaging.blocked_senders = "drop"`: who is blocked does not notice, and who blocks sees nothing."""

from __future__ import annotations

import pytest

from mqtt_im.testing import Value
from tests.support.im import ImClient
from tests.support.raw import eventually
from tests.system.conftest import Clients, Name

CONFIG: dict[str, Value] = {"messaging.blocked_senders": "drop"}

Pair = tuple[ImClient, ImClient]


@pytest.fixture
def pair(im: Clients, name: Name) -> Pair:
    """Bob has blocked Alice, after she had written to him once."""
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, "before")
    bob.wait("msg", body="before")
    bob.must("block", user=alice.user)
    return alice, bob


def bodies(client: ImClient, conv: str) -> list[object]:
    return [item.get("body") for item in client.must("history", conv=conv)["items"]]


def test_the_sender_keeps_the_message_and_the_blocker_never_sees_it(pair: Pair, im: Clients) -> None:
    alice, bob = pair
    laptop = im.online(alice.user, "laptop")
    sent = alice.must("send", to=bob.user, body="dropped", id="k", n=1, mentions=[bob.user])
    assert (sent.op, sent["seq"], sent["pos"]) == ("sent", 2, 2)
    assert laptop.wait("msg", body="dropped")["seq"] == 2
    assert alice.must("send", to=bob.user, body="dropped", id="k", n=1, mentions=[bob.user])["dup"] is True
    conv = sent["conv"]
    assert bodies(alice, conv) == ["before", "dropped"]
    assert bodies(bob, conv) == ["before"]
    assert [item["body"] for item in bob.drain()] == ["before"]
    told = next(each for each in bob.must("convs")["convs"] if each["conv"] == conv)
    assert (told["seq"], told["last"]["body"], told["unread"], told["mentions"]) == (1, "before", 1, 0)
    told = next(each for each in alice.must("convs")["convs"] if each["conv"] == conv)
    assert (told["seq"], told["last"]["body"]) == (2, "dropped")


def test_it_is_no_activity_for_the_blocker(pair: Pair, im: Clients, name: Name) -> None:
    alice, bob = pair
    carol = im.online(name("carol"))
    carol.say(bob.user, "hi")
    alice.say(bob.user, "dropped")
    convs = bob.must("convs")["convs"]
    assert [each["last"]["body"] for each in convs] == ["hi", "before"]


def test_it_is_found_by_its_sender_alone(pair: Pair) -> None:
    alice, bob = pair
    alice.say(bob.user, "xylophone")

    def found(client: ImClient) -> list[object]:
        return [item["body"] for item in client.must("search", query="xylophone")["items"]]

    eventually(lambda: found(alice), "the message in the search index")
    assert found(bob) == []


def test_after_the_block_both_go_on_with_the_same_numbers(pair: Pair) -> None:
    alice, bob = pair
    conv = alice.say(bob.user, "dropped")["conv"]
    assert bob.say(alice.user, "a block is one way")["seq"] == 3
    alice.wait("msg", seq=3)
    alice.say(bob.user, "dropped too")
    bob.must("unblock", user=alice.user)
    assert alice.say(bob.user, "after")["seq"] == 5
    assert bob.wait("msg", seq=5)["body"] == "after"
    assert bodies(bob, conv) == ["before", "a block is one way", "after"]
    assert bodies(alice, conv) == ["before", "dropped", "a block is one way", "dropped too", "after"]
    assert [item["pos"] for item in bob.drain()] == [1, 2, 3]
    page = bob.must("history", conv=conv, after=1, limit=1)
    assert ([item["seq"] for item in page["items"]], page["more"]) == ([3], True)
    assert next(each for each in bob.must("convs")["convs"] if each["conv"] == conv)["unread"] == 2


def test_a_conversation_that_holds_nothing_for_the_blocker_is_not_listed(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    bob.must("block", user=alice.user)
    assert alice.say(bob.user, "first")["seq"] == 1
    assert bob.must("convs")["convs"] == []
    assert [each["conv"] for each in alice.must("convs")["convs"]] == [f"{alice.user}:{bob.user}"]


def test_what_was_dropped_can_be_amended_for_oneself(pair: Pair) -> None:
    alice, bob = pair
    sent = alice.say(bob.user, "dropped")
    where = {"conv": sent["conv"], "seq": sent["seq"]}
    alice.must("edit", body="edited", **where)
    alice.must("react", emoji="x", **where)
    assert alice.wait("edited")["body"] == "edited"
    assert bodies(alice, sent["conv"]) == ["before", "edited"]
    alice.must("recall", **where)
    alice.wait("recalled")
    assert [item.op for item in bob.drain()] == ["msg"]
    for op, fields in (("react", {"emoji": "x"}), ("report", {"state": "executed"})):
        bob.refused(op, "not_found", **where, **fields)


def test_changes_to_what_the_blocker_sees_are_dropped_silently(pair: Pair) -> None:
    alice, bob = pair
    conv = f"{alice.user}:{bob.user}"
    assert alice.must("edit", conv=conv, seq=1, body="a way around", n=1).op == "ok"
    assert alice.must("react", conv=conv, seq=1, emoji="x", n=2).op == "ok"
    for client in (alice, bob):
        (item,) = client.must("history", conv=conv)["items"]
        assert item["body"] == "before"
        assert "reactions" not in item
    assert [item.op for item in bob.drain()] == ["msg"]


def test_a_dropped_message_takes_no_part_in_keys(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), name("bob")
    silent = im.sign_in(bob, "silent")
    alice.say(bob, 18, key="t")
    silent.confirmed("block", user=alice.user, id="b")
    alice.say(bob, 19, key="t")
    silent.confirmed("unblock", user=alice.user, id="u")
    alice.say(bob, "x")
    assert [(item.op, item["body"]) for item in im.online(bob).drain()] == [("msg", 18), ("msg", "x")]
    alice.say(name("carol"), 18, key="t")
    alice.say(name("carol"), 19, key="t")
    assert [item.op for item in im.online(name("carol")).drain()] == ["void", "msg"]


def test_it_survives_sigkill(own_im: Clients) -> None:
    alice, bob = own_im.online("alice"), own_im.online("bob")
    bob.must("block", user="alice")
    for number in range(3):
        alice.say("bob", number)
    bob.say("alice", "x")
    alice.say("bob", 4)
    for _ in range(2):
        own_im.server.restart(kill=True)
        alice, bob = own_im.online("alice"), own_im.online("bob")
        assert bodies(alice, "alice:bob") == [0, 1, 2, "x", 4]
        assert bodies(bob, "alice:bob") == ["x"]
    bob.must("unblock", user="alice")
    assert alice.say("bob", "after")["seq"] == 6
    assert bob.wait("msg", seq=6)["pos"] == 2
