"""PROTOCOL.md §5: bad input and limits, row by row. Errors about payloads and fields stand beside the ops they belong to."""

from __future__ import annotations

import socket
import time
import zlib
from collections.abc import Iterator

import psutil
import pytest

from mqtt_im.testing import ServerProcess
from tests.support import packets
from tests.support.faults import assert_no_fault
from tests.support.im import PREFIX
from tests.support.raw import Closed, RawClient, Refused, eventually
from tests.support.web import Web
from tests.system.conftest import Clients, Name, running

CONFIG = {
    "limits.max_packet_bytes": 10_000,
    "limits.max_body_bytes": 1_000,
    "limits.connect_timeout_s": 1,
    "limits.max_connections_per_user": 3,
    "limits.max_write_buffer_bytes": 100_000,
}

CONNECT_BODY = packets.text("MQTT") + b"\x04\x02\x00\x00" + packets.text("phone")

BAD_FIRST_PACKETS = {
    "no CONNECT (MQTT-3.1.0-1)": packets.packet(packets.PINGREQ),
    "a PUBLISH first": packets.publish("x", b"y"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "zeros": b"\x00" * 16,
    "reserved type 15": packets.packet(15, b""),
    "wrong protocol name": packets.packet(1, packets.text("AMQP") + CONNECT_BODY[6:]),
    "reserved connect flag (MQTT-3.1.2-3)": packets.packet(1, packets.text("MQTT") + b"\x04\x03\x00\x00" + packets.text("x")),
    "password without username (MQTT-3.1.2-22)": packets.packet(
        1, packets.text("MQTT") + b"\x04\x42\x00\x00" + packets.text("x") + packets.text("p")
    ),
    "will QoS 3 (MQTT-3.1.2-14)": packets.packet(
        1, packets.text("MQTT") + b"\x04\x1e\x00\x00" + packets.text("x") + packets.text("t") + packets.text("m")
    ),
    "will QoS without will (MQTT-3.1.2-13)": packets.packet(1, packets.text("MQTT") + b"\x04\x0a\x00\x00" + packets.text("x")),
    "truncated CONNECT": packets.packet(1, CONNECT_BODY[:-3]),
    "trailing bytes in CONNECT": packets.packet(1, CONNECT_BODY + b"more"),
    "flag bits on CONNECT (MQTT-2.2.2-2)": packets.packet(1, CONNECT_BODY, flags=2),
    "client id not UTF-8 (MQTT-1.5.3-1)": packets.packet(
        1, packets.text("MQTT") + b"\x04\x02\x00\x00" + packets.text(b"\xff\xfe")
    ),
    "remaining length of five bytes": b"\x10\xff\xff\xff\xff\x01",
    "a packet over the limit": b"\x10\x80\x80\x01" + b"x" * 100,
}

BAD_LATER_PACKETS = {
    "second CONNECT (MQTT-3.1.0-2)": packets.packet(1, CONNECT_BODY),
    "PUBLISH with QoS 3 (MQTT-3.3.1-4)": packets.packet(3, packets.text("x") + b"\x00\x01y", 6),
    "packet id 0 (MQTT-2.3.1-1)": packets.publish("x", b"y", packet_id=0),
    "DUP at QoS 0 (MQTT-3.3.1-2)": packets.packet(3, packets.text("x") + b"y", 8),
    "truncated PUBLISH": packets.packet(3, b"\x00\x10x", 2),
    "PUBLISH without packet id": packets.packet(3, packets.text("x"), 2),
    "SUBSCRIBE with wrong flags (MQTT-3.8.1-1)": packets.packet(8, b"\x00\x01" + packets.text("x") + b"\x01", 0),
    "SUBSCRIBE without filters (MQTT-3.8.3-3)": packets.packet(8, b"\x00\x01", 2),
    "SUBSCRIBE with QoS 3 (MQTT-3.8.3-4)": packets.packet(8, b"\x00\x01" + packets.text("x") + b"\x03", 2),
    "SUBSCRIBE with packet id 0": packets.packet(8, b"\x00\x00" + packets.text("x") + b"\x01", 2),
    "UNSUBSCRIBE without filters (MQTT-3.10.3-2)": packets.packet(10, b"\x00\x01", 2),
    "UNSUBSCRIBE with wrong flags (MQTT-3.10.1-1)": packets.packet(10, b"\x00\x01" + packets.text("x"), 0),
    "PUBREL with wrong flags (MQTT-3.6.1-1)": packets.packet(6, b"\x00\x01", 0),
    "PUBACK without packet id": packets.packet(4, b""),
    "PUBACK too long": packets.packet(4, b"\x00\x01\x00"),
    "PINGREQ with a body": packets.packet(12, b"x"),
    "PINGREQ with flags": packets.packet(12, b"", 1),
    "DISCONNECT with flags (MQTT-3.14.1-1)": packets.packet(14, b"", 1),
    "a server's packet: CONNACK": packets.packet(2, b"\x00\x00"),
    "a server's packet: SUBACK": packets.packet(9, b"\x00\x01\x00"),
    "a server's packet: PINGRESP": packets.packet(13, b""),
    "reserved type 0": packets.packet(0, b""),
    "reserved type 15": packets.packet(15, b""),
    "remaining length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "a packet over the limit": b"\x30\x91\x4e" + b"x" * 50,
}


@pytest.fixture
def counted(server: ServerProcess) -> Iterator[None]:
    """The connection that this test has closed is counted by its reason, without a traceback."""

    def total() -> float:
        lines = server.get("/metrics")[1].splitlines()
        names = ("mqtt_im_closes_total{", "mqtt_im_connects_refused_total{")
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(names))

    before = total()
    yield
    eventually(lambda: total() > before, "the count of a closed connection")
    assert_no_fault(server.log())


