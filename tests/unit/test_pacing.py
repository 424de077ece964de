"""Work has less of a turn where turns are long. TLS in records of a byte: a turn reads few of them, and all arrive, in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from pathlib import Path

import pytest

from bench.hostile import certificate
from mqtt_im.config import TlsConfig
from mqtt_im.pacing import LONG_S, PER_TURN, Paced, Relay, Share, pace
from mqtt_im.transport.embedded import tls

PATIENCE_S = 60.0
COUNT = 5_000


class Receiver(asyncio.Protocol):
    """Notes what comes, in pieces; stops reading for a turn after every few, as a connection does that has to wait."""

    def __init__(self, done: asyncio.Event, *, rests: bool) -> None:
        self.pieces: list[bytes] = []
        self.gone = asyncio.Event()
        self._done = done
        self._rests = rests

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        pace(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        if self._rests and len(self.pieces) % 7 == 0:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(0.001, self._transport.resume_reading)
        if sum(map(len, self.pieces)) == COUNT:
            self._done.set()


def send(port: int, data: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)) as client:
        for at in range(len(data)):
            client.sendall(data[at : at + 1])
        with contextlib.suppress(OSError):
            client.recv(1)  # until the server ends it


@pytest.mark.parametrize("rests", [False, True])
def test_few_records_are_read_in_a_turn_and_none_is_lost(tmp_path: Path, rests: bool) -> None:
    files = certificate(tmp_path)
    context = tls.context(TlsConfig(cert=str(files["mqtt.tls.cert"]), key=str(files["mqtt.tls.key"])))
    assert context.sslobject_class is Paced
    data = bytes(number % 251 for number in range(COUNT))

    async def scenario() -> None:
        done = asyncio.Event()
        receiver = Receiver(done, rests=rests)
        server = await asyncio.get_running_loop().create_server(lambda: receiver, "127.0.0.1", 0, ssl=context)
        sender = threading.Thread(target=send, args=(server.sockets[0].getsockname()[1], data))
        sender.start()
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
        receiver._transport.abort()
        await receiver.gone.wait()
        server.close()
        await server.wait_closed()
        await asyncio.to_thread(sender.join)
        assert b"".join(receiver.pieces) == data
        assert max(map(len, receiver.pieces)) <= PER_TURN

    asyncio.run(scenario())


def test_a_share_shrinks_while_turns_are_long_and_grows_while_they_are_short() -> None:
    now = 0.0
    share = Share(lambda: now)
    share.begin()

    def turns(count: int, seconds: float) -> list[float]:
        nonlocal now
        parts = []
        for _ in range(count):
            now += seconds
            parts.append(share.next())
        return parts

    assert turns(5, 2 * LONG_S) == [1 / 2, 1 / 4, 1 / 8, 1 / 8, 1 / 8]
    assert turns(2, 0.75 * LONG_S) == [1 / 8, 1 / 8]
    grown = turns(20, 0.1 * LONG_S)
    assert grown == sorted(grown) and grown[0] > 1 / 8 and grown[-1] == 1.0
    now += 3600.0
    share.begin()
    assert turns(1, 0.0) == [1.0], "a time without work was no long turn"


def test_of_tasks_with_much_to_do_one_goes_on_in_each_turn() -> None:
    """Twenty SUBSCRIBEs of 900 filters, each of which had 3 ms of a turn, made turns of 60."""
    went_on: list[tuple[int, int]] = []

    async def main() -> None:
        relay, turn, over = Relay(), 0, False

        async def count() -> None:
            nonlocal turn
            while not over:
                turn += 1
                await asyncio.sleep(0)

        async def much(number: int) -> None:
            for _ in range(10):
                assert await relay.turn(1.0) > 0
                went_on.append((turn, number))

        counting = asyncio.create_task(count())
        tasks = [asyncio.create_task(much(number)) for number in range(6)]
        gone = asyncio.create_task(much(6))
        await asyncio.sleep(0)
        gone.cancel()  # while it waits: it holds up nobody
        await asyncio.gather(*tasks)
        await much(7)
        over = True
        await counting

    asyncio.run(main())
    assert len({turn for turn, _ in went_on}) == len(went_on) == 70
    assert [number for _, number in went_on[:12]] == [0, 1, 2, 3, 4, 5] * 2, "they take turns"
