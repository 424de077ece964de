"""PROTOCOL.md §2: topics, who may subscribe and publish where, wildcards, QoS, wills, plain topics."""

from __future__ import annotations

import pytest

from tests.support import packets
from tests.support.im import PREFIX, encode
from tests.support.packets import Will
from tests.support.raw import Closed
from tests.system.conftest import Clients, Name

CONFIG = {"mqtt.plain_topics": ["open/#", "!open/secret/#"], "limits.forbidden_publishes_per_minute": 20}

REFUSED = 0x80


# Which down topic carries what


def test_both_topics_items_on_the_users_and_replies_on_the_devices(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    im.sign_in(bob).request("send", to=alice, body="hi")
    assert client.wait("msg").packet.topic == f"{PREFIX}/{alice}/down"
    assert client.say(bob, "there").packet.topic == f"{PREFIX}/{alice}/down"
    assert client.must("devices").packet.topic == f"{PREFIX}/{alice}/phone/down"


@pytest.mark.parametrize("which", ["{}/down", "{}/phone/down"])
def test_one_topic_carries_everything_where_it_is_the_only_one(im: Clients, name: Name, which: str) -> None:
    alice, bob = name("alice"), name("bob")
    topic = f"{PREFIX}/{which.format(alice)}"
    client = im.sign_in(alice)
    assert client.subscribe(topic) == [1]
    im.sign_in(bob).request("send", to=alice, body="hi")
    assert client.wait("msg").packet.topic == topic
    assert client.must("devices").packet.topic == topic


@pytest.mark.parametrize(
    "filters",
    [
        ["{}/#"],
        ["{}/+/down", "{}/down"],
        ["{}/down", "{}/phone/down", "{}/#", "{}/+/down", "{}/+"],
        ["{}/down", "{}/down"],
    ],
)
def test_every_packet_goes_to_a_device_once(im: Clients, name: Name, filters: list[str]) -> None:
    """However many of its filters match."""
    alice, bob = name("alice"), name("bob")
    client = im.sign_in(alice)
    for each in filters:
        assert client.subscribe(f"{PREFIX}/{each.format(alice)}") == [1]
    im.sign_in(bob).request("send", to=alice, body="hi")
    client.wait("msg")
    client.must("devices")
    client.drain()
    ours = [event for event in client.events if event.op == "msg" and event["from"] == bob]
    assert len(ours) == 1
    assert len([event for event in client.events if event.op == "ok"]) == 1


def test_unsubscribing_one_topic_moves_everything_to_the_other(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    client.unsubscribe(f"{PREFIX}/{alice}/down")
    peer.say(alice, "hi")
    assert client.wait("msg").packet.topic == f"{PREFIX}/{alice}/phone/down"
    client.unsubscribe(f"{PREFIX}/{alice}/phone/down")
    peer.say(alice, "unheard")
    client.send(packets.packet(packets.PINGREQ))
    client.subscribe(f"{PREFIX}/{alice}/down")
    assert client.wait("msg")["body"] == "unheard"
    assert client.positions == [1, 2]


# Rights to subscribe


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/#",
        "+/v1/#",
        "im/#",
        "im/+/{me}/down",
    ],
)
def test_filters_that_do_not_begin_with_the_prefix_never_show_messages(im: Clients, name: Name, topic_filter: str) -> None:
    """Like $SYS: matched only by filters that begin with the prefix."""
    alice, bob = name("alice"), name("bob")
    spy = im.sign_in(alice)
    spy.subscribe(topic_filter.format(me=alice), "open/mark")
    peer = im.online(bob)
    peer.say(alice, "secret")
    peer.publish("open/mark", b"after")
    spy.until(lambda: any(each.topic == "open/mark" for each in spy.plain), "the plain message")
    assert spy.events == []
    assert {each.topic for each in spy.plain} == {"open/mark"}


@pytest.mark.parametrize(
    "tail",
    ["#", "+/down", "+/#", "{other}/down", "{other}/#", "{other}/phone/down", "{other}/phone/up", "{other}/phone/#",
     "+/presence", "+/+/down", "", "{other}", "{other}/nonsense"],
)  # fmt: skip
def test_filters_that_match_something_of_another_user_are_refused(im: Clients, name: Name, tail: str) -> None:
    alice, other = name("alice"), name("bob")
    im.online(other)
    assert im.sign_in(alice).subscribe(f"{PREFIX}/{tail.format(other=other)}") == [REFUSED]