def is_closed(client: RawClient) -> bool:
    """Whether the server closes the connection, with nothing but a CONNACK that refuses before it."""
    return all(packet.kind == packets.CONNACK and packet.body[1] for packet in client.until_closed())


@pytest.mark.parametrize("first", BAD_FIRST_PACKETS.values(), ids=BAD_FIRST_PACKETS)
def test_a_bad_first_packet_closes_the_connection(im: Clients, counted: None, first: bytes) -> None:
    client = im.socket("nobody")
    client.send(first)
    assert is_closed(client)


@pytest.mark.parametrize("later", BAD_LATER_PACKETS.values(), ids=BAD_LATER_PACKETS)
def test_a_bad_later_packet_closes_the_connection_at_once(im: Clients, counted: None, name: Name, later: bytes) -> None:
    client = im.sign_in(name("alice"))
    client.send(later)
    assert client.until_closed() == []


def test_what_came_before_a_bad_packet_still_counts(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    client = im.sign_in(alice)
    client.request("send", to=bob, body="good", id="1")
    client.send(b"\xff\xff\xff\xff\xff")
    client.wait_closed()
    assert peer.wait("msg")["body"] == "good"


def test_a_silent_connection_is_closed_after_the_time_for_connect(im: Clients, counted: None) -> None:
    """limits.connect_timeout_s, from accept to a complete CONNECT: a header alone does not help."""
    silent, partial = im.socket("a"), im.socket("b")
    partial.send(packets.connect("phone", username="b")[:5])
    assert silent.until_closed() == []
    assert partial.until_closed() == []


def test_a_body_over_the_limit(im: Clients, name: Name) -> None:
    """error too_large; PUBACK; the connection stays."""
    client = im.online(name("alice"))
    packet_id = client.request("send", to="bob", body="x" * 1_500, id="big")
    answer = client.reply("big")
    assert (answer["code"], answer["retry"]) == ("too_large", False)
    client.until(lambda: packet_id in client.pubacks, "PUBACK")
    client.say(name("bob"), "x" * 900)


def test_a_packet_over_the_limit_is_refused_by_its_header(im: Clients, counted: None, name: Name) -> None:
    """Before it has come: the announced length alone closes the connection."""
    client = im.sign_in(name("alice"))
    client.send(b"\x32" + b"\xff\xff\xff\x7f")
    assert client.until_closed() == []


def test_deep_nesting_is_no_crash(im: Clients, name: Name) -> None:
    client = im.online(name("alice"))
    head = b'{"op":"send","id":"d","to":"bob","body":'
    for deep in (head + b"[" * 900 + b"]" * 900 + b"}", zlib.compress(head + b"[" * 4_000 + b"]" * 4_000 + b"}")):
        client.publish(client.up_topic, deep)
        assert client.wait("error")["code"] in ("too_large", "bad_payload")
    client.flush()


def test_random_bytes_leave_the_server_well(im: Clients, name: Name) -> None:
    """Garbage on connections before and after CONNECT: all of them end, others are served, and nothing stays behind."""
    import random

    dice = random.Random(20)
    watcher = im.online(name("watcher"))
    process = psutil.Process(im.server.pid)
    watcher.flush()
    before = process.num_fds()
    for turn in range(60):
        client = im.socket(name("mallory"))
        if turn % 2:
            client.sign_in()
        with pytest.raises((Closed, OSError)):  # noqa: PT012 - it is closed while we still send, or later
            for _ in range(5):
                client.send(dice.randbytes(dice.randrange(1, 400)))
            client.socket.shutdown(socket.SHUT_WR)
            while True:
                client.receive()
        client.close()
    watcher.flush()
    eventually(lambda: process.num_fds() <= before, "all sockets closed")


# Limits


def test_connections_of_one_user_are_limited(im: Clients, name: Name) -> None:
    """limits.max_connections_per_user, 3 here: the next one is refused, a take-over is not one more."""
    alice = name("alice")
    clients = [im.online(alice, f"d{number}") for number in range(3)]
    with pytest.raises((Refused, Closed)):
        im.online(alice, "d3")
    im.online(alice, "d0").flush()
    clients[0].wait_closed()
    clients[1].disconnect()
    im.online(alice, "d3").flush()
    im.online(name("bob")).flush()


@pytest.mark.parametrize("own_server", [{"limits.max_connections": 5}, {"limits.max_connections_per_address": 5}], indirect=True)
def test_connections_in_all_and_per_address_are_limited(own_im: Clients) -> None:
    clients = [own_im.online(f"u{number}") for number in range(5)]
    with pytest.raises((Refused, Closed, ConnectionError)):
        own_im.online("one-more")
    clients[0].disconnect()

    def fits() -> bool:
        try:
            own_im.online("one-more").flush()
        except (Refused, Closed, ConnectionError):
            return False
        return True

    eventually(fits, "room for one more")


def test_a_client_that_does_not_read_is_cut_off(im: Clients, name: Name) -> None:
    """Bounded: what waits for a client that has stopped reading stays in the log, not in memory; replies it asks for without
    reading them end in a closed connection or in backpressure."""
    alice = name("alice")
    client = im.socket(alice, receive_buffer=4_096).sign_in().listen()
    client.say(alice, "x" * 900)
    process = psutil.Process(im.server.pid)
    before = process.memory_info().rss
    client.socket.settimeout(0.5)
    try:
        for _ in range(20_000):
            client.request("history", qos=0, conv=f"{alice}:{alice}")
    except (Closed, OSError):
        pass
    assert process.memory_info().rss - before < 40_000_000
    client.abort()
    im.online(name("bob")).flush()


def test_a_peer_that_does_not_read_slows_nobody(im: Clients, name: Name) -> None:
    alice, bob, carol = name("alice"), name("bob"), name("carol")
    deaf = im.socket(bob, receive_buffer=4_096).sign_in().listen()
    sender, reader = im.online(alice), im.online(carol)
    group = name("#g")
    sender.must("group.create", group=group, members=[bob, carol])
    for number in range(300):
        sender.say(group, f"{number} " + "x" * 900)
    reader.wait("msg", conv=group, seq=301)
    deaf.close()
    bob_again = im.online(bob)
    bob_again.wait("msg", conv=group, seq=301)
    assert bob_again.positions == list(range(1, 302))


@pytest.fixture(scope="module")
def slow_server() -> Iterator[ServerProcess]:
    yield from running({"limits.requests_per_second": 20})


def test_too_fast_is_slowed_down_before_it_is_refused(slow_server: ServerProcess, name: Name) -> None:
    """PUBACKs are delayed: a client that waits for them loses nothing and is never refused."""
    clients = Clients(slow_server)
    client, peer = clients.online(name("alice")), clients.online(name("bob"))
    for number in range(80):
        client.confirmed("send", to=peer.user, body=number, id=f"m{number}")
    assert [item["body"] for item in peer.drain()] == list(range(80))
    assert all(event.op != "error" for event in client.events)
    clients.close()


def test_far_too_fast_is_refused_with_retry(slow_server: ServerProcess, name: Name) -> None:
    """error rate_limited, retry true: no PUBACK, and the connection is closed after the error; what is repeated arrives once."""
    clients = Clients(slow_server)
    peer = clients.online(name("bob"))
    left = list(range(150))
    refused = False
    deadline = time.monotonic() + 180
    while left and time.monotonic() < deadline:
        client = clients.online(name("alice"))
        try:
            for number in left:
                client.request("send", to=peer.user, body=number, id=f"m{number}")
            client.acknowledged(len(left))
        except (Closed, OSError):
            pass
        errors = [event for event in client.events if event.op == "error"]
        assert all((event["code"], event["retry"]) == ("rate_limited", True) for event in errors)
        assert all(event["retry_after"] > 0 for event in errors)
        refused = refused or bool(errors)
        done = {event["id"] for event in client.events if event.op == "sent"}
        left = [number for number in left if f"m{number}" not in done]
        client.close()
    assert not left
    peer.received(150)
    assert sorted(item["body"] for item in peer.items) == list(range(150))
    assert peer.positions == list(range(1, 151))
    clients.close()


def test_nonsense_over_http_costs_what_it_costs_a_device(slow_server: ServerProcess, name: Name) -> None:
    """It was a quarter of that."""
    with Web(slow_server.http_port) as web:
        web.login(name("alice"))
        web.refused("ack", 422, "bad_field", device="phone", pos="x", zz=[[]] * 60_000)
        web.refused("devices", 429, "rate_limited")


def test_topics_of_every_shape_do_no_harm(im: Clients, name: Name) -> None:
    """Long, deep and empty levels: a filter or topic that is allowed by MQTT is answered."""
    client = im.sign_in(name("alice"))
    for topic in ("/", "//", "/" * 500, "x" * 5_000, "a/" * 1_000 + "b", f"{PREFIX}/" + "/" * 100):
        assert client.subscribe(topic) == [0x80]
        client.publish(topic, b"x")
    client.acknowledged(6)
