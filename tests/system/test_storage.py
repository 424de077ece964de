"""PROTOCOL.md §5, storage fails: a locked database, a full disk, damaged files."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from mqtt_im.testing import ServerFailed, ServerProcess
from tests.support.faults import assert_no_fault
from tests.support.raw import Closed, Refused, eventually
from tests.system.conftest import Clients


def damage(file: Path, table: str) -> None:
    """The pages with the rows of a table are overwritten; nobody has the file open."""
    with closing(sqlite3.connect(file)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        pages = connection.execute("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf'", (table,)).fetchall()
    with file.open("r+b") as content:
        for (page,) in pages:
            content.seek((page - 1) * size)
            content.write(b"\xaa" * 200)


def test_a_database_that_can_not_be_written(own_server: ServerProcess, own_im: Clients) -> None:
    """error unavailable, retry true: no PUBACK, the connection is closed; nothing acknowledged is lost; it recovers by itself."""
    client = own_im.online("alice")
    client.say("bob", "before")
    locks: list[sqlite3.Connection] = []
    for file in own_server.data_dir.glob("*.db"):
        connection = sqlite3.connect(file, timeout=60, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        locks.append(connection)
    assert locks, f"no database in {os.listdir(own_server.data_dir)}"
    packet_id = client.request("send", to="bob", body="during", id="k")
    seen: dict[str, Any] = {}
    try:
        client.until(lambda: any(event.op == "error" for event in client.events), "unavailable", 40)
        seen = client.wait("error").data
        client.wait_closed(40)
    except Closed:
        pass
    assert packet_id not in client.pubacks
    assert seen.get("code", "unavailable") == "unavailable"
    assert seen.get("retry", True) is True
    for connection in locks:
        connection.execute("ROLLBACK")
        connection.close()

    def works() -> bool:
        try:
            again = own_im.online("alice")
            answer = again.ask("send", to="bob", body="during", id="k")
        except (Closed, Refused, ConnectionError):
            return False
        return answer.op == "sent"

    eventually(works, "recovery without a restart")
    assert [item["body"] for item in own_im.online("bob").drain()] == ["before", "during"]


def test_a_full_disk(own_server: ServerProcess, own_im: Clients) -> None:
    """No PUBACK while nothing can be stored; what was not acknowledged is repeated and arrives once there is room again."""
    own_im.online("alice").say("bob", "before")
    process = psutil.Process(own_server.pid)
    room = max(file.stat().st_size for file in own_server.data_dir.iterdir()) + 50_000
    process.rlimit(psutil.RLIMIT_FSIZE, (room, psutil.RLIM_INFINITY))
    client = own_im.online("alice", "filler")
    with pytest.raises(Closed):  # noqa: PT012 - it is closed at the first message that does not fit
        for number in range(2_000):
            client.confirmed("send", to="bob", body=f"{number} " + "x" * 900, id=f"m{number}")
    errors = [event for event in client.events if event.op == "error"]
    assert [(event["code"], event["retry"]) for event in errors] == [("unavailable", True)]
    done = len(client.pubacks)
    process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))

    def works() -> bool:
        try:
            again = own_im.online("alice", "filler")
            return again.ask("send", to="bob", body=f"{done} " + "x" * 900, id=f"m{done}").op == "sent"
        except (Closed, Refused, ConnectionError):
            return False

    eventually(works, "recovery without a restart")
    bodies = [str(item["body"]).partition(" ")[0] for item in own_im.online("bob").drain()]
    assert bodies == ["before", *map(str, range(done + 1))]


def test_reading_goes_on_while_nothing_can_be_stored(own_server: ServerProcess, own_im: Clients) -> None:
    """Devices that come back get what is stored; what they acknowledge is kept when there is room again. Who is new waits."""
    alice = own_im.online("alice")
    own_im.online("bob").disconnect()
    for number in range(5):
        alice.say("bob", number)
    own_im.online("bob", "tablet").disconnect()
    process = psutil.Process(own_server.pid)
    process.rlimit(psutil.RLIMIT_FSIZE, (4096, psutil.RLIM_INFINITY))
    alice.request("send", to="bob", body="does not fit", id="k")
    alice.wait_closed()
    back = own_im.online("bob")
    back.received(5)
    assert [item["body"] for item in back.items] == list(range(5))
    assert back.must("hello", codec="msgpack")["pos"] <= 5
    assert len(back.must("history", conv="alice:bob")["items"]) == 5
    with pytest.raises(Closed):
        own_im.online("carol")
    further = own_im.online("bob", "tablet")
    assert further.must("hello")["pos"] == 5
    further.request("send", to="alice", body="no", id="n")
    assert further.reply("n")["code"] == "unavailable"
    further.wait_closed()
    process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))

    def works() -> bool:
        try:
            return own_im.online("alice").ask("send", to="bob", body=5, id="k2").op == "sent"
        except (Closed, Refused, ConnectionError):
            return False

    eventually(works, "recovery without a restart")
    assert back.wait("msg", seq=6)["body"] == 5
    assert [item["pos"] for item in own_im.online("bob", "tablet").drain()] == [6]

    def written() -> bool:
        devices = back.must("devices")["devices"]
        return {device["device"] for device in devices} == {"phone", "tablet"} and devices[0]["pos"] >= 6

    eventually(written, "what was acknowledged meanwhile is kept")
    own_server.restart(kill=True)
    assert own_im.online("bob").must("hello")["pos"] >= 6


@pytest.mark.parametrize("damage", ["garbage", "truncated", "gone"])
def test_damaged_projections_are_rebuilt_from_the_log(own_server: ServerProcess, own_im: Clients, damage: str) -> None:
    alice = own_im.online("alice")
    alice.must("group.create", group="#g", members=["bob"])
    for number in range(50):
        alice.say("#g", number)
    assert own_server.stop() == 0
    file = own_server.data_dir / "projection.db"
    if damage == "garbage":
        file.write_bytes(b"not a database" * 1_000)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
    own_server.start()
    alice = own_im.online("alice")
    assert alice.say("#g", "after")["seq"] == 52
    assert [item["seq"] for item in own_im.online("bob").drain()] == list(range(1, 53))


def test_damage_is_met_by_nobody_else_and_mended_meanwhile(own_server: ServerProcess, own_im: Clients) -> None:
    alice = own_im.online("alice")
    for number in range(200):
        alice.request("send", to="bob", body=number, id=f"a{number}")
    alice.wait("sent", id="a199")
    own_im.online("carol").say("dave", "hi")
    assert own_server.stop() == 0
    damage(own_server.data_dir / "projection.db", "item")
    own_server.start()
    carol = own_im.online("carol")
    own_im.online("alice", "old")
    reader = own_im.online("alice")
    reader.request("sync", after=0, id="s")
    carol.must("send", to="dave", body="meanwhile")

    def whole() -> bool:
        try:
            return len(own_im.online("alice", "reader").must("sync", after=0)["items"]) == 200
        except (Closed, Refused, ConnectionError, AssertionError):
            return False

    eventually(whole, "the projections are made anew")
    carol.say("dave", "after")


def test_a_damaged_log_is_told_and_nothing_is_started(own_server: ServerProcess, own_im: Clients) -> None:
    """Exit 1 and one clear line: guessing what was in it would break every promise."""
    own_im.online("alice").say("bob", "x")
    assert own_server.stop() == 0
    file = own_server.data_dir / "mqtt-im.db"
    kept = file.read_bytes()
    file.write_bytes(b"not a database" * 1_000)
    with pytest.raises(ServerFailed) as failed:
        own_server.start()
    assert "the server ended with 1" in str(failed.value)
    assert_no_fault(own_server.log())
    assert "mqtt-im.db" in own_server.log()
    file.write_bytes(kept)
    own_server.start()
    assert [item["body"] for item in own_im.online("bob").drain()] == ["x"]
