"""What takes many of something: users, subscribers, handshakes, requests at once, pages that everybody may see."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import ssl
import threading
import time

from bench.attacks import wire
from bench.attacks.foe import FOE, PREFIX, Attack, Foe, Ports, at_once, forever, ids, take_in
from bench.attacks.web import UPGRADE, get, requests, token_of

_ids = ids()
_MASK = b"\0\0\0\0"


def subscribers(ports: Ports) -> None:
    """A plain topic that 5,000 clients have subscribed to."""
    there: list[Foe] = []

    def come(first: int) -> None:
        for number in range(first, first + 1_000):
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, user=f"fan{number // 8}", device=f"f{number % 8}", listens=False, reads=False)
                foe.send(foe.subscription(["plain/fans"], 1))
                there.append(foe)

    def read() -> None:
        while True:
            poll, known = select.epoll(), {foe.socket.fileno(): foe for foe in there[:]}
            for number in known:
                poll.register(number, select.EPOLLIN)
            end = time.monotonic() + 1
            while time.monotonic() < end:
                for number, _ in poll.poll(0.5):
                    with contextlib.suppress(OSError):
                        known[number].socket.recv(1 << 16)
            poll.close()

    for first in range(0, 5_000, 1_000):
        threading.Thread(target=come, args=(first,), daemon=True).start()
    threading.Thread(target=read, daemon=True).start()
    forever(ports.mqtt, lambda foe: foe.send(foe.publish("plain/fans", b"x" * 1_000)))


def retained_to_all(ports: Ports) -> None:
    """All that is retained, for one user after the other."""
    with contextlib.suppress(OSError):
        foe = Foe(ports.mqtt)
        for number in range(10_000):
            foe.send(foe.publish(f"plain/h/{number}", b"x" * 100, qos=0, retain=True))
    numbers = itertools.count()

    def look() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, user=f"looks{next(numbers)}", listens=False)
                foe.send(foe.subscription(["plain/#"], 1))
                time.sleep(0.3)
                foe.socket.close()

    at_once(4, look)


def delayed_wills(ports: Ports) -> None:
    """Wills of 60 KB that are due a second after their clients have gone."""
    numbers = itertools.count()
    session = b"\x05\x11\0\0\0\x3c"  # it is kept for a minute

    def die() -> None:
        while True:
            number = next(numbers)
            user = wire.text(f"dies{number % 3_000}")
            will = b"\x05\x18\0\0\0\1" + wire.text(f"plain/w/{number % 50}") + (60_000).to_bytes(2, "big") + b"x" * 60_000
            body = wire.text("MQTT") + b"\5\xac\0\0" + session + wire.text(f"w{number}") + will + user
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.mqtt), timeout=30) as foe:
                foe.sendall(b"\x10" + wire.remaining_length(len(body)) + body)
                foe.recv(100)

    at_once(4, die)


def short_sessions(ports: Ports) -> None:
    """Sessions that are kept for a second, each of another user, with filters."""
    numbers = itertools.count()

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                number, kept = next(numbers), b"\x11\0\0\0\1"
                foe = Foe(
                    ports.mqtt, f"short{number}", "d", listens=False, reads=False, version=wire.V5, clean=False, properties=kept
                )
                foe.send(foe.subscription([f"plain/s/{number}/{other}" for other in range(20)], 1))
                foe.socket.recv(100)
                foe.socket.close()

    at_once(4, work)


def identified(ports: Ports) -> None:
    """A message that matches 512 filters of each of ten sessions, with a Subscription Identifier each."""
    filters = ["plain/" + "/".join(choice) for choice in itertools.product("+x", repeat=9)]

    def listen() -> None:
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, version=wire.V5)
            for number, name in enumerate(filters):
                body = b"\0\1\2\x0b" + bytes((1 + number % 127,)) + wire.text(name) + b"\0"
                foe.send(b"\x82" + wire.remaining_length(len(body)) + body)
            time.sleep(3_600)

    for _ in range(10):
        threading.Thread(target=listen, daemon=True).start()
    forever(ports.mqtt, lambda foe: foe.send(foe.publish("plain/" + "/".join("x" * 9), b"x") * 64), version=wire.V5)


def correlated(ports: Ports) -> None:
    """Requests with a response topic, and 60 KB that are to be sent back with the answer."""
    properties = b"\x08" + wire.text(f"{PREFIX}/{FOE}/down") + b"\x09" + (60_000).to_bytes(2, "big") + b"c" * 60_000
    forever(ports.mqtt, lambda foe: foe.send(foe.raw(b'{"op":"devices"}', properties) * 4), version=wire.V5)


def shared(ports: Ports) -> None:
    """Two hundred shared subscriptions to one topic, in ten kept sessions each."""
    kept = b"\x11\0\0\xff\xff"

    def listen() -> None:
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, version=wire.V5, clean=False, properties=kept)
            foe.send(foe.subscription([f"$share/g{number}/plain/shared/#" for number in range(200)], 2))
            time.sleep(3_600)

    for _ in range(10):
        threading.Thread(target=listen, daemon=True).start()
    forever(ports.mqtt, lambda foe: foe.send(foe.publish("plain/shared/x", b"x" * 10_000)), version=wire.V5)


def deep_topics(ports: Ports) -> None:
    """Topics of 20,000 levels, retained and subscribed to."""
    numbers = itertools.count()

    def work(foe: Foe) -> None:
        foe.send(foe.publish(f"plain{'/a' * 20_000}/{next(numbers) % 500}", b"x", qos=0, retain=True))
        foe.send(foe.subscription([f"plain{'/+' * 20_001}"]))

    forever(ports.mqtt, work)


def whole_handshakes(ports: Ports) -> None:
    """TLS that is begun, and ended at once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.mqtts), timeout=30) as foe:
                context.wrap_socket(foe).close()

    at_once(8, work)


