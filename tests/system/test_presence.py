"""PROTOCOL.md §§2–3: presence and typing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support import packets
from tests.support.im import PREFIX, ImClient
from tests.support.proxy import ProxyThread
from tests.system.conftest import Clients, Name

REFUSED = 0x80


def topic(user: str) -> str:
    return f"{PREFIX}/{user}/presence"


def states(watcher: ImClient, user: str) -> list[dict[str, Any]]:
    return [json.loads(each.payload) for each in watcher.plain if each.topic == topic(user)]


def becomes(watcher: ImClient, user: str, state: str) -> dict[str, Any]:
    """Wait until the last word on `user` is `state`."""
    watcher.until(lambda: (seen := states(watcher, user)) and seen[-1]["state"] == state, f"{user} {state}")
    return states(watcher, user)[-1]


@pytest.fixture
def friends(im: Clients, name: Name) -> tuple[ImClient, ImClient]:
    """Two users who share a conversation; the first watches the second."""
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, "hi")
    bob.wait("msg")
    assert alice.subscribe(topic(bob.user)) == [1]
    return alice, bob


Friends = tuple[ImClient, ImClient]


def test_presence_is_retained(friends: Friends) -> None:
    """What a new subscription gets at once, with RETAIN 1."""
    alice, bob = friends
    assert becomes(alice, bob.user, "online") == {"state": "online"}
    assert next(each.retain for each in alice.plain if each.topic == topic(bob.user)) is True


@pytest.mark.parametrize("how", ["disconnect", "close", "abort"])
def test_offline_with_last_seen(friends: Friends, how: str) -> None:
    """By DISCONNECT, or will-like when a connection dies."""
    alice, bob = friends
    becomes(alice, bob.user, "online")
    before = int(time.time() * 1000)
    getattr(bob, how)()
    seen = becomes(alice, bob.user, "offline")
    assert set(seen) == {"state", "last_seen"}
    assert before - 2_000 <= seen["last_seen"] <= int(time.time() * 1000) + 1


def test_a_connection_that_dies_silently_goes_offline(im: Clients, name: Name) -> None:
    alice = im.online(name("alice"))
    bob = name("bob")
    alice.say(bob, "hi")
    alice.subscribe(topic(bob))
    with ProxyThread(im.server.mqtt_port) as proxy:
        im.online(bob, port=proxy.port, keepalive=1)
        becomes(alice, bob, "online")
        proxy.stall()
        becomes(alice, bob, "offline")


def test_online_while_any_device_is(friends: Friends, im: Clients) -> None:
    alice, bob = friends
    laptop = im.online(bob.user, "laptop")
    becomes(alice, bob.user, "online")
    bob.disconnect()
    laptop.flush()
    laptop.say(alice.user, "still here")
    alice.wait("msg", body="still here")
    assert {seen["state"] for seen in states(alice, bob.user)} == {"online"}
    laptop.disconnect()
    becomes(alice, bob.user, "offline")


def test_who_shares_no_conversation_is_refused(friends: Friends, im: Clients, name: Name) -> None:
    _, bob = friends
    stranger = im.online(name("stranger"))
    assert stranger.subscribe(topic(bob.user)) == [REFUSED]
    assert stranger.subscribe(topic(stranger.user)) == [1]
    assert stranger.subscribe(f"{PREFIX}/+/presence") == [REFUSED]


def test_members_of_a_group_watch_each_other(im: Clients, name: Name) -> None:
    alice, bob, carol = (im.online(name(word)) for word in ("alice", "bob", "carol"))
    alice.must("group.create", group=name("#g"), members=[bob.user, carol.user])
    assert bob.subscribe(topic(carol.user)) == [1]
    becomes(bob, carol.user, "online")


def end(how: str, alice: ImClient, bob: ImClient, owner: ImClient, group: str) -> None:
    """The last group in which both were has ended for one of them."""
    if how == "leave":
        alice.must("group.leave", group=group)
    elif how == "the other leaves":
        bob.must("group.leave", group=group)
    elif how == "removed":
        owner.must("group.remove", group=group, members=[alice.user])
    elif how == "the other is removed":
        owner.must("group.remove", group=group, members=[bob.user])
    else:
        for each in (bob, owner, alice):
            each.must("group.leave", group=group)


@pytest.mark.parametrize("how", ["leave", "the other leaves", "removed", "the other is removed", "everybody leaves"])
def test_watchers_learn_nothing_after_the_last_group_ended(im: Clients, name: Name, how: str) -> None:
    """Neither of the two, of the other's coming or going, nor by subscribing anew, nor by a kept subscription."""
    alice, bob, owner = im.online(name("alice")), im.online(name("bob")), im.online(name("owner"))
    friend, tablet = im.online(name("friend")), im.online(alice.user, "tablet", clean=False)
    group = f"#{name('group')}"
    owner.must("group.create", group=group, members=[alice.user, bob.user])
    friend.say(bob.user, "hi")
    assert friend.subscribe(topic(bob.user)) == alice.subscribe(topic(bob.user)) == bob.subscribe(topic(alice.user)) == [1]
    assert tablet.subscribe(topic(bob.user)) == [1]
    for watcher, user in ((friend, bob.user), (alice, bob.user), (bob, alice.user), (tablet, bob.user)):
        becomes(watcher, user, "online")
    tablet.disconnect()
    end(how, alice, bob, owner, group)
    alice.flush()
    alice.plain.clear()
    bob.close()
    becomes(friend, bob.user, "offline")
    again = im.online(alice.user, "tablet", clean=False)
    bob = im.online(bob.user)
    becomes(friend, bob.user, "online")
    assert alice.subscribe(topic(bob.user)) == bob.subscribe(topic(alice.user)) == [REFUSED]
    for watcher, user in ((alice, bob.user), (again, bob.user), (bob, alice.user)):
        watcher.flush()
        assert states(watcher, user) == []


