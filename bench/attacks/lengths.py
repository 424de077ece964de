"""What says little and is long: properties that nobody waits for, filters, queries, files; and what begins anew all the time."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time

from bench.attacks import wire
from bench.attacks.foe import FOE, WINDOW, Attack, Foe, Ports, at_once, forever, ids
from bench.attacks.together import CONNECTIONS
from bench.attacks.web import get, requests, token_of

_ids = ids()
_PROPERTIES = b"\x26\0\1a\0\1b" * 500
"""As many as a packet may have."""


def long_acknowledgements(ports: Ports) -> None:
    """Acknowledgements of nothing with 500 properties each, of all four kinds, on all connections of a user."""
    length = wire.remaining_length(len(_PROPERTIES))
    bodies = [b"\x12\x34\0" + length + _PROPERTIES] * 4
    heads = (b"\x40", b"\x50", b"\x62", b"\x70")
    packets = b"".join(head + wire.remaining_length(len(body)) + body for head, body in zip(heads, bodies, strict=True))
    at_once(CONNECTIONS - 1, lambda: forever(ports.mqtt, lambda foe: foe.send(packets * 8), version=wire.V5))


def messages_of_properties(ports: Ports) -> None:
    """Plain messages that are empty and have 240 KB of properties, retained, for fourteen kept sessions of their sender."""
    large = (b"\x26\0\1a" + b"\xbb\x80" + b"x" * 48_000) * 5
    small = _PROPERTIES

    def listen() -> None:
        def ask(foe: Foe) -> None:
            foe.send(foe.subscription(["plain/props/#"], 1))
            foe.socket.recv(100)

        forever(ports.mqtt, ask, version=wire.V5, clean=False, device=f"props{next(numbers)}", reads=False)

    def write(foe: Foe) -> None:
        topic = f"plain/props/{next(numbers) % 20}"
        foe.send(foe.publish(topic, b"", properties=large, retain=True) + foe.publish(topic, b"", properties=small))

    numbers = itertools.count()
    for _ in range(CONNECTIONS - 2):
        threading.Thread(target=listen, daemon=True).start()
    forever(ports.mqtt, write, version=wire.V5)


def filters_of_a_letter(ports: Ports) -> None:
    """65,000 filters of a letter in one packet, and to take away 86,000, by four accounts."""
    asked = (wire.text("a") + b"\0") * 65_000
    left = wire.text("a") * 86_000
    packets = itertools.cycle((b"\x82", asked, b"\xa2", left))
    users = itertools.cycle((FOE, "user1", "user2", "user3"))

    def ask(foe: Foe) -> None:
        head, filters = next(packets), next(packets)
        foe.send(head + wire.remaining_length(len(filters) + 2) + b"\0\1" + filters)

    lock = threading.Lock()

    def work() -> None:
        with lock:
            user = next(users)
        forever(ports.mqtt, ask, user=user)

    at_once(4, work)


def files_read(ports: Ports) -> None:
    """A file of 20 MB, on eight connections that take it as fast as it comes, again and again."""
    token = token_of(ports)
    field = f"Authorization: Bearer {token}"
    head = f"POST /api/v1/files?name=x HTTP/1.1\r\nHost: x\r\n{field}\r\nContent-Length: 20000000\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
        foe.sendall(head + b"x" * 20_000_000)
        file = json.loads(foe.recv(1 << 16).partition(b"\r\n\r\n")[2] or b"{}").get("id", "none")

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                foe.sendall(get(f"/api/v1/files/{file}", field, "Connection: close"))
                while foe.recv(1 << 20):
                    pass

    at_once(8, work)


def files_in_chunks(ports: Ports) -> None:
    """Files of 24 MB that do not say so, and one byte more than there may be, on eight connections."""
    head = f"POST /api/v1/files?name=x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(ports)}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    piece = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"

    def work() -> None:
        for number in itertools.count():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                foe.sendall(head.encode())
                for _ in range(96 + number % 2 * 5):
                    foe.sendall(piece)
                foe.sendall(b"0\r\n\r\n")
                foe.recv(1 << 16)

    at_once(8, work)


def long_queries(ports: Ports) -> None:
    """URLs with 10,000 parts, without a token."""
    requests(ports, 20, get("/api/v1/events?" + "a&" * 10_000))


def half_closed(ports: Ports) -> None:
    """Connections that ask for much, say that they will say no more, and are gone a moment later."""

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, listens=False, reads=False)
                foe.send(b"".join(foe.packet("convs", limit=500) for _ in range(WINDOW - 4)))
                foe.socket.shutdown(socket.SHUT_WR)
                time.sleep(0.05)
                foe.socket.close()

    at_once(8, work)


def resumed(ports: Ports) -> None:
    """Kept sessions of 990 filters each that are resumed, and left, all the time."""

    def work(number: int) -> None:
        def come() -> Foe:
            return Foe(ports.mqtt, device=f"resumed{number}", clean=False, listens=False, reads=False)

        foe = come()
        foe.send(foe.subscription([f"plain/resumed/{number}/{other}/+/#" for other in range(990)], 1))
        while True:
            with contextlib.suppress(OSError):
                foe.socket.close()
                foe = come()

    numbers = itertools.count()
    at_once(4, lambda: work(next(numbers)))


def goes_and_comes(ports: Ports) -> None:
    """A member who is removed and added around each message, and asks for what may be seen of it all."""
    group = f"#gone{next(_ids)}"
    with contextlib.suppress(OSError):
        Foe(ports.mqtt, user="owner").ask("group.create", id=next(_ids), group=group, members=[FOE])

    def churn(foe: Foe) -> None:
        foe.ask("group.remove", id=next(_ids), group=group, members=[FOE])
        foe.ask("send", id=next(_ids), to=group, body="x")
        foe.ask("group.add", id=next(_ids), group=group, members=[FOE])

    def look(foe: Foe) -> None:
        foe.ask("convs", limit=1)
        foe.ask("history", conv=group, limit=500)
        foe.ask("search", query="x", conv=group)

    threading.Thread(target=lambda: forever(ports.mqtt, churn, user="owner"), daemon=True).start()
    forever(ports.mqtt, look, listens=False)


LENGTHS: dict[str, Attack] = {
    "URLs of 10,000 parts": long_queries,
    "half-closed connections": half_closed,
    "kept sessions of 990 filters, resumed": resumed,
    "one who goes and comes, and reads": goes_and_comes,
    "acknowledgements of 500 properties": long_acknowledgements,
    "plain messages of properties": messages_of_properties,
    "65,000 filters of a letter": filters_of_a_letter,
    "files that are read as fast as they come": files_read,
    "files in chunks that do not say how many": files_in_chunks,
}
