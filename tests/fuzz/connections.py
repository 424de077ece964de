"""Fuzzes framing and connections: a real transport on loopback, many clients at once, one of which does nothing wrong.

After each round nothing may be left of the others: no socket, task, lock or session, no exception seen by the loop, no
traceback in the log; and the well-behaved client is still served.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from mqtt_im.transport.api import Extra, Link
from tests.fuzz import streams
from tests.fuzz.mutate import mutated, pieces
from tests.support import packets
from tests.support.packets import Packet, Parser
from tests.unit.transport.harness import PATIENCE_S, Client, FakeHandler, Server, on_loop

AT_ONCE: Final = 12
_ANSWERS: Final = frozenset(
    {
        packets.CONNACK, packets.PUBLISH, packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP, packets.SUBACK,
        packets.UNSUBACK, packets.PINGRESP, packets.DISCONNECT,
    }
)  # fmt: skip


class Found(Exception):
    """Something that must not be; the text names the seed that shows it again."""


class MoodyHandler(FakeHandler):
    """A bridge that answers at once, later or not at all, and sends of itself."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self.watchable = {"bob"}

    def note(self, *entry: Any) -> None:
        """Keep nothing: runs are long."""
        self.changed.set()

    def attached(self, link: Link) -> None:
        if link.user != "walter" and self._random.random() < 0.5:
            link.publish(b"im/v1/x/down", self._random.randbytes(200), self._random.randrange(3))

    def uplink(self, link: Link, payload: bytes, token: int, packet_id: int, dup: bool, extra: Extra | None = None) -> None:
        mood = self._random.random()
        if not token:
            return
        if mood < 0.7:
            link.done(token)
        elif mood < 0.95:
            asyncio.get_running_loop().call_soon(link.done, token)
        else:
            asyncio.get_running_loop().call_soon(link.fail, token)


class _Tracebacks(logging.Handler):
    """Keeps what was logged with an exception, or as an error."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.found.append(self.format(record))


def run(seed: int, seconds: float, rounds: int | None = None) -> str:
    """Fuzz for so long (or so many rounds); returns one line about it. Raises `Found`."""
    result = ""

    @on_loop
    async def main(folder: Path) -> None:
        nonlocal result
        result = await _run(folder, seed, seconds, rounds)

    tracebacks = _Tracebacks()
    logging.getLogger().addHandler(tracebacks)
    try:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
    finally:
        logging.getLogger().removeHandler(tracebacks)
    if tracebacks.found:
        raise Found(f"seed {seed}: in the log: {tracebacks.found[0]}")
    return result


async def _run(folder: Path, seed: int, seconds: float, rounds: int | None) -> str:
    started, connections = time.monotonic(), 0
    limits = {"max_packet_bytes": 4096, "forbidden_publishes_per_minute": 20, "max_connections_per_user": 64}
    random = Random(seed)
    handler = MoodyHandler(random)
    async with Server(folder, plain_topics=("open/#",), limits=limits, handler=handler) as server:
        witness = await server.connect("witness", "walter")
        await witness.subscribe(("open/for the witness", 1))
        own_tasks = len(asyncio.all_tasks())
        endings: Counter[str] = Counter()
        for number in _rounds(rounds, started, seconds):
            random.seed(f"{seed}/{number}")
            connections += AT_ONCE
            try:
                clients = (_client(server, Random(f"{seed}/{number}/{each}")) for each in range(AT_ONCE))
                endings.update(await asyncio.gather(*clients))
                await _nothing_left(server, own_tasks)
                await _still_served(witness, number % 65_535 + 1)
            except (AssertionError, EOFError, TimeoutError) as error:
                raise Found(f"seed {seed}, round {number}: {type(error).__name__} {error}") from error
        if server.counts["closes:internal_error"]:
            raise Found(f"seed {seed}: a connection ended with an internal error")
        reasons = sum(1 for key in server.counts if key.startswith("malformed_packets:"))
    told = ", ".join(f"{number} {name}" for name, number in endings.most_common())
    return f"{connections} connections ({told}), {reasons} kinds of malformed packets"


def _rounds(rounds: int | None, started: float, seconds: float) -> Iterator[int]:
    for number in itertools.count():
        if number >= rounds if rounds is not None else time.monotonic() - started >= seconds:
            return
        yield number


async def _client(server: Server, random: Random) -> str:
    """One connection from its beginning to its end; how it ended."""
    web = random.random() < 0.25
    chunks = streams.stream(random)
    right = random.random() < 0.2
    data = b"".join(streams.in_frames(random, chunks) if web else chunks)
    if not right:
        data = mutated(random, data, chunks)
    client = await server.open("websocket" if web else "mqtt")
    try:
        with contextlib.suppress(RuntimeError):  # uvloop's word for a socket that is closed already
            for piece in pieces(random, data):
                client.send(piece)
                if random.random() < 0.5:
                    await asyncio.sleep(0)
            if random.random() < 0.2:
                await client.close()
                return "cut"
            client.writer.write_eof()
        answers = await _until_closed(client)
    except (ConnectionError, OSError):
        return "reset"
    finally:
        await client.close()
        server._clients.remove(client)
    if not web:
        _check_answers(answers)
    return "answered" if answers else "closed"


async def _until_closed(client: Client) -> bytes:
    """Everything until the server has closed, which it must after an end of the stream."""
    received = bytearray()
    async with asyncio.timeout(PATIENCE_S):
        while data := await client.reader.read(65_536):
            received += data
    return bytes(received)


def _check_answers(data: bytes) -> None:
    """Only packets of a server, CONNACK first and once."""
    found: list[Packet] = Parser().feed(data)
    kinds = [packet.kind for packet in found]
    assert set(kinds) <= _ANSWERS, kinds
    assert packets.CONNACK not in kinds[1:], kinds
    assert not kinds or kinds[0] == packets.CONNACK, kinds


async def _nothing_left(server: Server, own_tasks: int) -> None:
    """Everything but the witness has left the transport's state."""
    hub = server.hub
    async with asyncio.timeout(PATIENCE_S):
        # Nobody tells when the loop is done with a socket.
        while len(hub.sockets) > 1 or hub.tasks or len(asyncio.all_tasks()) > own_tasks or len(hub._users) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert len(hub.live) == 1, hub.live
    assert hub.entered == 1, hub.entered
    assert not hub._turns, hub._turns
    away = [session for session in hub.sessions.in_memory.values() if session.connection is None]
    assert all(session.kept for session in away), "a clean session has outlived its connection"


async def _still_served(witness: Client, packet_id: int) -> None:
    """The one that does nothing wrong gets its own message back."""
    witness.send(packets.publish("open/for the witness", b"still there?", packet_id=packet_id))
    for _ in range(2):
        answer = await witness.packet()
        if answer.kind == packets.PUBLISH:
            witness.send(packets.acknowledge(packets.PUBACK, packets.Publish.of(answer).packet_id))
        else:
            assert (answer.kind, answer.packet_id) == (packets.PUBACK, packet_id), answer