def test_nobody_stays_falsely_online_after_a_restart(own_im: Clients) -> None:
    server = own_im.server
    alice, bob = own_im.online("alice", clean=False), own_im.online("bob")
    alice.say("bob", "hi")
    alice.subscribe(topic("bob"))
    becomes(alice, "bob", "online")
    bob.flush()
    server.restart(kill=True)
    alice = own_im.sign_in("alice", clean=False)
    assert alice.session_present
    becomes(alice, "bob", "offline")


def test_a_kept_subscription_to_presence_goes_on(friends: Friends, im: Clients, name: Name) -> None:
    alice, bob = friends
    watcher = im.online(alice.user, "tablet", clean=False)
    watcher.subscribe(topic(bob.user))
    watcher.disconnect()
    watcher = im.sign_in(alice.user, "tablet", clean=False)
    becomes(watcher, bob.user, "online")
    bob.disconnect()
    becomes(watcher, bob.user, "offline")


def test_who_hides_presence_is_not_seen(friends: Friends, im: Clients) -> None:
    """`settings` presence: false: others get nothing at all from then on."""
    alice, bob = friends
    becomes(alice, bob.user, "online")
    bob.must("settings", presence=False)
    bob.must("settings", presence=True)
    alice.until(lambda: len(states(alice, bob.user)) == 2, "the next one")
    assert [state["state"] for state in states(alice, bob.user)] == ["online", "online"]


def test_one_watches_ones_own_presence(im: Clients, name: Name) -> None:
    alice = im.online(name("alice"))
    assert alice.subscribe(topic(alice.user)) == [1]
    becomes(alice, alice.user, "online")


def test_presence_is_no_item(friends: Friends) -> None:
    alice, bob = friends
    becomes(alice, bob.user, "online")
    bob.disconnect()
    becomes(alice, bob.user, "offline")
    assert all("pos" not in json.loads(each.payload) for each in alice.plain)
    alice.drain()
    assert alice.positions == list(range(1, len(alice.positions) + 1))


def test_unsubscribing_ends_it(friends: Friends, im: Clients) -> None:
    alice, bob = friends
    becomes(alice, bob.user, "online")
    other = im.online(alice.user, "tablet")
    other.subscribe(topic(bob.user))
    alice.unsubscribe(topic(bob.user))
    seen = len(states(alice, bob.user))
    bob.disconnect()
    becomes(other, bob.user, "offline")
    alice.flush()
    assert len(states(alice, bob.user)) == seen


# Typing


def test_typing_reaches_the_others_at_qos_0(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    conv = alice.say(bob.user, "x")["conv"]
    bob.wait("msg")
    alice.request("typing", qos=0, to=bob.user, on=True)
    got = bob.wait("typing")
    assert got.data == {"op": "typing", "conv": conv, "from": alice.user, "on": True}
    assert got.packet.qos == 0
    assert all(event.op != "typing" for event in alice.events)


def test_typing_in_a_group(im: Clients, name: Name) -> None:
    alice, bob, carol, dave = (im.online(name(word)) for word in ("alice", "bob", "carol", "dave"))
    group = name("#g")
    alice.must("group.create", group=group, members=[bob.user, carol.user])
    alice.request("typing", qos=0, to=group, on=True)
    for client in (bob, carol):
        assert client.wait("typing")["conv"] == group
    dave.request("typing", id="t", to=group, on=True)
    assert dave.reply("t")["code"] == "not_member"


def test_typing_is_never_stored(im: Clients, name: Name) -> None:
    alice, bob, carol = im.online(name("alice")), name("bob"), im.online(name("carol"))
    group = alice.must("group.create", members=[bob, carol.user])["group"]
    alice.request("typing", qos=0, to=group, on=True)
    carol.wait("typing")
    client = im.online(bob)
    assert [item.op for item in client.drain()] == ["msg"]
    assert all(event.op != "typing" for event in client.events)


@pytest.mark.parametrize("fields", [{"on": True}, {"to": "x"}, {"to": "a b", "on": True}, {"to": "x", "on": "yes"}], ids=repr)
def test_typing_with_wrong_fields(im: Clients, name: Name, fields: dict[str, Any]) -> None:
    alice = im.online(name("alice"))
    alice.request("typing", id="t", **fields)
    assert alice.reply("t")["code"] == "bad_field"


def test_every_change_of_typing_is_told(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, "x")
    for on in (True, False, True, False):
        alice.request("typing", to=bob.user, on=on)
        assert bob.wait("typing", on=on)["from"] == alice.user


def test_a_flood_of_typing_does_not_reach_the_others_whole(im: Clients, name: Name) -> None:
    """Rate-limited: repeats of the same state are coalesced, and the sender is not punished."""
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, "x")
    for _ in range(60):
        alice.request("typing", qos=0, to=bob.user, on=True)
    alice.request("typing", qos=0, to=bob.user, on=False)
    alice.say(bob.user, "done")
    bob.wait("msg", body="done")
    bob.flush()
    assert len([event for event in bob.events if event.op == "typing"]) < 60
    alice.send(packets.packet(packets.PINGREQ))
    alice.flush()
