"""docs/operations.md: on a full disk reading goes on while writing is refused, and a server starts there, given a little room."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_im.store.sqlite.check import check
from mqtt_im.testing import ServerProcess
from tests.support import packets, packets5
from tests.support.faults import assert_no_fault
from tests.support.im import ImClient, direct
from tests.support.im5 import Im5
from tests.support.raw import eventually
from tests.support.web import Events, Web
from tests.system.conftest import Clients


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Nothing more can be written there."""
    file = folder / "fill"
    with file.open("wb", buffering=0) as target:
        try:
            while True:
                target.write(b"x" * 4096)
        except OSError:
            return file


def listens(server: ServerProcess) -> bool:
    """It lets clients in, whether it can write or not."""
    try:
        socket.create_connection((server.host, server.mqtt_port)).close()
    except OSError:
        return False
    return True


SENT = 50
ADMIN = "the one of the operator"


def stored(server: ServerProcess) -> None:
    """Alice has written 50 messages to bob, whose phone is registered."""
    clients = Clients(server)
    clients.online("bob").disconnect()
    alice = clients.online("alice")
    for number in range(SENT):
        alice.say("bob", number)
    clients.close()


def works(server: ServerProcess) -> None:
    """Nothing was lost, and more can be written."""
    clients = Clients(server)
    assert clients.online("alice").say("bob", "again")["seq"] == 51
    bob = clients.online("bob")
    assert [item["body"] for item in bob.must("history", conv=direct("alice", "bob"))["items"]] == [*range(SENT), "again"]
    clients.close()
    server.stop()
    data_dir = Path(str(server.config["data_dir"]))
    assert check(data_dir).problems == []
    assert (data_dir / "reserve").exists()


@pytest.mark.parametrize(("how", "reserve"), [("stop", True), ("kill", True), ("kill", False)])
def test_a_server_starts_on_a_full_disk_and_reading_goes_on(small: Path, how: str, reserve: bool) -> None:
    with ServerProcess({"data_dir": str(small / "data")}) as server:
        stored(server)
        server.stop() if how == "stop" else server.kill()
        if not reserve:
            os.unlink(small / "data" / "reserve")
        filled = fill(small)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(server, "ready", lambda: listens(server))  # ready it may not be: perhaps nothing can be written
            server.start()
        clients = Clients(server)
        bob = clients.online("bob")
        bob.received(SENT)
        assert [item["body"] for item in bob.must("history", conv=direct("alice", "bob"))["items"]] == list(range(SENT))
        clients.close()
        filled.unlink()
        eventually(server.ready, "the store commits again")
        works(server)


def test_without_the_reserve_it_says_that_the_disk_is_full_and_starts_when_there_is_room(small: Path) -> None:
    with ServerProcess({"data_dir": str(small / "data")}) as server:
        stored(server)
        server.stop()
        os.unlink(small / "data" / "reserve")
        filled = fill(small)  # nor has SQLite left the files that it keeps beside an open database, as a killed server does
        ended = server.command("serve")
        assert ended.returncode == 1
        assert re.fullmatch(r"mqtt-im: \S+\.db: .*\(the disk is full\)\n", ended.stderr), ended.stderr
        filled.unlink()
        server.start()
        works(server)


@pytest.fixture
def filled(small: Path) -> Iterator[ServerProcess]:
    """A server whose disk has become full. Bob has devices of all kinds, and has read nothing yet; nor has carol."""
    configuration: dict[str, str | int] = {
        "data_dir": str(small / "data"),
        "limits.requests_per_second": 2000,
        "auth.admin_token": ADMIN,
    }
    with ServerProcess(configuration) as server:
        clients = Clients(server)
        for device, clean in (("kept", False), ("clean", True)):
            clients.online("bob", device, clean=clean).disconnect()
        clients.online("bob", "app").must("hello", ack="app")
        for device, expiry in (("kept5", 600), ("clean5", 0)):
            with Im5(server.mqtt_port, "bob", device, given={packets5.SESSION_EXPIRY: expiry}) as bob:
                bob.listen()
        stored(server)
        clients.online("alice").say("carol", "for carol")
        clients.close()
        filled = fill(small)
        alice = clients.online("alice")
        assert alice.ask("send", to="bob", body="y" * 60_000)["code"] == "unavailable"
        alice.close()
        yield server
        filled.unlink(missing_ok=True)
        eventually(server.ready, "the store commits again")
        works(server)
        assert_no_fault(server.log())


