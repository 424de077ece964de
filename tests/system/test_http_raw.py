"""HTTP as no library would send it: broken heads, two lengths, floods, bodies that never come or never end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import socket
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

from mqtt_im.files.gathering import USUAL_BYTES
from mqtt_im.http import body, files
from mqtt_im.http.connection import HttpConnection
from mqtt_im.testing import ServerProcess, ServerThread
from tests.support.raw import PATIENCE_S, eventually
from tests.support.web import HOST, Web
from tests.system.conftest import Name

CONFIG = {"limits.connect_timeout_s": 2, "auth.admin_token": "an-admin-token"}


def answers(port: int, *parts: bytes) -> bytes:
    """All that comes until the server closes its side."""
    with socket.create_connection((HOST, port), timeout=PATIENCE_S) as raw:
        try:
            for part in parts:
                raw.sendall(part)
        except OSError:
            pass  # it was cut already
        found = b""
        try:
            while data := raw.recv(65_536):
                found += data
        except ConnectionError:
            pass
        return found


MUCH = b" " * 8_000_000
"""More than the kernels on the way take for who does not read."""


def late(port: int, sent: bytes) -> bytes:
    """What is answered to who sends all of it before reading. Raises `OSError` where the connection was reset."""
    with socket.create_connection((HOST, port), timeout=PATIENCE_S) as raw:
        raw.sendall(sent)
        return told(raw)


def told(raw: socket.socket) -> bytes:
    """A problem, as far as it comes."""
    found = raw.recv(65_536)
    while found and b"}" not in found and (data := raw.recv(65_536)):
        found += data
    return found


def problem(answer: bytes) -> tuple[int, str]:
    """Status and code of the only answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head and b"nosniff" in head, answer
    told = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {told['status']} {told['title']}\r\n".encode()), head
    return told["status"], told["code"]


