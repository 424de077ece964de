"""Clients that come and go: polite ones, ones that vanish, ones that talk nonsense, ones that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

from tests.fuzz import streams
from tests.fuzz.mutate import mutated, pieces
from tests.support import packets
from tests.support.packets import Publish, Will
from tests.unit.transport.harness import Client

PLAIN_TOPICS: Final = ("open/#",)
USERS: Final = tuple(f"user{number}" for number in range(25))
_PATIENCE_S: Final = 5.0
_SMALL_BUFFER: Final = 4096

_WINDOW: Final = 50

Life = Callable[["Churn"], Coroutine[Any, Any, None]]


class Churn:
    """One stream of clients, one after the other, of random kinds."""

    def __init__(
        self, host: str, ports: dict[str, int], random: Random, counts: Counter[str], lives: dict[Life, int] | None = None
    ) -> None:
        """`lives`: kinds of clients, with how often each comes; those of this file where none are given."""
        self._lives = LIVES if lives is None else lives
        self._host = host
        self._ports = ports
        self.random = random
        self.counts = counts
        self._ids = itertools.count()
        self._name = random.randrange(10**9)

    async def run(self, stopping: asyncio.Event) -> None:
        """Go on until it is to stop; a client's troubles end that client only."""
        while not stopping.is_set():
            life = self.random.choices(list(self._lives), list(self._lives.values()))[0]
            self.counts[life.__name__] += 1
            with contextlib.suppress(OSError, EOFError, TimeoutError, RuntimeError):
                async with asyncio.timeout(4 * _PATIENCE_S):
                    await life(self)

    async def fill(self, user: str, number: int) -> None:
        """Have this user send so many messages, as fast as they are acknowledged."""
        async with self.socket() as client:
            assert await _log_in(self, client, user, "filling")
            for first in range(0, number, _WINDOW):
                count = min(_WINDOW, number - first)
                client.send(b"".join(self.sending(user, "filling", 1 + each) for each in range(count)))
                for _ in range(count):
                    await client.expect(packets.PUBACK)

    @contextlib.asynccontextmanager
    async def socket(self, listener: str = "mqtt", *, small: bool = False) -> Any:
        """A client whose socket is gone afterwards."""
        plain = socket.socket()
        plain.setblocking(False)
        if small:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        await asyncio.get_running_loop().sock_connect(plain, (self._host, self._ports[listener]))
        client = Client(*await asyncio.open_connection(sock=plain, limit=_SMALL_BUFFER if small else 65_536))
        try:
            yield client
        finally:
            if self.random.random() < 0.5:
                client.writer.transport.abort()
            else:
                client.writer.close()

    def user(self) -> str:
        """Somebody."""
        return self.random.choice(USERS)

    def request(self) -> bytes:
        """A message to somebody."""
        request = {
            "op": "send",
            "to": self.user(),
            "body": "x" * self.random.randrange(400),
            "id": f"{self._name}-{next(self._ids)}",
        }
        return json.dumps(request).encode()

    def sending(self, user: str, device: str, number: int) -> bytes:
        """A PUBLISH with such a message."""
        return packets.publish(f"im/v1/{user}/{device}/up", self.request(), packet_id=number)


async def _log_in(churn: Churn, client: Client, user: str, device: str, **options: Any) -> bool:
    client.send(packets.connect(device, username=user, **options))
    return (await client.packet()).body[1:] == b"\0"


async def _read(client: Client, seconds: float) -> int:
    """Take and acknowledge what comes until nothing does for so long; how many messages there were."""
    number = 0
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(seconds):
                packet = await client.packet()
            if packet.kind == packets.PUBLISH:
                number += 1
                message = Publish.of(packet)
                if message.qos:
                    client.send(packets.acknowledge(packets.PUBACK if message.qos == 1 else packets.PUBREC, message.packet_id))
            elif packet.kind == packets.PUBREC:
                client.send(packets.acknowledge(packets.PUBREL, packet.packet_id))
            elif packet.kind == packets.PUBREL:
                client.send(packets.acknowledge(packets.PUBCOMP, packet.packet_id))
    return number