@pytest.mark.parametrize("tail", ["#", "+", "+/#", "+/down", "+/+", "presence", "down", "phone/down", "phone/#", "nothing/there"])
def test_any_filter_below_ones_own_name_is_granted(im: Clients, name: Name, tail: str) -> None:
    alice = name("alice")
    assert im.sign_in(alice).subscribe((f"{PREFIX}/{alice}/{tail}", 1)) == [1]


def test_own_filters_yield_only_what_that_device_may_read(im: Clients, name: Name) -> None:
    """Neither the other device's replies nor anybody's uplinks."""
    alice = name("alice")
    phone = im.sign_in(alice, "phone")
    assert phone.subscribe(f"{PREFIX}/{alice}/#") == [1]
    laptop = im.online(alice, "laptop")
    laptop.must("devices", id="only-for-the-laptop")
    phone.drain()
    topics = {event.packet.topic for event in phone.events}
    assert topics <= {f"{PREFIX}/{alice}/down", f"{PREFIX}/{alice}/phone/down"}
    assert all(event.data.get("id") != "only-for-the-laptop" for event in phone.events)
    assert all(each.topic == f"{PREFIX}/{alice}/presence" for each in phone.plain)


def test_another_devices_down_topic(im: Clients, name: Name) -> None:
    """`{user}/{device}/down` is that device's; below one's own name the filter is granted but yields nothing."""
    alice = name("alice")
    laptop = im.online(alice, "laptop")
    phone = im.sign_in(alice, "phone")
    phone.subscribe(f"{PREFIX}/{alice}/laptop/down")
    laptop.must("devices")
    phone.subscribe(f"{PREFIX}/{alice}/down")
    phone.drain()
    assert all(event.packet.topic != f"{PREFIX}/{alice}/laptop/down" for event in phone.events)


@pytest.mark.parametrize("topic_filter", [f"{PREFIX}/{{}}/down/", f"{PREFIX}//{{}}/down", f"{PREFIX.upper()}/{{}}/down"])
def test_names_are_compared_level_by_level(im: Clients, name: Name, topic_filter: str) -> None:
    """MQTT-4.7.3-1, -4: case and empty levels matter; nothing of the kind carries the items."""
    alice = name("alice")
    client = im.sign_in(alice)
    client.subscribe(topic_filter.format(alice))
    im.online(name("bob")).say(alice, "x")
    assert client.subscribe(f"{PREFIX}/{alice}/down") == [1]
    assert client.wait("msg").packet.topic == f"{PREFIX}/{alice}/down"


@pytest.mark.parametrize("bad", ["im/v1/#/x", "a+/b", "a/#b", "", "+a", "a/b#", b"a\x00b", b"\xff\xfe"])
def test_invalid_filters_close_the_connection(im: Clients, name: Name, bad: str | bytes) -> None:
    """MQTT-4.7.1-2, -3, 4.7.3-1, 1.5.3-1, -2: a protocol violation."""
    client = im.sign_in(name("alice"))
    client.send(packets.packet(packets.SUBSCRIBE, b"\x00\x01" + packets.text(bad) + b"\x01", 2))
    with pytest.raises(Closed):
        client.receive()


def test_a_mixed_subscribe_is_answered_filter_by_filter(im: Clients, name: Name) -> None:
    """MQTT-3.9.3-1: one return code each, in order."""
    alice, bob = name("alice"), name("bob")
    filters = [f"{PREFIX}/{alice}/down", f"{PREFIX}/{bob}/down", "open/x", "closed/x", f"{PREFIX}/{alice}/phone/down"]
    assert im.sign_in(alice).subscribe(*filters) == [1, REFUSED, 1, REFUSED, 1]


@pytest.mark.parametrize(("asked", "granted"), [(0, 0), (1, 1), (2, 1)])
def test_a_down_topic_is_granted_at_most_qos_1(im: Clients, name: Name, asked: int, granted: int) -> None:
    alice = name("alice")
    client = im.sign_in(alice)
    assert client.subscribe((f"{PREFIX}/{alice}/down", asked), (f"{PREFIX}/{alice}/phone/down", asked)) == [granted] * 2
    im.online(name("bob")).say(alice, "x")
    assert client.wait("msg").packet.qos == granted
    assert client.must("devices").packet.qos == granted


# Rights to publish


