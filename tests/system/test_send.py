"""PROTOCOL.md §3: `send`, ids, counters, repeats."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.im import direct
from tests.system.conftest import Clients, Name


def test_sent_and_msg_carry_what_the_tables_name(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone, laptop, peer = im.online(alice, "phone"), im.online(alice, "laptop"), im.online(bob)
    first = phone.say(bob, "one")
    sent = phone.must("send", to=bob, body="two", id="m2", cts=5, reply_to=1, mentions=[bob])
    assert (sent["op"], sent["pos"], sent["id"], sent["conv"], sent["seq"]) == ("sent", 2, "m2", direct(alice, bob), 2)
    assert isinstance(sent["ts"], int)
    assert first["ts"] <= sent["ts"]
    for client, pos in ((peer, 2), (laptop, 2)):
        got = client.wait("msg", seq=2)
        expected = {"op": "msg", "pos": pos, "conv": direct(alice, bob), "seq": 2, "from": alice, "id": "m2", "body": "two",
                    "ts": sent["ts"], "cts": 5, "reply_to": 1, "mentions": [bob]}  # fmt: skip
        assert {key: got[key] for key in expected} == expected


def test_the_senders_own_device_sees_sent_and_its_other_devices_msg(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    phone.say(bob, "x")
    assert [item.op for item in phone.drain() if item.data.get("conv") == direct(alice, bob)] == ["sent"]
    assert [item.op for item in laptop.drain() if item.data.get("conv") == direct(alice, bob)] == ["msg"]


def test_to_oneself_is_a_conversation_of_one(im: Clients, name: Name) -> None:
    """`alice:alice`, one item."""
    alice = name("alice")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    sent = phone.say(alice, "note")
    assert (sent["conv"], sent["seq"], sent["pos"]) == (f"{alice}:{alice}", 1, 1)
    assert laptop.wait("msg")["pos"] == 1
    assert phone.say(alice, "note")["pos"] == 2


def test_a_message_without_id(im: Clients, name: Name) -> None:
    """Accepted, and then at-least-once: the same payload again is another message."""
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    client.request("send", to=bob, body="x")
    assert "id" not in client.wait("sent")
    client.request("send", to=bob, body="x")
    client.wait("sent", seq=2)
    assert [item["seq"] for item in peer.drain()] == [1, 2]


@pytest.mark.parametrize("clean", [True, False])
def test_a_dup_without_id_is_the_same_message(im: Clients, name: Name, clean: bool) -> None:
    """DUP, the same packet id and the same payload in the same session."""
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice, clean=clean), im.online(bob)
    client.request("send", to=bob, body="x", packet_id=77)
    client.request("send", to=bob, body="x", packet_id=77, dup=True)
    client.acknowledged(2)
    assert client.pubacks == [77, 77]
    assert len(peer.drain()) == 1


def test_what_differs_in_any_of_the_three_is_another_message(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    client.request("send", to=bob, body="x", packet_id=77)
    client.request("send", to=bob, body="x", packet_id=78, dup=True)  # another packet id
    client.request("send", to=bob, body="y", packet_id=77, dup=True)  # another payload
    client.request("send", to=bob, body="y", packet_id=77)  # no DUP
    client.acknowledged(4)
    assert [item["body"] for item in peer.drain()] == ["x", "x", "y", "y"]


def test_a_dup_in_a_kept_session_is_recognised_after_reconnect_and_sigkill(own_im: Clients) -> None:
    server = own_im.server
    client = own_im.online("alice", clean=False)
    client.request("send", to="bob", body="x", packet_id=9)
    client.acknowledged(1)
    client.abort()
    client = own_im.sign_in("alice", clean=False)
    assert client.session_present
    client.request("send", to="bob", body="x", packet_id=9, dup=True)
    client.acknowledged(1)
    server.restart(kill=True)
    client = own_im.sign_in("alice", clean=False)
    assert client.session_present
    client.request("send", to="bob", body="x", packet_id=9, dup=True)
    client.acknowledged(1)
    assert len(own_im.online("bob").drain()) == 1


def test_a_dup_in_a_new_session_is_another_message(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    for dup in (False, True):
        client = im.sign_in(alice)
        client.request("send", to=bob, body="x", packet_id=9, dup=dup)
        client.acknowledged(1)
        client.disconnect()
    assert len(peer.drain()) == 2


# The idempotency key


def test_a_repeat_is_answered_as_the_first_was(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    first = client.must("send", to=bob, body={"a": 1}, id="k")
    client.say(bob, "between")
    again = client.must("send", to=bob, body={"a": 1}, id="k")
    assert again["dup"] is True
    assert all(again[key] == first[key] for key in ("id", "conv", "seq", "ts"))
    assert [item["body"] for item in peer.drain()] == [{"a": 1}, "between"]
    client.drain()
    assert [item["seq"] for item in client.items if item["conv"] == first["conv"]] == [1, 2]


CHANGES: list[dict[str, Any]] = [
    {"body": "other"}, {"to": "carol"}, {"reply_to": 1}, {"mentions": ["bob"]}, {"key": "k"}, {"push": {"a": 1}},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_the_same_id_with_anything_changed_is_a_conflict(im: Clients, name: Name, change: dict[str, Any]) -> None:
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    client.say(bob, "first")
    client.must("send", to=bob, body="x", id="k")
    client.refused("send", "conflict", **{"to": bob, "body": "x", "id": "k", **change})
    assert client.must("send", to=bob, body="x", id="k")["dup"] is True
    assert [item["body"] for item in peer.drain()] == ["first", "x"]


def test_the_same_id_with_another_op_is_a_conflict(im: Clients, name: Name) -> None:
    """One space for all that the user's devices do."""
    alice, bob = name("alice"), name("bob")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    phone.must("send", to=bob, body="x", id="k")
    laptop.refused("recall", "conflict", conv=direct(alice, bob), seq=1, id="k")
    laptop.refused("group.create", "conflict", members=[bob], id="k")
    phone.must("group.create", group=name("#g"), members=[bob], id="g")
    laptop.refused("send", "conflict", to=bob, body="x", id="g")