async def chats(churn: Churn) -> None:
    """Logs in, subscribes, sends some messages, reads a while, and goes in one way or the other."""
    random, user, device = churn.random, churn.user(), churn.random.choice(("phone", "tablet"))
    will = Will(f"im/v1/{user}/{device}/up", b'{"op":"devices"}') if random.random() < 0.2 else None
    async with churn.socket() as client:
        if not await _log_in(churn, client, user, device, clean=random.random() < 0.5, keepalive=30, will=will):
            return
        client.send(packets.subscribe(1, (f"im/v1/{user}/down", 1), (f"im/v1/{user}/{device}/down", 1)))
        for number in range(2, 2 + random.randrange(10)):
            client.send(churn.sending(user, device, number))
            churn.counts["messages"] += 1
        churn.counts["items"] += await _read(client, 0.05 + random.random() / 5)
        if random.random() < 0.5:
            client.send(packets.packet(packets.DISCONNECT))
            await client.writer.drain()


async def vanishes(churn: Churn) -> None:
    """Breaks off in the middle of what it sends."""
    user = churn.user()
    async with churn.socket() as client:
        stream = packets.connect("phone", username=user, clean=False) + packets.subscribe(1, (f"im/v1/{user}/#", 1))
        stream += b"".join(churn.sending(user, "phone", number) for number in range(2, 6))
        client.send(stream[: churn.random.randrange(len(stream))])
        await client.writer.drain()


async def talks_nonsense(churn: Churn) -> None:
    """Sends a broken stream, over TCP or WebSocket."""
    random = churn.random
    chunks = streams.stream(random)
    listener = random.choice(("mqtt", "websocket"))
    data = mutated(random, b"".join(streams.in_frames(random, chunks) if listener == "websocket" else chunks), chunks)
    async with churn.socket(listener) as client:
        for piece in pieces(random, data):
            client.send(piece)
            await asyncio.sleep(0)
        client.writer.write_eof()
        while await client.reader.read(65_536):
            pass


async def reads_nothing(churn: Churn) -> None:
    """Subscribes to everything of a user who gets much, and takes nothing off its socket for a while."""
    user = churn.user()
    async with churn.socket(small=True) as client:
        client.send(
            packets.connect("slow", username=user, clean=True) + packets.subscribe(1, (f"im/v1/{user}/down", 1), ("#", 1))
        )
        await asyncio.sleep(churn.random.random() * 3)


async def says_nothing(churn: Churn) -> None:
    """Opens a socket and keeps it."""
    async with churn.socket(churn.random.choice(("mqtt", "websocket"))):
        await asyncio.sleep(churn.random.random() * 2)


async def speaks_plain_mqtt(churn: Churn) -> None:
    """Publishes and subscribes plain topics at every QoS, retained ones too."""
    random = churn.random
    async with churn.socket() as client:
        kept = random.random() < 0.3
        if not await _log_in(churn, client, churn.user(), f"plain{random.randrange(3)}", clean=not kept):
            return
        client.send(packets.subscribe(1, (f"open/{random.randrange(20)}/#", random.randrange(3)), ("open/all", 1)))
        for number in range(2, 2 + random.randrange(8)):
            topic = f"open/{random.randrange(20)}/{random.randrange(5)}"
            payload = random.randbytes(random.randrange(300))
            retain = random.random() < 0.2
            client.send(packets.publish(topic, payload, qos=random.randrange(3), packet_id=number, retain=retain))
        churn.counts["plain"] += await _read(client, 0.1)


LIVES: Final[dict[Life, int]] = {
    chats: 10,
    vanishes: 3,
    talks_nonsense: 4,
    reads_nothing: 2,
    says_nothing: 2,
    speaks_plain_mqtt: 3,
}
"""Kinds of clients, and how often each comes."""
