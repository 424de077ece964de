"""MQTT 5 as PROTOCOL §7 has it, row by row, against the real server."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from mqtt_im.testing import ServerProcess
from tests.support import packets, packets5
from tests.support.im5 import Im5
from tests.support.raw import eventually
from tests.support.web import Web
from tests.system.conftest import Clients, Name

CONFIG = {"mqtt.plain_topics": ["open/#"], "limits.requests_per_second": 2000, "limits.max_body_bytes": 8192}
KEEP: dict[int, Any] = {packets5.SESSION_EXPIRY: 1000}


class Five:
    """Opens clients of MQTT 5 and closes those that are left."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self._made: list[Im5] = []

    def connect(self, user: str, device: str = "phone", given: packets5.Given = None, **options: Any) -> Im5:
        client = Im5(self.server.mqtt_port, user, device, given=given, **options)
        assert client.connack.code == 0, client.connack
        self._made.append(client)
        return client

    def online(self, user: str, device: str = "phone", given: packets5.Given = None, **options: Any) -> Im5:
        return self.connect(user, device, given, **options).listen()

    def close(self) -> None:
        for client in self._made:
            client.close()


@pytest.fixture
def five(server: ServerProcess) -> Iterator[Five]:
    clients = Five(server)
    yield clients
    clients.close()


@pytest.fixture
def own_five(own_server: ServerProcess) -> Iterator[Five]:
    clients = Five(own_server)
    yield clients
    clients.close()


def test_a_refused_request_says_so_in_its_acknowledgement(five: Five, name: Name) -> None:
    alice, bob = five.online(name("alice")), five.online(name("bob"))
    alice.say(bob.user, "hello", id="1")
    assert bob.ask("block", id="b", user=alice.user) == (0, "")
    cases: list[tuple[int, str, dict[str, Any]]] = [
        (0x99, "unknown_op", {"op": "nonsense"}),
        (0x99, "bad_field", {"op": "send", "to": "no user!", "body": 1}),
        (0x87, "not_found", {"op": "edit", "id": "2", "conv": ":".join(sorted((alice.user, bob.user))), "seq": 9, "body": 1}),
        (0x87, "not_member", {"op": "send", "to": "#nowhere", "body": 1}),
        (0x87, "blocked", {"op": "send", "to": bob.user, "body": 1}),
        (0x83, "conflict", {"op": "send", "id": "1", "to": bob.user, "body": "other"}),
        (0x83, "out_of_order", {"op": "send", "id": "3", "n": 7, "to": alice.user, "body": 1}),
        (0x83, "too_large", {"op": "send", "to": alice.user, "body": "x" * 9000}),
    ]
    for code, word, fields in cases:
        for qos in (1, 2):
            answer = alice.publish(json.dumps(fields).encode(), qos=qos)
            assert answer[0] == code, (fields, answer)
            assert answer[1].startswith(f"{word}: ")
            assert alice.get("error")[0]["code"] == word
    assert alice.publish(b"{") == (0x99, f"bad_payload: {alice.get('error')[0]['message']}")
    assert alice.publish(b"x", topic=f"im/v1/{bob.user}/down")[0] == 0x87
    alice.settle()
    assert not alice.closed


@pytest.mark.parametrize("own_server", [{"limits.requests_per_second": 1}], indirect=True)
def test_what_is_to_be_repeated_costs_no_connection(own_five: Five, name: Name) -> None:
    alice = own_five.online(name("alice"))
    packet_ids = [alice.next_id() for _ in range(20)]
    for number in packet_ids:
        payload = json.dumps({"op": "send", "id": f"r{number}", "to": alice.user, "body": number}).encode()
        alice.send(packets5.publish(alice.up, payload, packet_id=number))
    codes = [packets5.code_of(alice.until(lambda wanted=number: alice._take(4, wanted)))[0] for number in packet_ids]
    assert set(codes) == {0, 0x97}
    data, _ = alice.get("error")
    assert (data["code"], data["retry"]) == ("rate_limited", True)
    assert not alice.closed


