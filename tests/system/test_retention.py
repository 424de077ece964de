"""Retention, as clients and operators see it: PROTOCOL.md §3 (`void`), §4 (floor); `mqtt-im store compact`."""

from __future__ import annotations

from typing import Any

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.im import Event, ImClient, direct
from tests.system.conftest import Clients, Name

CONFIG = {"store.retention_messages": 3, "limits.max_page": 50}


def compact(server: ServerProcess) -> str:
    result = server.command("store", "compact")
    assert result.returncode == 0, result.stderr
    return result.stdout


def shape(items: list[Any]) -> list[str]:
    """The items in short: ops, and of voids from where to where they reach."""
    return [f"{item['from']}-{item['pos']} {item['why']}" if _op(item) == "void" else _op(item) for item in items]


def _op(item: Any) -> str:
    return item.op if isinstance(item, Event) else str(item["op"])


def settled(*clients: ImClient) -> None:
    """What the clients have acknowledged is known to the store: it is written with what `devices` has to tell."""
    for client in clients:
        client.flush()


@pytest.fixture
def story(own_im: Clients, name: Name) -> tuple[ImClient, ImClient]:
    """Ten messages that both have got."""
    alice, bob = own_im.online(name("alice")), own_im.online(name("bob"))
    for number in range(10):
        alice.say(bob.user, f"number {number}", id=f"m{number}")
    alice.received(10)
    bob.received(10)
    settled(alice, bob)
    return alice, bob


def test_trimmed_inboxes_are_answered_with_void(
    own_server: ServerProcess, story: tuple[ImClient, ImClient], own_im: Clients
) -> None:
    alice, bob = story
    assert "Removed 7 messages with 14 items" in compact(own_server)
    page = bob.must("sync", after=0)
    assert shape(page["items"]) == ["1-7 retention", "msg", "msg", "msg"]
    assert shape(alice.must("sync", after=5)["items"]) == ["6-7 retention", "sent", "sent", "sent"]
    conv = direct(alice.user, bob.user)
    assert [item["seq"] for item in bob.must("history", conv=conv)["items"]] == [8, 9, 10]
    assert bob.must("convs")["convs"][0]["unread"] == 3
    welcome = bob.must("hello")
    assert (welcome["floor"], welcome["head"]) == (7, 10)
    bob.refused("hello", "bad_field", after=6)
    bob.refused("edit", "not_found", conv=conv, seq=2, body="late")
    # What is kept is offered to a device that goes back, and numbers go on.
    bob.must("hello", after=7)
    bob.received(13)
    assert alice.say(bob.user, "next")["seq"] == 11
    assert bob.wait("msg", body="next")["pos"] == 11


def test_ids_outlive_their_messages(own_server: ServerProcess, story: tuple[ImClient, ImClient]) -> None:
    alice, bob = story
    compact(own_server)
    again = alice.must("send", id="m2", to=bob.user, body="number 2")
    assert (again.op, again["seq"], again["pos"], again["dup"]) == ("sent", 3, 3, True)
    alice.refused("send", "conflict", id="m2", to=bob.user, body="another")
    own_server.restart(kill=True)


def test_a_device_that_is_away_loses_nothing(own_server: ServerProcess, own_im: Clients, name: Name) -> None:
    alice, bob = own_im.online(name("alice")), own_im.online(name("bob"))
    alice.say(bob.user, "zero")
    bob.received(1)
    bob.disconnect()
    for number in range(8):
        alice.say(bob.user, number)
    alice.received(9)
    settled(alice)
    assert "Removed 1 messages" in compact(own_server)
    own_server.restart(kill=True)
    bob = own_im.online(bob.user)
    assert [item["body"] for item in bob.drain()] == list(range(8))
    settled(bob)
    assert "Removed 5 messages" in compact(own_server)


def test_a_first_device_is_told_of_what_is_gone(own_server: ServerProcess, own_im: Clients, name: Name) -> None:
    alice, bob = own_im.online(name("alice")), name("bob")
    for number in range(5):
        alice.say(bob, number)
    alice.received(5)
    settled(alice)
    compact(own_server)
    client = own_im.online(bob)
    assert shape(client.drain()) == ["1-2 retention", "msg", "msg", "msg"]
    assert client.positions[:2] == [2, 3]


def test_compacting_without_a_server(own_server: ServerProcess, story: tuple[ImClient, ImClient], own_im: Clients) -> None:
    _, bob = story
    assert own_server.stop() == 0
    assert "Removed 7 messages with 14 items" in compact(own_server)
    for file in own_server.data_dir.glob("projection.db*"):
        file.unlink()
    own_server.start()
    again = own_im.online(bob.user)
    assert shape(again.must("sync", after=0)["items"]) == ["1-7 retention", "msg", "msg", "msg"]


def test_a_backup_holds_what_is_left(own_server: ServerProcess, story: tuple[ImClient, ImClient]) -> None:
    compact(own_server)
    backup = own_server.folder / "backup"
    assert own_server.command("store", "backup", str(backup)).returncode == 0
    assert b"number 3" not in backup.read_bytes()
    assert b"number 9" in backup.read_bytes()


def test_what_is_searched_is_what_is_left(own_server: ServerProcess, story: tuple[ImClient, ImClient]) -> None:
    _, bob = story

    def found() -> list[str]:
        return [item["body"] for item in bob.must("search", query="number")["items"]]

    assert len(found()) == 10
    compact(own_server)
    assert found() == ["number 9", "number 8", "number 7"]


@pytest.mark.parametrize("own_server", [{"store.retention_messages": 0}], indirect=True)
def test_where_nothing_is_to_go_nothing_goes(own_server: ServerProcess, story: tuple[ImClient, ImClient]) -> None:
    _, bob = story
    assert "All messages are kept" in compact(own_server)
    assert shape(bob.must("sync", after=0)["items"]) == ["msg"] * 10
