"""Erasing a user: what the name stood for is gone, and whoever has it next begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtt_im.testing import ServerProcess, Value
from tests.support.im import direct
from tests.system.conftest import Clients, Name
from tests.system.test_http_admin import TOKEN, Admin

CONFIG: dict[str, Value] = {"auth.mode": "accounts", "auth.admin_token": TOKEN, "auth.registration": True}


def holds(folder: Path, text: bytes) -> list[str]:
    """The files that hold these bytes."""
    return [file.name for file in folder.rglob("*") if file.is_file() and text in file.read_bytes()]


@pytest.mark.parametrize("how", ["http", "command"])
def test_a_user_is_erased(server: ServerProcess, im: Clients, name: Name, how: str) -> None:
    alice, bob, carol = name("alice"), name("bob"), name("carol")
    conv = direct(alice, bob)
    with Admin(server.http_port, TOKEN) as admin:
        passwords = {user: admin.make(user) for user in (alice, bob, carol)}
        other = im.online(bob, password=passwords[bob])
        phone = im.online(alice, "very-own-phone", password=passwords[alice])
        group = phone.must("group.create", members=[bob, carol], name="ours")["group"]
        phone.say(bob, "from alice")
        other.say(alice, "from bob")
        phone.say(group, "to all")
        phone.say(alice, f"a secret note of {alice}", id="note")
        phone.must("edit", conv=direct(alice, alice), seq=1, body=f"a changed note of {alice}")
        phone.must("block", user=carol)
        phone.flush()
        if how == "http":
            assert admin.call("DELETE", f"users/{alice}?erase=true").status == 204
        else:
            done = server.command("user", "remove", alice, "--erase")
            assert done.returncode == 0, done.stderr
        phone.wait_closed()
        assert admin.call("GET", f"users/{alice}").code == "not_found"
        # The others keep what they have, and see that she has left.
        assert [item["body"] for item in other.must("history", conv=conv)["items"]] == ["from alice", "from bob"]
        assert other.wait("msg", conv=group, system={"event": "group.leave", "user": alice})
        members = {member["user"] for member in other.must("group.info", group=group)["members"]}
        assert members == {bob, carol}
        # Whoever has the name next meets nothing of it.
        again = admin.ask("POST", "/api/v1/register", {"user": alice, "password": "another one"})
        assert again.status == 201, again
        other.say(alice, "who are you?")
        new = im.online(alice, "tablet", password="another one")
        assert [item["body"] for item in new.drain()] == ["who are you?"]
        assert [item["op"] for item in new.must("sync", after=0)["items"]] == ["void", "msg", "sent"]
        assert [item["body"] for item in new.must("history", conv=conv)["items"]] == ["who are you?"]
        listed = new.must("convs")["convs"]
        assert {entry["conv"] for entry in listed} == {conv, direct(alice, alice)}
        assert next(entry for entry in listed if entry["conv"] == conv)["unread"] == 1
        assert [device["device"] for device in new.must("devices")["devices"]] == ["tablet"]
        new.say(carol, "not blocked any more")
        new.refused("group.info", "not_member", group=group)
    server.restart()
    with Admin(server.http_port, TOKEN) as admin:
        assert [device["device"] for device in admin.get(f"users/{alice}/devices")["devices"]] == ["tablet"]
    assert holds(server.data_dir, f"secret note of {alice}".encode()) == []
    assert holds(server.data_dir, f"changed note of {alice}".encode()) == []


def test_without_a_server(name: Name, tmp_path: Path) -> None:
    with ServerProcess(CONFIG) as server:
        with Admin(server.http_port, TOKEN) as admin:
            password = admin.make("alice")
            clients = Clients(server)
            phone = clients.online("alice", password=password)
            phone.say("alice", "a note")
            bob = clients.online("bob", password=admin.make("bob"))
            for number in range(5):
                phone.say("bob", number)
                bob.wait("msg", body=number)
                bob.say("alice", number)
            phone.drain()
            bob.drain()
            clients.online("alice", "silent-device", password=password)
            clients.close()
        server.stop()
        done = server.command("user", "remove", "alice", "--erase")
        assert done.returncode == 0, done.stderr
        assert server.command("user", "remove", "alice", "--erase").returncode in (0, 1)
        assert server.command("user", "remove", "nobody", "--erase").returncode == 1
        assert holds(server.data_dir, b"a note") == []
        assert holds(server.data_dir, b"silent-device") == []
        assert server.command("store", "check").returncode == 0
        # Retention moves its base past that, and a rebuild from there says the same.
        server.configure({"store.retention_messages": 1})
        done = server.command("store", "compact")
        assert done.returncode == 0, done.stderr
        done = server.command("store", "check")
        assert done.returncode == 0, done.stderr
        for file in server.data_dir.glob("projection.db*"):
            file.unlink()
        server.start()
        with Admin(server.http_port, TOKEN) as admin:
            assert admin.ask("POST", "/api/v1/register", {"user": "alice", "password": "long enough"}).status == 201
