"""What one hostile client can do: `python -m bench.attacks NAME PORT WEBSOCKET_PORT` does it without end.

In a process of its own, so that it costs nobody's measurement anything but the server's time. `hostile` measures what a
well-behaved pair has of it, and has prepared a store with many conversations and a large group.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from mqtt_im.load import wire

FOE, GROUP = "mallory", "#crowd"
PREFIX = "im/v1"
MEMBERS = [f"member{number}" for number in range(5_000)]
_WINDOW = 64

Attack = Callable[[int, int], None]


class Foe:
    """A connection that sends what it likes. It reads only where `reads` says so, and then all that comes, unseen."""

    def __init__(self, port: int, user: str = FOE, device: str = "", *, reads: bool = True, listens: bool = True) -> None:
        self.device = device or f"d{os.getpid()}-{time.monotonic_ns()}"
        self.user = user
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.send(wire.connect(self.device, user))
        self.socket.recv(4)
        self._packet = itertools.cycle(range(1, 60_000))
        if listens:
            self.send(wire.subscribe(60_001, f"{PREFIX}/{user}/{self.device}/down"))
        if reads:
            threading.Thread(target=self._read, daemon=True).start()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, op: str, **fields: Any) -> None:
        """Send one request, and wait for nothing."""
        self.send(self.packet(op, **fields))

    def packet(self, op: str, **fields: Any) -> bytes:
        """A request as a packet."""
        return self.raw(json.dumps({"op": op, **fields}).encode())

    def raw(self, payload: bytes) -> bytes:
        """Any payload as a packet to the device's own `up`."""
        return wire.publish(f"{PREFIX}/{self.user}/{self.device}/up", payload, next(self._packet))

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 20):
                pass


def forever(port: int, do: Callable[[Foe], None], **how: Any) -> None:
    """Do it on one connection after the other: the server may cut them."""
    while True:
        with contextlib.suppress(OSError):
            foe = Foe(port, **how)
            while True:
                do(foe)
        time.sleep(0.01)


