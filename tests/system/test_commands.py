"""PROTOCOL.md §3: device commands: `ttl`, `key`, `void`, `report`."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.im import ImClient
from tests.support.raw import eventually
from tests.system.conftest import Clients, Name


def expired(sent: Any, ttl: int) -> None:
    """Wait until a message's time is over by the clock that both sides share here."""
    eventually(lambda: time.time() * 1000 > sent["ts"] + ttl * 1000 + 50, "the end of the message's time")


def test_a_message_in_time_is_offered(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, "open the door", ttl=60)
    assert bob.wait("msg")["body"] == "open the door"


def test_what_has_expired_is_not_offered_and_leaves_a_void(im: Clients, name: Name) -> None:
    """In the recipient's inbox, never in the sender's; history shows it."""
    alice, bob = im.online(name("alice")), name("bob")
    laptop = im.online(alice.user, "laptop")
    alice.say(bob, "one")
    sent = alice.say(bob, "too late", ttl=1)
    alice.say(bob, "three")
    expired(sent, 1)
    client = im.online(bob)
    items = client.drain()
    assert [(item.op, item["pos"]) for item in items] == [("msg", 1), ("void", 2), ("msg", 3)]
    assert (items[1]["from"], items[1]["why"]) == (2, "expired")
    assert b"too late" not in items[1].packet.payload
    assert [item["body"] for item in client.must("history", conv=sent["conv"])["items"]] == ["one", "too late", "three"]
    assert [item["body"] for item in laptop.drain()] == ["one", "too late", "three"]
    assert [item.get("op") for item in alice.must("sync", after=0, limit=3)["items"]] == ["sent"] * 3


def test_an_expired_item_is_a_void_in_sync_too(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), name("bob")
    sent = alice.say(bob, "late", ttl=1)
    expired(sent, 1)
    client = im.sign_in(bob).listen()
    page = client.must("sync", after=0)
    assert [(item["op"], item["pos"], item["why"]) for item in page["items"]] == [("void", 1, "expired")]


def test_a_key_replaces_what_no_device_has_been_offered(im: Clients, name: Name) -> None:
    """The same sender, conversation and key."""
    alice, bob = im.online(name("alice")), name("bob")
    for degrees in (18, 19, 20):
        alice.say(bob, degrees, key="temperature")
    alice.say(bob, "other key", key="light")
    items = im.online(bob).drain()
    voids = [item for item in items if item.op == "void"]
    assert [item["body"] for item in items if item.op == "msg"] == [20, "other key"]
    assert {item["why"] for item in voids} == {"replaced"}
    covered = [pos for item in voids for pos in range(item["from"], item["pos"] + 1)]
    assert covered == [1, 2]
    assert len(alice.must("history", conv=f"{min(alice.user, bob)}:{max(alice.user, bob)}")["items"]) == 4