@pytest.mark.parametrize(
    "tail",
    ["{me}/laptop/up", "{other}/phone/up", "{me}/phone/down", "{me}/down", "{other}/down", "{other}/presence",
     "{me}/presence", "{me}/phone/up/x", "{me}/phone/", "anything"],
)  # fmt: skip
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_outside_ones_own_up_is_acknowledged_and_dropped(im: Clients, name: Name, tail: str, qos: int) -> None:
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    peer.subscribe(f"{PREFIX}/{bob}/#")
    request = encode({"op": "send", "to": bob, "body": "forged", "id": "f"})
    packet_id = client.publish(f"{PREFIX}/{tail.format(me=alice, other=bob)}", request, qos=qos, retain=tail.endswith("presence"))
    if qos:
        client.until(lambda: packet_id in client.pubacks, "PUBACK or PUBREC")
    client.flush()
    client.say(bob, "real")
    peer.wait("msg", body="real")
    assert all(item.data.get("body") != "forged" for item in peer.events)
    assert all(b"forged" not in each.payload for each in peer.plain + client.plain)


def test_too_many_forbidden_publishes_disconnect(im: Clients, name: Name) -> None:
    """More than limits.forbidden_publishes_per_minute (20 here)."""
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    with pytest.raises(Closed):  # noqa: PT012 - whichever packet comes late
        for _ in range(30):
            client.publish(f"{PREFIX}/{bob}/down", b"{}")
        client.until(lambda: False, "the end")
    again = im.online(alice)
    again.flush()
    status, metrics = im.server.get("/metrics")
    assert status == 200
    assert any("forbidden" in line and not line.startswith("#") for line in metrics.splitlines())


@pytest.mark.parametrize("topic", ["open/+", "open/#", "", b"open/\x00", b"open/\xff"])
def test_invalid_topic_names_close_the_connection(im: Clients, name: Name, topic: str | bytes) -> None:
    """MQTT-3.3.2-2, 4.7.3-1, 4.7.3-2, 1.5.3-1, -2."""
    client = im.sign_in(name("alice"))
    client.send(packets.packet(packets.PUBLISH, packets.text(topic) + b"\x00\x01x", 2))
    with pytest.raises(Closed):
        client.receive()


# QoS of the uplink and order of its acknowledgements


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_uplink_at_every_qos(im: Clients, name: Name, qos: int) -> None:
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    packet_id = client.request("send", to=bob, body="x", id="1", qos=qos)
    assert peer.wait("msg")["body"] == "x"
    if qos:
        client.until(lambda: packet_id in client.pubacks, "PUBACK or PUBREC")
    if qos == 2:
        client.until(lambda: packet_id in client.pubcomps, "PUBCOMP")
    client.wait("sent", id="1")


def test_qos_2_repeated_before_pubrel_is_one_message(im: Clients, name: Name) -> None:
    """MQTT-4.3.3-2: the packet id names the message until PUBREL, also for a `send` without id."""
    alice, bob = name("alice"), name("bob")
    client, peer = im.sign_in(alice), im.online(bob)
    payload = encode({"op": "send", "to": bob, "body": "once"})
    for dup in (False, True, True):
        client.send(packets.publish(client.up_topic, payload, qos=2, packet_id=7, dup=dup))
        assert client.expect(packets.PUBREC).packet_id == 7
    client.send(packets.acknowledge(packets.PUBREL, 7))
    assert client.expect(packets.PUBCOMP).packet_id == 7
    client.send(packets.acknowledge(packets.PUBREL, 7))
    assert client.expect(packets.PUBCOMP).packet_id == 7
    assert [item["body"] for item in peer.drain()] == ["once"]


def test_acknowledgements_leave_in_the_order_in_which_the_packets_came(im: Clients, name: Name) -> None:
    """MQTT-4.6.0-2, refusals, dropped publishes and mistakes included."""
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    sent = []
    for number in range(15):
        sent.append(client.request("send", to=bob, body=number))
        sent.append(client.request("send", to=bob))  # no body: bad_field
        sent.append(client.publish(client.up_topic, b"{nonsense"))
        if number % 3 == 0:
            sent.append(client.publish(f"{PREFIX}/{bob}/down", b"{}"))
        sent.append(client.request("group.info", group="#no-such-group"))
        sent.append(client.publish("open/plain", b"x"))
        sent.append(client.request("history", conv=f"{alice}:{bob}"))
        sent.append(client.request("send", to=bob, body="two", qos=2))
    client.acknowledged(len(sent))
    assert client.pubacks == sent


# Wills