@pytest.mark.parametrize("own_server", [{"quota.devices": 1}], indirect=True)
def test_a_device_above_the_quota_is_not_told_that_it_is_subscribed(own_five: Five, own_im: Clients, name: Name) -> None:
    """Both down topics are refused, and what else was asked for is granted; the next device gets the place that is made."""
    alice = own_five.online(name("alice"))
    fifth = own_five.connect(alice.user, "fifth", KEEP, clean=False)
    asked = ((fifth.user_down, 1), ("open/air", 2), (f"im/v1/{alice.user}/#", 1), (f"im/v1/{alice.user}/presence", 1))
    assert fifth.subscribe(*asked) == [0x97, 2, 0x97, 1]
    data, _ = fifth.get("error")
    assert (data["code"], data["retry"]) == ("quota", False)
    third = own_im.sign_in(alice.user, "third")
    assert third.subscribe(third.user_down, "open/air") == [0x80, 1]
    third.wait("error", code="quota")
    alice.publish(json.dumps({"op": "send", "id": "s", "to": alice.user, "body": 1}).encode())
    alice.get("sent", id="s")
    alice.publish(json.dumps({"op": "device.forget", "id": "f", "device": "phone"}).encode())
    fifth.close()
    again = own_five.connect(alice.user, "fifth", KEEP, clean=False)
    again.send(packets5.unsubscribe(again.next_id(), "open/air", fifth.user_down))
    assert packets5.codes_of(again.until(lambda: again._take(packets.UNSUBACK))) == [0, 0x11]
    assert again.subscribe((fifth.user_down, 1)) == [1]
    again.publish(json.dumps({"op": "send", "id": "t", "to": alice.user, "body": 2}).encode())
    again.get("sent", id="t")


def test_correlation_data_comes_back(five: Five, name: Name) -> None:
    alice, bob = five.online(name("alice")), five.online(name("bob"))
    given = {packets5.CORRELATION: b"\0\1", packets5.USER: ("x", "y"), packets5.CONTENT_TYPE: "z"}
    assert alice.ask("send", to=bob.user, body="no id", given=given) == (0, "")
    assert alice.get("sent")[1][packets5.CORRELATION] == b"\0\1"
    assert packets5.CORRELATION not in bob.get("msg")[1]
    for op, answer in (("convs", "convs"), ("hello", "welcome"), ("devices", "ok"), ("nonsense", "error")):
        for qos in (0, 1, 2):
            alice.ask(op, qos=qos, given={packets5.CORRELATION: f"{op} {qos}".encode()})
            assert alice.get(answer)[1][packets5.CORRELATION] == f"{op} {qos}".encode()
    alice.ask("send", id="k", to=bob.user, body=1)
    alice.get("sent")
    alice.ask("send", id="k", to=bob.user, body=1, given={packets5.CORRELATION: b"again"})
    data, found = alice.get("sent")
    assert (data["dup"], found[packets5.CORRELATION]) == (True, b"again")


def test_properties_of_a_request_are_checked(five: Five, name: Name) -> None:
    alice = five.online(name("alice"))
    for topic in (alice.user_down, alice.device_down):
        assert alice.ask("convs", given={packets5.RESPONSE_TOPIC: topic}) == (0, "")
    code, text = alice.ask("convs", given={packets5.RESPONSE_TOPIC: "open/x"})
    assert code == 0x90
    assert text.startswith("bad_field: ")
    code, text = alice.publish(b"\x81\xa2op\xa5convs", given={packets5.FORMAT: 0})
    assert code == 0
    code, text = alice.publish(b"\x82\xa2op\xa5convs\xa1x\xc4\1\xff", given={packets5.FORMAT: 1})
    assert code == 0x99
    assert text.startswith("bad_payload: ")


def test_message_expiry_is_the_ttl_of_a_send(five: Five, name: Name) -> None:
    alice, other, bob = five.online(name("alice")), five.online(name("alice"), "tablet"), five.online(name("bob"))
    assert alice.ask("send", id="1", to=bob.user, body="x", given={packets5.EXPIRY: 100}) == (0, "")
    assert 1 <= bob.get("msg")[1][packets5.EXPIRY] <= 100
    assert 1 <= other.get("msg")[1][packets5.EXPIRY] <= 100
    assert packets5.EXPIRY not in alice.get("sent")[1]
    assert alice.ask("send", id="1", to=bob.user, body="x", given={packets5.EXPIRY: 7}) == (0, "")
    assert alice.get("sent")[0]["dup"] is True
    assert alice.ask("send", id="2", to=bob.user, body="x", ttl=50, given={packets5.EXPIRY: 7}) == (0, "")
    assert 8 <= bob.get("msg", id="2")[1][packets5.EXPIRY] <= 50
    code, text = alice.ask("send", to=bob.user, body="x", given={packets5.EXPIRY: 0})
    assert (code, text.partition(":")[0]) == (0x99, "bad_field")
    bob.disconnect()
    assert alice.ask("send", id="3", to=bob.user, body="late", given={packets5.EXPIRY: 1}) == (0, "")
    time.sleep(1.1)  # it is time itself that is tested
    assert five.online(bob.user).get("void")[0]["why"] == "expired"


