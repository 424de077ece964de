"""TLS in records of a byte: a turn of the loop reads few of them, and all that was sent arrives, in order."""

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
from mqtt_im.pacing import PER_TURN, Paced, pace
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
