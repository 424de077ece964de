"""PROTOCOL.md §§3–4: what retention has removed: `void`, `floor`, history and receipts of what is gone."""

from __future__ import annotations

import pytest

from tests.support.im import ImClient
from tests.system.conftest import Clients

CONFIG = {"store.retention_messages": 5}


def compact(im: Clients) -> None:
    result = im.server.command("store", "compact")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def trimmed(own_im: Clients) -> ImClient:
    """Alice has sent Bob twenty messages, of which the newest five are left; Bob had got ten of them."""
    alice, bob = own_im.online("alice"), own_im.online("bob")
    for number in range(10):
        alice.say("bob", number)
    bob.received(10)
    bob.flush()
    bob.disconnect()
    for number in range(10, 20):
        alice.say("bob", number)
    alice.drain()
    compact(own_im)
    return alice


def test_a_device_that_was_away_gets_voids_for_what_is_gone(trimmed: ImClient, own_im: Clients) -> None:
    """Nothing is ever left out silently: the items behind its cursor come, or a void that covers them."""
    bob = own_im.online("bob")
    bob.drain()
    covered = [pos for item in bob.items for pos in range(item["from"] if item.op == "void" else item["pos"], item["pos"] + 1)]
    assert covered == list(range(11, covered[-1] + 1))
    assert {item["why"] for item in bob.items if item.op == "void"} <= {"retention"}
    assert [item["body"] for item in bob.items if item.op == "msg"][-5:] == [15, 16, 17, 18, 19]


def test_history_begins_where_it_was_trimmed(trimmed: ImClient, own_im: Clients) -> None:
    bob = own_im.online("bob")
    assert [item["body"] for item in bob.must("history", conv="alice:bob")["items"]][-5:] == [15, 16, 17, 18, 19]
    page = bob.must("history", conv="alice:bob", after=0)
    assert page["items"][0]["seq"] > 1
    assert bob.must("history", conv="alice:bob", before=page["items"][0]["seq"])["items"] == []


def test_numbers_go_on_and_ids_of_what_is_left_are_remembered(trimmed: ImClient, own_im: Clients) -> None:
    sent = trimmed.must("send", to="bob", body="next", id="n")
    assert sent["seq"] == 21
    assert trimmed.must("send", to="bob", body="next", id="n")["dup"] is True


def test_below_the_floor_is_a_bad_field(trimmed: ImClient, own_im: Clients) -> None:
    """`floor`: items up to it are gone; `hello` with `after` below it is refused, `sync` answers with a void."""
    bob = own_im.online("bob")
    bob.drain()
    floor = bob.must("hello")["floor"]
    if floor > 1:
        bob.refused("hello", "bad_field", after=floor - 1)
    page = bob.must("sync", after=0, limit=500)
    covered = [
        pos for item in page["items"] for pos in range(item["from"] if item["op"] == "void" else item["pos"], item["pos"] + 1)
    ]
    assert covered == list(range(1, covered[-1] + 1))


def test_all_of_it_survives_sigkill(trimmed: ImClient, own_im: Clients) -> None:
    own_im.server.restart(kill=True)
    bob = own_im.online("bob")
    assert [item["body"] for item in bob.must("history", conv="alice:bob")["items"]][-5:] == [15, 16, 17, 18, 19]
    assert own_im.online("alice").say("bob", "next")["seq"] == 21