def fragments(ports: Ports) -> None:
    """Packets in WebSocket messages of thousands of fragments of one byte."""

    def framed(data: bytes) -> bytes:
        middle = b"".join(b"\0\x81" + _MASK + data[at : at + 1] for at in range(1, len(data) - 1))
        return b"\2\x81" + _MASK + data[:1] + middle + b"\x80\x81" + _MASK + data[-1:]

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.websocket), timeout=30) as foe:
                device = f"ws{next(_ids)}"
                foe.sendall(UPGRADE + framed(wire.connect(device, FOE)))
                threading.Thread(target=take_in, args=(foe,), daemon=True).start()
                payload = b'{"op":"typing","to":"bob","on":true}' + b" " * 3_000
                packet = framed(wire.publish(f"{PREFIX}/{FOE}/{device}/up", payload, 1, qos=0))
                while True:
                    foe.sendall(packet)

    at_once(6, work)


def pipelined(ports: Ports) -> None:
    """Two thousand HTTP requests in one write, on each of ten connections."""
    many = get("/api/v1/nothing") * 2_000

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                threading.Thread(target=take_in, args=(foe,), daemon=True).start()
                while True:
                    foe.sendall(many)

    at_once(10, work)


def cut_uploads(ports: Ports) -> None:
    """Files of 20 MB that are cut after a quarter."""
    token = token_of(ports)
    head = f"POST /api/v1/files?name=x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 20000000\r\n\r\n"

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                foe.sendall(head.encode() + b"x" * 5_000_000)

    at_once(10, work)


def health(ports: Ports) -> None:
    """What is answered before everything else."""
    requests(ports, 200, get("/health/ready"))


MANY: dict[str, Attack] = {
    "a plain topic with 5,000 subscribers": subscribers,
    "10,000 retained messages to #": retained_to_all,
    "wills of 60 KB with a delay": delayed_wills,
    "sessions kept for a second": short_sessions,
    "5,000 Subscription Identifiers": identified,
    "Correlation Data of 60 KB": correlated,
    "200 shared subscriptions": shared,
    "topics of 20,000 levels": deep_topics,
    "TLS that ends at once": whole_handshakes,
    "WebSocket fragments of one byte": fragments,
    "2,000 HTTP requests at once": pipelined,
    "uploads that are cut": cut_uploads,
    "health, on 200 connections": health,
}
