"""PROTOCOL.md §§3–4: receipts as state, read marks, unread counts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.im import ImClient, direct
from tests.system.conftest import Clients, Name


def receipts(client: ImClient, conv: str) -> dict[str, dict[str, int]]:
    page = client.must("convs")
    found = [entry for entry in page["convs"] if entry["conv"] == conv]
    return dict(found[0]["receipts"]) if found else {}


def entry(client: ImClient, conv: str) -> dict[str, Any]:
    return next(dict(each) for each in client.must("convs")["convs"] if each["conv"] == conv)


def received(client: ImClient, conv: str, by: str, kind: str, seq: int) -> None:
    """Wait for a receipt event that says at least `seq`."""
    client.until(
        lambda: any(
            event.op == "receipt" and event["conv"] == conv and event["by"] == by and event.data.get(kind, 0) >= seq
            for event in client.events
        ),
        f"the receipt: {by} {kind} {seq}",
    )


def test_delivered_follows_the_devices_acknowledgement(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), name("bob")
    conv = alice.say(bob, "x")["conv"]
    assert receipts(alice, conv).get(bob, {}).get("delivered", 0) == 0
    im.online(bob).drain()
    received(alice, conv, bob, "delivered", 1)
    assert receipts(alice, conv)[bob]["delivered"] == 1


def test_delivered_of_an_app_device_follows_its_ack(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    bob.must("hello", ack="app")
    conv = alice.say(bob.user, "x")["conv"]
    bob.wait("msg")
    bob.flush()
    assert receipts(alice, conv).get(bob.user, {}).get("delivered", 0) == 0
    bob.confirmed("ack", pos=1)
    received(alice, conv, bob.user, "delivered", 1)


def test_read_reaches_everyone_in_the_conversation(im: Clients, name: Name) -> None:
    """The reader's other devices too."""
    alice, bob, carol = (im.online(name(word)) for word in ("alice", "bob", "carol"))
    laptop = im.online(bob.user, "laptop")
    group = name("#g")
    alice.must("group.create", group=group, members=[bob.user, carol.user])
    seq = alice.say(group, "x")["seq"]
    bob.wait("msg", seq=seq)
    bob.confirmed("read", conv=group, seq=seq)
    for client in (alice, carol, laptop):
        received(client, group, bob.user, "read", seq)
    assert receipts(carol, group)[bob.user]["read"] == seq


def test_a_receipt_is_an_event_without_pos(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = alice.say(bob.user, "x")["conv"]
    bob.wait("msg")
    bob.confirmed("read", conv=conv, seq=1)
    received(alice, conv, bob.user, "read", 1)
    assert all("pos" not in event for event in alice.events if event.op == "receipt")


def test_receipts_only_grow(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = direct(alice.user, bob.user)
    for number in range(5):
        alice.say(bob.user, number)
    bob.drain()
    bob.confirmed("read", conv=conv, seq=4)
    received(alice, conv, bob.user, "read", 4)
    bob.confirmed("read", conv=conv, seq=2)
    assert receipts(alice, conv)[bob.user]["read"] == 4
    bob.confirmed("read", conv=conv, seq=5)
    received(alice, conv, bob.user, "read", 5)
    marks = [event["read"] for event in alice.events if event.op == "receipt" and "read" in event and event["by"] == bob.user]
    assert marks == sorted(marks)


def test_read_says_delivered_too(im: Clients, name: Name) -> None:
    """Nobody has read what was not delivered."""
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = alice.say(bob.user, "x")["conv"]
    bob.wait("msg")
    bob.confirmed("read", conv=conv, seq=1)
    received(alice, conv, bob.user, "read", 1)
    received(alice, conv, bob.user, "delivered", 1)
    mine = receipts(alice, conv)[bob.user]
    assert mine["delivered"] >= mine["read"] == 1


@pytest.mark.parametrize("seq", [99, 0, -1, "x", None])
def test_read_of_what_is_not_there(im: Clients, name: Name, seq: Any) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = alice.say(bob.user, "x")["conv"]
    bob.wait("msg")
    bob.request("read", id="r", conv=conv, seq=seq)
    bob.flush()
    errors = [event["code"] for event in bob.events if event.op == "error"]
    assert errors == ["bad_field"] or seq == 0
    assert receipts(alice, conv).get(bob.user, {}).get("read", 0) == 0


def test_read_is_for_members(im: Clients, name: Name) -> None:
    alice, mallory = im.online(name("alice")), im.online(name("mallory"))
    conv = alice.say(name("bob"), "x")["conv"]
    mallory.request("read", id="r", conv=conv, seq=1)
    assert mallory.reply("r")["code"] == "not_member"


def test_unread_counts_others_messages_above_ones_own_mark(im: Clients, name: Name) -> None:
    """Without system messages; mentions are counted beside it."""
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    group = name("#g")
    alice.must("group.create", group=group, members=[bob.user])
    alice.say(group, "one")
    alice.say(group, "two", mentions=[bob.user])
    bob.say(group, "my own")
    alice.say(group, "three", mentions=["*"])
    alice.must("group.rename", group=group, name="renamed")
    now = entry(bob, group)
    assert (now["unread"], now["mentions"]) == (3, 2)
    assert entry(alice, group)["unread"] == 1
    bob.confirmed("read", conv=group, seq=3)
    now = entry(bob, group)
    assert (now["unread"], now["mentions"]) == (1, 1)
    bob.confirmed("read", conv=group, seq=6)
    now = entry(bob, group)
    assert (now["unread"], now["mentions"]) == (0, 0)


def test_read_marks_survive_sigkill(own_im: Clients) -> None:
    alice, bob = own_im.online("alice"), own_im.online("bob")
    for number in range(5):
        alice.say("bob", number)
    bob.drain()
    bob.confirmed("read", conv="alice:bob", seq=3)
    own_im.server.restart(kill=True)
    bob = own_im.online("bob")
    assert entry(bob, "alice:bob")["unread"] == 2
    assert receipts(own_im.online("alice"), "alice:bob")["bob"]["read"] == 3


def test_settings_answer_with_both_as_they_are(im: Clients, name: Name) -> None:
    client = im.online(name("alice"))
    answer = client.must("settings", id="s")
    assert (answer["read_receipts"], answer["presence"]) == (True, True)
    assert client.must("settings", id="s", read_receipts=False).data.items() >= {"read_receipts": False, "presence": True}.items()
    assert client.must("settings", id="t", presence=False).data.items() >= {"read_receipts": False, "presence": False}.items()
    client.refused("settings", "bad_field", presence="no")


def test_who_sends_no_read_receipts_is_not_told_about(im: Clients, name: Name) -> None:
    """`read_receipts: false`: others don't get them; the user's own devices and counts go on."""
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    laptop = im.online(bob.user, "laptop")
    bob.must("settings", read_receipts=False)
    conv = alice.say(bob.user, "x")["conv"]
    bob.wait("msg")
    bob.confirmed("read", conv=conv, seq=1)
    received(laptop, conv, bob.user, "read", 1)
    assert entry(bob, conv)["unread"] == 0
    received(alice, conv, bob.user, "delivered", 1)
    alice.flush()
    assert all("read" not in event for event in alice.events if event.op == "receipt" and event["by"] == bob.user)
    assert receipts(alice, conv)[bob.user].get("read", 0) == 0


def test_a_reader_who_was_offline_finds_the_state_in_convs(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = alice.say(bob.user, "x")["conv"]
    bob.wait("msg")
    alice.disconnect()
    bob.confirmed("read", conv=conv, seq=1)
    assert receipts(im.online(alice.user), conv)[bob.user]["read"] == 1
