"""What a second look found to try: the same thing back and forth, a little at a time, or never to the end."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time

from bench.attacks import wire
from bench.attacks.foe import FOE, GROUP, MEMBERS, PREFIX, STAR, Attack, Foe, Ports, at_once, forever, ids
from bench.attacks.web import token_of

_ids = ids()


def strange_words(ports: Ports) -> None:
    """Searches of many words, of long ones, and of what an index has other uses for."""
    queries = itertools.cycle(["h e l o " * 60, '"' * 200, "hello* " * 60, "x" * 500, "\u0301" * 200, "NEAR(h t) AND NOT " * 20])
    at_once(4, lambda: forever(ports.mqtt, lambda foe: foe.ask("search", query=next(queries))))


def many_wills(ports: Ports) -> None:
    """Connections with a plain will of 60 KB each, that die all at once."""

    def die() -> None:
        waiting: list[Foe] = []
        while True:
            with contextlib.suppress(OSError):
                will = (f"plain/w/{next(_ids)}", b"x" * 60_000)
                waiting.append(Foe(ports.mqtt, user=f"user{len(waiting)}", listens=False, reads=False, will=will))
            if len(waiting) >= 500:
                for foe in waiting:
                    with contextlib.suppress(OSError):
                        foe.socket.close()
                waiting.clear()

    die()


def members_churn(ports: Ports) -> None:
    """One member of a large group removed and added, again and again."""
    forever(
        ports.mqtt,
        lambda foe: foe.send(
            foe.packet("group.remove", id=next(_ids), group=GROUP, members=[MEMBERS[7]])
            + foe.packet("group.add", id=next(_ids), group=GROUP, members=[MEMBERS[7]])
        ),
    )


def watchers(ports: Ports) -> None:
    """Presences of everybody, subscribed and left, while the one whom all watch blocks and comes."""
    filters = [f"{PREFIX}/{name}/presence" for name in MEMBERS[:100]]

    def cycle(foe: Foe) -> None:
        body = b"\0\1" + b"".join(map(wire.text, filters))
        foe.send(foe.subscription(filters) + b"\xa2" + wire.remaining_length(len(body)) + body)

    def star() -> None:
        forever(ports.mqtt, lambda foe: foe.ask(next(turns), id=next(_ids), user="member2"), user=STAR)

    turns = itertools.cycle(("block", "unblock"))
    threading.Thread(target=star, daemon=True).start()
    at_once(4, lambda: forever(ports.mqtt, cycle))


def a_byte_at_a_time(ports: Ports) -> None:
    """Requests whose bytes come one by one, on many connections."""
    packet = wire.publish(f"{PREFIX}/{FOE}/slow/up", b'{"op":"typing","to":"bob","on":true}' + b" " * 500, 1, qos=0)

    def drip() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, device="slow")
                foe.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while True:
                    for number in range(len(packet)):
                        foe.send(packet[number : number + 1])

    at_once(10, drip)


def chunks_of_a_byte(ports: Ports) -> None:
    """An HTTP body in chunks of one byte."""
    head = f"POST /api/v1/convs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(ports)}\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"1\r\n \r\n" * 2_000

    def drip() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                foe.sendall(head.encode())
                while True:
                    foe.sendall(chunks)

    at_once(10, drip)


def ranges(ports: Ports) -> None:
    """Parts of a file, the last byte first, a new connection each."""
    token = token_of(ports)
    body = b"x" * 1_000_000
    fields = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
    upload = f"POST /api/v1/files?name=x HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
        foe.sendall(upload.encode() + body)
        answer = foe.recv(1 << 16)
    name = json.loads(answer.partition(b"\r\n\r\n")[2] or b"{}")["id"]
    numbers = itertools.count()

    def read() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                first = 1_000_000 - next(numbers) % 1_000_000
                request = f"GET /api/v1/files/{name} HTTP/1.1\r\n{fields}Range: bytes={first}-\r\n\r\n"
                foe.sendall(request.encode())
                foe.recv(100)

    at_once(20, read)


def slow_uploads(ports: Ports) -> None:
    """Files of a megabyte that come a hundred bytes at a time."""
    token = token_of(ports)
    head = f"POST /api/v1/files?name=x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000000\r\n\r\n"

    def drip() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                foe.sendall(head.encode())
                while True:
                    foe.sendall(b"x" * 100)
                    time.sleep(0.002)

    at_once(40, drip)


FURTHER: dict[str, Attack] = {
    "searches of strange words": strange_words,
    "500 wills of 60 KB at once": many_wills,
    "one member goes and comes": members_churn,
    "presences, and one who blocks": watchers,
    "a byte at a time": a_byte_at_a_time,
    "chunks of a byte": chunks_of_a_byte,
    "ranges of a file": ranges,
    "files that come slowly": slow_uploads,
}