def reads_all(client: ImClient) -> None:
    """Whatever shows what is stored shows all of it."""
    conv = direct("alice", "bob")
    assert [item["body"] for item in client.must("history", conv=conv)["items"]] == list(range(SENT))
    assert [item["pos"] for item in client.must("sync", after=0)["items"]] == list(range(1, SENT + 1))
    assert [each["conv"] for each in client.must("convs")["convs"]] == [conv]
    assert client.must("devices")["devices"]
    assert client.must("search", query="nowhere")["items"] == []


@pytest.mark.parametrize(("device", "clean"), [("kept", False), ("clean", True), ("clean", False), ("kept", True)])
def test_a_device_that_comes_back_reads_everything(filled: ServerProcess, device: str, clean: bool) -> None:
    clients = Clients(filled)
    for _ in range(2):
        bob = clients.online("bob", device, clean=clean)
        bob.auto_ack = False
        bob.received(SENT)
        reads_all(bob)
    # What became of the former session is known, though it could not be written.
    assert clients.sign_in("bob", device, clean=False).session_present is (device == "kept" and not clean)
    clients.close()


def test_a_device_of_mqtt_5_that_comes_back_reads_everything(filled: ServerProcess) -> None:
    for device, expiry, present in (("kept5", 600, True), ("clean5", 0, False), ("clean5", 600, False)):
        with Im5(filled.mqtt_port, "bob", device, clean=False, given={packets5.SESSION_EXPIRY: expiry}) as bob:
            assert bob.connack.present is present
            assert bob.connack.properties.get(packets5.SESSION_EXPIRY) == (0 if expiry and not present else None)
            bob.auto_ack = False
            if not present:
                bob.listen()
            bob.until(lambda: len(bob.came) >= SENT)
            assert bob.ask("history", id="h", conv=direct("alice", "bob")) == (0, "")
            page, _ = bob.until(lambda: bob.find("page", id="h"))
            assert [item["body"] for item in page["items"]] == list(range(SENT))


def test_a_device_that_says_where_it_stands_goes_on_there(filled: ServerProcess) -> None:
    """It moves its cursor, also back, for as long as it is connected and beyond; what it says is written when there is room."""
    clients = Clients(filled)
    bob = clients.online("bob", "app")
    assert bob.must("hello", ack="app", after=30, n=7)["pos"] == 30
    bob.wait("msg", pos=SENT)
    bob.confirmed("ack", pos=SENT)
    bob.disconnect()
    bob = clients.online("bob", "app")
    welcome = bob.must("hello")
    assert (welcome["pos"], welcome["n"], bob.items) == (SENT, 7, [])
    assert bob.must("hello", after=10)["pos"] == 10
    bob.disconnect()
    bob = clients.online("bob", "app")
    bob.wait("msg", pos=SENT)
    assert bob.positions == list(range(11, SENT + 1))
    bob.confirmed("ack", pos=SENT)
    clients.close()
    (Path(str(filled.config["data_dir"])).parent / "fill").unlink()
    eventually(filled.ready, "the store commits again")
    filled.restart(kill=True)
    assert clients.online("bob", "app").must("hello")["pos"] == SENT
    clients.close()


