"""PROTOCOL.md §§3–5, 7 and 8, and HTTP.md, over three nodes: who asks and who is told are never at the same one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support import packets5
from tests.support.im import ImClient
from tests.support.im5 import Im5
from tests.support.nodes import Nodes, unharmed_nodes
from tests.support.packets5 import Will
from tests.support.postgres import Cluster
from tests.support.raw import eventually
from tests.support.web import Events, Web

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trio(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three nodes with one folder of files, which the tests of this file share and do not harm."""
    shared = tmp_path_factory.mktemp("files")
    config = {"files.url": f"file://{shared}", "mqtt.plain_topics": ["open/#"], "limits.requests_per_second": 2000}
    with unharmed_nodes(postgres, 3, **config) as nodes:
        yield nodes


def states(client: ImClient, user: str) -> list[str]:
    """What it was told of that user's presence, in order."""
    return [json.loads(p.payload)["state"] for p in client.plain if p.topic == f"im/v1/{user}/presence"]


def test_a_block_at_one_node_holds_at_all(trio: Nodes) -> None:
    alice, bob = trio.online(0, "blocker"), trio.online(1, "blocked")
    bob.say("blocker", "before")
    alice.wait("msg", body="before")
    assert bob.subscribe(alice.presence_topic) == [1]
    bob.until(lambda: states(bob, "blocker") == ["online"], "online")
    alice.must("block", user="blocked")
    tablet = trio.online(2, "blocked", "tablet")
    for client in (bob, tablet):
        client.refused("send", "blocked", to="blocker", body="now")
        client.request("typing", qos=0, to="blocker", on=True)
    other = trio.online(2, "bystander")
    other.say("blocker", "hello")
    alice.wait("msg", body="hello")
    bob.request("typing", qos=0, to="blocker", on=True)
    bob.flush()
    alice.disconnect()
    alice = trio.online(2, "blocker")
    alice.request("read", conv="blocked:blocker", seq=1)
    alice.flush()
    assert not [event for event in alice.events if event.op == "typing"]
    alice.must("unblock", user="blocked")
    seq = bob.say("blocker", "again")["seq"]
    alice.wait("msg", body="again", seq=seq)
    bob.wait("receipt", delivered=seq, by="blocker")
    assert states(bob, "blocker")[1:] in ([], ["online"])  # nothing of what was while it was blocked
    assert not [
        event for event in bob.events if event.op == "receipt" and event["by"] == "blocker" and event.data.get("read") == 1
    ]


def test_who_has_a_device_at_two_nodes_goes_with_the_last_one(trio: Nodes) -> None:
    phone, tablet, watcher = trio.online(0, "two", "phone"), trio.online(1, "two", "tablet"), trio.online(2, "watcher")
    phone.say("watcher", 1)
    watcher.wait("msg", body=1)
    assert watcher.subscribe("im/v1/two/presence") == [1]
    watcher.until(lambda: states(watcher, "two") == ["online"], "online")
    phone.disconnect()
    watcher.say("two", 2)
    tablet.wait("msg", body=2)
    phone = trio.online(2, "two", "phone")
    phone.wait("msg", body=2)
    tablet.disconnect()
    watcher.say("two", 3)
    phone.wait("msg", body=3)
    phone.disconnect()
    watcher.until(lambda: states(watcher, "two")[-1] == "offline", "offline")
    assert states(watcher, "two") == ["online", "offline"]
    late = trio.client(1, "watcher", "late")
    assert late.subscribe("im/v1/two/presence") == [1]
    late.until(lambda: states(late, "two") == ["offline"], "what is retained, at a third node")


def test_marks_ids_and_counters_are_of_all_nodes(trio: Nodes) -> None:
    alice = trio.online(0, "counter")
    assert alice.must("hello", n=0)["n"] == 0
    assert alice.say("counted", "a", id="one", n=1)["seq"] == 1
    assert alice.ask("send", id="x", to="counted", body="c", n=3)["expected"] == 2
    moved = trio.online(1, "counter")
    assert moved.must("hello")["n"] == 1
    again = moved.ask("send", id="one", to="counted", body="a", n=1)
    assert again["dup"] and again["seq"] == 1
    moved.refused("send", "conflict", id="one", to="counted", body="b")
    tablet = trio.online(2, "counter", "tablet")
    assert tablet.ask("send", id="one", to="counted", body="a")["dup"]
    assert moved.say("counted", "b", id="two", n=2)["seq"] == 2
    bob = trio.online(2, "counted")
    seqs = [bob.wait("msg", body=body)["seq"] for body in ("a", "b")]
    assert seqs == [1, 2]
    moved.wait("receipt", by="counted", delivered=2)
    bob.confirmed("read", conv="counted:counter", seq=2)
    moved.wait("receipt", by="counted", read=2)
    convs = trio.online(0, "counter", "laptop").ask("convs")["convs"]
    assert convs[0]["receipts"]["counted"] == {"delivered": 2, "read": 2}


