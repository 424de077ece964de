"""PROTOCOL.md §4: cursors, windows, acknowledgement, batches, QoS 0."""

from __future__ import annotations

import pytest

from mqtt_im.testing import ServerProcess
from tests.support import packets
from tests.support.im import PREFIX, Event, ImClient, codec_of
from tests.system.conftest import Clients, Name

CONFIG = {"limits.requests_per_second": 100_000, "limits.max_inflight": 20}


def fill(sender: ImClient, to: str, count: int, start: int = 0) -> None:
    """Returns when `count` messages are committed."""
    before = len(sender.pubacks)
    for number in range(start, start + count):
        sender.request("send", to=to, body=number)
        if number % 50 == 49:
            sender.acknowledged(before + number - start - 49)
    sender.acknowledged(before + count)


def manual(im: Clients, user: str, device: str = "phone", clean: bool = True) -> ImClient:
    """Online, and acknowledging nothing by itself."""
    client = im.socket(user, device)
    client.auto_ack = False
    client.sign_in(clean=clean)
    return client if client.session_present else client.listen()


# The first-device rule


def test_the_first_device_gets_what_was_sent_before_it_came(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    fill(im.sign_in(alice), bob, 5)
    assert [(item["pos"], item["body"]) for item in im.online(bob).drain()] == [(n + 1, n) for n in range(5)]


def test_every_further_device_starts_at_the_head(im: Clients, name: Name) -> None:
    """… and reads older things through `history`."""
    alice, bob = name("alice"), name("bob")
    sender = im.sign_in(alice)
    im.online(bob, "first").disconnect()
    fill(sender, bob, 3)
    second = im.online(bob, "second")
    fill(sender, bob, 2, start=3)
    assert [(item["pos"], item["body"]) for item in second.drain()] == [(4, 3), (5, 4)]
    assert len(second.must("history", conv=f"{alice}:{bob}")["items"]) == 5
    assert [item["body"] for item in im.online(bob, "first").drain()[:5]] == [0, 1, 2, 3, 4]


def test_the_rule_holds_after_the_only_device_was_forgotten(im: Clients, name: Name) -> None:
    """Whatever the next device's start is, what comes from then on arrives."""
    alice, bob = name("alice"), name("bob")
    only = im.online(bob, "only")
    only.request("device.forget", device="only", id="f")
    only.wait_closed()
    successor = im.online(bob, "successor")
    im.online(alice).say(bob, "after")
    successor.wait("msg", body="after")


# The stream


def test_delivery_asks_nothing_of_the_client(im: Clients, name: Name) -> None:
    """No hello, no sync: what waits comes behind SUBACK, live items follow in the same stream."""
    alice, bob = name("alice"), name("bob")
    sender = im.sign_in(alice)
    fill(sender, bob, 30)
    client = im.sign_in(bob)
    client.subscribe(f"{PREFIX}/{bob}/down")
    fill(sender, bob, 30, start=30)
    client.received(60)
    assert client.positions == list(range(1, 61))
    assert [item["body"] for item in client.items] == list(range(60))
    assert all(item.packet.qos == 1 and not item.packet.retain and not item.packet.dup for item in client.items)


def test_live_items_never_overtake_the_backlog(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    sender = im.sign_in(alice)
    fill(sender, bob, 500)
    client = im.socket(bob).sign_in()
    client.subscribe(f"{PREFIX}/{bob}/down")
    client.received(50)
    fill(sender, bob, 500, start=500)
    client.received(1000)
    assert client.positions == list(range(1, 1001))


def test_at_most_window_packets_without_puback(im: Clients, name: Name) -> None:
    """Default limits.max_inflight, 20 here."""
    alice, bob = name("alice"), name("bob")
    fill(im.sign_in(alice), bob, 60)
    client = manual(im, bob)
    client.received(20)
    client.request("devices", id="d")
    client.reply("d")
    assert client.positions == list(range(1, 21))
    for turn in range(40):
        client.puback(client.items[turn])
        client.received(turn + 21)
        assert client.positions == list(range(1, turn + 22))


def test_hello_sets_a_smaller_window(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.sign_in(bob)
    client.auto_ack = False
    client.subscribe(f"{PREFIX}/{bob}/phone/down")
    welcome = client.must("hello", window=3)
    assert welcome["limits"]["window"] in (3, 20)
    fill(im.sign_in(alice), bob, 10)
    client.received(3)
    client.request("devices", id="d")
    client.reply("d")
    assert client.positions == [1, 2, 3]
    client.puback(client.items[0])
    client.received(4)


def test_packet_identifiers_in_flight_are_distinct(im: Clients, name: Name) -> None:
    """MQTT-2.3.1-2, -4, replies included."""
    alice, bob = name("alice"), name("bob")
    fill(im.sign_in(alice), bob, 30)
    client = manual(im, bob)
    for number in range(10):
        client.request("devices", id=f"d{number}")
    client.received(20)
    for number in range(10):
        client.reply(f"d{number}")
    identifiers = [event.packet.packet_id for event in client.events]
    assert 0 not in identifiers
    assert len(set(identifiers)) == len(identifiers)


# Transport acknowledgement


def cursor(client: ImClient) -> int:
    return int(client.must("hello")["pos"])


def test_pubacks_move_the_cursor_as_far_as_they_are_contiguous(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    fill(im.sign_in(alice), bob, 10)
    client = manual(im, bob)
    client.received(10)
    for index in (0, 1, 3, 4, 9):
        client.puback(client.items[index])
    client.request("hello", id="h")
    assert client.reply("h")["pos"] == 2
    client.puback(client.items[2])
    client.request("hello", id="i")
    assert client.reply("i")["pos"] == 5
    client.close()
    again = manual(im, bob)
    again.received(5)
    assert again.positions == [6, 7, 8, 9, 10]


def test_without_a_puback_everything_comes_again(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    fill(im.sign_in(alice), bob, 5)
    for _ in range(3):
        client = manual(im, bob)
        client.received(5)
        assert client.positions == [1, 2, 3, 4, 5]
        client.abort()


def test_a_puback_for_something_never_sent_moves_nothing(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = manual(im, bob)
    for packet_id in (1, 5, 500, 32_767, 32_768, 65_535):
        client.send(packets.acknowledge(packets.PUBACK, packet_id))
    fill(im.sign_in(alice), bob, 3)
    client.received(3)
    client.request("hello", id="h")
    assert client.reply("h")["pos"] == 0


def test_each_device_has_its_own_cursor(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone, laptop = im.online(bob, "phone"), manual(im, bob, "laptop")
    fill(im.sign_in(alice), bob, 5)
    phone.received(5)
    laptop.received(5)
    laptop.puback(laptop.items[0])
    positions = {entry["device"]: entry["pos"] for entry in phone.must("devices")["devices"]}
    assert positions["phone"] == 5
    assert positions["laptop"] <= 1


# Application acknowledgement


def app_device(im: Clients, user: str, device: str = "phone") -> ImClient:
    client = im.online(user, device)
    client.must("hello", ack="app")
    return client


def test_only_ack_moves_the_cursor_of_an_app_device(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = app_device(im, bob)
    fill(im.sign_in(alice), bob, 6)
    client.received(6)
    assert cursor(client) == 0
    client.confirmed("ack", pos=4)
    assert cursor(client) == 4
    client.confirmed("ack", pos=2)  # cumulative: an older one takes nothing back
    assert cursor(client) == 4


def test_pubacks_with_a_gap_leave_none_in_the_stream_of_an_app_device(im: Clients, name: Name) -> None:
    """A PUBACK does not say that the device has an item, so everything after its cursor comes again."""
    alice, bob = name("alice"), name("bob")
    client = manual(im, bob, clean=False)
    client.must("hello", ack="app")
    fill(im.sign_in(alice), bob, 6)
    client.received(6)
    client.puback(client.items[2])
    client.puback(client.items[3])
    client.flush()
    client.abort()
    again = manual(im, bob, clean=False)
    assert again.session_present
    again.received(6)
    assert again.positions == [1, 2, 3, 4, 5, 6]


def test_pubacks_on_their_way_when_a_hello_is_heard_skip_nothing(im: Clients, name: Name) -> None:
    """The device throws away what it has in hand, which its MQTT library acknowledges all the same, and is cut off."""
    alice, bob = name("alice"), name("bob")
    client = manual(im, bob, clean=False)
    client.puback(client.must("hello"))
    fill(im.sign_in(alice), bob, 6)
    client.received(6)
    assert client.must("hello", after=2)["pos"] == 2
    client.received(10)
    for item in client.items[2:6]:
        client.puback(item)
    client.flush()
    client.abort()
    again = manual(im, bob, clean=False)
    again.received(4)
    assert again.positions == [3, 4, 5, 6]


def test_the_choice_is_kept_with_the_device(own_server: ServerProcess, own_im: Clients) -> None:
    client = app_device(own_im, "bob")
    fill(own_im.sign_in("alice"), "bob", 4)
    client.received(4)
    client.confirmed("ack", pos=1)
    client.disconnect()
    client = own_im.online("bob")
    client.received(3)
    assert client.positions == [2, 3, 4]
    own_server.restart(kill=True)
    client = own_im.online("bob")
    client.received(3)
    assert client.positions == [2, 3, 4]
    client.must("hello", ack="transport")
    client.close()
    client = own_im.online("bob")
    client.received(3)
    client.drain()
    client.disconnect()
    assert own_im.online("bob").drain() == []


def test_ack_has_no_answer_and_needs_no_id(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = app_device(im, bob)
    fill(im.sign_in(alice), bob, 1)
    client.wait("msg")
    client.confirmed("ack", pos=1)
    client.flush()
    assert [event.op for event in client.events] == ["welcome", "msg", "ok"]


@pytest.mark.parametrize("pos", [2, 10**9, -1, "x", None, 1.5])
def test_ack_beyond_the_head_is_a_bad_field(im: Clients, name: Name, pos: object) -> None:
    alice, bob = name("alice"), name("bob")
    client = app_device(im, bob)
    fill(im.sign_in(alice), bob, 1)
    client.wait("msg")
    client.request("ack", id="a", pos=pos)
    assert client.reply("a")["code"] == "bad_field"
    assert cursor(client) == 0


def test_ack_survives_sigkill_once_it_is_acknowledged(own_server: ServerProcess, own_im: Clients) -> None:
    """What a client said is covered by its PUBACK."""
    client = app_device(own_im, "bob")
    fill(own_im.sign_in("alice"), "bob", 5)
    client.received(5)
    client.confirmed("ack", pos=3)
    own_server.restart(kill=True)
    client = own_im.online("bob")
    client.received(2)
    assert client.positions == [4, 5]


def test_delivery_pauses_1000_items_ahead_of_the_ack(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = app_device(im, bob)
    fill(im.sign_in(alice), bob, 1100)
    client.received(1000)
    client.flush()
    assert client.positions == list(range(1, 1001))
    client.confirmed("ack", pos=50)
    client.received(1050)
    client.flush()
    assert client.positions == list(range(1, 1051))
    client.confirmed("ack", pos=1050)
    client.received(1100)


# QoS 0


def test_a_device_at_qos_0_gets_at_most_once(im: Clients, name: Name) -> None:
    """Its cursor moves when the packet is written."""
    alice, bob = name("alice"), name("bob")
    client = im.sign_in(bob).listen(user_qos=0, device_qos=0)
    sender = im.sign_in(alice)
    fill(sender, bob, 100)
    client.received(100)
    assert client.positions == list(range(1, 101))
    assert {item.packet.qos for item in client.items} == {0}
    client.disconnect()
    fill(sender, bob, 3)
    again = im.sign_in(bob).listen(user_qos=0, device_qos=0)
    again.received(3)
    assert again.positions == [101, 102, 103]


def test_an_app_device_at_qos_0_keeps_its_cursor(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.sign_in(bob).listen(user_qos=0, device_qos=0)
    client.must("hello", ack="app")
    fill(im.sign_in(alice), bob, 5)
    client.received(5)
    client.confirmed("ack", pos=2)
    client.disconnect()
    again = im.sign_in(bob).listen(user_qos=0, device_qos=0)
    again.received(3)
    assert again.positions == [3, 4, 5]


# Batches


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("zipped", [True, False])
def test_batches_hold_the_same_stream(im: Clients, name: Name, codec: str, zipped: bool) -> None:
    """`batch`: from, pos, items; only to a device whose hello set it; acknowledged by one PUBACK."""
    alice, bob = name("alice"), name("bob")
    fill(im.sign_in(alice), bob, 300)
    client = im.sign_in(bob)
    client.confirmed("hello", batch=True, codec=codec, zip=zipped)
    client.listen()
    client.received(300)
    assert client.positions == list(range(1, 301))
    assert [item["body"] for item in client.items] == list(range(300))
    carriers = {id(item.packet): item.packet for item in client.items}
    assert len(carriers) < 300, "not one batch among 300 waiting items"
    assert all(codec_of(packet.payload).startswith(codec) for packet in carriers.values())
    client.disconnect()
    assert im.online(bob).drain() == []


def test_no_batch_without_asking(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    fill(im.sign_in(alice), bob, 50)
    client = im.online(bob)
    client.received(50)
    assert len({id(item.packet) for item in client.items}) == 50


def test_a_batch_is_acknowledged_as_a_whole(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    fill(im.sign_in(alice), bob, 40)
    client = im.sign_in(bob)
    client.auto_ack = False
    client.confirmed("hello", batch=True)
    client.listen()
    client.received(1)

    def last_of(event: Event) -> int:
        return max(int(item["pos"]) for item in client.items if item.packet is event.packet)

    first = client.items[0]
    client.puback(first)
    client.request("hello", id="h")
    assert client.reply("h")["pos"] == last_of(first)


def test_a_batch_fits_into_a_packet(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    sender = im.sign_in(alice)
    for number in range(12):
        sender.confirmed("send", to=bob, body=f"{number:02}" + "x" * 60_000)
    client = im.sign_in(bob)
    client.confirmed("hello", batch=True)
    client.listen()
    client.received(12)
    assert client.positions == list(range(1, 13))
    assert all(len(item.packet.payload) <= 262_144 for item in client.items)