def refused_new(server: ServerProcess) -> None:
    """Who is new comes in vain: nobody is told that a device is registered that would not be after a crash."""
    clients = Clients(server)
    for user, clean in (("bob", True), ("bob", False), ("carol", True)):
        new = clients.sign_in(user, "new", clean=clean)
        new.send(packets.subscribe(7, (new.user_down, 1), (new.device_down, 1)))
        error = new.wait("error")
        assert (error["code"], error["retry"]) == ("unavailable", True)
        new.wait_closed()
        assert (new.subacks, new.items) == ({}, [])
    new = clients.sign_in("bob", "new")
    new.request("hello")
    new.wait_closed()
    assert new.pubacks == []
    with Im5(server.mqtt_port, "bob", "new", given={packets5.SESSION_EXPIRY: 600}) as new5:
        new5.send(packets5.subscribe(7, (new5.user_down, 1)))
        assert new5.goodbye() == 0x80
        assert not any(packet.kind == packets.SUBACK for packet in new5.others)
    web = Web(server.http_port).login("bob")
    with Events(server.http_port, web.token, "?device=new") as events:
        assert (events.status, events.problem["code"]) == (503, "unavailable")
    web.close()
    clients.close()


def devices_of(client: ImClient) -> set[str]:
    """The registered devices of the user."""
    return {each["device"] for each in client.must("devices")["devices"]}


@pytest.mark.parametrize("dies", [True, False])
def test_a_new_device_is_served_when_it_is_registered(filled: ServerProcess, dies: bool) -> None:
    """INV-1: also where the server dies before there is room, it had been told nothing that is not so."""
    refused_new(filled)
    clients = Clients(filled)
    assert "new" not in devices_of(clients.online("bob", "kept", clean=False))
    clients.close()
    if dies:
        filled.kill()
    (Path(str(filled.config["data_dir"])).parent / "fill").unlink()
    filled.start()
    eventually(filled.ready, "the store commits again")
    bob, dave = clients.online("bob", "kept", clean=False), clients.online("dave")
    assert "new" not in devices_of(bob)
    new = clients.online("bob", "new")
    dave.say("bob", "for both")
    assert new.wait("msg")["body"] == "for both"
    assert clients.online("carol", "new").wait("msg")["body"] == "for carol"
    clients.close()


def test_everything_is_read_over_http_too(filled: ServerProcess) -> None:
    web = Web(filled.http_port).login("bob")  # which gives a token that is in no file
    assert [item["body"] for item in web.must("history", conv=direct("alice", "bob"))["items"]] == list(range(SENT))
    assert len(web.must("sync", after=0)["items"]) == SENT
    assert len(web.must("convs")["convs"]) == 1
    with Events(filled.http_port, web.token, "?after=0") as events:
        assert [events.wait("msg").data["body"] for _ in range(SENT)] == list(range(SENT))
    with Events(filled.http_port, web.token, "?device=app") as events:
        assert [events.wait("msg").data["body"] for _ in range(SENT)] == list(range(SENT))
    assert web.ask("POST", "/api/v1/logout").status == 204
    assert web.ask("POST", "/api/v1/convs", {}).status == 401
    web.close()


@pytest.mark.parametrize(("call", "what"), [("backup", "backups/copy.db: .*the disk is full"), ("compact", "disk is full")])
def test_maintenance_over_http_says_what_is_full(filled: ServerProcess, call: str, what: str) -> None:
    with Web(filled.http_port, ADMIN) as web:
        answer = web.ask("POST", f"/api/v1/admin/maintenance/{call}", {"name": "copy.db"})
    assert (answer.status, answer.code) == (503, "unavailable")
    assert re.search(what, answer.data["detail"]), answer.data