def test_what_was_in_flight_comes_again_at_another_node_as_it_was(trio: Nodes) -> None:
    """MQTT-4.4.0-1: the same packet identifiers with DUP, in order; what was acknowledged does not come again."""
    alice, bob = trio.online(0, "flier"), trio.client(1, "inflight", clean=False).listen()
    bob.auto_ack = False
    for number in range(6):
        alice.say("inflight", number)
    first = bob.until(lambda: [item for item in bob.items if item.op == "msg"][5:], "all")
    assert len(first) == 1
    sent = [(item["pos"], item.packet.packet_id) for item in bob.items]
    for item in (bob.items[0], bob.items[1], bob.items[4]):
        bob.puback(item)
    alice.wait("receipt", by="inflight", delivered=2)
    alice.must("recall", conv="flier:inflight", seq=4)
    bob.close()
    moved = trio.client(2, "inflight", clean=False)
    moved.until(lambda: any(item.op == "recalled" for item in moved.items), "all of them")
    found = [(item["pos"], item.packet.packet_id) for item in moved.items if item.op == "msg"]
    assert [pos for pos, _ in found] in ([3, 4, 6], [3, 4, 5, 6])
    assert [packet for packet in found if packet[0] != 5] == [sent[2], sent[3], sent[5]]
    assert all(item.packet.dup for item in moved.items if item.op == "msg")
    assert next(item for item in moved.items if item["pos"] == 4).data.get("recalled") is True


def test_app_acks_and_forgotten_devices(trio: Nodes) -> None:
    bob = trio.online(0, "acker")
    bob.must("hello", ack="app")
    for number in range(3):
        trio.online(1, f"sender{number}").say("acker", number)
    bob.received(3)
    bob.confirmed("ack", pos=1)
    moved = trio.online(1, "acker")  # `ack: app` was kept with the device
    moved.received(2)
    assert [item["pos"] for item in moved.items] == [2, 3]
    again = trio.online(2, "acker")
    again.received(2)
    assert [item["pos"] for item in again.items] == [2, 3]
    tablet = trio.online(0, "acker", "tablet")
    with Im5(trio.all[1].mqtt_port, "acker", "watch") as watch:
        watch.listen()
        assert {each["device"] for each in tablet.ask("devices")["devices"]} == {"phone", "tablet", "watch"}
        tablet.must("device.forget", device="phone")
        tablet.must("device.forget", device="watch")
        again.until_closed()
        assert watch.goodbye() == 0x98


def test_a_users_devices_are_online_at_whichever_node_they_are(trio: Nodes) -> None:
    phone, tablet = trio.online(0, "owner"), trio.online(1, "owner", "tablet")

    def told(asker: ImClient) -> dict[str, bool]:
        return {each["device"]: each["online"] for each in asker.ask("devices")["devices"]}

    for asker in (phone, tablet):
        eventually(lambda asker=asker: told(asker) == {"phone": True, "tablet": True}, "both online")  # type: ignore[misc]
    tablet.disconnect()
    eventually(lambda: told(phone) == {"phone": True, "tablet": False}, "the tablet is offline")


def test_a_keyed_message_is_replaced_only_where_nobody_was_offered_it(trio: Nodes) -> None:
    alice, tablet = trio.online(0, "keyer"), trio.online(1, "keyer", "tablet")
    trio.online(2, "keyed").disconnect()

    def is_replaced() -> bool:
        """As soon as it is known everywhere that the device has left with nothing in flight."""
        bob = trio.online(1, "keyed", "tablet")
        bob.disconnect()
        first = alice.say("keyed", "old", key="k")["seq"]
        tablet.say("keyed", "new", key="k")
        bob = trio.online(2, "keyed", "tablet")
        bob.wait("msg", body="new")
        found = [item.op for item in bob.items]
        shown = bob.ask("history", conv="keyed:keyer", after=first - 1)["items"]
        bob.disconnect()
        assert [item["body"] for item in shown] == ["old", "new"]
        return found == ["void", "msg"]

    eventually(is_replaced, "nobody was offered it")
    bob = trio.online(1, "keyed")
    bob.until(lambda: [item for item in bob.items if item["pos"] == bob.must("hello")["head"]], "all items")
    alice.say("keyed", "newest", key="k")
    bob.wait("msg", body="newest")
    assert bob.items[-2].data["body"] == "new"  # it was offered before
    assert not [item for item in alice.items if item.op == "void"]


