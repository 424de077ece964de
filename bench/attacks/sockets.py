"""HTTP, WebSocket and TLS: answers that nobody takes, requests that are half there, handshakes and records."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
import subprocess
import threading
import time
from http.client import HTTPConnection, HTTPException

from bench.attacks import wire
from bench.attacks.foe import FOE, MEMBERS, PREFIX, Attack, Foe, Ports, at_once, forever, ids
from bench.attacks.together import ACCOUNTS, all_of_them
from bench.attacks.web import UPGRADE, get, requests, token_of

_ids = ids()


def _open(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def _uploaded(ports: Ports, token: str, size: int) -> str:
    """The id of a file of so many bytes."""
    while True:
        with contextlib.suppress(OSError, HTTPException, ValueError, KeyError):
            connection = HTTPConnection("127.0.0.1", ports.http, timeout=30)
            connection.request("POST", "/api/v1/files?name=x", b"x" * size, {"Authorization": f"Bearer {token}"})
            return str(json.loads(connection.getresponse().read())["id"])
        time.sleep(0.1)


def metrics(ports: Ports) -> None:
    """What anybody may ask for, and is worked out each time."""
    requests(ports, 50, get("/metrics"))


def pages(ports: Ports) -> None:
    """The web chat and its files."""
    paths = itertools.cycle(("/", "/sw.js", "/web/x/ui/app.js", "/web/server.json", "/admin", "/api/docs"))
    requests(ports, 50, lambda: get(next(paths), "Accept-Encoding: gzip"))


def long_paths(ports: Ports) -> None:
    """Paths and queries as long as a head may be, escaped throughout."""
    requests(ports, 30, get("/api/v1/" + "%41" * 4_000 + "?" + "a=%42&" * 2_000))


def many_headers(ports: Ports) -> None:
    """Heads of thousands of fields, which are read to their ends."""
    token = token_of(ports)
    fields = [f"Authorization: Bearer {token}", *(f"x{number}: y" for number in range(3_000))]
    requests(ports, 30, get("/api/v1/nothing", *fields))


def nonsense(ports: Ports) -> None:
    """Bodies that are JSON but for their ends."""
    body = '{"members":[' + "[]," * 80_000
    head = f"POST /api/v1/group.create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(ports)}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    requests(ports, 20, head.encode() + body.encode())


def many_ranges(ports: Ports) -> None:
    """Thousands of single bytes of a file in one request."""
    token = token_of(ports)
    name = _uploaded(ports, token, 1_000_000)
    wanted = ",".join(f"{number}-{number}" for number in range(0, 5_000, 2))
    requests(ports, 20, get(f"/api/v1/files/{name}", f"Authorization: Bearer {token}", f"Range: bytes={wanted}"))


def _unread(ports: Ports, requests_of: list[bytes]) -> None:
    """A thousand connections that send these, and read no answer: next to nothing of it fits into their sockets."""
    waiting: list[socket.socket] = []
    for request in itertools.islice(itertools.cycle(requests_of), 1_000):
        with contextlib.suppress(OSError):
            foe = socket.socket()
            foe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            foe.settimeout(1)
            foe.connect(("127.0.0.1", ports.http))
            foe.sendall(request)
            waiting.append(foe)
    time.sleep(3_600)


def unread_files(ports: Ports) -> None:
    """Files of 5 MB of twenty accounts."""
    tokens = [token_of(ports, name) for name in ACCOUNTS]
    files = [(token, _uploaded(ports, token, 5_000_000)) for token in tokens]
    _unread(ports, [get(f"/api/v1/files/{name}", f"Authorization: Bearer {token}") for token, name in files])


def unread_pages(ports: Ports) -> None:
    """Pages of 300 KB of twenty accounts, as many as they may ask for, all of a connection's at once."""
    asked: list[bytes] = []
    for name in ACCOUNTS:
        foe = Foe(ports.mqtt, user=name)
        for _ in range(8):
            foe.ask("send", id=next(_ids), to=name, body="x" * 60_000)
        fields = (f"Authorization: Bearer {token_of(ports, name)}", "Content-Type: application/json", "Content-Length: 11")
        asked.append((get("/api/v1/sync", *fields).replace(b"GET", b"POST", 1) + b'{"after":0}') * 20)
    _unread(ports, asked)


def half_uploads(ports: Ports) -> None:
    """Files of 25 MB, as many as there may be, of each of which a megabyte has come."""
    tokens = itertools.cycle([token_of(ports, name) for name in ACCOUNTS])
    waiting: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            foe = _open(ports.http)
            foe.settimeout(1)
            head = f"POST /api/v1/files?name=x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {next(tokens)}\r\n"
            foe.sendall(head.encode() + b"Content-Length: 25000000\r\n\r\n" + b"x" * 1_000_000)
            waiting.append(foe)
        if len(waiting) > 1_000:
            waiting.pop(0).close()