def at_once(count: int, work: Callable[[], None]) -> None:
    """The same in so many threads."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ids() -> Iterator[str]:
    """New ones without end."""
    return (f"{os.getpid()}-{number}" for number in itertools.count())


_ids = ids()


def conversations(port: int, _: int) -> None:
    forever(port, lambda foe: foe.send(b"".join(foe.packet("convs", limit=1) for _ in range(_WINDOW))))


def pages(port: int, _: int) -> None:
    forever(port, lambda foe: foe.send(b"".join(foe.packet("sync", after=0) for _ in range(_WINDOW))))


def searches(port: int, _: int) -> None:
    forever(port, lambda foe: foe.send(b"".join(foe.packet("search", query="e") for _ in range(_WINDOW))))


def websocket_pings(_: int, websocket_port: int) -> None:
    request = (
        "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )

    def work() -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", websocket_port), timeout=30) as foe:
                foe.sendall(request.encode())
                while True:
                    foe.sendall(b"\x89\x80\0\0\0\0" * 10_000)

    at_once(2, work)


def pings(port: int, _: int) -> None:
    at_once(2, lambda: forever(port, lambda foe: foe.send(wire.PINGREQ * 10_000), reads=False))


def acknowledgements(port: int, _: int) -> None:
    at_once(2, lambda: forever(port, lambda foe: foe.send((wire.PUBACK_HEAD + b"\x12\x34") * 10_000)))


def subscriptions(port: int, _: int) -> None:
    filters = b"".join(wire.text(f"{PREFIX}/{FOE}/{number}/down") + b"\1" for number in range(990))
    body = b"\0\1" + filters
    forever(port, lambda foe: foe.send(b"\x82" + wire.remaining_length(len(body)) + body))


def presences(port: int, _: int) -> None:
    body = b"\0\1" + b"".join(wire.text(f"{PREFIX}/{name}/presence") + b"\0" for name in MEMBERS[:500])
    forever(port, lambda foe: foe.send(b"\x82" + wire.remaining_length(len(body)) + body))


def crowd(port: int, _: int) -> None:
    def burst(foe: Foe) -> None:
        foe.send(b"".join(foe.packet("send", id=next(_ids), to=GROUP, body="all of you") for _ in range(_WINDOW)))

    forever(port, burst)


def typing(port: int, _: int) -> None:
    on = itertools.cycle((True, False))
    forever(port, lambda foe: foe.send(b"".join(foe.packet("typing", to=GROUP, on=next(on)) for _ in range(_WINDOW))))


def groups(port: int, _: int) -> None:
    forever(port, lambda foe: foe.ask("group.create", id=next(_ids), members=MEMBERS))


def _bodies(port: int, body: str) -> None:
    def send(foe: Foe) -> None:
        foe.send(foe.raw(b'{"op":"send","id":"%b","to":"bob","body":%b}' % (next(_ids).encode(), body.encode())))

    forever(port, send)


def lists(port: int, _: int) -> None:
    _bodies(port, "[" + ",".join(["[]"] * 20_000) + "]")


def depths(port: int, _: int) -> None:
    _bodies(port, "[" * 30_000 + "]" * 30_000)


def numbers(port: int, _: int) -> None:
    _bodies(port, "[" + "9" * 60_000 + "]")


def binaries(port: int, _: int) -> None:
    head = b"\x84\xa2op\xa4send\xa2id\xa1x\xa2to\xa3bob\xa4body\xdc\xea\x60"
    forever(port, lambda foe: foe.send(foe.raw(head + b"\x90" * 60_000)))


def wrong_fields(port: int, _: int) -> None:
    rest = ",".join(["[]"] * 80_000)
    forever(port, lambda foe: foe.send(foe.raw(b'{"op":"send","id":"x","to":5,"zz":[%b]}' % rest.encode())))


def reports(port: int, _: int) -> None:
    forever(
        port,
        lambda foe: foe.ask("report", id=next(_ids), conv=f"{FOE}:{FOE}", seq=1, state="executed", result="x" * 60_000),
    )


def edits(port: int, _: int) -> None:
    forever(port, lambda foe: foe.ask("edit", id=next(_ids), conv=f"{FOE}:{FOE}", seq=1, body="x" * 1_000))


def large_bodies(port: int, _: int) -> None:
    forever(port, lambda foe: foe.ask("send", id=next(_ids), to="nobody-in-particular", body="x" * 60_000))


def comes_and_goes(port: int, _: int) -> None:
    """The one whom every member of the group watches."""
    while True:
        with contextlib.suppress(OSError):
            foe = Foe(port, user="star", device="d")
            foe.ask("settings", id=next(_ids), presence=True)
            time.sleep(0.02)
            foe.socket.close()


def logins(port: int, _: int) -> None:
    def work() -> None:
        while True:
            with contextlib.suppress(OSError):
                Foe(port, listens=False).socket.close()

    at_once(4, work)


def garbage(port: int, _: int) -> None:
    forever(port, lambda foe: foe.send(b"".join(foe.raw(b"\xc1" * 200) for _ in range(_WINDOW))))


ATTACKS: dict[str, Attack] = {
    "conversations": conversations,
    "pages of 60 KB items": pages,
    "searches": searches,
    "WebSocket pings, unread": websocket_pings,
    "pings, unread": pings,
    "acknowledgements of nothing": acknowledgements,
    "subscriptions, 990 own": subscriptions,
    "subscriptions, 500 presences": presences,
    "messages to a crowd": crowd,
    "typing to a crowd": typing,
    "groups of 5,000": groups,
    "bodies of empty lists": lists,
    "bodies of great depth": depths,
    "bodies of huge numbers": numbers,
    "MessagePack of lists": binaries,
    "wrong fields behind 240 KB": wrong_fields,
    "reports of 60 KB": reports,
    "edits": edits,
    "large bodies": large_bodies,
    "one whom all watch comes and goes": comes_and_goes,
    "logins": logins,
    "garbage": garbage,
}


if __name__ == "__main__":
    ATTACKS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