def test_a_group_over_nodes_and_who_leaves_it(trio: Nodes) -> None:
    owner, second, third = (trio.online(node, name) for node, name in enumerate(("gowner", "gsecond", "gthird")))
    owner.must("group.create", group="#over", members=["gsecond", "gthird"])
    for client in (second, third):
        client.wait("msg", conv="#over", seq=1)
    assert third.subscribe("im/v1/gsecond/presence") == [1]
    third.until(lambda: states(third, "gsecond") == ["online"], "online")
    owner.must("group.role", group="#over", user="gsecond", role="admin")
    second.must("group.remove", group="#over", members=["gthird"])
    third.wait("msg", conv="#over", seq=3)
    second.say("#over", "without you")
    owner.wait("msg", body="without you", seq=4)
    third.refused("send", "not_member", to="#over", body="still here?")
    assert third.ask("history", conv="#over")["items"][-1]["seq"] == 3
    second.disconnect()
    owner.must("group.add", group="#over", members=["gthird"])
    third.wait("msg", conv="#over", seq=5)
    owner.must("group.leave", group="#over")
    second = trio.online(2, "gsecond")
    assert second.wait("msg", conv="#over", seq=7)["system"]["event"] == "group.role"
    roles = {each["user"]: each["role"] for each in third.ask("group.info", group="#over")["members"]}
    assert roles == {"gsecond": "owner", "gthird": "member"}
    assert not [item for item in third.items if item.data.get("body") == "without you"]


def test_reactions_reports_settings_mutes_and_search(trio: Nodes) -> None:
    alice, bob = trio.online(0, "reacter"), trio.online(1, "reacted1")
    seq = alice.say("reacted1", "a lighthouse")["seq"]
    bob.wait("msg", seq=seq)
    tablet = trio.online(2, "reacted1", "tablet")
    bob.must("react", conv="reacted1:reacter", seq=seq, emoji="+1")
    for client in (alice, tablet):
        client.wait("reacted", seq=seq, by="reacted1", emoji="+1")
    tablet.must("report", conv="reacted1:reacter", seq=seq, state="executed", result=7)
    assert alice.wait("report", seq=seq)["result"] == 7
    found = trio.online(2, "reacter", "tablet").ask("search", query="lighthouse")["items"]
    assert [(item["seq"], item["reactions"]) for item in found] == [(seq, {"+1": ["reacted1"]})]
    bob.must("mute", conv="reacted1:reacter", until=9_999_999_999_999)
    assert tablet.ask("convs")["convs"][0]["muted"] == 9_999_999_999_999
    tablet.must("settings", read_receipts=False)
    assert bob.ask("settings")["read_receipts"] is False
    bob.confirmed("read", conv="reacted1:reacter", seq=seq)
    assert alice.subscribe("im/v1/reacted1/presence") == [1]
    alice.until(lambda: states(alice, "reacted1") == ["online"], "online")
    tablet.must("settings", presence=False)
    alice.flush()
    assert not [event for event in alice.events if event.op == "receipt" and "read" in event]


def test_sessions_of_mqtt_5_move(trio: Nodes) -> None:
    """Take-over with 0x8E, subscriptions with their options, a will delay that a connection elsewhere cancels, its end."""
    watcher = trio.client(1, "willwatcher")
    assert watcher.subscribe(("open/wills/#", 1)) == [1]
    will = Will("open/wills/five", b"gone", qos=1, properties={packets5.WILL_DELAY: 4})
    given = {packets5.SESSION_EXPIRY: 3600}
    with ExitStack() as undo:
        five = undo.enter_context(Im5(trio.all[0].mqtt_port, "five", clean=False, given=given, will=will))
        five.listen()
        assert five.subscribe(("open/five", 1), given={packets5.SUB_ID: 7}) == [1]
        moved = undo.enter_context(Im5(trio.all[1].mqtt_port, "five", clean=False, given=given, will=will))
        assert five.goodbye() == 0x8E
        assert moved.connack.present
        publisher = trio.client(2, "fivepub")
        publisher.publish("open/five", b"1", qos=1)
        moved.until(lambda: [p for p in moved.came if p.topic == "open/five"])
        assert dict(moved.came[-1].properties)[packets5.SUB_ID] == 7
        publisher.request("send", to="five", body="hello")
        moved.get("msg", body="hello")
        moved.close()  # without DISCONNECT: the delay runs
        back = undo.enter_context(Im5(trio.all[2].mqtt_port, "five", clean=False, given=given, will=will))
        assert back.connack.present
        back.send(packets5.disconnect(0x04, None))  # with the will
        watcher.until(lambda: [p.payload for p in watcher.plain] == [b"gone"], "the will of the last connection alone")
        fresh = undo.enter_context(Im5(trio.all[0].mqtt_port, "five", clean=True))
        assert not fresh.connack.present
        again = undo.enter_context(Im5(trio.all[1].mqtt_port, "five", clean=False))
        assert not again.connack.present
    watcher.unsubscribe("open/nothing")
    assert [p.payload for p in watcher.plain] == [b"gone"]


