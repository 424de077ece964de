"""PROTOCOL.md §3: `hello`, `sync`, `history`, `convs`, `devices`, `device.forget`; §4 where they move a cursor."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.im import direct
from tests.system.conftest import Clients, Name

CONFIG = {"limits.max_page": 50, "limits.requests_per_second": 5000}


def bodies(page: Any) -> list[Any]:
    return [item["body"] for item in page["items"]]


# hello


def test_welcome_says_where_the_device_stands(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    for number in range(3):
        client.say(bob, number, n=number + 1)
    welcome = client.must("hello", id="h")
    assert welcome["op"] == "welcome"
    assert (welcome["id"], welcome["head"], welcome["floor"], welcome["n"]) == ("h", 3, 0, 3)
    assert 0 <= welcome["pos"] <= 3
    assert welcome["epoch"]
    assert welcome["limits"]["packet"] == 262_144
    assert welcome["limits"]["body"] == 65_536
    assert welcome["limits"]["page"] == 50
    assert {"window", "rate"} <= set(welcome["limits"])


def test_hello_without_id_is_answered(im: Clients, name: Name) -> None:
    client = im.online(name("alice"))
    client.request("hello")
    assert "id" not in client.wait("welcome")


def test_the_epoch_stays_over_a_restart(own_im: Clients) -> None:
    first = own_im.online("alice").must("hello")["epoch"]
    own_im.server.restart(kill=True)
    assert own_im.online("alice").must("hello")["epoch"] == first


def test_hello_after_moves_the_cursor_back_and_forward(im: Clients, name: Name) -> None:
    """§4: "I have everything up to there"."""
    alice, bob = name("alice"), name("bob")
    client, peer = im.online(alice), im.online(bob)
    for number in range(1, 7):
        peer.say(alice, number)
    assert [item["pos"] for item in client.drain()] == [1, 2, 3, 4, 5, 6]
    assert client.must("hello", after=2)["pos"] == 2
    client.until(lambda: client.positions.count(6) == 2, "the items again")
    start = client.positions.index(3, 6)
    assert client.positions[start : start + 4] == [3, 4, 5, 6]
    client.close()
    client = im.sign_in(alice)
    client.confirmed("hello", after=7)
    client.listen()
    assert client.drain() == []


@pytest.mark.parametrize("after", [1_000, -1, "x", 1.5])
def test_hello_beyond_the_head_is_a_bad_field(im: Clients, name: Name, after: Any) -> None:
    client = im.online(name("alice"))
    client.refused("hello", "bad_field", after=after)


@pytest.mark.parametrize("fields", [{"ack": "maybe"}, {"codec": "xml"}, {"batch": "yes"}, {"zip": 1}, {"window": 0},
                                    {"window": "all"}, {"n": -1}], ids=repr)  # fmt: skip
def test_hello_with_wrong_fields(im: Clients, name: Name, fields: dict[str, Any]) -> None:
    im.online(name("alice")).refused("hello", "bad_field", **fields)


# sync


def test_sync_pages_through_the_inbox_and_moves_nothing(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    peer = im.online(bob)
    client = im.socket(alice)
    client.auto_ack = False
    client.sign_in().listen()
    for number in range(120):
        peer.request("send", to=alice, body=number)
    client.received(64)
    seen: list[Any] = []
    after, more = 0, True
    while more:
        page = client.must("sync", after=after, limit=50)
        seen += page["items"]
        more, after = page["more"], page["items"][-1]["pos"] if page["items"] else after
    if len(seen) < 120:
        peer.drain()
        seen += client.must("sync", after=len(seen), limit=50)["items"]
    assert [item["pos"] for item in seen] == list(range(1, len(seen) + 1))
    assert [item["body"] for item in seen] == list(range(len(seen)))
    assert client.must("hello")["pos"] == 0


def test_sync_shows_sent_to_the_sending_device_and_msg_to_the_others(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    phone.say(bob, "x")
    assert phone.must("sync", after=0)["items"][0]["op"] == "sent"
    assert laptop.must("sync", after=0)["items"][0]["op"] == "msg"


@pytest.mark.parametrize(("after", "expected"), [(0, [1, 2]), (1, [2, 3]), (2, [3]), (3, [])])
def test_sync_limit_and_more(im: Clients, name: Name, after: int, expected: list[int]) -> None:
    alice = name("alice")
    client = im.online(alice)
    for number in range(3):
        client.say(alice, number)
    page = client.must("sync", after=after, limit=2)
    assert [item["pos"] for item in page["items"]] == expected
    assert page["more"] is (after == 0)


@pytest.mark.parametrize(
    "fields", [{}, {"after": -1}, {"after": "x"}, {"after": 0, "limit": 0}, {"after": 0, "limit": "x"}], ids=repr
)
def test_sync_with_wrong_fields(im: Clients, name: Name, fields: dict[str, Any]) -> None:
    im.online(name("alice")).refused("sync", "bad_field", **fields)


# history


def test_history_pages_both_ways(im: Clients, name: Name) -> None:
    """The ones next after `after`, else the last ones before `before`, else the newest; ascending; both bounds hold."""
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    conv = direct(alice, bob)
    for number in range(1, 11):
        client.say(bob, number)
    cases: list[tuple[dict[str, int], list[int], bool]] = [
        ({"limit": 3}, [8, 9, 10], True),
        ({"limit": 10}, list(range(1, 11)), False),
        ({"limit": 20}, list(range(1, 11)), False),
        ({"after": 0, "limit": 3}, [1, 2, 3], True),
        ({"after": 7, "limit": 3}, [8, 9, 10], False),
        ({"after": 10}, [], False),
        ({"before": 5, "limit": 3}, [2, 3, 4], True),
        ({"before": 4, "limit": 3}, [1, 2, 3], False),
        ({"before": 1}, [], False),
        ({"after": 2, "before": 6, "limit": 2}, [3, 4], True),
        ({"after": 2, "before": 6, "limit": 9}, [3, 4, 5], False),
    ]
    for fields, expected, more in cases:
        page = client.must("history", conv=conv, **fields)
        assert bodies(page) == expected, fields
        assert page["more"] is more, fields
        assert page["conv"] == conv


def test_history_is_for_members(im: Clients, name: Name) -> None:
    alice, bob, mallory = name("alice"), name("bob"), name("mallory")
    client, spy = im.online(alice), im.online(mallory)
    client.say(bob, "secret")
    group = name("#g")
    client.must("group.create", group=group, members=[bob])
    for conv in (direct(alice, bob), group, name("#none")):
        spy.refused("history", "not_member", conv=conv)


def test_history_carries_msg_items_without_a_place_in_the_inbox(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    client = im.online(alice)
    sent = client.say(bob, "x", cts=3)
    item = client.must("history", conv=sent["conv"])["items"][0]
    expected = {"op": "msg", "conv": sent["conv"], "seq": 1, "from": alice, "body": "x", "ts": sent["ts"], "cts": 3}
    assert {key: item.get(key) for key in expected} == expected


@pytest.mark.parametrize("fields", [{}, {"conv": "nonsense conv"}, {"conv": 5}], ids=repr)
def test_history_with_wrong_fields(im: Clients, name: Name, fields: dict[str, Any]) -> None:
    answer = im.online(name("alice")).ask("history", **fields)
    assert answer["code"] in ({"bad_field", "not_member"} if fields.get("conv") == "nonsense conv" else {"bad_field"})


def test_pages_are_bounded_by_the_limit_of_the_server(im: Clients, name: Name) -> None:
    """limits.max_page, 50 here, whatever is asked."""
    alice = name("alice")
    client = im.online(alice)
    for number in range(60):
        client.request("send", to=alice, body=number)
    client.drain()
    page = client.must("sync", after=0, limit=10_000)
    assert (len(page["items"]), page["more"]) == (50, True)
    page = client.must("history", conv=f"{alice}:{alice}", after=0)
    assert (len(page["items"]) <= 50, page["more"]) == (True, True)


def test_a_page_fits_into_a_packet(im: Clients, name: Name) -> None:
    """Large bodies make shorter pages, with `more`; nothing is lost between them."""
    alice = name("alice")
    client = im.online(alice)
    for number in range(12):
        client.say(alice, f"{number:02}" + "x" * 60_000)
    seen: list[str] = []
    after, more = 0, True
    while more:
        page = client.must("sync", after=after, limit=50)
        assert len(page.packet.payload) <= 262_144
        assert page["items"], "a page without items that says more never ends"
        seen += [item["body"][:2] if "body" in item else f"{item['seq'] - 1:02}" for item in page["items"]]
        more, after = page["more"], page["items"][-1]["pos"]
    assert seen == [f"{number:02}" for number in range(12)]
    page = client.must("history", conv=f"{alice}:{alice}", after=0)
    assert len(page.packet.payload) <= 262_144
    assert page["items"][0]["body"][:2] == "00"
    assert page["more"] is True


# convs


def test_convs_lists_latest_activity_first(im: Clients, name: Name) -> None:
    alice, bob, carol, dave = (name(word) for word in ("alice", "bob", "carol", "dave"))
    client = im.online(alice)
    group = name("#g")
    for peer in (bob, carol, dave):
        client.say(peer, f"to {peer}")
    client.must("group.create", group=group, name="The group", members=[bob])
    client.say(bob, "again")
    page = client.must("convs")
    assert [entry["conv"] for entry in page["convs"]] == [direct(alice, bob), group, direct(alice, dave), direct(alice, carol)]
    assert page["more"] is False
    first, second = page["convs"][:2]
    assert (first["seq"], first["last"]["body"], first["last"]["op"]) == (2, "again", "msg")
    assert "name" not in first
    assert (second["name"], second["seq"]) == ("The group", 1)
    assert {"unread", "mentions", "receipts"} <= set(first)


def test_convs_pages(im: Clients, name: Name) -> None:
    alice = name("alice")
    client = im.online(alice)
    peers = [name(f"peer{number}") for number in range(7)]
    for peer in peers:
        client.say(peer, "x")
    seen: list[str] = []
    fields: dict[str, Any] = {"limit": 3}
    while True:
        page = client.must("convs", **fields)
        seen += [entry["conv"] for entry in page["convs"]]
        if not page["more"]:
            break
        fields["after"] = page["next"]
    assert seen == [direct(alice, peer) for peer in reversed(peers)]


def test_convs_of_somebody_new_is_empty(im: Clients, name: Name) -> None:
    page = im.online(name("alice")).must("convs")
    assert (page["convs"], page["more"]) == ([], False)


# devices


def test_devices_tells_cursor_and_presence(im: Clients, name: Name) -> None:
    alice = name("alice")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    laptop.say(alice, "x")
    laptop.disconnect()
    phone.drain()
    found = {entry["device"]: entry for entry in phone.must("devices")["devices"]}
    assert set(found) == {"phone", "laptop"}
    assert (found["phone"]["online"], found["laptop"]["online"]) == (True, False)
    assert isinstance(found["laptop"]["last_seen"], int)
    assert found["laptop"]["pos"] <= 1


def test_a_forgotten_device_loses_cursor_session_and_n(im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone, peer = im.online(alice, "phone"), im.online(bob)
    laptop = im.online(alice, "laptop", clean=False)
    laptop.say(bob, "x", n=1)
    laptop.drain()
    laptop.close()
    assert phone.must("device.forget", device="laptop").op == "ok"
    assert [entry["device"] for entry in phone.must("devices")["devices"]] == ["phone"]
    peer.say(alice, "while it was forgotten")
    laptop = im.sign_in(alice, "laptop", clean=False)
    assert laptop.session_present is False
    laptop.listen()
    assert laptop.must("hello")["n"] == 0
    assert all(item.data.get("body") != "while it was forgotten" for item in laptop.drain())


def test_forgetting_a_connected_device_closes_it(im: Clients, name: Name) -> None:
    alice = name("alice")
    phone, laptop = im.online(alice, "phone"), im.online(alice, "laptop")
    phone.must("device.forget", device="laptop")
    laptop.wait_closed()
    assert [entry["device"] for entry in phone.must("devices")["devices"]] == ["phone"]


def test_forgetting_a_device_that_only_publishes_closes_it_and_ends_its_session(im: Clients, name: Name) -> None:
    alice = name("alice")
    phone, button = im.online(alice, "phone"), im.sign_in(alice, "button", clean=False)
    button.request("send", to=alice, body="pressed", id="press")
    phone.received(1)
    phone.must("device.forget", device="button")
    button.wait_closed()
    assert im.sign_in(alice, "button", clean=False).session_present is False


def test_forgetting_repeats_harmlessly(im: Clients, name: Name) -> None:
    """`ok`; its cursor, session and n are gone, if it was there; the id is only echoed."""
    alice = name("alice")
    phone = im.online(alice, "phone")
    for _ in range(2):
        assert phone.must("device.forget", device="never-there", id="f").op == "ok"
    phone.must("device.forget", device="another", id="f")


def test_forgetting_is_for_ones_own_devices(im: Clients, name: Name) -> None:
    one, other = im.online(name("alice"), "phone"), im.online(name("bob"), "phone2")
    other.must("device.forget", device="phone")
    one.flush()


@pytest.mark.parametrize("device", ["", "a b", "x" * 65, 5, None])
def test_forget_with_a_wrong_device(im: Clients, name: Name, device: Any) -> None:
    im.online(name("alice")).refused("device.forget", "bad_field", device=device)


@pytest.mark.parametrize("op", ["device.forget", "group.create", "group.add", "edit", "react", "mute", "settings", "block"])
def test_ops_that_need_an_id_say_so(im: Clients, name: Name, op: str) -> None:
    """§3: their tables name `id` without a question mark."""
    client = im.online(name("alice"))
    fields: dict[str, Any] = {
        "device": "x", "group": name("#g"), "members": [name("bob")], "conv": "a:b", "seq": 1, "body": "x", "emoji": "x",
        "until": 0, "user": name("bob"),
    }  # fmt: skip
    client.request(op, **fields)
    assert client.wait("error")["code"] == "bad_field"
