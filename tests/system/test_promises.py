"""PROTOCOL.md §1: the promises, each on its own (INV-1 to INV-4, INV-14). The chaos checker holds all of them together."""

from __future__ import annotations

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.im import ImClient, direct
from tests.support.raw import Closed
from tests.system.conftest import Clients, Name


def reaches(client: ImClient, conv: str, seq: int) -> None:
    client.until(lambda: any(item.data.get("conv") == conv and item["seq"] == seq for item in client.items), f"{conv} {seq}")


def test_what_was_acknowledged_survives_sigkill(own_server: ServerProcess, own_im: Clients) -> None:
    """Durable before acknowledged: PUBACK is the final answer, and its effect is committed."""
    sender = own_im.sign_in("alice")
    for number in range(200):
        sender.request("send", to="bob", body=number, id=f"m{number}")
    sender.acknowledged(120)
    own_server.kill()
    with pytest.raises(Closed):
        sender.until(lambda: False, "the end")
    acknowledged = len(sender.pubacks)
    own_server.start()
    got = own_im.online("bob").drain()
    assert [item["body"] for item in got] == list(range(len(got)))
    assert len(got) >= acknowledged


def test_what_was_answered_with_sent_survives_sigkill(own_server: ServerProcess, own_im: Clients) -> None:
    """One that saw `sent` knows that it was committed, with that seq for ever."""
    alice = own_im.online("alice")
    sent = [alice.say("bob", number) for number in range(30)]
    own_server.restart(kill=True)
    page = own_im.online("bob").must("history", conv="alice:bob", limit=100)
    assert [(item["seq"], item["body"]) for item in page["items"]] == [(answer["seq"], n) for n, answer in enumerate(sent)]


def test_an_item_is_offered_until_it_is_acknowledged(own_server: ServerProcess, own_im: Clients) -> None:
    """No loss: offered to every registered device through any number of crashes, restarts and reconnects."""
    own_im.online("bob", "phone").close()
    own_im.online("bob", "laptop").close()
    own_im.sign_in("alice").confirmed("send", to="bob", body="still here", id="1")
    for kill in (True, False, True):
        for device in ("phone", "laptop"):
            bob = own_im.socket("bob", device)
            bob.auto_ack = False
            bob.sign_in().listen()
            assert bob.wait("msg")["body"] == "still here"
            bob.close()
        own_server.restart(kill=kill)
    for device in ("phone", "laptop"):
        bob = own_im.online("bob", device)
        assert bob.wait("msg")["body"] == "still here"
        bob.drain()
        bob.disconnect()
        again = own_im.online("bob", device)
        assert all(item.data.get("body") != "still here" for item in again.drain())


def test_the_answer_to_a_repeat_overtakes_no_item_by_its_number(im: Clients, name: Name) -> None:
    """Who drops what has a `pos` up to the newest that came, loses nothing by repeating a request while items are behind."""
    alice, bob = name("alice"), name("bob")
    im.online(alice, "phone").disconnect()
    laptop, peer = im.online(alice, "laptop"), im.online(bob)
    for number in range(5):
        peer.say(alice, number)
    laptop.must("send", to=bob, body="once", id="only")
    phone = im.sign_in(alice, "phone")
    phone.auto_ack = False
    phone.listen()
    phone.request("send", to=bob, body="once", id="only")
    answer = phone.wait("sent", id="only", dup=True)
    assert answer["seq"] == 6 and "pos" not in answer.data
    laptop.request("send", to=bob, body="once", id="only")
    assert laptop.wait("sent", id="only", dup=True)["pos"] == 6


def test_a_repeat_makes_no_second_effect(im: Clients, name: Name) -> None:
    """No duplicates: one (user, id), one effect, from whichever device."""
    alice, bob = name("alice"), name("bob")
    phone, laptop, peer = im.online(alice, "phone"), im.online(alice, "laptop"), im.online(bob)
    first = phone.must("send", to=bob, body="once", id="only")
    for client in (phone, laptop, im.sign_in(alice, "third").listen()):
        again = client.must("send", to=bob, body="once", id="only")
        assert (again["seq"], again["ts"], again["dup"]) == (first["seq"], first["ts"], True)
    assert [item["body"] for item in peer.drain()] == ["once"]
    assert peer.must("convs")["convs"][0]["seq"] in (1, 2)
    assert len(peer.must("history", conv=direct(alice, bob))["items"]) == 1


def test_an_id_belongs_to_its_user(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one, other = im.online(alice), im.online(bob)
    assert one.must("send", to=bob, body="a", id="same")["seq"] == 1
    answer = other.must("send", to=alice, body="b", id="same")
    assert answer["seq"] == 2
    assert "dup" not in answer or answer["dup"] is False


def test_a_repeat_is_recognised_after_sigkill(own_server: ServerProcess, own_im: Clients) -> None:
    first = own_im.online("alice").must("send", to="bob", body="once", id="only")
    own_server.restart(kill=True)
    alice = own_im.online("alice")
    alice.request("send", to="bob", body="once", id="only")
    again = alice.wait("sent", id="only", dup=True)
    assert (again["seq"], again["ts"]) == (first["seq"], first["ts"])
    assert [item["body"] for item in own_im.online("bob").drain()] == ["once"]


def test_seq_and_pos_number_without_gaps(im: Clients, name: Name) -> None:
    """Order: seq is 1, 2, 3, … of a conversation, the same for all; pos is 1, 2, 3, … of an inbox."""
    users = [name(word) for word in ("alice", "bob", "carol")]
    clients = [im.online(user) for user in users]
    group = name("#ops")
    clients[0].must("group.create", group=group, members=users[1:])
    for turn in range(20):
        for user, client in zip(users, clients, strict=True):
            client.request("send", to=group, body=f"{user} {turn}")
    views = []
    for client in clients:
        reaches(client, group, 61)
        client.drain()
        assert client.positions == list(range(1, len(client.positions) + 1))
        views.append({item["seq"]: item["pos"] for item in client.items if item.data.get("conv") == group})
        assert list(views[-1]) == list(range(1, 62))
    history = [client.must("history", conv=group, limit=100)["items"] for client in clients]
    texts = [[(item["seq"], item["from"], item.get("body")) for item in page] for page in history]
    assert texts[0] == texts[1] == texts[2]


def test_what_one_device_publishes_is_committed_in_that_order(im: Clients, name: Name) -> None:
    """Order, over several conversations and all QoS."""
    alice, bob, carol = name("alice"), name("bob"), name("carol")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    for number in range(90):
        phone.request("send", to=(bob, carol)[number % 2], body=number, id=f"m{number}", qos=(1, 2, 0)[number % 3])
    laptop.received(90)
    assert [item["body"] for item in laptop.items] == list(range(90))


def test_a_new_connection_begins_after_what_the_old_one_handed_in(im: Clients, name: Name) -> None:
    """Order: what a taken-over connection had handed in is finished before the new connection's begins."""
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    total = 0
    for _ in range(5):
        old = im.sign_in(alice)
        for _ in range(40):
            old.request("send", to=bob, body=total)
            total += 1
        new = im.sign_in(alice)
        new.request("send", to=bob, body=total)
        total += 1
        old.wait_closed()
    peer.until(lambda: any(item["body"] == total - 1 for item in peer.items), "the last message")
    bodies = [item["body"] for item in peer.items]
    assert bodies == sorted(bodies), "a later connection's message came before an earlier one's"
    assert len(set(bodies)) == len(bodies)
