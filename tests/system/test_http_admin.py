"""Administration over HTTP, registration, and tokens with names and an end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mqtt_im.testing import ServerProcess
from tests.support.im import direct
from tests.support.raw import Refused, eventually
from tests.support.web import Answer, Events, Web
from tests.system.conftest import Clients, Name

TOKEN = "an-admin-token"
CONFIG = {"auth.mode": "accounts", "auth.admin_token": TOKEN, "auth.registration": True, "limits.max_page": 50}
ROOT = "/api/v1/admin/"


class Admin(Web):
    def call(self, method: str, path: str, data: Any = None) -> Answer:
        return self.ask(method, ROOT + path, data)

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.status == 200, answer
        return answer.data

    def make(self, user: str) -> str:
        """A new account; its password."""
        answer = self.call("POST", "users", {"user": user})
        assert answer.status == 201, answer
        return str(answer.data["password"])


@pytest.fixture
def admin(server: ServerProcess) -> Iterator[Admin]:
    with Admin(server.http_port, TOKEN) as client:
        yield client


def test_who_may(server: ServerProcess, admin: Admin, name: Name) -> None:
    password = admin.make(name("alice"))
    with Admin(server.http_port) as other:
        assert other.call("GET", "stats").code == "unauthorized"
        other.token = "mqim_wrong"
        assert other.call("GET", "stats").code == "unauthorized"
        other.login(name("alice"), password)
        answer = other.call("GET", "stats")
        assert (answer.status, answer.code) == (403, "forbidden")
    assert admin.call("GET", "nothing").code == "not_found"
    assert admin.call("POST", "stats").status == 405


def test_without_a_token_nothing_is_there() -> None:
    with ServerProcess() as server, Admin(server.http_port, "") as other:
        for path in ("users", "stats", "connections", "users/alice"):
            answer = other.call("GET", path)
            assert (answer.status, answer.code) == (404, "not_found")


def test_accounts(server: ServerProcess, admin: Admin, im: Clients, name: Name) -> None:
    alice = name("alice")
    password = admin.make(alice)
    again = admin.call("POST", "users", {"user": alice})
    assert (again.status, again.code) == (409, "conflict")
    assert admin.call("POST", "users", {"user": "a b"}).code == "bad_field"
    given = admin.call("POST", "users", {"user": name("bob"), "password": "as you like"})
    assert (given.status, given.data) == (201, {"user": name("bob")})
    phone = im.online(alice, password=password)
    # Being online is told after the answer to the subscription, when the ledger has noted the device.
    eventually(lambda: admin.get(f"users/{alice}")["online"], "alice is online")
    one = admin.get(f"users/{alice}")
    assert set(one) == {"user", "created", "devices", "online"}
    assert (one["user"], one["devices"], one["online"]) == (alice, 1, True)
    assert admin.call("GET", f"users/{name('nobody')}").code == "not_found"
    listed = admin.get("users")
    assert [user["user"] for user in listed["users"]] == sorted(user["user"] for user in listed["users"])
    first = admin.get("users?limit=1")
    assert len(first["users"]) == 1 and first["more"] is True
    second = admin.get(f"users?limit=1&after={first['next']}")
    assert second["users"][0]["user"] > first["users"][0]["user"]
    assert admin.call("GET", "users?after=a%00").code == "bad_field"
    assert admin.call("PUT", f"users/{alice}/password", {"password": "another one"}).status == 204
    phone.wait_closed()
    with pytest.raises(Refused):
        im.sign_in(alice, "other", password=password)
    phone = im.online(alice, password="another one")
    assert admin.call("DELETE", f"users/{alice}").status == 204
    phone.wait_closed()
    assert admin.call("DELETE", f"users/{alice}").code == "not_found"
    assert admin.call("PUT", f"users/{alice}/password", {"password": "x"}).code == "not_found"
    log = [json.loads(line) if line.startswith("{") else line for line in server.log().splitlines()]
    assert any("account removed" in str(line) and alice in str(line) for line in log)


def test_tokens(server: ServerProcess, admin: Admin, im: Clients, name: Name) -> None:
    alice = name("alice")
    admin.make(alice)
    made = admin.call("POST", f"users/{alice}/tokens", {"name": "sensor", "days": 2})
    assert (made.status, set(made.data)) == (201, {"id", "token", "expires"})
    forever = admin.call("POST", f"users/{alice}/tokens", {"name": "bot"}).data
    assert forever["expires"] is None
    listed = admin.get(f"users/{alice}/tokens")["tokens"]
    assert {token["name"] for token in listed} == {"sensor", "bot"}
    assert made.data["token"] not in str(listed)
    phone = im.online(alice, password=made.data["token"])
    with Web(server.http_port, made.data["token"]) as web:
        web.must("devices")
        assert admin.call("DELETE", f"users/{alice}/tokens/{made.data['id']}").status == 204
        phone.wait_closed()
        web.refused("devices", 401, "unauthorized")
    assert admin.call("DELETE", f"users/{alice}/tokens/{made.data['id']}").code == "not_found"
    assert admin.call("POST", f"users/{name('no')}/tokens", {"name": "x"}).code == "not_found"
    assert admin.call("POST", f"users/{alice}/tokens", {"name": ""}).code == "bad_field"
    out = server.command("user", "token", alice, "--name", "shell", "--days", "1")
    assert out.returncode == 0
    rows = [line.split("\t") for line in server.command("user", "tokens", alice).stdout.splitlines()]
    assert {row[1] for row in rows} == {"bot", "shell"}
    shell = next(row for row in rows if row[1] == "shell")
    phone = im.online(alice, password=out.stdout.strip())
    assert server.command("user", "revoke", alice, shell[0]).returncode == 0
    phone.wait_closed()
    assert server.command("user", "revoke", alice, shell[0]).returncode == 1


def test_devices_and_connections(server: ServerProcess, admin: Admin, im: Clients, name: Name) -> None:
    alice = name("alice")
    password = admin.make(alice)
    phone = im.online(alice, password=password)
    phone.auto_ack = False
    for body in range(3):
        phone.request("send", to=alice, body=body)
    phone.received(3)
    with Web(server.http_port) as web, Events(server.http_port, web.login(alice, password).token) as stream:
        stream.wait("welcome")
        devices = admin.get(f"users/{alice}/devices")["devices"]
        assert len(devices) == 1
        assert {"device": "phone", "pos": 0, "head": 3, "lag": 3, "online": True}.items() <= devices[0].items()
        assert (devices[0]["address"], devices[0]["protocol"]) == ("127.0.0.1", "mqtt3")
        found = [entry for entry in admin.get("connections")["connections"] if entry["user"] == alice]
        by_protocol = {entry["protocol"]: entry for entry in found}
        assert set(by_protocol) == {"mqtt3", "sse"}
        mqtt = by_protocol["mqtt3"]
        assert set(mqtt) == {"user", "device", "address", "since", "protocol", "unacknowledged", "node"}
        assert (mqtt["device"], mqtt["unacknowledged"]) == ("phone", 3)
        assert admin.call("POST", f"users/{alice}/disconnect").status == 204
        stream.until_closed()
    phone.wait_closed()
    assert admin.call("DELETE", f"users/{alice}/devices/phone").status == 204
    assert admin.call("DELETE", f"users/{alice}/devices/phone").code == "not_found"
    assert admin.get(f"users/{alice}/devices")["devices"] == []


def test_one_messages_story(admin: Admin, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    one = im.online(alice, password=admin.make(alice))
    two = im.online(bob, password=admin.make(bob))
    one.say(bob, "do it")
    conv = direct(alice, bob)
    two.wait("msg")
    two.confirmed("read", conv=conv, seq=1)
    two.must("report", conv=conv, seq=1, state="executed")
    one.must("edit", conv=conv, seq=1, body="done")
    told = admin.get(f"conversations/{conv}")
    assert (told["head"], {member["user"] for member in told["members"]}) == (1, {alice, bob})
    story = admin.get(f"messages/{conv}/1")
    assert set(story) >= {"ts", "from", "recipients", "reports", "edits", "recalled"}
    assert (story["from"], story["recalled"], story["edits"]) == (alice, False, 1)
    assert [report["state"] for report in story["reports"]] == ["executed"]

    def acknowledged() -> bool:
        recipients = {entry["user"]: entry for entry in admin.get(f"messages/{conv}/1")["recipients"]}
        devices = recipients[bob]["devices"]
        return devices == [{"device": "phone", "acknowledged": True}] and recipients[bob]["read"] is True

    two.flush()
    eventually(acknowledged, "the acknowledgement")
    group = one.must("group.create", members=[bob])["group"]
    quoted = group.replace("#", "%23")
    assert admin.get(f"conversations/{quoted}")["head"] == 1
    assert {entry["user"] for entry in admin.get(f"messages/{quoted}/1")["recipients"]} == {alice, bob}
    assert admin.call("GET", f"messages/{conv}/9").code == "not_found"
    assert admin.call("GET", "conversations/nobody:nowhere").code == "not_found"


def test_stats(server: ServerProcess, admin: Admin) -> None:
    stats = admin.get("stats")
    assert {"connections", "messages", "messages_per_second", "commit_p99_ms", "ledger_queue_jobs"} <= set(stats)
    assert all(not isinstance(value, dict | list) for value in stats.values())
    import socket

    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as raw:
        raw.sendall(f"GET {ROOT}stats/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        seen = b""
        while seen.count(b"data: {") < 2:
            seen += raw.recv(65536)
    assert b"text/event-stream" in seen


def test_maintenance(server: ServerProcess, admin: Admin, name: Name) -> None:
    made = admin.call("POST", "maintenance/backup", {"name": "one.db"})
    assert made.status in (200, 201) and (server.data_dir / "backups" / "one.db").is_file()
    assert admin.call("POST", "maintenance/backup", {"name": "one.db"}).code == "conflict"
    for wrong in ("", "../x", "a/b", ".hidden"):
        assert admin.call("POST", "maintenance/backup", {"name": wrong}).code == "bad_field"
    assert admin.call("POST", "maintenance/compact").status == 200


def test_registration(server: ServerProcess, admin: Admin, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    with Web(server.http_port) as web:
        made = web.post("register", user=alice, password="long enough")
        assert (made.status, set(made.data)) == (201, {"user", "token", "expires"})
        phone = im.online(alice, password="long enough")
        web.refused("register", 409, "conflict", user=alice, password="long enough")
        web.refused("register", 422, "bad_field", user=bob, password="short")
        web.refused("register", 422, "bad_field", user="a b", password="long enough")
        phone.say(alice, "mine")
        assert admin.call("DELETE", f"users/{alice}").status == 204
        web.refused("register", 409, "conflict", user=alice, password="long enough")
        for number in range(30):
            answer = web.post("register", user=name(f"u{number}"), password="long enough")
            if answer.status == 429:
                break
        assert answer.code == "rate_limited" and int(answer.headers["retry-after"]) > 0
    with ServerProcess({"auth.mode": "accounts"}) as closed, Web(closed.http_port) as web:
        web.refused("register", 403, "forbidden", user=alice, password="long enough")
        web.refused("login", 401, "unauthorized", user=alice, password="long enough")