def test_commands_say_that_the_disk_is_full_and_leave_nothing(filled: ServerProcess, tmp_path: Path) -> None:
    data = Path(str(filled.config["data_dir"]))

    def fails(*command: str, file: Path, what: str = "") -> None:
        before = {*data.parent.rglob("*"), data / "broker.alive"}
        done = filled.command(*command)
        assert done.returncode == 1
        assert re.fullmatch(rf"mqtt-im: {what or re.escape(str(file))}: .*disk is full\)?\n", done.stderr), done.stderr
        assert before.issuperset(data.parent.rglob("*"))

    # By chance its log has room for a few pages: for nothing, for the request, or for the server's answer too.
    fails("store", "compact", file=data / "mqtt-im.db", what=rf"({data / 'mqtt-im.db'}|the store can't commit)")
    fails("store", "backup", str(data.parent / "copy.db"), file=data.parent / "copy.db")
    fails("user", "add", "dave", file=data / "accounts.db")
    assert filled.command("store", "backup", str(tmp_path / "running.db")).returncode == 0
    filled.stop()
    assert filled.command("store", "backup", str(tmp_path / "kept.db")).returncode == 0
    os.unlink(data / "reserve")  # which reading has left there
    (data.parent / "fill").rename(data.parent / "first")
    fill(data.parent)
    fails("store", "backup", str(data.parent / "copy.db"), file=data.parent / "copy.db")
    assert filled.command("store", "backup", str(tmp_path / "stopped.db")).returncode == 0
    before = {*data.rglob("*")}
    checked = filled.command("store", "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"{SENT + 1} messages" in checked.stdout
    assert before == {*data.rglob("*")}
    (data.parent / "first").unlink()
    for name in ("running.db", "stopped.db"):
        folder = tmp_path / name.removesuffix(".db")
        assert filled.command("store", "restore", str(tmp_path / name), "--set", f"data_dir={folder}").returncode == 0
        assert check(folder).messages == SENT + 1
    filled.start()


def test_what_a_stopped_server_has_stored_is_read_where_nothing_can_be_written(small: Path, tmp_path: Path) -> None:
    data, copy = small / "data", tmp_path / "copy"
    with ServerProcess({"data_dir": str(data)}) as server:
        assert server.command("user", "add", "alice").returncode == 0
        stored(server)
        server.stop()
        os.unlink(data / "reserve")
        filled = fill(small)
        before = {*data.rglob("*")}
        listed = server.command("user", "list")
        assert re.fullmatch(r"alice\t\S+\t0\n", listed.stdout), listed
        assert server.command("user", "tokens", "alice").returncode == 0
        shown = server.command("user", "show", "alice")
        assert f"messages\t{SENT}\t" in shown.stdout, shown
        assert server.command("store", "copy", "--to", str(copy)).returncode == 0
        assert before == {*data.rglob("*")}
        assert check(copy).messages == SENT
        assert server.command("user", "list", "--set", f"data_dir={copy}").stdout == listed.stdout
        filled.unlink()


def test_what_a_killed_server_has_stored_is_read_where_nothing_can_be_written(small: Path, tmp_path: Path) -> None:
    """Its databases stand in their write-ahead files as well, whose index has no room on the disk."""
    data = small / "data"
    with ServerProcess({"data_dir": str(data)}) as server:
        assert server.command("user", "add", "alice").returncode == 0
        stored(server)
        server.kill()
        for index in data.glob("*-shm"):
            index.unlink()
        os.unlink(data / "reserve")
        filled = fill(small)
        before = {*data.rglob("*")}
        assert (data / "mqtt-im.db-wal").stat().st_size
        for command in (
            ("user", "list"),
            ("store", "check"),
            ("store", "backup", str(tmp_path / "backup.db")),
        ):
            done = server.command(*command)
            assert (done.returncode, done.stderr) == (0, ""), (command, done)
        assert before.issuperset(data.rglob("*"))
        assert (
            server.command("store", "restore", str(tmp_path / "backup.db"), "--set", f"data_dir={tmp_path / 'new'}").returncode
            == 0
        )
        assert check(tmp_path / "new").messages == SENT
        filled.unlink()
        server.start()
        works(server)
