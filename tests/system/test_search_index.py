"""The search index of the real program: kept up, made anew where it is lost, gone where it is switched off."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.im import ImClient
from tests.system.conftest import Clients

CONFIG = {"limits.requests_per_second": 100_000}


def index_files(server: ServerProcess) -> list[str]:
    return sorted(file.name for file in server.data_dir.glob("search.db*"))


def pour(client: ImClient, first: int, count: int) -> None:
    """Send that many messages without waiting for answers in between."""
    for number in range(first, first + count):
        client.request("send", to="bob", body=f"apple {number}", id=f"m{number}")
    client.flush()


def bodies(client: ImClient, query: str, **fields: Any) -> list[Any]:
    return [item["body"] for item in client.must("search", query=query, **fields)["items"]]


def every_body(client: ImClient, query: str) -> list[Any]:
    """Page through everything, as a client does: messages of one millisecond may stand on both sides of a page's end."""
    found: list[Any] = []
    seen: set[int] = set()
    page = client.must("search", query=query)
    while True:
        fresh = [item for item in page["items"] if item["seq"] not in seen]
        found += [item["body"] for item in fresh]
        seen.update(item["seq"] for item in fresh)
        if not page["more"]:
            return found
        assert fresh, "a page brought nothing new"
        page = client.must("search", query=query, before=page["items"][-1]["ts"] + 1)


def test_a_search_finds_what_was_acknowledged_before_it(own_im: Clients) -> None:
    """The index is filled off the hot path, and yet a search that follows a message finds it, at the first attempt."""
    alice, bob = own_im.online("alice"), own_im.online("bob")
    for number in range(50):
        alice.say("bob", f"word{number}")
        assert bodies(bob, f"word{number}") == [f"word{number}"]


def test_a_kill_in_the_middle_of_indexing_loses_nothing(own_server: ServerProcess, own_im: Clients) -> None:
    """SIGKILL while messages pour in and are being indexed, several times; the index goes on where it was."""
    count = 0
    for _ in range(4):
        alice = own_im.online("alice")
        pour(alice, count, 400)
        # The indexer is made to hurry, and killed while it does.
        alice.request("search", query="apple")
        own_server.kill()
        alice.close()
        own_server.start()
        count += 400
    alice = own_im.online("alice")
    assert every_body(alice, "apple") == [f"apple {number}" for number in range(count - 1, -1, -1)]


@pytest.mark.parametrize("damage", ["lost", "garbage"])
def test_a_lost_or_damaged_index_is_made_anew(own_server: ServerProcess, own_im: Clients, damage: str) -> None:
    alice = own_im.online("alice")
    conv = alice.say("bob", "apple pie")["conv"]
    alice.say("bob", "apple tart")
    alice.must("edit", conv=conv, seq=1, body="pear pie")
    alice.close()
    assert own_server.stop() == 0
    for file in own_server.data_dir.glob("search.db*"):
        if damage == "lost":
            file.unlink()
        else:
            file.write_bytes(b"garbage" * 1000)
    own_server.start()
    alice = own_im.online("alice")
    assert bodies(alice, "apple") == ["apple tart"]
    assert bodies(alice, "pear") == ["pear pie"]


def test_a_backup_holds_no_index_and_restores_all_the_same(own_server: ServerProcess, own_im: Clients) -> None:
    alice = own_im.online("alice")
    alice.say("bob", "apple pie")
    assert bodies(alice, "apple") == ["apple pie"]
    backup = own_server.folder / "backup"
    assert own_server.command("store", "backup", str(backup)).returncode == 0
    assert own_server.command("store", "check").returncode == 0
    alice.say("bob", "apple tart")
    alice.close()
    own_server.stop()
    for file in own_server.data_dir.glob("*"):
        if not file.name.startswith("search.db"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    assert own_server.command("store", "restore", str(backup)).returncode == 0
    own_server.start()
    assert bodies(own_im.online("alice"), "apple") == ["apple pie"], "the index of before belongs to another epoch"


def test_pages_are_bounded_by_bytes(own_im: Clients) -> None:
    alice = own_im.online("alice")
    for number in range(12):
        alice.say("bob", f"apple {number} " + "x" * 60_000)
    page = alice.must("search", query="apple")
    assert 0 < len(page["items"]) < 12
    assert page["more"] is True
    assert [body.split()[1] for body in every_body(alice, "apple")] == [str(number) for number in range(11, -1, -1)]


def test_a_user_s_many_searches_are_all_answered_in_order(own_im: Clients) -> None:
    alice = own_im.online("alice")
    alice.say("bob", "apple")
    for number in range(200):
        alice.request("search", query="apple", id=f"s{number}")
    alice.reply("s199")
    pages = [event for event in alice.events if event.op == "page"]
    assert [page["id"] for page in pages] == [f"s{number}" for number in range(200)]
    assert all([item["body"] for item in page["items"]] == ["apple"] for page in pages)


def test_where_it_is_switched_off_it_is_unknown_and_leaves_nothing(own_server: ServerProcess, own_im: Clients) -> None:
    alice = own_im.online("alice")
    sent = alice.say("bob", "apple")
    assert bodies(alice, "apple") == ["apple"]
    assert index_files(own_server)
    alice.close()
    own_server.stop()
    own_server.configure({"search.enabled": False})
    own_server.start()
    assert index_files(own_server) == []
    alice = own_im.online("alice")
    alice.refused("search", "unknown_op", query="apple")
    alice.must("recall", conv=sent["conv"], seq=sent["seq"])
    alice.close()
    own_server.stop()
    own_server.configure({"search.enabled": True})
    own_server.start()
    assert bodies(own_im.online("alice"), "apple") == []
