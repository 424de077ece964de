"""HTTP and WebSocket without end."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from bench.attacks.foe import FOE, MEMBERS, PASSWORD, Attack, Ports, at_once, ids

_ids = ids()
UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def websocket_pings(ports: Ports) -> None:
    def flood(foe: socket.socket) -> None:
        while True:
            foe.sendall(b"\x89\x80\0\0\0\0" * 10_000)

    at_once(2, lambda: _websocket(ports, flood))


def websocket_bytes(ports: Ports) -> None:
    """A packet in frames of one byte each."""
    frames = b"".join(
        b"\x82\x81\0\0\0\0" + bytes((byte,)) for byte in b"\x10\x40" + b"\0\4MQTT\4\x02\0\0" + b"\0\x34" + b"x" * 52
    )

    def flood(foe: socket.socket) -> None:
        foe.sendall(frames)
        while True:
            foe.sendall(b"\x82\x80\0\0\0\0" * 10_000)

    at_once(2, lambda: _websocket(ports, flood))


def _websocket(ports: Ports, do: Callable[[socket.socket], None]) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.websocket), timeout=30) as foe:
            foe.sendall(UPGRADE)
            do(foe)


def _sockets(ports: Ports, count: int, data: bytes, more: bytes = b"") -> None:
    """So many connections that have sent this, and send a little more now and then."""
    waiting: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            foe = socket.create_connection(("127.0.0.1", ports.http), timeout=30)
            foe.settimeout(0.5)
            foe.sendall(data)
            waiting.append(foe)
        if len(waiting) > count:
            waiting.pop(0).close()
        elif more and waiting and not len(waiting) % 50:
            with contextlib.suppress(OSError):
                waiting[len(waiting) // 2].sendall(more)


def bodies_without_end(ports: Ports) -> None:
    """Requests whose bodies come, but for the last byte."""
    head = (
        f"POST /api/v1/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(ports)}\r\nContent-Type: application/json\r\n"
    )
    _sockets(ports, 3_000, head.encode() + b"Content-Length: 250000\r\n\r\n" + b" " * 249_000)


def headers_without_end(ports: Ports) -> None:
    _sockets(ports, 3_000, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5_000, b"x: y\r\n")


def token_of(ports: Ports, user: str = FOE) -> str:
    """A token of this user."""
    while True:
        with contextlib.suppress(OSError, HTTPException, ValueError):
            connection = HTTPConnection("127.0.0.1", ports.http, timeout=30)
            fields = json.dumps({"user": user, "password": PASSWORD})
            connection.request("POST", "/api/v1/login", fields, {"Content-Type": "application/json"})
            return str(json.loads(connection.getresponse().read())["token"])


def requests(ports: Ports, threads: int, request: bytes | Callable[[], bytes]) -> None:
    """One request after the other on each of so many connections."""

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                while True:
                    foe.sendall(request if isinstance(request, bytes) else request())
                    if not foe.recv(1 << 20):
                        break

    at_once(threads, work)


def get(path: str, *fields: str) -> bytes:
    """A request as it is sent."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: x", *fields, "", "")).encode()


def _post(path: str, body: object, *fields: str) -> bytes:
    text = json.dumps(body)
    head = (f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(text)}")
    return "\r\n".join((*head, *fields, "", text)).encode()


def nothing(ports: Ports) -> None:
    """Pages that are not there, without a token, on many connections."""
    requests(ports, 100, get("/api/v1/nothing"))


def descriptions(ports: Ports) -> None:
    """The largest page that is there for everybody."""
    requests(ports, 50, get("/api/v1/openapi.json"))


def wrong_tokens(ports: Ports) -> None:
    requests(ports, 50, _post("/api/v1/convs", {}, "Authorization: Bearer wrong"))


def acting(ports: Ports) -> None:
    """In the names of others, which only the operator may."""
    token = token_of(ports)
    requests(ports, 50, _post("/api/v1/convs", {}, f"Authorization: Bearer {token}", "X-Act-As: bob"))


def tickets(ports: Ports) -> None:
    token = token_of(ports)
    requests(ports, 50, _post("/api/v1/ticket", {"for": "events"}, f"Authorization: Bearer {token}"))


def large_pages(ports: Ports) -> None:
    token = token_of(ports)
    requests(ports, 50, _post("/api/v1/sync", {"after": 0}, f"Authorization: Bearer {token}"))


def streams(ports: Ports) -> None:
    """Streams that begin at the beginning, and are left at once."""
    token = token_of(ports)
    request = get("/api/v1/events?after=0", f"Authorization: Bearer {token}")

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                foe.sendall(request)
                foe.recv(100)

    at_once(20, work)


def many_streams(ports: Ports) -> None:
    """As many streams of one user as there are places, none of which is read."""
    _sockets(ports, 10_000, get("/api/v1/events?after=0", f"Authorization: Bearer {token_of(ports)}"))


def uploads(ports: Ports) -> None:
    """Small files, one after the other."""
    token = token_of(ports)
    head = f"POST /api/v1/files?name=x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 10\r\n\r\n"
    requests(ports, 20, head.encode() + b"x" * 10)


def groups_over_http(ports: Ports) -> None:
    token = token_of(ports)
    requests(
        ports,
        20,
        lambda: _post("/api/v1/group.create", {"id": next(_ids), "members": MEMBERS}, f"Authorization: Bearer {token}"),
    )


def web_logins(ports: Ports) -> None:
    """The right password, again and again."""
    requests(ports, 20, _post("/api/v1/login", {"user": FOE, "password": PASSWORD}))


def guesses(ports: Ports) -> None:
    """Other passwords, of names that are there and names that are none."""
    numbers = itertools.count()
    requests(
        ports,
        20,
        lambda: _post("/api/v1/login", {"user": f"user{next(numbers) % 50}", "password": f"guess{next(numbers)}"}),
    )


WEB: dict[str, Attack] = {
    "WebSocket pings, unread": websocket_pings,
    "WebSocket frames of one byte": websocket_bytes,
    "HTTP bodies that never end": bodies_without_end,
    "HTTP headers that never end": headers_without_end,
    "HTTP pages that are none": nothing,
    "openapi.json": descriptions,
    "wrong tokens": wrong_tokens,
    "X-Act-As": acting,
    "tickets": tickets,
    "pages over HTTP": large_pages,
    "event streams that come and go": streams,
    "10,000 event streams": many_streams,
    "uploads": uploads,
    "groups of 5,000 over HTTP": groups_over_http,
    "logins over HTTP": web_logins,
    "guesses over HTTP": guesses,
}