@pytest.mark.parametrize(("parts", "status", "code"), [(100, 401, "unauthorized"), (101, 414, "too_large")])
def test_a_query_has_a_bounded_number_of_parts(server: ServerProcess, parts: int, status: int, code: str) -> None:
    """They are taken apart before anybody is asked for a token."""
    sent = b"GET /api/v1/events?%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % b"&".join([b"a=1"] * parts)
    assert problem(answers(server.http_port, sent)) == (status, code)


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET /health/live HTTP/1.1\r\n\r\n", 400, "bad_payload"),  # no Host
        (b"GET /health/live\r\n\r\n", 400, "bad_payload"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400, "bad_payload"),  # TLS
        (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", 400, "bad_payload"),  # MQTT
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000, 431, "too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(30_000)), 431, "too_large"),
        (b"GET /" + b"y" * 100_000, 431, "too_large"),
        (b"POST /api/v1/send HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, "bad_payload"),
        (b"POST /api/v1/send HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}", 400, "bad_payload"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_payload"),
        (b"POST /api/v1/send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}", 400, "bad_payload"),
    ],
)
def test_what_is_no_request(server: ServerProcess, sent: bytes, status: int, code: str) -> None:
    assert problem(answers(server.http_port, sent)) == (status, code)
    _, counted = server.get("/metrics")
    assert "mqtt_im_http_refused_total{reason=" in counted
    assert server.get("/health/ready")[0] == 200


def test_a_target_may_begin_with_the_host(server: ServerProcess, name: Name) -> None:
    """RFC 9112, section 3.2.2: as proxies are asked."""
    with Web(server.http_port).login(name("alice")) as web:
        token = web.token
    for target, wanted in (
        (b"http://x/health/live", b"200"),
        (b"HTTP://x:80/health/live?y=/", b"200"),
        (b"https://x", b"200"),
        (b"http://x?y", b"200"),
        (b"http://x/%6eothing", b"404"),
        (b"ftp://x/health/live", b"404"),
        (b"x:80", b"404"),
        (b"*", b"404"),
    ):
        found = answers(server.http_port, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert found.split(b" ", 2)[1] == wanted, target
    head = f"Host: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    found = answers(server.http_port, f"POST http://x/api/v1/devices HTTP/1.1\r\n{head}Connection: close\r\n\r\n{{}}".encode())
    assert found.startswith(b"HTTP/1.1 200 ")
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    upgrade += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
    found = answers(server.http_port, b"GET http://x/mqtt HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n")
    assert found.startswith(b"HTTP/1.1 101 ")


def test_a_head_that_does_not_come_is_not_waited_for(server: ServerProcess) -> None:
    for sent in (b"", b"GET /health/live HTTP/1.1\r\nHost"):
        with socket.create_connection((HOST, server.http_port), timeout=PATIENCE_S) as raw:
            raw.sendall(sent)
            assert raw.recv(100) == b""
    _, counted = server.get("/metrics")
    assert 'mqtt_im_http_refused_total{reason="head_timeout"}' in counted


def test_a_body_is_awaited_only_from_those_who_may_send_it(server: ServerProcess, name: Name) -> None:
    with Web(server.http_port).login(name("alice")) as web:
        head = f"Host: x\r\nAuthorization: Bearer {web.token}\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    with socket.create_connection((HOST, server.http_port), timeout=PATIENCE_S) as raw:
        raw.sendall(f"POST /api/v1/devices HTTP/1.1\r\n{head}Content-Length: 2\r\n\r\n".encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 100 ")
        raw.sendall(b"{}")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
    for wrong, status in ((head.replace("Bearer ", "Bearer x"), 401), (head, 413)):
        sent = f"POST /api/v1/devices HTTP/1.1\r\n{wrong}Content-Length: 999999\r\n\r\n".encode()
        assert problem(answers(server.http_port, sent))[0] == status


@pytest.mark.parametrize("begun", [True, False])
def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    monkeypatch.setattr(body, "PATIENCE_S", 1.0)
    monkeypatch.setattr(files, "PATIENCE_S", 1.0)
    with ServerThread({}) as server:
        with Web(server.http_port).login("alice") as web:
            head = f"Host: x\r\nAuthorization: Bearer {web.token}\r\nContent-Length: 20\r\n"
        for path, kind in (("send", "application/json"), ("files?name=x", "text/plain")):
            sent = f"POST /api/v1/{path} HTTP/1.1\r\n{head}Content-Type: {kind}\r\n\r\n".encode()
            assert problem(answers(server.http_port, sent + b"{" * begun)) == (408, "bad_payload"), path
        with Web(server.http_port).login("alice") as web:
            web.must("send", to="alice", body="others are served")
            assert not list((server.data_dir / "files" / "incoming").iterdir())


def test_a_body_without_end_is_bounded(server: ServerProcess, name: Name) -> None:
    with Web(server.http_port).login(name("alice")) as web:
        head = f"Host: x\r\nAuthorization: Bearer {web.token}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    answer = answers(server.http_port, f"POST /api/v1/devices HTTP/1.1\r\n{head}\r\n".encode(), *[chunk] * 8)
    assert problem(answer) == (413, "too_large")


def test_who_sends_bodies_without_end_gives_way_to_others() -> None:
    """With little memory there is room for thirteen of them; whoever else comes is answered, and the first of them are told."""
    with ServerThread({"limits.memory_mb": 100}) as server:
        with Web(server.http_port).login("mallory") as web:
            theirs = web.token
        alice = Web(server.http_port).login("alice")

        fields = f"Authorization: Bearer {theirs}\r\nContent-Type: application/json\r\nContent-Length: 250000\r\n"
        sent = f"POST /api/v1/send HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode() + b" " * 249_000
        waiting = [socket.create_connection((HOST, server.http_port), timeout=PATIENCE_S) for _ in range(20)]
        try:
            for raw in waiting:
                raw.sendall(sent)
            answer = told(waiting[0])
            assert problem(answer) == (503, "unavailable") and b"retry-after: 5\r\n" in answer.lower()
            assert waiting[0].recv(1) == b"", "its connection is closed"
            with alice:
                for _ in range(20):
                    alice.must("send", to="alice", body="x" * 60_000)
        finally:
            for raw in waiting:
                raw.close()
        assert 'http_refused_total{reason="too_much"}' in server.get("/metrics")[1]


def test_the_body_of_what_was_refused_is_not_kept() -> None:
    """What had come of it before the answer is gone with the answer, not with the connection."""

    def bodies() -> int:
        return sum(len(found.body) for found in gc.get_objects() if type(found) is RequestResponseCycle)

    with ServerThread({}) as server:
        with Web(server.http_port).login("alice") as web:
            head = f"Host: x\r\nAuthorization: Bearer x{web.token}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((HOST, server.http_port), timeout=PATIENCE_S) as raw:
            raw.sendall(f"POST /api/v1/send HTTP/1.1\r\n{head}Content-Length: 60000\r\n\r\n".encode() + b" " * 50_000)
            assert problem(told(raw)) == (401, "unauthorized")
            assert bodies() == 0
            raw.sendall(b" " * 10_000)
            assert not raw.recv(1) or bodies() == 0


def test_a_body_in_chunks_of_a_byte_is_understood(server: ServerProcess, name: Name) -> None:
    """And so is the request behind it."""
    with Web(server.http_port).login(name("alice")) as web:
        head = f"Host: x\r\nAuthorization: Bearer {web.token}\r\nContent-Type: application/json\r\n"
    text = json.dumps({"to": name("bob"), "body": "x" * 2_000})
    chunks = "".join(f"1\r\n{letter}\r\n" for letter in text) + "0\r\n\r\n"
    first = f"POST /api/v1/send HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"
    second = f"POST /api/v1/convs HTTP/1.1\r\n{head}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    answer = answers(server.http_port, (first + second).encode())
    assert answer.count(b"HTTP/1.1 200 ") == 2 and b"x" * 2_000 in answer


def test_a_connection_that_has_gone_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when memory is looked through."""
    monkeypatch.setattr("mqtt_im.memory.look_at_new", lambda: asyncio.sleep(3600))

    def there() -> int:
        return sum(type(found) is HttpConnection for found in gc.get_objects())

    with ServerThread({}) as server:
        gc.collect()
        before = there()
        gc.disable()
        try:
            for _ in range(10):
                assert problem(answers(server.http_port, b"GET /api/v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
            eventually(lambda: there() <= before, "they are freed")
        finally:
            gc.enable()


LATE = [
    ("X: y", 401, "unauthorized"),
    ("Authorization: Bearer {token}\r\nContent-Type: application/json", 413, "too_large"),
    ("Authorization: Bearer {token}\r\nContent-Type: text/plain", 415, "unsupported_type"),
    ("Authorization: Bearer {token}\r\nX-Act-As: bob\r\nContent-Type: application/json", 403, "forbidden"),
    ("Content-Length: 3", 400, "bad_payload"),
    ("X: " + "y" * 1_000_000, 431, "too_large"),
]


@pytest.mark.parametrize("ends", ["", "Connection: close\r\n"], ids=["kept", "closed"])
@pytest.mark.parametrize(("fields", "status", "code"), LATE, ids=[str(status) for _, status, _ in LATE])
def test_who_reads_only_when_all_is_sent_is_answered_too(
    server: ServerProcess, name: Name, fields: str, status: int, code: str, ends: str
) -> None:
    with Web(server.http_port).login(name("alice")) as web:
        head = f"Host: x\r\n{fields.format(token=web.token)}\r\n{ends}Content-Length: {len(MUCH)}\r\n"
    assert problem(late(server.http_port, f"POST /api/v1/send HTTP/1.1\r\n{head}\r\n".encode() + MUCH)) == (status, code)


def test_pipelined_requests_are_answered_in_order(server: ServerProcess, name: Name) -> None:
    with Web(server.http_port).login(name("alice")) as web:
        head = f"Host: x\r\nAuthorization: Bearer {web.token}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    ops = {"devices": "", "send": "", "convs": "Connection: close\r\n"}
    sent = "".join(f"POST /api/v1/{op} HTTP/1.1\r\n{head}{more}\r\n{{}}" for op, more in ops.items())
    found = answers(server.http_port, sent.encode())
    assert re.findall(rb"HTTP/1\.1 (\d+) ", found) == [b"200", b"422", b"200"]


def test_methods_that_are_not_there(server: ServerProcess) -> None:
    with Web(server.http_port, "an-admin-token") as web:
        for path, allowed in (
            ("/api/v1/send", "POST"),
            ("/api/v1/ticket", "POST"),
            ("/api/v1/events", "GET"),
            ("/api/v1/files", "POST"),
            ("/api/v1/files/x", "GET, HEAD"),
            ("/api/v1/admin/users", "GET, POST, HEAD"),
            ("/health/live", "GET, HEAD"),
            ("/metrics", "GET, HEAD"),
            ("/", "GET, HEAD"),
        ):
            answer = web.ask("PATCH", path)
            assert (answer.status, answer.code) == (405, "method_not_allowed"), path
            assert set(answer.headers["allow"].split(", ")) == set(allowed.split(", ")), path
        for path in ("users", "stats", "connections"):
            answer = web.ask("HEAD", f"/api/v1/admin/{path}")
            assert (answer.status, answer.body) == (200, b"")


def test_who_may_come_from_elsewhere(server: ServerProcess) -> None:
    """CORS: for `http.origins` alone, and never with credentials."""
    ours, other = "https://app.example", "https://evil.example"
    with ServerProcess({"http.origins": [ours]}) as shared, Web(shared.http_port) as web, Web(server.http_port) as closed:
        asked: dict[str, Any] = {
            "Access_Control_Request_Method": "POST",
            "Access_Control_Request_Headers": "authorization,content-type,x-act-as",
        }
        preflight = web.ask("OPTIONS", "/api/v1/send", Origin=ours, **asked)
        assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, ours)
        assert {"Authorization", "Idempotency-Key", "Last-Event-ID", "X-Act-As", "Range"} <= set(
            preflight.headers["access-control-allow-headers"].split(", ")
        )
        for path, status in (("/api/v1/login", 200), ("/api/v1/devices", 401), ("/nothing", 404)):
            answer = web.ask("POST", path, {"user": "alice"}, Origin=ours)
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, ours)
            assert answer.headers["access-control-expose-headers"] == "Retry-After, ETag, Content-Range"
            assert "access-control-allow-credentials" not in answer.headers
        assert "access-control-allow-origin" not in web.ask("OPTIONS", "/api/v1/send", Origin=other, **asked).headers
        assert "access-control-allow-origin" not in web.ask("POST", "/api/v1/login", {"user": "a"}, Origin=other).headers
        assert closed.ask("OPTIONS", "/api/v1/send", Origin=ours, **asked).status == 405
        assert "access-control-allow-origin" not in closed.ask("POST", "/api/v1/login", {"user": "a"}, Origin=ours).headers


@pytest.mark.parametrize("own_server", [{"http.trusted_proxies": [HOST]}], indirect=True)
@pytest.mark.parametrize("same", [True, False])
def test_wrong_tokens_are_bounded(own_server: ServerProcess, same: bool) -> None:
    """Also the same one again and again, and from this machine, where nobody else is locked out."""
    with Web(own_server.http_port) as web:
        web.login("alice")
        good = web.token
        for path in ("/api/v1/devices", "/api/v1/admin/stats", "/api/v1/events"):
            address = f"192.0.2.{len(path)}"
            method = "POST" if path.endswith("devices") else "GET"
            statuses = []
            for number in range(100):
                web.token = "mqim_wrong" if same else f"mqim_wrong{number}"
                answer = web.ask(method, path, X_Forwarded_For=address)
                statuses.append(answer.status)
                if answer.status != 401:
                    break
            assert (answer.status, answer.code) == (429, "rate_limited"), path
            assert len(statuses) > 5 and int(answer.headers["retry-after"]) > 0
            web.token = good
            assert web.post("devices", {"X_Forwarded_For": address}).status == 200
        for number in range(100):
            web.token = "mqim_wrong" if same else f"mqim_other{number}"
            status = web.post("devices").status
            if status == 429:
                break
        assert status == 429
        web.token = good
        web.must("devices")


def grown(at_most: int, since: int) -> bool:
    """Whether no more than so many bytes have come to what Python has in memory."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - since <= at_most


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def unread(port: int, request: str) -> socket.socket:
    """A connection whose client asks for this, and takes next to nothing of the answer."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.settimeout(PATIENCE_S)
    raw.connect((HOST, port))
    raw.sendall(request.encode())
    return raw


@pytest.mark.usefixtures("traced")
def test_uploads_that_stand_still_leave_nothing_of_what_was_written_in_memory() -> None:
    """But for what is gathered for the next piece. Half a megabyte of each did: a thousand of them were 180 MB."""
    with ServerThread({}) as server, contextlib.ExitStack() as open_ones:
        with Web(server.http_port).login("mallory") as web:
            head = f"POST /api/v1/files?name=x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.token}\r\n"
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]

        def written() -> int:
            return sum(file.stat().st_size for file in (server.data_dir / "files" / "incoming").iterdir())

        for _ in range(40):
            raw = open_ones.enter_context(socket.create_connection((HOST, server.http_port), timeout=PATIENCE_S))
            raw.sendall(f"{head}Content-Length: 2000000\r\n\r\n".encode() + b"x" * 1_000_000)
        eventually(lambda: written() >= 40 * 600_000, "they are written")
        eventually(lambda: grown(USUAL_BYTES // 2 + 2_000_000, before), "what was written has left memory")


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("what", ["files", "pages"])
def test_what_is_not_read_of_answers_is_bounded_for_all_together(what: str) -> None:
    """Each unread file had half a megabyte in memory, and each page as much as it has: 12,000 connections are 6 GB."""
    with (
        ServerThread({"limits.memory_mb": 100, "limits.requests_per_second": 100_000}) as server,
        contextlib.ExitStack() as open_ones,
    ):
        with Web(server.http_port).login("mallory") as web:
            head = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {web.token}\r\n"
            if what == "files":
                upload = f"POST /api/v1/files?name=x {head}Content-Length: 4000000\r\nConnection: close\r\n\r\n"
                answer = answers(server.http_port, upload.encode() + b"x" * 4_000_000)
                request = (
                    f"GET /api/v1/files/{json.loads(answer.partition(b'{')[1] + answer.partition(b'{')[2])['id']} {head}\r\n"
                )
            else:
                for _ in range(8):
                    web.must("send", to="mallory", body="x" * 60_000)
                request = f"POST /api/v1/sync {head}Content-Type: application/json\r\nContent-Length: 11\r\n\r\n" + '{"after":0}'
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            open_ones.enter_context(unread(server.http_port, request * 20))
        eventually(lambda: not grown(1_000_000, before), "there are answers")
        time.sleep(2)
        assert grown(7_000_000, before)


def test_what_comes_behind_an_answer_does_not_stay_while_the_connection_is_closed() -> None:
    """What was not looked at yet of a body stayed as long as its client was waited for."""
    with ServerThread({}) as server:
        head = "POST /api/v1/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nConnection: close\r\n"
        head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection((HOST, server.http_port), timeout=PATIENCE_S) as raw:
            raw.sendall(head.encode() + b"1\r\nx\r\n" * 20_000)
            assert problem(told(raw)) == (401, "unauthorized")
            there = [found for found in gc.get_objects() if type(found) is HttpConnection]
            eventually(lambda: all(found.transport.is_closing() for found in there), "it closes")
            eventually(lambda: not any(found.conn.waiting for found in there), "nothing of it is left")
