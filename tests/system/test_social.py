"""PROTOCOL.md §3: `block`, `unblock`, `mute`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.im import PREFIX, ImClient, direct
from tests.support.packets import Will
from tests.system.conftest import Clients, Name

REFUSED = 0x80


@pytest.fixture
def pair(im: Clients, name: Name) -> tuple[ImClient, ImClient]:
    """Bob blocks Alice; they had talked before."""
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, "before")
    assert bob.must("block", user=alice.user).op == "ok"
    return alice, bob


Pair = tuple[ImClient, ImClient]


def _states(watcher: ImClient, topic: str) -> list[str]:
    """What the watcher was told on a presence topic."""
    return [str(json.loads(each.payload)["state"]) for each in watcher.plain if each.topic == topic]


def test_direct_messages_to_the_blocker_are_refused(pair: Pair) -> None:
    alice, bob = pair
    alice.refused("send", "blocked", to=bob.user, body="x", id="k", n=1)
    assert [item["body"] for item in bob.drain()] == ["before"]
    assert bob.must("unblock", user=alice.user).op == "ok"
    assert alice.must("send", to=bob.user, body="x", id="k", n=1)["seq"] == 2


def test_a_block_is_one_way(pair: Pair) -> None:
    alice, bob = pair
    bob.say(alice.user, "one way")
    assert alice.wait("msg", body="one way")


def test_groups_are_not_touched(pair: Pair, name: Name) -> None:
    alice, bob = pair
    group = name("#g")
    bob.must("group.create", group=group, members=[alice.user])
    alice.say(group, "in the group")
    assert bob.wait("msg", body="in the group")


def test_typing_of_the_blocked_user_is_dropped(pair: Pair, im: Clients, name: Name) -> None:
    alice, bob = pair
    carol = im.online(name("carol"))
    carol.say(bob.user, "hi")
    alice.request("typing", to=bob.user, on=True)
    alice.flush()
    carol.request("typing", to=bob.user, on=True)
    assert bob.wait("typing")["from"] == carol.user


def test_typing_that_was_dropped_does_not_count_as_told(pair: Pair) -> None:
    alice, bob = pair
    alice.request("typing", to=bob.user, on=True)
    alice.flush()
    bob.must("unblock", user=alice.user)
    alice.request("typing", to=bob.user, on=True)
    assert bob.wait("typing")["from"] == alice.user


def test_the_blockers_typing_and_presence_hide_from_the_blocked(pair: Pair, im: Clients, name: Name) -> None:
    alice, bob = pair
    carol = im.online(name("carol"))
    carol.say(alice.user, "hi")
    bob.request("typing", to=alice.user, on=True)
    bob.flush()
    carol.request("typing", to=alice.user, on=True)
    assert alice.wait("typing")["from"] == carol.user
    topic = f"{PREFIX}/{bob.user}/presence"
    granted = alice.subscribe(topic)
    alice.flush()
    seen = _states(alice, topic)
    assert granted == [REFUSED] or set(seen) <= {"offline"}


def test_a_watcher_who_is_blocked_is_told_nothing_more(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, "hi")
    topic = f"{PREFIX}/{bob.user}/presence"
    alice.subscribe(topic)

    alice.until(lambda: _states(alice, topic) == ["online"], "online")
    bob.must("block", user=alice.user)
    bob.disconnect()
    bob = im.online(bob.user)
    bob.must("unblock", user=alice.user)
    alice.until(lambda: len(_states(alice, topic)) > 1, "online again")
    assert _states(alice, topic) == ["online", "online"]


def test_a_will_that_changes_who_sees_what_does_so_at_once(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, "hi")
    topic = f"{PREFIX}/{bob.user}/presence"
    alice.subscribe(topic)

    def leave(**request: Any) -> None:
        will = Will(f"{PREFIX}/{bob.user}/tablet/up", json.dumps({"id": request["op"], **request}).encode())
        im.sign_in(bob.user, device="tablet", will=will).abort()

    alice.until(lambda: _states(alice, topic) == ["online"], "online")
    bob.must("settings", presence=False)
    leave(op="settings", presence=True)
    alice.until(lambda: len(_states(alice, topic)) > 1, "online again")
    assert _states(alice, topic) == ["online", "online"]
    leave(op="device.forget", device=bob.device)
    bob.until_closed()


def test_marks_and_typing_of_the_blocker_hide_from_the_blocked(im: Clients, name: Name) -> None:
    """Not a packet more, also in groups, and nothing in `convs`."""
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    group = name("#g")
    alice.must("group.create", group=group, members=[bob.user])
    bob.wait("msg", conv=group)
    bob.must("block", user=alice.user)
    alice.drain()
    before = len(alice.events)
    bob.confirmed("typing", to=group, on=True)
    alice.say(group, "one")
    bob.confirmed("read", conv=group, seq=bob.wait("msg", seq=2)["seq"])
    bob.flush()
    alice.drain()
    assert [event.op for event in alice.events[before:] if event.op in ("receipt", "typing")] == []
    receipts = alice.must("convs")["convs"][0]["receipts"]
    assert bob.user not in receipts
    assert bob.user in bob.must("convs")["convs"][0]["receipts"]


def test_who_is_blocked_brings_the_blocker_into_no_group(im: Clients, name: Name) -> None:
    alice, bob, carol = (im.online(name(word)) for word in ("alice", "bob", "carol"))
    bob.must("block", user=alice.user)
    group = name("#g")
    made = alice.must("group.create", group=group, members=[bob.user, carol.user], id="c")
    assert made["left_out"] == [bob.user]
    assert alice.must("group.create", group=group, members=[bob.user, carol.user], id="c")["left_out"] == [bob.user]
    assert [entry["user"] for entry in alice.must("group.info", group=group)["members"]] == sorted([alice.user, carol.user])
    assert alice.must("group.add", group=group, members=[bob.user])["left_out"] == [bob.user]
    assert "left_out" not in carol.must("group.leave", group=group)
    bob.flush()
    assert [item for item in bob.items if item["conv"] == group] == []


def test_blocks_repeat_harmlessly_and_survive_sigkill(own_im: Clients) -> None:
    """There `id` is only echoed."""
    bob = own_im.online("bob")
    for user in ("alice", "alice", "carol"):
        assert bob.must("block", user=user, id="b")["id"] == "b"
    bob.must("unblock", user="carol", id="b")
    own_im.server.restart(kill=True)
    own_im.online("alice").refused("send", "blocked", to="bob", body="x")
    own_im.online("carol").say("bob", "x")


@pytest.mark.parametrize("user", ["", "a b", "#g", 5, None])
def test_block_with_a_wrong_user(im: Clients, name: Name, user: Any) -> None:
    im.online(name("bob")).refused("block", "bad_field", user=user)


# Mute


def test_mute_is_told_by_convs(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = alice.say(bob.user, "x")["conv"]
    far = 4_102_444_800_000
    assert bob.must("mute", conv=conv, until=far).op == "ok"
    assert bob.must("convs")["convs"][0]["muted"] == far
    assert not alice.must("convs")["convs"][0].get("muted")
    alice.say(bob.user, "still delivered")
    bob.wait("msg", body="still delivered")
    bob.must("mute", conv=conv, until=0)
    assert not bob.must("convs")["convs"][0].get("muted")


def test_mute_repeats_harmlessly(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = alice.say(bob.user, "x")["conv"]
    for until in (4_102_444_800_000, 4_102_444_900_000, 0):
        assert bob.must("mute", conv=conv, until=until, id="m")["id"] == "m"


def test_mute_is_for_members(im: Clients, name: Name) -> None:
    client = im.online(name("mallory"))
    client.refused("mute", "not_member", conv=direct(name("alice"), name("bob")), until=0)
    client.refused("mute", "bad_field", conv=direct(client.user, name("bob")), until="tomorrow")
