"""Erasing a user: what the name stood for is gone, and whoever has it next begins anew."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mqtt_im.testing import ServerProcess, Value
from tests.support.im import direct
from tests.support.packets import publish
from tests.support.raw import eventually
from tests.support.web import Web
from tests.system.conftest import Clients, Name
from tests.system.test_http_admin import TOKEN, Admin

CONFIG: dict[str, Value] = {
    "auth.mode": "accounts",
    "auth.admin_token": TOKEN,
    "auth.registration": True,
    "mqtt.plain_topics": ["plain/#"],
    "webpush.contact": "mailto:operator@example.com",
    "webpush.services": ["https://push.example"],
}


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


@pytest.mark.parametrize("how", ["http", "command"])
def test_nothing_that_only_the_user_had_stays_on_disk(server: ServerProcess, im: Clients, name: Name, how: str) -> None:
    alice, bob, mark = name("alice"), name("bob"), name("mark")
    with Admin(server.http_port, TOKEN) as admin, Web(server.http_port) as web:
        passwords = {user: admin.make(user) for user in (alice, bob)}
        other = im.online(bob, password=passwords[bob])
        phone = im.online(alice, "phone", password=passwords[alice], clean=False)
        sensor = im.sign_in(alice, f"sensor-{mark}", password=passwords[alice], clean=False)
        assert sensor.subscribe("plain/x") == [1]
        sensor.disconnect()
        other.send(publish("plain/x", f"queued {mark}".encode(), packet_id=7))
        other.flush()
        web.login(alice, passwords[alice])
        assert admin.call("POST", f"users/{alice}/tokens", {"name": f"token {mark}"}).status == 201
        keys = {"p256dh": _url(_public_key()), "auth": _url(bytes(16))}
        endpoint = f"https://push.example/{mark}"
        assert web.post("push.subscribe", device="phone", subscription={"endpoint": endpoint, "keys": keys}).status == 200
        noted, _, shared = (
            web.upload(f"{what} content {mark}".encode(), f"{what}-{mark}.txt", "text/plain")["id"]
            for what in ("noted", "lonely", "shared")
        )
        web.must("send", to=alice, body=f"note {mark}", files=[noted])
        group = web.must("group.create", members=[], name="nobody else's")["group"]
        web.must("send", to=group, body=f"alone {mark}")
        web.must("send", to=bob, body=f"to bob {mark}", files=[shared])
        phone.flush()
        for what in ("queued", "token", "note", "alone"):
            assert holds(server.data_dir, f"{what} {mark}".encode()), what
        if how == "http":
            assert admin.call("DELETE", f"users/{alice}?erase=true").status == 204
        else:
            assert server.command("user", "remove", alice, "--erase").returncode == 0
        for what in (f"queued {mark}", f"token {mark}", f"note {mark}", f"alone {mark}", f"sensor-{mark}", endpoint):
            # The index of words follows, as it does where something is recalled.
            assert {file.partition(".")[0] for file in holds(server.data_dir, what.encode())} <= {"search"}, what
        for what in ("note", "alone"):
            eventually(lambda what=what: not holds(server.data_dir, f"{what} {mark}".encode()), what, 60)  # type: ignore[misc]
        for what in ("noted", "lonely"):
            assert holds(server.data_dir, f"{what} content {mark}".encode()) == [], what
            assert holds(server.data_dir, f"{what}-{mark}.txt".encode()) == [], what
        # What others have stays with them.
        web.login(bob, passwords[bob])
        assert web.file(shared).body == f"shared content {mark}".encode()
        assert web.must("history", conv=direct(alice, bob))["items"][0]["body"] == f"to bob {mark}"


def test_a_removed_account_is_pushed_nothing(server: ServerProcess, name: Name) -> None:
    alice = name("alice")
    with Admin(server.http_port, TOKEN) as admin, Web(server.http_port) as web:
        web.login(alice, admin.make(alice))
        keys = {"p256dh": _url(_public_key()), "auth": _url(bytes(16))}
        endpoint = f"https://push.example/{alice}"
        assert web.post("push.subscribe", device="phone", subscription={"endpoint": endpoint, "keys": keys}).status == 200
        assert admin.call("DELETE", f"users/{alice}").status == 204

        def subscribed() -> bool:
            with closing(sqlite3.connect(server.data_dir / "webpush.db")) as table:
                return bool(table.execute("SELECT 1 FROM subscription WHERE user = ?", (alice,)).fetchall())

        eventually(lambda: not subscribed(), "the end of the subscription")


def test_without_accounts_a_removed_user_is_pushed_nothing() -> None:
    config = {name: value for name, value in CONFIG.items() if name not in ("auth.mode", "auth.registration")}
    with ServerProcess(config) as server, Admin(server.http_port, TOKEN) as admin, Web(server.http_port).login("alice") as web:
        web.must("send", to="alice", body="a note")
        keys = {"p256dh": _url(_public_key()), "auth": _url(bytes(16))}
        subscription = {"endpoint": "https://push.example/alice", "keys": keys}
        assert web.post("push.subscribe", device="phone", subscription=subscription).status == 200
        assert admin.call("DELETE", "users/alice").status == 204
        with closing(sqlite3.connect(server.data_dir / "webpush.db")) as table:
            assert table.execute("SELECT user FROM subscription").fetchall() == []


def test_a_command_tells_of_an_inbox_that_was_left(server: ServerProcess, im: Clients, name: Name) -> None:
    alice = name("alice")

    def add(*more: str) -> str:
        done = server.command("user", "add", alice, "--password-stdin", *more, stdin="long enough")
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert add() == ""
    im.online(alice, password="long enough").say(alice, "a note")

    def removed_and_added(*more: str) -> bool:
        assert server.command("user", "remove", alice).returncode == 0
        return f"a former {alice} left" in add(*more)

    eventually(removed_and_added, "the inbox is found, which is written a moment later than the log")
    assert not removed_and_added("--with-inbox")
    assert server.command("user", "remove", alice, "--erase").returncode == 0
    assert add() == ""


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


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