def test_receive_maximum_bounds_items_replies_and_plain_messages_together(five: Five, name: Name) -> None:
    bob, alice = five.connect(name("bob"), given={packets5.RECEIVE_MAX: 3}), five.online(name("alice"))
    bob.auto_ack = False
    assert bob.subscribe((bob.user_down, 1), (bob.device_down, 1), (f"open/{bob.user}", 1)) == [1, 1, 1]
    for number in range(4):
        alice.say(bob.user, number)
        assert alice.publish(b"plain", topic=f"open/{bob.user}") == (0, "")
        assert bob.ask("convs", id=f"c{number}") == (0, "")
    seen: list[str] = []
    while len(seen) < 12:
        bob.until(lambda: [message for message in bob.came if message.qos])
        bob.settle()
        unanswered = [message for message in bob.came if message.qos]
        assert len(unanswered) <= 3
        bob.came.remove(unanswered[0])
        bob.ack(unanswered[0])
        seen.append(unanswered[0].topic)
    assert [seen.count(topic) for topic in (bob.user_down, bob.device_down, f"open/{bob.user}")] == [4, 4, 4]


def test_what_is_larger_than_the_device_takes_is_void_for_it_alone(five: Five, name: Name) -> None:
    alice, bob = five.online(name("alice")), five.online(name("bob"), "wide")
    small = five.online(bob.user, "small", given={packets5.MAX_PACKET: 300})
    for body in ("short", "x" * 400, "short too"):
        alice.say(bob.user, body)
    assert [bob.get("msg")[0]["body"] for _ in range(3)] == ["short", "x" * 400, "short too"]
    assert small.get("msg")[0]["body"] == "short"
    void = small.get("void")[0]
    assert (void["why"], void["from"], void["pos"]) == ("too_large", 2, 2)
    assert small.get("msg")[0]["body"] == "short too"
    conv = ":".join(sorted((alice.user, bob.user)))
    small.ask("history", id="h", conv=conv, before=2)
    assert small.get("page", id="h")[0]["items"][0]["body"] == "short"
    small.ask("history", id="long", conv=conv, before=3, limit=1)
    assert small.get("error", id="long")[0]["code"] == "too_large"
    bob.ask("history", id="all", conv=conv)
    assert len(bob.get("page", id="all")[0]["items"]) == 3


def test_batches_are_split_and_pages_shortened(five: Five, name: Name) -> None:
    alice, user = five.online(name("alice")), name("bob")
    five.online(user).disconnect()
    for number in range(30):
        alice.say(user, f"{number:050}")
    bob = five.connect(user, given={packets5.MAX_PACKET: 1000})
    assert bob.ask("hello", id="h", batch=True) == (0, "")
    bob.listen()
    bodies: list[str] = []
    while len(bodies) < 30:
        message = bob.until(lambda: bob.came and bob.came.pop(0))
        data = json.loads(message.payload)
        assert len(message.payload) < 1000
        bodies += [item["body"] for item in data.get("items", [data]) if item["op"] == "msg"]
    assert bodies == [f"{number:050}" for number in range(30)]
    bob.ask("sync", id="s", after=0)
    page = bob.get("page", id="s")[0]
    assert page["more"]
    assert 1 < len(page["items"]) < 30


