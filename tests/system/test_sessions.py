"""PROTOCOL.md §4: clean and kept sessions, redelivery, restart, take-over, keep-alive."""

from __future__ import annotations

import json
import signal

import pytest

from mqtt_im.testing import ServerProcess
from tests.support import packets
from tests.support.im import PREFIX, Event, ImClient, codec_of, encode
from tests.support.proxy import Fault, ProxyThread, Way
from tests.system.conftest import Clients, Name

CONFIG = {"limits.max_inflight": 10}


def manual(im: Clients, user: str, *, clean: bool = False, port: int | None = None) -> ImClient:
    client = im.socket(user, port=port)
    client.auto_ack = False
    client.sign_in(clean=clean)
    return client if client.session_present else client.listen()


def send_all(sender: ImClient, to: str, bodies: range) -> None:
    wanted = len(sender.pubacks) + len(bodies)
    for number in bodies:
        sender.request("send", to=to, body=number)
    sender.acknowledged(wanted)


# Clean session 0


def test_session_present_and_subscriptions_are_kept(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    first = im.sign_in(bob, clean=False)
    assert first.session_present is False
    first.listen()
    first.disconnect()
    im.online(alice).say(bob, "while away")
    again = im.sign_in(bob, clean=False)
    assert again.session_present is True
    got = again.wait("msg")
    assert (got["body"], got.packet.topic) == ("while away", f"{PREFIX}/{bob}/down")
    again.flush()


def test_catch_up_starts_with_connack(im: Clients, name: Name) -> None:
    """The server asks nothing: items come before the client has sent anything but CONNECT."""
    alice, bob = name("alice"), name("bob")
    im.online(bob, clean=False).disconnect()
    send_all(im.sign_in(alice), bob, range(25))
    client = im.sign_in(bob, clean=False)
    client.received(25)
    assert client.positions == list(range(1, 26))


@pytest.mark.parametrize("kill", [True, False])
def test_sessions_are_kept_over_a_restart(own_server: ServerProcess, own_im: Clients, kill: bool) -> None:
    kept = own_im.sign_in("bob", clean=False)
    kept.subscribe((f"{PREFIX}/bob/down", 1), (f"{PREFIX}/bob/phone/down", 0))
    sender = own_im.online("alice", clean=False)
    sender.say("bob", "before")
    kept.wait("msg")
    own_server.restart(kill=kill)
    sender = own_im.sign_in("alice", clean=False)
    assert sender.session_present is True
    sender.say("bob", "after")
    kept = own_im.sign_in("bob", clean=False)
    assert kept.session_present is True
    got = kept.wait("msg", body="after")
    assert got.packet.qos == 1
    assert kept.must("devices").packet.qos == 0


def test_clean_session_1_discards_the_subscriptions_never_the_cursor(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    sender = im.sign_in(alice)
    client = im.online(bob, clean=False)
    send_all(sender, bob, range(5))
    client.drain()
    client.disconnect()
    client = im.sign_in(bob, clean=True)
    assert client.session_present is False
    send_all(sender, bob, range(5, 7))
    client.send(packets.packet(packets.PINGREQ))
    assert client.expect(packets.PINGRESP).kind == packets.PINGRESP
    assert client.events == []
    client.listen()
    assert [item["body"] for item in client.drain()] == [5, 6]
    client.disconnect()
    assert im.sign_in(bob, clean=False).session_present is False


@pytest.mark.parametrize("kept", [True, False])
def test_a_hello_that_comes_with_connect_is_heard_before_anything_is_delivered(im: Clients, name: Name, kept: bool) -> None:
    alice, bob = name("alice"), name("bob")
    im.online(bob, clean=False).disconnect()
    send_all(im.sign_in(alice), bob, range(20))
    client = im.socket(bob)
    hello = {"op": "hello", "id": "h", "codec": "msgpack", "batch": True, "zip": True, "after": 0}
    client.send(
        packets.connect("phone", username=bob, clean=not kept)
        + packets.subscribe(1, (f"{PREFIX}/{bob}/down", 1))
        + packets.publish(f"{PREFIX}/{bob}/phone/up", json.dumps(hello).encode(), packet_id=2)
    )
    assert client.expect(packets.CONNACK).body == bytes((kept, 0))
    client.until(lambda: client.positions == list(range(1, 21)), "the items, once each")
    assert client.events[0].op == "welcome"
    assert {codec_of(event.packet.payload) for event in client.events[1:]} == {"msgpack+zip"}
    assert len({event.packet.packet_id for event in client.events[1:]}) < 5, "in batches"


def test_a_hello_that_is_refused_holds_up_nothing(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    im.online(bob, clean=False).disconnect()
    send_all(im.sign_in(alice), bob, range(3))
    client = im.socket(bob)
    hello = json.dumps({"op": "hello", "id": "h", "after": 1_000}).encode()
    client.send(packets.connect("phone", username=bob, clean=False) + packets.publish(client.up_topic, hello, packet_id=2))
    client.expect(packets.CONNACK)
    client.wait("error", code="bad_field")
    client.until(lambda: client.positions == [1, 2, 3], "the items")


def test_unsubscribed_topics_stay_unsubscribed(own_server: ServerProcess, own_im: Clients) -> None:
    client = own_im.online("bob", clean=False)
    client.unsubscribe(f"{PREFIX}/bob/down")
    client.disconnect()
    own_server.restart()
    client = own_im.sign_in("bob", clean=False)
    assert client.session_present is True
    own_im.online("alice").say("bob", "x")
    assert client.wait("msg").packet.topic == f"{PREFIX}/bob/phone/down"


def as_sent(event: Event) -> tuple[int, bytes]:
    return event.packet.packet_id, event.packet.payload


@pytest.mark.parametrize("how", ["reconnect", "take-over", "kill", "restart"])
def test_what_was_in_flight_comes_first_as_it_was_sent(own_server: ServerProcess, own_im: Clients, how: str) -> None:
    """With DUP and its packet identifier (MQTT-4.4.0-1), in order, then the rest; also after SIGKILL."""
    client = manual(own_im, "bob")
    send_all(own_im.sign_in("alice"), "bob", range(15))
    client.received(10)
    client.puback(client.items[0])
    client.puback(client.items[1])
    client.received(12)
    client.request("hello", id="h")
    assert client.reply("h")["pos"] == 2
    in_flight = {event["pos"]: as_sent(event) for event in client.items}
    if how == "reconnect":
        client.abort()
    elif how != "take-over":
        own_server.restart(kill=how == "kill")
    again = manual(own_im, "bob")
    assert again.session_present is True
    again.received(10)
    # A killed server may have forgotten the last PUBACKs, which only means a repeat of what was acknowledged.
    first = again.positions[0]
    assert first == 3 or (how == "kill" and first < 3)
    assert again.positions == list(range(first, first + len(again.positions)))
    for event in again.items:
        if event["pos"] <= 12:
            assert as_sent(event) == in_flight[event["pos"]]
            assert event.packet.dup, f"{event.data} was in flight and came without DUP"
    again.auto_ack = True
    for event in list(again.items):
        again.puback(event)
    again.until(lambda: again.positions[-1] == 15, "everything")
    assert again.positions == list(range(first, 16))
    if how in ("reconnect", "take-over"):  # after a restart nobody knows whether it was sent
        assert not again.items[-1].packet.dup


@pytest.mark.parametrize("reading", [0, 3])
def test_quick_reconnects_forget_nothing_in_flight(im: Clients, name: Name, reading: int) -> None:
    """Connections that end before, or while, the redelivery goes on: it still has DUP and the same identifiers."""
    alice, bob = name("alice"), name("bob")
    client = manual(im, bob)
    send_all(im.sign_in(alice), bob, range(10))
    client.received(10)
    in_flight = [as_sent(event) for event in client.items]
    for turn in range(20):
        (client.abort, client.close)[turn % 2]()
        client = manual(im, bob)
        client.received(reading)
    client.received(10)
    assert [as_sent(event) for event in client.items] == in_flight
    assert all(event.packet.dup for event in client.items)


def test_quick_reconnects_after_a_kill_forget_nothing_in_flight(own_im: Clients) -> None:
    client = manual(own_im, "bob")
    send_all(own_im.sign_in("alice"), "bob", range(10))
    client.received(10)
    in_flight = [as_sent(event) for event in client.items]
    own_im.server.restart(kill=True)
    client = own_im.socket("bob")
    client.auto_ack = False
    hello = encode({"op": "hello", "window": 2})
    client.send(packets.connect("phone", username="bob", clean=False) + packets.publish(client.up_topic, hello, packet_id=1))
    client.expect(packets.CONNACK)
    client.received(2)
    client.abort()
    client = manual(own_im, "bob")
    client.received(10)
    assert [as_sent(event) for event in client.items] == in_flight
    assert all(event.packet.dup for event in client.items)


def test_with_a_clean_session_it_comes_again_as_new_packets(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = manual(im, bob, clean=True)
    send_all(im.sign_in(alice), bob, range(5))
    client.received(5)
    client.abort()
    again = manual(im, bob, clean=True)
    again.received(5)
    assert again.positions == [1, 2, 3, 4, 5]
    assert not any(event.packet.dup for event in again.items)


def test_pubacks_of_the_old_connection_count_over_a_reconnect(im: Clients, name: Name) -> None:
    """An identifier acknowledged out of order before the break is not sent again in a kept session."""
    alice, bob = name("alice"), name("bob")
    client = manual(im, bob)
    send_all(im.sign_in(alice), bob, range(4))
    client.received(4)
    for event in client.items:
        client.puback(event)
    client.request("hello", id="h")
    assert client.reply("h")["pos"] == 4
    client.abort()
    again = manual(im, bob)
    again.request("hello", id="i")
    again.reply("i")
    assert again.positions == []


def test_what_was_recalled_meanwhile_comes_as_it_is_now(im: Clients, name: Name) -> None:
    """… recalled or expired while it was in flight: not with its old body."""
    alice, bob = name("alice"), name("bob")
    client = manual(im, bob)
    sender = im.online(alice)
    sent = sender.say(bob, "regrettable")
    client.wait("msg")
    client.abort()
    sender.must("recall", conv=sent["conv"], seq=sent["seq"])
    again = manual(im, bob)
    got = again.wait("msg")
    assert got["pos"] == 1
    assert got["recalled"] is True
    assert "body" not in got
    assert b"regrettable" not in got.packet.payload


# Take-over and broken connections


def test_a_stalled_connection_is_taken_over(im: Clients, name: Name) -> None:
    """A half-open connection holds nothing up: the next one gets what was in flight on it."""
    alice, bob = name("alice"), name("bob")
    with ProxyThread(im.server.mqtt_port) as proxy:
        client = manual(im, bob, port=proxy.port)
        proxy.stall()
        send_all(im.sign_in(alice), bob, range(8))
        again = manual(im, bob)
        again.received(8)
        assert again.positions == list(range(1, 9))
        client.close()


@pytest.mark.parametrize(
    "way", [Way(piece=1), Way(delay_s=0.002, piece=3), Way(bytes_per_s=20_000)], ids=["bytes", "threes", "slow"]
)
def test_packets_split_at_any_byte(im: Clients, name: Name, way: Way) -> None:
    alice, bob = name("alice"), name("bob")
    with ProxyThread(im.server.mqtt_port, Fault(way, way)) as proxy:
        sender, client = im.online(alice, port=proxy.port), im.online(bob, port=proxy.port)
        send_all(sender, bob, range(10))
        client.received(10)
        assert [item["body"] for item in client.items] == list(range(10))


@pytest.mark.parametrize("after", range(20, 400, 37))
def test_a_connection_cut_in_the_middle_of_a_packet(im: Clients, name: Name, after: int) -> None:
    """What was not acknowledged is repeated by both sides; nothing is lost or doubled."""
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob, clean=False)
    with ProxyThread(im.server.mqtt_port, Fault(up=Way(cut_after=after))) as proxy:
        sender = im.socket(alice, port=proxy.port)
        stream = packets.connect("phone", username=alice)
        for number in range(5):
            request = encode({"op": "send", "to": bob, "body": number, "id": f"m{number}"})
            stream += packets.publish(sender.up_topic, request, packet_id=number + 1)
        sender.send(stream)
        sender.until_closed()
    sender = im.online(alice)
    for number in range(5):
        sender.must("send", to=bob, body=number, id=f"m{number}")
    assert [item["body"] for item in peer.drain()] == [0, 1, 2, 3, 4]


def test_keep_alive_is_enforced(im: Clients, name: Name) -> None:
    """§5: one and a half times what the client asked; a silent client is closed, and its will fires."""
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    body = b'{"op":"send","to":"%s","body":"timed out","id":"w"}' % bob.encode()
    silent = im.sign_in(alice, keepalive=1, will=packets.Will(f"{PREFIX}/{alice}/phone/up", body))
    assert peer.wait("msg")["body"] == "timed out"
    silent.wait_closed()


def test_pings_keep_a_connection(im: Clients, name: Name) -> None:
    client = im.sign_in(name("alice"), keepalive=60)
    client.send(packets.packet(packets.PINGREQ))
    client.expect(packets.PINGRESP)


def test_a_frozen_server_loses_nothing(own_server: ServerProcess, own_im: Clients) -> None:
    """SIGSTOP while packets wait in its sockets, then SIGKILL: what was not acknowledged is repeated."""
    sender = own_im.online("alice")
    own_server.signal(signal.SIGSTOP)
    for number in range(20):
        sender.request("send", to="bob", body=number, id=f"m{number}")
    own_server.restart(kill=True)
    sender = own_im.online("alice")
    for number in range(20):
        sender.must("send", to="bob", body=number, id=f"m{number}")
    assert [item["body"] for item in own_im.online("bob").drain()] == list(range(20))