def test_n_and_cts_may_differ_in_a_repeat(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    client.must("send", to=bob, body="x", id="k", n=1, cts=1)
    assert client.must("send", to=bob, body="x", id="k", n=2, cts=2)["dup"] is True
    assert client.must("send", to=bob, body="x", id="k")["dup"] is True


def test_the_same_id_with_other_bytes_of_the_body_is_a_conflict(im: Clients, name: Name) -> None:
    """Bodies are compared as the bytes that came: the same value in another form is not what was sent."""
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    client.must("send", to=bob, body={"a": 1, "b": 2}, id="k")
    client.request("send", form="msgpack", to=bob, body={"a": 1, "b": 2}, id="k")
    assert client.reply("k")["code"] == "conflict"
    client.request("send", form="json+zip", to=bob, body={"a": 1, "b": 2}, id="k")
    assert client.reply("k").data.get("dup") is True


@pytest.mark.parametrize("bad", ["", "x" * 65, 5, None, ["a"], {}], ids=repr)
def test_an_id_is_a_string_of_1_to_64_characters(im: Clients, name: Name, bad: Any) -> None:
    client = im.online(name("alice"))
    client.request("send", to="bob", body="x", id=bad)
    if bad is None:
        assert client.wait("sent")
    else:
        assert client.wait("error")["code"] == "bad_field"


@pytest.mark.parametrize("good", ["a", "x" * 64, "ä/#+ \U0001f642", "é" * 64])
def test_ids_of_any_characters(im: Clients, name: Name, good: str) -> None:
    client = im.online(name("alice"))
    assert client.must("send", to="bob", body="x", id=good)["id"] == good
    assert client.must("send", to="bob", body="x", id=good)["dup"] is True


# The device's own counter


def test_n_is_committed_only_after_its_predecessor(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    client.must("send", to=bob, body="A", id="a", n=1)
    answer = client.refused("send", "out_of_order", to=bob, body="C", id="c", n=3)
    assert answer["expected"] == 2
    client.must("send", to=bob, body="B", id="b", n=2)
    client.must("send", to=bob, body="C", id="c", n=3)
    assert [item["body"] for item in peer.drain()] == ["A", "B", "C"]


def test_n_counts_over_connections_and_welcome_tells_it(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    assert client.must("hello")["n"] == 0
    client.must("send", to=bob, body="A", n=1)
    client.must("send", to=bob, body="B", n=2)
    client.disconnect()
    client = im.online(alice)
    assert client.must("hello")["n"] == 2
    client.refused("send", "out_of_order", to=bob, body="x", n=1)
    client.must("send", to=bob, body="C", n=3)


def test_hello_sets_n(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    assert client.must("hello", n=41)["n"] == 41
    client.must("send", to=bob, body="x", n=42)
    assert client.must("hello", n=0)["n"] == 0
    client.must("send", to=bob, body="x", n=1)


def test_n_is_the_devices_own(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    phone.must("send", to=bob, body="x", n=1)
    laptop.must("send", to=bob, body="x", n=1)
    phone.must("send", to=bob, body="x", n=2)


def test_a_refused_request_leaves_its_n_and_its_id_free(im: Clients, name: Name) -> None:
    """A request that was refused left nothing."""
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    client.refused("send", "not_member", to=name("#none"), body="x", id="k", n=1)
    client.refused("send", "bad_field", to=bob, id="k", n=1)
    client.must("send", to=bob, body="good", id="k", n=1)
    client.must("send", to=bob, body="more", id="l", n=2)


def test_a_repeat_with_its_old_n_is_a_repeat(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    client.must("send", to=bob, body="A", id="a", n=1)
    client.must("send", to=bob, body="B", id="b", n=2)
    assert client.must("send", to=bob, body="A", id="a", n=1)["dup"] is True
    client.must("send", to=bob, body="C", id="c", n=3)


def test_n_counts_every_op_that_changes_something(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    group = name("#g")
    client.must("group.create", group=group, members=[bob], n=1)
    client.must("send", to=group, body="x", n=2)
    client.must("edit", conv=group, seq=2, body="y", n=3)
    client.must("react", conv=group, seq=2, emoji="👍", n=4)
    client.must("group.rename", group=group, name="new", n=5)
    client.must("recall", conv=group, seq=2, n=6)
    client.must("group.leave", group=group, n=7)
    assert client.must("hello")["n"] == 7


def test_pipelined_requests_after_a_lost_one_are_all_refused(im: Clients, name: Name) -> None:
    """A, B, C sent, B lost, can never end as A, C, B."""
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    for letter, n in (("A", 1), ("C", 3), ("D", 4)):
        client.request("send", to=bob, body=letter, id=letter, n=n)
    for letter in "CD":
        assert client.reply(letter)["code"] == "out_of_order"
    for letter, n in (("B", 2), ("C", 3), ("D", 4)):
        client.request("send", to=bob, body=letter, id=letter, n=n)
    assert client.reply("D").op == "sent"
    assert [item["body"] for item in peer.drain()] == ["A", "B", "C", "D"]


def test_from_a_device_that_is_not_subscribed_n_is_ignored(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    publisher, peer = im.sign_in(alice), im.online(bob)
    for n in (7, 3, 3):
        publisher.confirmed("send", to=bob, body=n, n=n)
    assert [item["body"] for item in peer.drain()] == [7, 3, 3]


# Mistakes


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"to": "bob"}, {"body": "x"}, {"to": "", "body": "x"}, {"to": "a b", "body": "x"}, {"to": "x" * 65, "body": "x"},
        {"to": "#", "body": "x"}, {"to": 7, "body": "x"}, {"to": "bob", "body": "x", "reply_to": "1"},
        {"to": "bob", "body": "x", "n": "1"}, {"to": "bob", "body": "x", "n": -1}, {"to": "bob", "body": "x", "ttl": "soon"},
        {"to": "bob", "body": "x", "ttl": -1}, {"to": "bob", "body": "x", "key": 5}, {"to": "bob", "body": "x", "push": "x"},
        {"to": "bob", "body": "x", "mentions": "bob"}, {"to": "bob", "body": "x", "mentions": [1]},
        {"to": "bob", "body": "x", "cts": "now"}, {"to": "alice:bob", "body": "x"}, {"to": "bob", "body": "x", "n": 1.5},
    ],
    ids=repr,
)  # fmt: skip
def test_missing_or_wrong_fields(im: Clients, name: Name, fields: dict[str, Any]) -> None:
    """§5: error, retry false; PUBACK; nothing stored; the connection stays."""
    alice = name("alice")
    client = im.online(alice)
    client.refused("send", "bad_field", **fields)
    assert client.drain() == []


def test_a_reply_to_what_is_not_there_is_refused(im: Clients, name: Name) -> None:
    """`reply_to` is a seq of that conversation."""
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    client.say(bob, "one")
    client.refused("send", "bad_field", to=bob, body="x", reply_to=2)
    client.refused("send", "bad_field", to=bob, body="x", reply_to=0)
    assert client.say(bob, "x", reply_to=1)["seq"] == 2


def test_unknown_op(im: Clients, name: Name) -> None:
    client = im.online(name("alice"))
    client.refused("teleport", "unknown_op", to="bob")


def test_errors_reach_a_sender_at_qos_0(im: Clients, name: Name) -> None:
    client = im.online(name("alice"))
    client.request("nonsense", qos=0, id="q0")
    assert client.reply("q0")["code"] == "unknown_op"


def test_a_publisher_without_subscription_gets_no_replies_but_its_puback(im: Clients, name: Name) -> None:
    client = im.sign_in(name("alice"))
    client.confirmed("send", to=name("bob"), body="x", id="1")
    client.confirmed("nonsense", id="2")
    assert client.events == []