def test_topic_aliases_from_the_first_packet_on(five: Five, name: Name) -> None:
    alice = five.online(name("alice"))
    bob = five.online(name("bob"), given={packets5.ALIAS_MAX: 2})
    for number in range(3):
        alice.say(bob.user, number)
        bob.ask("convs", id=f"c{number}")
        bob.get("convs", id=f"c{number}")
        bob.get("msg", body=number)
    assert sorted(filter(None, bob.sent_topics)) == sorted((bob.user_down, bob.device_down))
    assert bob.sent_topics.count("") == 4
    for number, topic in enumerate((bob.up, "", "")):
        bob.send(packets5.publish(topic, b'{"op":"convs"}', packet_id=50 + number, given={packets5.ALIAS: 4}))
    for number in range(3):
        bob.get("convs")
        assert packets5.code_of(bob.until(lambda n=number: bob._take(4, 50 + n)))[0] == 0


def test_an_acknowledgement_that_refuses_counts_as_one(five: Five, name: Name) -> None:
    alice, bob = five.online(name("alice")), five.online(name("bob"), given=KEEP)
    bob.auto_ack = False
    alice.say(bob.user, "no, thanks")
    _, message = bob.until(lambda: bob.find("msg"))
    bob.ack(message, 0x83)
    bob.settle()
    bob.close()
    again = five.connect(bob.user, given=KEEP, clean=False)
    assert again.connack.present
    alice.say(bob.user, "next")
    again.get("msg", body="next")
    assert not again.find("msg", body="no, thanks")


def test_identifiers_come_back_everywhere(five: Five, name: Name) -> None:
    alice = five.connect(name("alice"))
    assert alice.subscribe((alice.user_down, 1), given={packets5.SUB_ID: 5}) == [1]
    assert alice.subscribe((f"im/v1/{alice.user}/#", 1), given={packets5.SUB_ID: 6}) == [1]
    alice.say(alice.user, "x")
    _, message = alice.until(lambda: alice.find("sent"))
    assert sorted(value for key, value in message.properties if key == packets5.SUB_ID) == [5, 6]
    presence = alice.until(lambda: next((each for each in alice.came if each.topic.endswith("/presence")), None))
    assert [value for key, value in presence.properties if key == packets5.SUB_ID] == [6]
    alice.ask("convs")
    assert alice.get("convs")[1][packets5.SUB_ID] == 6


def test_retain_handling_of_presence(five: Five, name: Name) -> None:
    alice = five.online(name("alice"))
    topic = f"im/v1/{alice.user}/presence"
    for options, comes in ((0x20, False), (0x10, False), (0x00, True), (0x10, False)):
        alice.came.clear()
        assert alice.subscribe((topic, options)) == [0]
        if comes:
            alice.until(lambda: [each for each in alice.came if each.topic == topic and each.retain])
        alice.ask("devices")
        alice.get("ok")
        assert bool([each for each in alice.came if each.topic == topic and each.retain]) is comes


def test_a_will_on_up_is_a_request(five: Five, name: Name) -> None:
    bob, user = five.online(name("bob")), name("alice")
    payload = json.dumps({"op": "send", "to": bob.user, "body": "gone"}).encode()
    will = packets5.Will(f"im/v1/{user}/phone/up", payload, properties={packets5.EXPIRY: 30, packets5.CORRELATION: b"x"})
    five.connect(user, will=will).close()
    data, found = bob.get("msg")
    assert data["body"] == "gone"
    assert 28 <= found[packets5.EXPIRY] <= 30


def test_versions_of_one_users_devices_mix(five: Five, im: Clients, name: Name) -> None:
    old, new = im.online(name("alice"), "old"), five.online(name("alice"), "new")
    bob = im.online(name("bob"))
    old.say(bob.user, "from old")
    assert new.get("msg")[0]["body"] == "from old"
    new.say(bob.user, "from new")
    assert [bob.wait("msg")["body"] for _ in range(2)] == ["from old", "from new"]
    assert old.wait("msg", body="from new")["seq"] == 2


