"""What is allowed, and makes no sense: nothing in many frames, packets that nobody needs, sessions and groups by the thousand."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from http.client import HTTPConnection, HTTPException

from bench.attacks import wire
from bench.attacks.foe import FOE, GROUP, PREFIX, Attack, Foe, Ports, at_once, forever, ids, take_in
from bench.attacks.together import ACCOUNTS, all_of_them
from bench.attacks.web import UPGRADE

_ids = ids()
_MASK = b"\0\0\0\0"
_FOR_EVER = b"\x11\xff\xff\xff\xff"
"""Session Expiry Interval."""


def empty_fragments(ports: Ports) -> None:
    """A WebSocket message that goes on and has nothing in it, with pings in between."""
    more = (b"\0\x80" + _MASK + b"\x89\x84" + _MASK + b"ping") * 5_000

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.websocket), timeout=30) as foe:
                foe.sendall(UPGRADE + b"\x02\x80" + _MASK)
                threading.Thread(target=take_in, args=(foe,), daemon=True).start()
                while True:
                    foe.sendall(more)

    at_once(4, work)


def auth(ports: Ports) -> None:
    """AUTH, where nobody has begun any, with 200 KB of data for a method."""
    method = b"\x15" + wire.text("x") + b"\x16" + wire.text("y" * 60_000)
    body = b"\x19" + wire.remaining_length(len(method)) + method
    packet = b"\xf0" + wire.remaining_length(len(body)) + body

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                Foe(ports.mqtt, listens=False, version=wire.V5).send(packet)

    at_once(4, work)


def sessions_for_ever(ports: Ports) -> None:
    """A session that is to be kept for ever, under a new name each time, of each account in turn."""
    users = itertools.cycle(ACCOUNTS)

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                user = next(users)
                foe = Foe(ports.mqtt, user, listens=False, reads=False, version=wire.V5, clean=False, properties=_FOR_EVER)
                foe.send(foe.subscription([f"plain/ever/{user}/{number}" for number in range(50)], 1))
                foe.socket.recv(100)
                foe.socket.close()

    at_once(4, work)


def expiry_changes(ports: Ports) -> None:
    """DISCONNECT with another Session Expiry Interval than CONNECT had, again and again under one name."""
    farewell = b"\xe0\7\0\5\x11\0\0\0"

    def work() -> None:
        for number in itertools.count():
            with contextlib.suppress(OSError):
                foe = Foe(
                    ports.mqtt, FOE, "expires", listens=False, reads=False, version=wire.V5, clean=False, properties=_FOR_EVER
                )
                foe.send(foe.subscription([f"plain/expires/{number % 9}"], 1) + farewell + bytes((number % 200,)))
                foe.socket.close()

    at_once(4, work)


def invitations(ports: Ports) -> None:
    """Twenty accounts make group after group with one user, who asks for all conversations, and for each group."""

    def look() -> None:
        def ask(foe: Foe) -> None:
            foe.ask("convs", limit=500)
            for _ in range(20):
                foe.ask("group.info", group=f"#in{next(numbers) % 10_000}")
            time.sleep(0.05)

        numbers = itertools.count()
        forever(ports.mqtt, ask)

    made = itertools.count()
    threading.Thread(target=look, daemon=True).start()
    all_of_them(ports, lambda foe: foe.ask("group.create", id=next(_ids), group=f"#in{next(made)}", members=[FOE, "bob-away"]))


def blocked_by_a_crowd(ports: Ports) -> None:
    """Members of a crowd block one who writes to it, and do so no more, all the time."""
    ops = itertools.cycle(("block", "unblock"))
    threading.Thread(
        target=forever,
        args=(ports.mqtt, lambda foe: foe.ask("send", id=next(_ids), to=GROUP, body="all of you")),
        daemon=True,
    ).start()
    all_of_them(ports, lambda foe: foe.ask(next(ops), id=next(_ids), user=FOE))


def registrations(ports: Ports) -> None:
    """Accounts that are to be made, with passwords of a kilobyte."""
    body = b'{"user":"%b","password":"' + b"x" * 1_000 + b'"}'

    def work() -> None:
        while True:
            with contextlib.suppress(OSError, HTTPException):
                site = HTTPConnection("127.0.0.1", ports.http, timeout=30)
                for _ in range(50):
                    site.request("POST", "/api/v1/register", body % next(_ids).encode(), {"Content-Type": "application/json"})
                    site.getresponse().read()
                site.close()

    at_once(8, work)


def wills_that_wait(ports: Ports) -> None:
    """Clients that come back before their will is due, so that each will is planned and called off."""
    session = b"\x05\x11\0\0\0\x3c"

    def work() -> None:
        user = wire.text(FOE)
        for number in itertools.count():
            will = b"\x05\x18\0\0\0\1" + wire.text(f"plain/w/{number % 50}") + (30_000).to_bytes(2, "big") + b"x" * 30_000
            body = wire.text("MQTT") + b"\5\xac\0\0" + session + wire.text(f"wait{number % 10}") + will + user
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports.mqtt), timeout=30) as foe:
                foe.sendall(b"\x10" + wire.remaining_length(len(body)) + body)
                foe.recv(100)

    at_once(4, work)


def windows_of_one(ports: Ports) -> None:
    """Sixteen connections that take one packet at a time and acknowledge none, of messages to all of them."""
    for number in range(15):
        with contextlib.suppress(OSError):
            foe = Foe(ports.mqtt, device=f"one{number}", version=wire.V5, properties=b"\x21\0\1")
            foe.send(foe.subscription(["plain/one", f"{PREFIX}/{FOE}/down"], 1))
    forever(
        ports.mqtt,
        lambda foe: foe.send(foe.publish("plain/one", b"x" * 1_000) + foe.packet("send", id=next(_ids), to=FOE, body="one")),
    )


ODD: dict[str, Attack] = {
    "WebSocket fragments of nothing": empty_fragments,
    "AUTH that nobody has begun": auth,
    "sessions that are kept for ever": sessions_for_ever,
    "sessions that change how long they are kept": expiry_changes,
    "invitations into 10,000 groups": invitations,
    "one whom members of a crowd block": blocked_by_a_crowd,
    "registrations": registrations,
    "wills that are called off": wills_that_wait,
    "windows of one packet": windows_of_one,
}
