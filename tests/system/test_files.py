"""Files: uploaded over HTTP, carried by messages, read by who may read such a message."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
from pathlib import Path

import pytest

from mqtt_im.cli import run
from mqtt_im.files import service
from mqtt_im.files.table import FileTable
from mqtt_im.testing import ServerProcess, ServerThread, Value
from tests.support.raw import eventually
from tests.support.web import Web
from tests.system.conftest import Clients, Login, Name

CONFIG = {"limits.requests_per_second": 2000, "files.max_bytes": 100_000, "files.quota_bytes": 250_000}
SECRET = b"\x89PNG " + os.urandom(5_000)


def token(web: Web) -> bytes:
    assert web.token is not None
    return web.token.encode()


def contents(server: ServerProcess) -> set[str]:
    """The files that lie on the server's disk."""
    return {path.name for path in (Path(server.data_dir) / "files").rglob("*") if path.is_file()}


def test_a_file_comes_with_the_message_that_carries_it(web: Login, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    phone = im.online(bob)
    sender, reader, stranger = web(alice), web(bob), web(name("eve"))
    file = sender.upload(SECRET, "holiday.png", "image/png")
    assert file == {
        "id": file["id"],
        "name": "holiday.png",
        "type": "image/png",
        "size": len(SECRET),
        "sha256": hashlib.sha256(SECRET).hexdigest(),
    }
    assert sender.file(file["id"]).body == SECRET  # one's own, before anything carries it
    assert reader.file(file["id"]).status == 404
    conv = sender.must("send", to=bob, body="look", files=[file["id"]])["conv"]
    shown = {key: file[key] for key in ("id", "name", "type", "size")}
    assert phone.wait("msg")["files"] == [shown]
    assert reader.must("history", conv=conv)["items"][0]["files"] == [shown]
    got = reader.file(file["id"])
    assert (got.status, got.body, got.headers["content-type"]) == (200, SECRET, "image/png")
    assert stranger.file(file["id"]).status == 404
    # bob may hand it on, and then eve reads it; a stranger could not have
    assert stranger.post("send", to=bob, body="x", files=[file["id"]]).code == "not_found"
    reader.must("send", to=stranger.user, body="see", files=[file["id"]])
    assert stranger.file(file["id"]).body == SECRET


def test_over_mqtt_and_repeated(web: Login, im: Clients, name: Name) -> None:
    alice, bob = name("alice"), name("bob")
    sender, pc = web(alice), im.online(alice)
    one, two = (sender.upload(b"x", "a.txt", "text/plain")["id"] for _ in range(2))
    pc.request("send", id="1", to=bob, body="b", files=[one, two])
    assert pc.wait("sent", id="1")["seq"] == 1
    pc.request("send", id="1", to=bob, body="b", files=[one, two])
    assert pc.wait("sent", id="1")["dup"]
    pc.request("send", id="1", to=bob, body="b", files=[two])
    assert pc.wait("error", id="1")["code"] == "conflict"
    for wrong, code in (
        ([one, one], "bad_field"),
        (["nope"], "not_found"),
        (["x"] * 11, "bad_field"),
        ([""], "not_found"),
        (["x\0"], "not_found"),
        ([7], "bad_field"),
    ):
        pc.request("send", id="2", to=bob, body="b", files=wrong)
        assert pc.wait("error", id="2")["code"] == code


def test_recall_takes_the_file_away(web: Login, im: Clients, name: Name, server: ServerProcess) -> None:
    alice, bob = name("alice"), name("bob")
    sender, reader = web(alice), web(bob)
    file = sender.upload(SECRET, "f", "image/png")["id"]
    sent = sender.must("send", to=bob, body="1", files=[file], id="x")
    again = sender.must("send", to=bob, body="2", files=[file])
    sender.must("recall", conv=sent["conv"], seq=sent["seq"])
    assert "files" not in reader.must("history", conv=sent["conv"])["items"][0]
    assert reader.file(file).body == SECRET  # the other message carries it still
    sender.must("recall", conv=sent["conv"], seq=again["seq"])
    assert reader.file(file).status == sender.file(file).status == 404
    assert sender.post("send", to=bob, body="3", files=[file]).code == "not_found"
    assert sender.must("send", to=bob, body="1", files=[file], id="x")["dup"]
    eventually(lambda: file not in contents(server), "the folder")


def test_who_left_the_group_keeps_what_was_before(web: Login, name: Name) -> None:
    alice, bob, carol = web(name("alice")), web(name("bob")), web(name("carol"))
    group = alice.must("group.create", members=[bob.user])["group"]
    first = alice.upload(b"1", "1", "text/plain")["id"]
    alice.must("send", to=group, body="", files=[first])
    alice.must("group.add", group=group, members=[carol.user])
    bob.must("group.leave", group=group)
    second = alice.upload(b"2", "2", "text/plain")["id"]
    alice.must("send", to=group, body="", files=[second])
    assert [who.file(first).status for who in (alice, bob, carol)] == [200, 200, 404]
    assert [who.file(second).status for who in (alice, bob, carol)] == [200, 404, 200]


def test_ranges_and_tags(web: Login, name: Name) -> None:
    alice = web(name("alice"))
    file = alice.upload(b"0123456789", "n.txt", "text/plain; charset=utf-8")
    assert file["type"] == "text/plain"
    for given, status, data, where in (
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=0-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-" + "9" * 5_000, 206, b"89", "bytes 8-9/10"),
        ("bytes=-" + "9" * 5_000, 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=" + "0" * 5_000 + "8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ):
        got = alice.file(file["id"], Range=given)
        assert (got.status, got.body, got.headers.get("content-range")) == (status, data, where), given
    for beyond in ("bytes=10-", "bytes=-0", "bytes=" + "9" * 5_000 + "-", "bytes=9" + "0" * 17 + "-"):
        got = alice.file(file["id"], Range=beyond)
        assert (got.status, got.headers["content-range"], got.code) == (416, "bytes */10", "bad_range")
    tag = alice.file(file["id"]).headers["etag"]
    assert alice.file(file["id"], If_None_Match=tag).status == 304
    assert alice.file(file["id"], Range="bytes=1-1", If_Range='"other"').status == 200
    head = alice.file(file["id"], method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")


def test_a_ticket_shows_one_file(web: Login, name: Name, server: ServerProcess) -> None:
    alice = web(name("alice"))
    one, two = (alice.upload(SECRET, "f", "image/png")["id"] for _ in range(2))
    ticket = alice.ask("POST", "/api/v1/ticket", {"for": f"files/{one}"})
    assert ticket.status == 201
    with Web(server.http_port) as image:
        assert image.ask("GET", ticket.data["url"]).body == SECRET
        assert image.ask("GET", ticket.data["url"].replace(one, two)).status == 401


def test_nothing_active_is_shown_inline(web: Login, name: Name) -> None:
    alice = web(name("alice"))
    for kind, how in (
        ("image/png", "inline"),
        ("video/mp4", "inline"),
        ("audio/ogg", "inline"),
        ("text/plain", "inline"),
        ("image/svg+xml", "attachment"),
        ("text/html", "attachment"),
        ("application/pdf", "attachment"),
        ("application/xhtml+xml", "attachment"),
    ):
        got = alice.file(alice.upload(b"<script>", "ü\n/..\\a b.x", kind)["id"])
        assert got.headers["content-disposition"].startswith(how + ";"), kind
        assert "filename*=UTF-8''%C3%BC__.._a%20b.x" in got.headers["content-disposition"]
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in got.headers["content-security-policy"]


def test_what_is_not_taken(web: Login, name: Name, server: ServerProcess) -> None:
    alice = web(name("alice"))
    before = contents(server)
    for given, status, code in (
        ((b"x" * 100_001, "f", "text/plain"), 413, "too_large"),
        ((b"x", "n" * 256, "text/plain"), 422, "bad_field"),
        ((b"x", "f", "nonsense"), 415, "unsupported_type"),
    ):
        got = alice.uploaded(*given)
        assert (got.status, got.code) == (status, code)
    for _ in range(2):
        alice.upload(b"x" * 100_000, "f", "text/plain")
    full = alice.uploaded(b"x" * 50_001, "f", "text/plain")
    assert (full.status, full.code) == (507, "quota")
    with Web(server.http_port) as nobody:
        assert nobody.uploaded(b"x", "f", "text/plain").status == 401
    assert len(contents(server)) == len(before) + 2


def test_an_upload_is_told_too_large_before_its_body(web: Login, name: Name, server: ServerProcess) -> None:
    alice = web(name("alice"))
    with socket.create_connection(("127.0.0.1", server.http_port)) as sock:
        sock.sendall(
            b"POST /api/v1/files?name=f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: 100001\r\n\r\n"
            % token(alice)
        )
        sock.settimeout(60)
        assert sock.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_broken_upload_leaves_nothing(web: Login, name: Name, server: ServerProcess) -> None:
    alice = web(name("alice"))
    before = contents(server)
    with socket.create_connection(("127.0.0.1", server.http_port)) as sock:
        sock.sendall(
            b"POST /api/v1/files?name=f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n" % token(alice)
        )
        eventually(lambda: contents(server) != before, "the folder")
    eventually(lambda: contents(server) == before, "the folder")
    # a body without a known length ends at the bound
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    headers = {"Authorization": f"Bearer {alice.token}", "Content-Type": "text/plain"}
    connection.request("POST", "/api/v1/files", iter([b"x" * 50_000] * 3), headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    eventually(lambda: contents(server) == before, "the folder")


def test_files_survive_a_kill_and_a_lost_table(web: Login, im: Clients, name: Name, server: ServerProcess) -> None:
    alice, bob = name("alice"), name("bob")
    file = web(alice).upload(SECRET, "f.png", "image/png")["id"]
    web(alice).must("send", to=bob, body="1", files=[file])
    server.kill()
    server.restart()
    assert web(bob).file(file).body == SECRET
    server.stop()
    for path in Path(server.data_dir).glob("files.db*"):
        path.unlink()
    server.restart()
    got = web(bob).file(file)
    assert (got.body, got.headers["content-type"]) == (SECRET, "image/png")
    table = FileTable(server.data_dir, readonly=True)
    found = table.get(file)
    table.close()
    assert found is not None
    assert (found.owner, found.size) == (alice, len(SECRET))


def test_check_and_backup_look_after_files(web: Login, name: Name, server: ServerProcess, tmp_path: Path) -> None:
    alice, bob = web(name("alice")), web(name("bob"))
    file = alice.upload(SECRET, "f.png", "image/png")["id"]
    alice.must("send", to=bob.user, body="1", files=[file])
    settings = ["--set", f"data_dir={server.data_dir}"]
    assert run(["store", "check", *settings]) == 0
    assert run(["store", "backup", str(tmp_path / "b.db"), "--files", str(tmp_path / "files"), *settings]) == 0
    (content,) = (path for path in (Path(server.data_dir) / "files").rglob(file))
    content.rename(tmp_path / "away")
    assert run(["store", "check", *settings]) == 1
    (tmp_path / "away").rename(content)
    with ServerProcess() as other:
        other.stop()
        for path in Path(other.data_dir).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elsewhere = ["--set", f"data_dir={other.data_dir}"]
        assert run(["store", "restore", str(tmp_path / "b.db"), "--files", str(tmp_path / "files"), *elsewhere]) == 0
        other.start()
        with Web(other.http_port) as reader:
            got = reader.login(bob.user).file(file)
            assert (got.body, got.headers["content-type"]) == (SECRET, "image/png")


def test_what_retention_takes_leaves_the_disk_at_once_however_much_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a slice with each sweep, of which there are few here."""
    monkeypatch.setattr(service, "SLICE", 2)
    monkeypatch.setattr(service, "SLICES", 1)
    monkeypatch.setattr(service, "SWEEP_S", 3.0)
    config: dict[str, Value] = {"auth.admin_token": "admin", "store.retention_messages": 1}
    with ServerThread(config) as server, Web(server.http_port).login("alice") as alice:
        files = [alice.upload(b"%d" % number, "f", "text/plain")["id"] for number in range(20)]
        for file in files:
            alice.must("send", to="alice", body="", files=[file])
        kept = {path.name for path in (server.data_dir / "files").rglob("*") if path.is_file()}
        assert set(files) <= kept
        with Web(server.http_port, "admin") as admin:
            assert admin.ask("POST", "/api/v1/admin/maintenance/compact").data["messages"] == 19
        eventually(
            lambda: not set(files[:-1]) & {path.name for path in (server.data_dir / "files").rglob("*")}, "the files' end", 12
        )
        assert alice.file(files[-1]).status == 200


def test_messages_that_carry_a_file_no_more_are_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOKS", 3)
    monkeypatch.setattr(service, "SWEEP_S", 0.2)
    with ServerThread({}) as server, Web(server.http_port).login("alice") as alice:
        files = [alice.upload(b"x", "f", "text/plain")["id"] for _ in range(2)]
        for number in range(8):
            alice.must("send", to=f"to{number}", body="", files=files)
        for number in range(7):
            alice.must("recall", conv=f"alice:to{number}", seq=1)

        def carriers(file: str) -> list[tuple[str, int]]:
            table = FileTable(server.data_dir, readonly=True)
            found = table.upload(file)
            table.close()
            return [] if found is None else list(found.carriers)

        for file in files:
            eventually(lambda file=file: carriers(file) == [("alice:to7", 1)], "the end of those that were recalled", 12)  # type: ignore[misc]
            assert alice.file(file).status == 200
        alice.must("recall", conv="alice:to7", seq=1)
        eventually(lambda: not carriers(files[0]) and not carriers(files[1]), "the files' end", 12)
        assert alice.file(files[0]).status == 404