def test_a_will_on_ones_own_up_is_a_request_made_when_it_fires(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    request = encode({"op": "send", "to": bob, "body": "alice is gone", "id": "will"})
    client = im.sign_in(alice, will=Will(f"{PREFIX}/{alice}/phone/up", request))
    client.abort()
    assert peer.wait("msg")["body"] == "alice is gone"


def test_a_clean_disconnect_discards_the_will(im: Clients, name: Name) -> None:
    """MQTT-3.14.4-3."""
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    request = encode({"op": "send", "to": bob, "body": "alice is gone", "id": "will"})
    im.sign_in(alice, will=Will(f"{PREFIX}/{alice}/phone/up", request)).disconnect()
    im.online(alice).say(bob, "still here")
    assert [item["body"] for item in peer.drain()] == ["still here"]


@pytest.mark.parametrize("tail", ["{other}/phone/up", "{me}/laptop/up", "{other}/down"])
def test_other_wills_follow_the_publish_rules(im: Clients, name: Name, tail: str) -> None:
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    request = encode({"op": "send", "to": bob, "body": "forged", "id": "will"})
    im.sign_in(alice, will=Will(f"{PREFIX}/{tail.format(me=alice, other=bob)}", request)).abort()
    im.online(alice).say(bob, "real")
    peer.wait("msg", body="real")
    assert all(item.data.get("body") != "forged" for item in peer.drain())


def test_a_will_on_a_plain_topic(im: Clients, name: Name) -> None:
    watcher = im.sign_in(name("bob"))
    topic = f"open/{name('will')}"
    watcher.subscribe(topic)
    im.sign_in(name("alice"), will=Will(topic, b"gone")).abort()
    watcher.until(lambda: watcher.plain, "the will")
    assert [(each.topic, each.payload) for each in watcher.plain] == [(topic, b"gone")]


# Plain topics


def test_open_plain_topics_are_ordinary_mqtt(im: Clients, name: Name) -> None:
    topic = f"open/{name('x')}"
    one, other = im.sign_in(name("alice")), im.sign_in(name("bob"))
    assert one.subscribe(("open/#", 2)) == [2]
    for qos in (0, 1, 2):
        other.publish(topic, b"payload %d" % qos, qos=qos)
    other.publish(f"{topic}/end", b"")
    one.until(lambda: any(each.topic == f"{topic}/end" for each in one.plain), "the last one")
    ours = [each for each in one.plain if each.topic == topic]
    assert [(each.payload, each.qos, each.retain) for each in ours] == [(b"payload %d" % qos, qos, False) for qos in (0, 1, 2)]


def test_closed_topics_are_refused_and_dropped(im: Clients, name: Name) -> None:
    """A filter that can match nothing open is refused; one that matches more than is open is granted and filtered."""
    one, other = im.sign_in(name("alice")), im.sign_in(name("bob"))
    token = name("x")
    assert one.subscribe("closed/#", "open/secret/x", "$SYS/x/y/z/closed", "#", "open/+", "+/+") == [
        REFUSED, REFUSED, REFUSED, 1, 1, 1,
    ]  # fmt: skip
    other.publish(f"closed/{token}", b"x")
    other.publish(f"open/secret/{token}", b"x")
    other.publish(f"open/{token}", b"x")
    one.until(lambda: any(each.topic == f"open/{token}" for each in one.plain), "the open one")
    assert {each.topic for each in one.plain if token in each.topic} == {f"open/{token}"}


def test_retained_messages_of_plain_topics(im: Clients, name: Name) -> None:
    """MQTT-3.3.1-6, -8, -10: the last one, with RETAIN 1 for a new subscription; an empty one takes it away."""
    topic = f"open/{name('retained')}"
    other = im.sign_in(name("bob"))
    other.publish(topic, b"old", retain=True)
    other.publish(topic, b"new", retain=True)
    other.acknowledged(2)
    one = im.sign_in(name("alice"))
    one.subscribe(topic)
    one.until(lambda: one.plain, "the retained message")
    assert [(each.payload, each.retain) for each in one.plain] == [(b"new", True)]
    packet_id = other.publish(topic, b"", retain=True)
    other.until(lambda: packet_id in other.pubacks, "PUBACK")
    late = im.sign_in(name("carol"))
    late.subscribe(topic)
    other.publish(topic, b"live")
    late.until(lambda: late.plain, "the live message")
    assert [(each.payload, each.retain) for each in late.plain] == [(b"live", False)]
