"""What may be held for one connection, for as many of them as twenty accounts may have."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Callable

from bench.attacks import wire
from bench.attacks.foe import PREFIX, Attack, Foe, Ports, ids
from bench.attacks.together import ACCOUNTS, CONNECTIONS, all_of_them
from bench.attacks.web import UPGRADE, get, token_of

_ids = ids()
LARGE = "x" * 60_000


def _each(ports: Ports, do: Callable[[Foe], None], **how: object) -> None:
    """All connections that there may be, each of which has done this once, and stays; who is cut comes again."""
    there: list[Foe] = []
    numbers = itertools.count()
    while True:
        with contextlib.suppress(OSError):
            user = ACCOUNTS[next(numbers) % len(ACCOUNTS)]
            foe = Foe(ports.mqtt, user, listens=False, reads=False, **how)  # type: ignore[arg-type]
            foe.socket.settimeout(5)
            there.append(foe)
            do(foe)
        if len(there) > CONNECTIONS * len(ACCOUNTS):
            there.pop(0).socket.close()
            time.sleep(0.05)


def aliases(ports: Ports) -> None:
    """Sixteen topics of 60 KB on each connection, each behind an alias."""

    def name(foe: Foe) -> None:
        for number in range(1, 17):
            topic = f"plain/{number}/{LARGE}"
            foe.send(foe.publish(topic, b"", qos=0, properties=b"\x23" + number.to_bytes(2, "big")))

    _each(ports, name, version=wire.V5)


def wills(ports: Ports) -> None:
    """A will of 64 KB on each connection, which dies when another one has come."""
    _each(ports, lambda _: None, will=("plain/will", b"x" * 65_000))


def correlations(ports: Ports) -> None:
    """60 KB on each request that are to be sent back with an answer that nobody reads."""
    given = b"\x09" + len(LARGE).to_bytes(2, "big") + LARGE.encode()

    def ask(foe: Foe) -> None:
        foe.send(foe.subscription([f"{PREFIX}/{foe.user}/{foe.device}/down"], 1))
        for _ in range(32):
            foe.send(foe.raw(b'{"op":"devices"}', given))

    _each(ports, ask, version=wire.V5)


def frames(ports: Ports) -> None:
    """WebSocket frames of 250 KB that come but for the last byte, after a login."""
    there: list[socket.socket] = []
    numbers = itertools.count()
    frame = b"\x82\xff" + (250_000).to_bytes(8, "big") + bytes(4)
    while True:
        with contextlib.suppress(OSError):
            foe = socket.create_connection(("127.0.0.1", ports.websocket), timeout=5)
            there.append(foe)
            number = next(numbers)
            login = wire.connect(f"w{number}", ACCOUNTS[number % len(ACCOUNTS)])
            foe.sendall(UPGRADE + b"\x82" + bytes((0x80 | len(login),)) + bytes(4) + login)
            foe.recv(1_000)
            foe.sendall(frame + bytes(249_999))
        if len(there) > CONNECTIONS * len(ACCOUNTS):
            there.pop(0).close()


def unacknowledged(ports: Ports) -> None:
    """Messages of 3 KB to oneself, for as many devices as may be connected, which read and acknowledge none."""

    def listen(foe: Foe) -> None:
        foe.send(foe.subscription([f"{PREFIX}/{foe.user}/down"], 1))
        for _ in range(10):
            foe.ask("send", id=next(_ids), to=foe.user, body="x" * 3_000)

    _each(ports, listen)


def streams(ports: Ports) -> None:
    """Event streams with items of 60 KB that nobody reads."""
    tokens = [token_of(ports, user) for user in ACCOUNTS]
    there: list[socket.socket] = []
    numbers = itertools.count()
    for user in ACCOUNTS:
        with contextlib.suppress(OSError):
            sender = Foe(ports.mqtt, user)
            for _ in range(8):
                sender.ask("send", id=next(_ids), to=user, body=LARGE)
    while True:
        with contextlib.suppress(OSError):
            foe = socket.create_connection(("127.0.0.1", ports.http), timeout=5)
            foe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            there.append(foe)
            token = tokens[next(numbers) % len(tokens)]
            foe.sendall(get("/api/v1/events?after=0", f"Authorization: Bearer {token}"))
        if len(there) > CONNECTIONS * len(ACCOUNTS):
            there.pop(0).close()
            time.sleep(0.05)


def heads(ports: Ports) -> None:
    """HTTP heads that have almost come, on as many connections as there are places."""
    there: list[socket.socket] = []
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %b\r\n" % (number, b"x" * 90) for number in range(70))
    while True:
        with contextlib.suppress(OSError):
            foe = socket.create_connection(("127.0.0.1", ports.http), timeout=5)
            there.append(foe)
            foe.sendall(head)
        if len(there) > 10_000:
            there.pop(0).close()


def retained(ports: Ports) -> None:
    """Retained messages of 60 KB, each on a topic of its own."""
    all_of_them(ports, lambda foe: foe.send(foe.publish(f"plain/{next(_ids)}", LARGE.encode(), retain=True)))


def without_answer(ports: Ports) -> None:
    """Bodies of 60 KB at QoS 0, which nothing answers."""

    def send(foe: Foe) -> None:
        body = json.dumps({"op": "send", "id": next(_ids), "to": foe.user, "body": LARGE})
        foe.send(foe.publish(f"{PREFIX}/{foe.user}/{foe.device}/up", body.encode(), qos=0))

    all_of_them(ports, send)


WEIGHTS: dict[str, Attack] = {
    "20 accounts: topic aliases": aliases,
    "20 accounts: wills of 64 KB": wills,
    "20 accounts: Correlation Data": correlations,
    "20 accounts: WebSocket frames that never end": frames,
    "20 accounts: windows without PUBACK": unacknowledged,
    "20 accounts: event streams, unread": streams,
    "20 accounts: retained messages of 60 KB": retained,
    "20 accounts: large bodies at QoS 0": without_answer,
    "10,000 HTTP heads of 7 KB": heads,
}