def test_a_session_survives_a_change_of_version_and_a_killed_server(own_five: Five, name: Name) -> None:
    server = own_five.server
    bob, user = own_five.online(name("bob")), name("alice")
    alice = own_five.online(user, given={packets5.SESSION_EXPIRY: 60})
    alice.auto_ack = False
    bob.say(user, "1")
    _, first = alice.until(lambda: alice.find("msg"))
    server.kill()
    server.start()
    again = own_five.connect(user, clean=False, given={packets5.SESSION_EXPIRY: 60})
    assert again.connack.present
    data, message = again.until(lambda: again.find("msg"))
    assert (data["body"], message.dup, message.packet_id) == ("1", True, first.packet_id)
    again.disconnect(0, {packets5.SESSION_EXPIRY: 1})
    # What is granted to a session that is kept is on disk, and so is what was written before.
    own_five.online(name("carol"), given={packets5.SESSION_EXPIRY: 60})
    server.kill()
    time.sleep(2.1)  # the session's time goes on while the server is down
    server.start()
    once = own_five.connect(user, clean=False)
    assert not once.connack.present
    bob = own_five.online(bob.user)
    bob.say(user, "2")
    once.listen()
    assert once.get("msg", body="2")[0]["seq"] == 2  # the cursor is not the session's: it stays


def test_stock_mosquitto_clients(five: Five, server: ServerProcess, name: Name) -> None:
    alice = five.online(name("alice"))
    where = ["-V", "5", "-h", "127.0.0.1", "-p", str(server.mqtt_port)]
    request = json.dumps({"op": "send", "to": alice.user, "body": "from mosquitto"})
    bob = name("bob")
    to = ["-u", bob, "-i", "m", "-t", f"im/v1/{bob}/m/up", "-q", "2"]
    done = subprocess.run(["mosquitto_pub", *where, *to, "-m", request], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert alice.get("msg")[0]["body"] == "from mosquitto"
    listen = ["-u", bob, "-i", "s", "-t", f"im/v1/{bob}/down", "-q", "1", "-C", "1", "-F", "%p"]
    heard = subprocess.run(["mosquitto_sub", *where, *listen], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    item = json.loads(heard.stdout)
    assert (item["op"], item["pos"], item["body"]) == ("msg", 1, "from mosquitto")


def test_metrics_tell_versions_apart(five: Five, im: Clients, server: ServerProcess, name: Name) -> None:
    five.online(name("alice"))
    im.online(name("bob"))
    status, text = server.get("/metrics")
    assert status == 200
    shown = dict(re.findall(r'^mqtt_im_connections\{protocol="(\w+)"\} (\d+)', text, re.MULTILINE))
    assert int(shown["mqtt5"]) >= 1
    assert int(shown["mqtt3"]) >= 1


@pytest.mark.parametrize("own_server", [{"auth.admin_token": "an-admin-token"}], indirect=True)
def test_metrics_and_lists_tell_what_came_over_websocket(own_server: ServerProcess, own_im: Clients) -> None:
    """On either port that has WebSocket, in either version; the dashboard's figures say the same."""
    own_im.online("alice")
    made: list[paho.Client] = []
    try:
        for number, (port, version) in enumerate(
            [(own_server.http_port, paho.MQTTv5), (own_server.websocket_port, paho.MQTTv5), (own_server.http_port, paho.MQTTv311)]
        ):
            client = paho.Client(CallbackAPIVersion.VERSION2, f"ws{number}", protocol=version, transport="websockets")
            client.ws_set_options(path="/mqtt")
            client.username_pw_set("alice")
            client.connect("127.0.0.1", port)
            client.loop_start()
            made.append(client)
        with Web(own_server.http_port, "an-admin-token") as admin:

            def protocols() -> dict[str, str]:
                listed = admin.ask("GET", "/api/v1/admin/connections").data["connections"]
                return {entry["device"]: entry["protocol"] for entry in listed}

            wanted = {"phone": "mqtt3", "ws0": "mqtt5/ws", "ws1": "mqtt5/ws", "ws2": "mqtt3/ws"}
            eventually(lambda: protocols() == wanted, "the connections")
            text = own_server.get("/metrics")[1]
            shown = dict(re.findall(r'^mqtt_im_connections\{protocol="(\S+)"\} (\d+)', text, re.MULTILINE))
            assert {name: int(count) for name, count in shown.items() if int(count)} == {"mqtt3": 1, "mqtt5/ws": 2, "mqtt3/ws": 1}
            stats = admin.ask("GET", "/api/v1/admin/stats").data
            assert (stats["connections_mqtt5_ws"], stats["connections_mqtt3_ws"], stats["connections_mqtt3"]) == (2, 1, 1)
    finally:
        for client in made:
            client.disconnect()
            client.loop_stop()