def test_what_was_offered_is_not_replaced(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    alice.say(bob.user, 18, key="temperature")
    bob.wait("msg", body=18)
    alice.say(bob.user, 19, key="temperature")
    bob.wait("msg", body=19)
    assert [item.op for item in bob.drain()] == ["msg", "msg"]
    page = bob.must("sync", after=0, limit=2)
    assert [item["op"] for item in page["items"]] == ["msg", "msg"]


def test_what_was_offered_before_a_kill_is_not_replaced_after_it(own_im: Clients) -> None:
    bob = own_im.socket("bob")
    bob.auto_ack = False
    bob.sign_in().listen()
    alice = own_im.online("alice")
    alice.say("bob", 18, key="temperature")
    bob.wait("msg", body=18)
    own_im.server.restart(kill=True)
    alice = own_im.online("alice")
    alice.must("send", to="bob", body=19, key="temperature", id="second")
    assert [(item.op, item.data.get("body")) for item in own_im.online("bob").drain()] == [("msg", 18), ("msg", 19)]


def test_what_was_not_offered_is_replaced_over_a_restart_too(own_im: Clients) -> None:
    own_im.online("bob").disconnect()
    own_im.online("alice").say("bob", 18, key="temperature")
    own_im.server.restart()
    own_im.online("alice").must("send", to="bob", body=19, key="temperature", id="second")
    items = own_im.online("bob").drain()
    assert [(item.op, item["pos"]) for item in items] == [("void", 1), ("msg", 2)]


def test_another_senders_key_replaces_nothing(im: Clients, name: Name) -> None:
    alice, carol, bob = im.online(name("alice")), im.online(name("carol")), name("bob")
    group = name("#g")
    alice.must("group.create", group=group, members=[carol.user, bob])
    alice.say(group, "a", key="k")
    carol.say(group, "c", key="k")
    assert [item.data.get("body") for item in im.online(bob).drain() if item.op == "msg"] == [None, "a", "c"]


def test_a_replaced_item_stays_a_void_for_every_device(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), name("bob")
    alice.say(bob, 1, key="k")
    alice.say(bob, 2, key="k")
    one = im.online(bob, "one")
    one.drain()
    one.must("hello", after=0)
    one.until(lambda: len([item for item in one.items if item.op == "msg" and item["body"] == 2]) == 2, "the items again")
    assert not any(item.op == "msg" and item["body"] == 1 for item in one.items)


# Reports


def command(alice: ImClient, bob: ImClient) -> dict[str, Any]:
    sent = alice.say(bob.user, {"cmd": "reboot"}, ttl=60)
    bob.wait("msg", seq=sent["seq"])
    return sent.data


@pytest.mark.parametrize("state", ["executed", "failed"])
def test_the_messages_sender_gets_the_report(im: Clients, name: Name, state: str) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    laptop = im.online(alice.user, "laptop")
    sent = command(alice, bob)
    answer = bob.must("report", conv=sent["conv"], seq=sent["seq"], state=state, result={"took": 3}, id="r")
    assert (answer.op, answer["id"]) == ("ok", "r")
    for client in (alice, laptop):
        item = client.wait("report")
        assert (item["conv"], item["seq"], item["by"], item["state"], item["result"]) == (
            sent["conv"], sent["seq"], bob.user, state, {"took": 3},
        )  # fmt: skip
        assert item["pos"] == 2
        assert item["ts"] >= sent["ts"]
    assert all(item.op != "report" for item in bob.drain())


def test_a_report_without_result(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    sent = command(alice, bob)
    bob.must("report", conv=sent["conv"], seq=sent["seq"], state="executed")
    assert "result" not in alice.wait("report")


def test_a_repeated_report_is_one_item(im: Clients, name: Name) -> None:
    alice, bob = im.online(name("alice")), im.online(name("bob"))
    sent = command(alice, bob)
    fields = {"conv": sent["conv"], "seq": sent["seq"], "id": "r"}
    bob.must("report", state="executed", **fields)
    assert bob.must("report", state="executed", **fields)["dup"] is True
    bob.refused("report", "conflict", state="failed", **fields)
    assert len([item for item in alice.drain() if item.op == "report"]) == 1


def test_who_is_not_in_the_conversation_reports_nothing(im: Clients, name: Name) -> None:
    alice, bob, mallory = im.online(name("alice")), im.online(name("bob")), im.online(name("mallory"))
    sent = command(alice, bob)
    mallory.refused("report", "not_member", conv=sent["conv"], seq=sent["seq"], state="executed")
    bob.refused("report", "bad_field", conv=sent["conv"], seq=sent["seq"], state="pondering")
    answer = bob.ask("report", conv=sent["conv"], seq=99, state="executed")
    assert answer["code"] in ("not_found", "bad_field")


def test_the_whole_story_of_a_command_is_readable_by_its_sender(own_im: Clients) -> None:
    """Accepted (`sent`), delivered (`receipt`), executed (`report`); over a SIGKILL between each."""
    alice = own_im.online("controller")
    sent = alice.say("gateway", "open", ttl=600)
    own_im.server.restart(kill=True)
    alice, bob = own_im.online("controller"), own_im.online("gateway")
    bob.wait("msg", body="open")
    alice.until(
        lambda: any(e.op == "receipt" and e.data.get("delivered", 0) >= 1 and e["by"] == "gateway" for e in alice.events),
        "the delivered receipt",
    )
    own_im.server.restart(kill=True)
    bob = own_im.online("gateway")
    bob.must("report", conv=sent["conv"], seq=1, state="executed", id="r")
    own_im.server.restart(kill=True)
    alice = own_im.online("controller")
    assert alice.wait("report")["state"] == "executed"
