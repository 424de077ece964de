"""What attacks are made of: a connection that does what it likes, and the same again without end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bench.attacks import wire

FOE, GROUP = "mallory", "#crowd"
STAR = "star"
"""Whom every connected member of the group watches."""
PREFIX = "im/v1"
MEMBERS = [f"member{number}" for number in range(5_000)]
PASSWORD = "correct horse battery staple"
"""Of every account, where there are accounts."""
WINDOW = 64


class Ports(NamedTuple):
    """Where the server listens, on loopback."""

    mqtt: int
    websocket: int
    http: int
    mqtts: int = 0
    receiver: int = 0
    """Where webhooks go, for who takes them."""


Attack = Callable[[Ports], None]


def take_in(foe: socket.socket) -> None:
    """Read all that comes, and do nothing with it."""
    with contextlib.suppress(OSError):
        while foe.recv(1 << 20):
            pass


class Foe:
    """A connection that sends what it likes. It reads only where `reads` says so, and then all that comes, unseen."""

    def __init__(
        self,
        port: int,
        user: str = FOE,
        device: str = "",
        *,
        reads: bool = True,
        listens: bool = True,
        version: int = wire.V311,
        **how: Any,
    ) -> None:
        """`how`: see `wire.connect`."""
        self.device = device or f"d{os.getpid()}-{time.monotonic_ns()}"
        self.user = user
        self.version = version
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.send(wire.connect(self.device, user, version=version, **how))
        self.socket.recv(4)
        self._packet = itertools.cycle(range(1, 60_000))
        if listens:
            self.send(wire.subscribe(60_001, f"{PREFIX}/{user}/{self.device}/down", version=version))
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

    def raw(self, payload: bytes, properties: bytes = b"") -> bytes:
        """Any payload as a packet to the device's own `up`."""
        return self.publish(f"{PREFIX}/{self.user}/{self.device}/up", payload, properties=properties)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, properties: bytes = b"") -> bytes:
        """Any payload as a packet to any topic."""
        packet_id = next(self._packet)
        return wire.publish(topic, payload, packet_id, qos=qos, retain=retain, version=self.version, properties=properties)

    def subscription(self, filters: list[str], qos: int = 0) -> bytes:
        """A SUBSCRIBE to all of them."""
        head = next(self._packet).to_bytes(2, "big") + (b"\0" if self.version == wire.V5 else b"")
        body = head + b"".join(wire.text(name) + bytes((qos,)) for name in filters)
        return b"\x82" + wire.remaining_length(len(body)) + body

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
    """New ones without end, for any number of threads: a generator is refused to a second one."""
    return map(f"{os.getpid()}-{{}}".format, itertools.count())