def one_file(ports: Ports) -> None:
    """One file that twenty accounts put into each of their messages, and that others would like to have."""
    name = _uploaded(ports, token_of(ports), 10)
    group = f"#files{next(_ids)}"
    with contextlib.suppress(OSError):
        owner = Foe(ports.mqtt)
        owner.ask("group.create", id=next(_ids), group=group, members=ACCOUNTS)
        owner.ask("send", id=next(_ids), to=group, body="see", files=[name])
        time.sleep(0.5)

    def ask(foe: Foe) -> None:
        foe.ask("send", id=next(_ids), to=foe.user, body="mine", files=[name])

    for other in MEMBERS[2_100:2_104]:
        threading.Thread(target=forever, args=(ports.mqtt, ask), kwargs={"user": other}, daemon=True).start()
    all_of_them(ports, lambda foe: foe.ask("send", id=next(_ids), to=group, body="see", files=[name]))


def streams_of_all(ports: Ports) -> None:
    """Event streams of twenty accounts from their beginnings, as many as they may have, of which little is read."""
    tokens = [token_of(ports, name) for name in ACCOUNTS]
    waiting: list[socket.socket] = []
    for token in tokens * 15:
        with contextlib.suppress(OSError):
            foe = _open(ports.http)
            foe.sendall(get("/api/v1/events?after=0", f"Authorization: Bearer {token}"))
            waiting.append(foe)
    while True:
        for foe in waiting:
            with contextlib.suppress(OSError):
                foe.setblocking(False)
                foe.recv(100)
        time.sleep(0.01)


def device_streams(ports: Ports) -> None:
    """A device everywhere at once, over HTTP."""
    request = get("/api/v1/events?device=everywhere", f"Authorization: Bearer {token_of(ports)}")

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.http) as foe:
                foe.sendall(request)
                foe.recv(100)

    at_once(20, work)


def logins_of_all(ports: Ports) -> None:
    """Tokens without end, and their ends."""
    names = itertools.cycle(ACCOUNTS)

    def work() -> None:
        while True:
            with contextlib.suppress(OSError, HTTPException, ValueError, KeyError):
                token = token_of(ports, next(names))
                connection = HTTPConnection("127.0.0.1", ports.http, timeout=30)
                connection.request("POST", "/api/v1/logout", headers={"Authorization": f"Bearer {token}"})
                connection.getresponse().read()

    at_once(10, work)


def coming_and_going(ports: Ports) -> None:
    """Connections that ask for one thing, and go before the answer."""
    token = token_of(ports)
    asked = get("/api/v1/events?after=0", f"Authorization: Bearer {token}")

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.http) as foe:
                foe.sendall(asked)

    at_once(10, work)


def upgrades(ports: Ports) -> None:
    """WebSockets that are opened, and left."""

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.websocket) as foe:
                foe.sendall(UPGRADE)
                foe.recv(200)

    at_once(8, work)


def huge_frames(ports: Ports) -> None:
    """WebSocket frames that are said to be of 2^62 bytes, and bytes for them."""
    frame = b"\x82\xff" + (1 << 62).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1_000_000

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), _open(ports.websocket) as foe:
                foe.sendall(UPGRADE)
                foe.sendall(frame)
                foe.recv(200)

    at_once(8, work)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def records(ports: Ports) -> None:
    """TLS in records of one byte each."""
    context = _context()

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), context.wrap_socket(_open(ports.mqtts)) as foe:
                foe.sendall(wire.connect(f"t{next(_ids)}", FOE))
                packet = wire.publish(f"{PREFIX}/{FOE}/x/up", b" " * 500, 1, qos=0)
                while True:
                    for number in range(len(packet)):
                        foe.sendall(packet[number : number + 1])

    at_once(8, work)


def again(ports: Ports) -> None:
    """TLS 1.2 whose client wants to begin anew, and TLS 1.3 with new keys, again and again."""

    def work(version: str, wish: bytes) -> None:
        while True:
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{ports.mqtts}", version]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
                assert client.stdin is not None
                with contextlib.suppress(OSError):
                    while client.poll() is None:
                        client.stdin.write(wish)
                        client.stdin.flush()
                        time.sleep(0.0005)

    for version, wish in (("-tls1_2", b"R\n"), ("-tls1_3", b"K\n")) * 3:
        threading.Thread(target=work, args=(version, wish), daemon=True).start()
    time.sleep(3_600)


SOCKETS: dict[str, Attack] = {
    "metrics, on 50 connections": metrics,
    "the web chat's files": pages,
    "paths of 12 KB, escaped": long_paths,
    "3,000 header fields": many_headers,
    "HTTP bodies that are no JSON": nonsense,
    "2,500 ranges of a file": many_ranges,
    "files of 20 accounts that are not read": unread_files,
    "pages of 20 accounts that are not read": unread_pages,
    "1,000 uploads, half there": half_uploads,
    "one file in each message": one_file,
    "event streams of 20 accounts": streams_of_all,
    "one device everywhere, over HTTP": device_streams,
    "tokens that are made and ended": logins_of_all,
    "event streams left before they begin": coming_and_going,
    "WebSockets that are left": upgrades,
    "WebSocket frames of 2^62 bytes": huge_frames,
    "TLS records of one byte": records,
    "TLS that begins anew": again,
}