def test_a_will_of_ones_own_up_comes_from_any_node(trio: Nodes) -> None:
    alice = trio.online(0, "heir")
    will = Will("im/v1/testator/phone/up", b'{"op":"send","id":"w","to":"heir","body":"last"}', qos=1)
    ports = [node.mqtt_port for node in trio.all]
    with Im5(ports[1], "testator", will=will) as former, Im5(ports[2], "testator", will=will) as now:
        assert former.goodbye() == 0x8E
        assert alice.wait("msg", body="last")["seq"] == 1
        now.say("heir", "still here")
        assert alice.wait("msg", body="still here")["seq"] == 2


def test_files_are_of_all_nodes(trio: Nodes) -> None:
    with ExitStack() as undo:
        alice = undo.enter_context(Web(trio.all[0].http_port)).login("filer")
        bob = undo.enter_context(Web(trio.all[1].http_port)).login("reader")
        carl = undo.enter_context(Web(trio.all[2].http_port)).login("stranger")
        file = alice.upload(b"contents", "a.txt", "text/plain")["id"]
        elsewhere = undo.enter_context(Web(trio.all[2].http_port, alice.token))
        seq = elsewhere.must("send", to="reader", body="see", files=[file])["seq"]
        assert bob.file(file).body == b"contents"
        assert carl.file(file).status == 404
        carl.refused("send", 404, "not_found", to="filer", body="x", files=[file])
        forwarded = bob.must("send", to="stranger", body="forwarded", files=[file])["seq"]
        assert carl.file(file).body == b"contents"
        alice.must("recall", conv="filer:reader", seq=seq)
        assert bob.file(file).status == 200  # its own message carries it
        bob.must("recall", conv="reader:stranger", seq=forwarded)
        for client in (bob, carl):
            eventually(lambda client=client: client.file(file).status == 404, "nobody reads it any more")  # type: ignore[misc]


def test_streams_go_on_at_another_node(trio: Nodes) -> None:
    with ExitStack() as undo:
        alice = undo.enter_context(Web(trio.all[0].http_port)).login("streamed")
        sender = trio.online(2, "streamer")
        with Events(trio.all[1].http_port, alice.token) as stream:
            assert stream.wait("welcome").data["pos"] == 0
            sender.say("streamed", 1)
            last = stream.wait("msg", body=1).id
            for on in (True, False) * 5:  # lost where it is not known there yet who has come here
                sender.request("typing", qos=0, to="streamed", on=on)
                time.sleep(0.2)
            stream.wait("typing", **{"from": "streamer"})
        sender.say("streamed", 2)
        with Events(trio.all[0].http_port, alice.token, Last_Event_ID=last) as stream:
            stream.wait("msg", body=2)
            stream.wait("presence", user="streamer", state="online")
            sender.disconnect()
            stream.wait("presence", user="streamer", state="offline")
        with Events(trio.all[0].http_port, alice.token, "?device=tab") as stream:
            stream.wait("welcome")
            other = trio.online(1, "streamer")
            other.say("streamed", 3)
            pos = int(stream.wait("msg", body=3).id)
            elsewhere = undo.enter_context(Web(trio.all[2].http_port, alice.token))
            assert elsewhere.must("ack", device="tab", pos=pos) == {}
            with Events(trio.all[2].http_port, alice.token, "?device=tab") as second:
                second.wait("welcome")
                stream.until_closed()  # the second stream has taken over
                other.say("streamed", 4)
                assert int(second.wait("msg").id) == pos + 1
        logout = undo.enter_context(Web(trio.all[1].http_port, alice.token))
        with Events(trio.all[2].http_port, alice.token) as stream:
            stream.wait("welcome")
            assert logout.ask("POST", "/api/v1/logout").status == 204
            stream.until_closed()
        eventually(lambda: alice.post("convs").status == 401, "the token is void at every node")
