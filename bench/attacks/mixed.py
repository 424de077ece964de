"""Several kinds at once, and the same thing back and forth from many places."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable

from bench.attacks import wire
from bench.attacks.foe import FOE, GROUP, MEMBERS, PREFIX, STAR, Attack, Foe, Ports, at_once, forever, ids
from bench.attacks.together import ACCOUNTS, CONNECTIONS
from bench.attacks.web import get, token_of

_ids = ids()
_others = itertools.cycle(ACCOUNTS)
_on = itertools.cycle((True, False))
_EVERYTHING: tuple[Callable[[Foe], None], ...] = (
    lambda foe: foe.ask("convs", limit=500),
    lambda foe: foe.ask("send", id=next(_ids), to=next(_others), body="x" * 60_000),
    lambda foe: foe.ask("send", id=next(_ids), to=GROUP, body="all of you"),
    lambda foe: foe.send(foe.subscription([f"{PREFIX}/{name}/presence" for name in MEMBERS[:200]])),
    lambda foe: foe.ask("search", query="all you"),
    lambda foe: foe.ask("typing", to=GROUP, on=next(_on)),
    lambda foe: foe.ask("history", conv=GROUP, before=2**53, limit=500),
    lambda foe: foe.ask("group.info", group=GROUP, limit=500),
    lambda foe: foe.send(foe.publish("plain/mixed", b"x" * 100_000)),
    lambda foe: foe.ask("hello", after=0, batch=True, zip=True),
    lambda foe: foe.ask("sync", after=0),
    lambda foe: foe.ask("group.create", id=next(_ids), members=MEMBERS[:1_000]),
    lambda foe: foe.ask("react", id=next(_ids), conv=GROUP, seq=1, emoji="x"),
    lambda foe: foe.ask("devices"),
    lambda foe: foe.ask("read", conv=GROUP, seq=1),
    lambda foe: foe.send(wire.PINGREQ * 1_000),
)
"""What one connection may ask, each of another kind."""


def sixteen(ports: Ports) -> None:
    """One account, and on each of its connections another kind of request."""
    _mixed(ports, [FOE])


def twenty(ports: Ports) -> None:
    """Twenty accounts, and on each of their connections another kind of request."""
    _mixed(ports, ACCOUNTS)


def _mixed(ports: Ports, users: list[str]) -> None:
    threads = [
        threading.Thread(target=forever, args=(ports.mqtt, do), kwargs={"user": user}, daemon=True)
        for user in users
        for do in _EVERYTHING[:CONNECTIONS]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def take_overs_and_pages(ports: Ports) -> None:
    """One device that asks for pages and is taken over before they come, beside others that wait for theirs."""

    def come() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, device="moves", clean=False, reads=False)
                foe.send(b"".join(foe.packet("sync", after=0) for _ in range(8)))

    for _ in range(4):
        threading.Thread(target=forever, args=(ports.mqtt, lambda foe: foe.ask("sync", after=0)), daemon=True).start()
    at_once(4, come)


def tiny_packets(ports: Ports) -> None:
    """Clients of MQTT 5 that take packets of 64 bytes, one at a time, and ask for all there is, packed and from its beginning."""
    small = b"\x21\0\1\x27\0\0\0\x40\x22\xff\xff"

    def ask(foe: Foe) -> None:
        foe.send(
            foe.packet("hello", after=0, batch=512, codec="msgpack")
            + foe.packet("sync", after=0)
            + foe.packet("convs", limit=500)
            + foe.packet("history", conv=GROUP)
        )

    at_once(CONNECTIONS - 1, lambda: forever(ports.mqtt, ask, version=wire.V5, properties=small))


def odd_windows(ports: Ports) -> None:
    """`hello` with another window, batch, codec and cursor each time, from devices that acknowledge nothing."""
    windows = itertools.cycle([1, 64, 2, 2**31, 63])
    batches = itertools.cycle([512, True, 2**31, False, 16_384])
    codecs = itertools.cycle(["json", "msgpack"])
    afters = itertools.cycle([0, 1, 3, 0, 2])
    acks = itertools.cycle(["app", "transport", "app"])

    def ask(foe: Foe) -> None:
        foe.ask(
            "hello",
            window=next(windows),
            batch=next(batches),
            codec=next(codecs),
            after=next(afters),
            ack=next(acks),
            zip=next(_on),
            n=7,
        )
        foe.ask("ack", pos=next(afters))

    at_once(CONNECTIONS - 1, lambda: forever(ports.mqtt, ask))


def settings(ports: Ports) -> None:
    """Twenty members of a crowd who show themselves, hide, and write, and the one whom all of it watches too."""

    def ask(foe: Foe) -> None:
        foe.send(
            foe.packet("settings", id=next(_ids), presence=next(_on), read_receipts=next(_on))
            + foe.packet("typing", to=GROUP, on=next(_on))
            + foe.packet("read", conv=GROUP, seq=1)
        )

    for name in (STAR, *ACCOUNTS):
        threading.Thread(target=forever, args=(ports.mqtt, ask), kwargs={"user": name}, daemon=True).start()
    time.sleep(3_600)


def marks_of_devices(ports: Ports) -> None:
    """How far a group of 200 and a crowd are read, forth and back, by all devices of twenty of their members."""
    group = f"#marks{next(_ids)}"
    with contextlib.suppress(OSError):
        owner = Foe(ports.mqtt, user=ACCOUNTS[0])
        owner.ask("group.create", id=next(_ids), group=group, members=[*ACCOUNTS, *MEMBERS[:180]])
        for _ in range(200):
            owner.ask("send", id=next(_ids), to=group, body="read this")
        time.sleep(1)
    seqs = itertools.cycle([*range(1, 200), *range(200, 1, -1)])
    users = itertools.cycle(ACCOUNTS)

    def ask(foe: Foe) -> None:
        foe.send(foe.packet("read", conv=group, seq=next(seqs)) + foe.packet("read", conv=GROUP, seq=next(seqs)))

    at_once(CONNECTIONS * len(ACCOUNTS), lambda: forever(ports.mqtt, ask, user=next(users)))


def reports_of_many(ports: Ports) -> None:
    """A thousand members of a crowd who tell of one message that they have done it."""
    with contextlib.suppress(OSError):
        Foe(ports.mqtt).ask("send", id=next(_ids), to=GROUP, body="do this")
    users = itertools.cycle(MEMBERS[3_000:4_000])

    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                foe = Foe(ports.mqtt, user=next(users), listens=False, reads=False)
                for seq in (1, 2, 3):
                    foe.ask("report", id=next(_ids), conv=GROUP, seq=seq, state="executed", result="x" * 60_000)
                foe.socket.recv(100)
                foe.socket.close()

    at_once(16, work)


def uploads_and_messages(ports: Ports) -> None:
    """Files that come, are sent to a crowd, and are taken back, while the same account writes as fast as it may."""
    token = token_of(ports)
    fields = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
    head = f"POST /api/v1/files?name=x HTTP/1.1\r\n{fields}Content-Length: 100000\r\n\r\n".encode()
    files: list[str] = []

    def upload() -> None:
        while True:
            with contextlib.suppress(OSError, ValueError), socket.create_connection(("127.0.0.1", ports.http), timeout=30) as foe:
                foe.sendall(head + b"x" * 100_000)
                answer = json.loads(foe.recv(1 << 16).partition(b"\r\n\r\n")[2] or b"{}")
                files.append(answer.get("id", "none"))
                del files[:-10]
                foe.sendall(get(f"/api/v1/files/{files[0]}", f"Authorization: Bearer {token}"))
                foe.recv(1 << 16)

    def write(foe: Foe) -> None:
        foe.ask("send", id=next(_ids), to=GROUP, body="see", files=files[-10:])
        foe.ask("recall", id=next(_ids), conv=GROUP, seq=max(1, next(seqs)))

    seqs = itertools.count()
    for _ in range(4):
        threading.Thread(target=upload, daemon=True).start()
    at_once(4, lambda: forever(ports.mqtt, write))


def filled(ports: Ports) -> None:
    """Twenty accounts that bring one user into as many groups as they may, while that user makes some."""
    made = itertools.count()

    def ask(foe: Foe) -> None:
        group = f"#full{next(made)}"
        foe.ask("group.create", id=next(_ids), group=group, members=["filled"])
        foe.ask("group.remove", id=next(_ids), group=group, members=["filled"])
        foe.ask("group.add", id=next(_ids), group=group, members=["filled"])

    def make(foe: Foe) -> None:
        foe.ask("group.create", id=next(_ids), members=["bob-away"])
        time.sleep(0.05)

    for name in ACCOUNTS:
        threading.Thread(target=forever, args=(ports.mqtt, ask), kwargs={"user": name}, daemon=True).start()
    forever(ports.mqtt, make, user="filled")


def all_of_mqtt5(ports: Ports) -> None:
    """Wills, QoS 2, shares, aliases, retained messages and sessions that are kept, on each connection of twenty accounts."""
    kept = b"\x11\0\0\xff\xff"
    users = itertools.cycle(ACCOUNTS)
    numbers = itertools.count()

    def work() -> None:
        while True:
            user, number = next(users), next(numbers)
            with contextlib.suppress(OSError):
                foe = Foe(
                    ports.mqtt,
                    user,
                    f"all{number % 8}",
                    listens=False,
                    version=wire.V5,
                    clean=bool(number % 2),
                    properties=kept,
                    will=(f"plain/will/{number % 100}", b"x" * 10_000),
                )
                foe.send(foe.subscription([f"$share/s{number % 9}/plain/mix/#", "plain/mix/+", f"plain/will/{number % 100}"], 2))
                for other in range(20):
                    foe.send(foe.publish(f"plain/mix/{other}", b"x" * 5_000, qos=other % 3, retain=not other % 4))
                foe.socket.close()

    at_once(40, work)


MIXED: dict[str, Attack] = {
    "16 connections: all kinds": sixteen,
    "20 accounts: all kinds": twenty,
    "take-overs beside pages": take_overs_and_pages,
    "packets of 64 bytes": tiny_packets,
    "windows, codecs and cursors": odd_windows,
    "settings back and forth in a crowd": settings,
    "read marks of 320 devices": marks_of_devices,
    "reports of 1,000 members": reports_of_many,
    "uploads, messages and recalls": uploads_and_messages,
    "one user brought into many groups": filled,
    "all of MQTT 5 at once": all_of_mqtt5,
}
