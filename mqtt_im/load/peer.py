"""One client connection of the load generator: framing and PUBACKs, as little Python a packet as it takes.

A subclass says what a received message means (`received`) and what happens once a read is worked off (`turn`).
Packets that a peer owes are joined into one write a read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

from mqtt_im.load import wire
from mqtt_im.load.broker import Broker

_CONNACK = {2: " (client id refused)", 3: " (busy, or unavailable)", 4: " (wrong name or password)", 5: " (not allowed)"}


class PeerError(Exception):
    """The server did not do what a scenario rests on: a refusal, a lost connection, a wrong message."""


class Peer(asyncio.Protocol):
    """A connection that answers every QoS 1 message with its PUBACK."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.form = wire.V311
        """The version of MQTT that it speaks: that of the broker it dials."""
        self.bytes_in = 0
        self.pubacks = 0
        self.out: list[bytes] = []
        """Packets that leave at the end of the read being worked off."""
        self.closed: asyncio.Future[None] = loop.create_future()
        self._connack: asyncio.Future[bool] = loop.create_future()
        self._subacks: dict[int, asyncio.Future[int]] = {}
        self._rest = b""
        self._expect_close = False

    async def dial(self, broker: Broker, connect: bytes, behind: bytes = b"") -> bool:
        """Connect and wait for CONNACK; `behind` is sent with the CONNECT. Returns the session-present flag."""
        self.form = broker.form
        await asyncio.get_running_loop().create_connection(lambda: self, broker.host, broker.port, ssl=broker.tls)
        self.transport.write(connect + behind)
        return await self._connack

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Subscribed, or `PeerError`."""
        packet_id = len(self._subacks) + 1
        self._subacks[packet_id] = asyncio.get_running_loop().create_future()
        self.transport.write(wire.subscribe(packet_id, topic_filter, qos, self.form))
        code = await self._subacks[packet_id]
        if code != qos:
            refused = " (refused)" if code == 0x80 else ""
            raise PeerError(f"SUBSCRIBE {topic_filter!r} at QoS {qos} was answered with {code:#x}{refused}")

    def leave(self) -> None:
        """Say DISCONNECT and close."""
        self._expect_close = True
        if not self.transport.is_closing():
            self.transport.write(wire.DISCONNECT)
            self.transport.close()

    def received(self, data: bytes, start: int, stop: int) -> None:
        """One message has come: its payload is `data[start:stop]`."""

    def turn(self) -> None:
        """A read is worked off; what is put in `out` now leaves with its PUBACKs."""

    def fail(self, error: PeerError) -> None:
        """The connection can't go on; by default whoever waits for it learns it from the loop."""
        raise error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if not self._expect_close:
            error = PeerError(f"the server closed the connection ({exc})" if exc else "the server closed the connection")
            waiters: list[asyncio.Future[bool] | asyncio.Future[int]] = [self._connack, *self._subacks.values()]
            waiting = [waiter for waiter in waiters if not waiter.done()]
            for waiter in waiting:
                waiter.set_exception(error)
                waiter.exception()  # whoever waited may have been called off
            if not waiting:
                self.fail(error)

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        out, properties = self.out, bool(self.form.none)
        while end - position >= 2:
            first = data[position]
            length = data[position + 1]
            body = position + 2
            if length & 0x80:
                if body >= end:
                    break
                length = (length & 0x7F) | (data[body] & 0x7F) << 7
                body += 1
                if data[body - 1] & 0x80:
                    if body >= end:
                        break
                    length |= (data[body] & 0x7F) << 14
                    body += 1
            stop = body + length
            if stop > end:
                break
            if first & 0xF0 == 0x30:
                start = body + 2 + (data[body] << 8 | data[body + 1])
                if first & 0x06:
                    out.append(wire.PUBACK_HEAD)
                    out.append(data[start : start + 2])
                    start += 2
                if properties:
                    start += 1 + data[start]  # an alias of the topic at most
                self.received(data, start, stop)
            elif first == 0x40:
                self.pubacks += 1
            else:
                self._other(first, data[body:stop])
            position = stop
        self._rest = data[position:]
        self.turn()
        if out:
            self.transport.write(b"".join(out))
            out.clear()

    def _other(self, first: int, body: bytes) -> None:
        if first == 0x20 and not self._connack.done():
            if body[1]:
                self._expect_close = True
                self._connack.set_exception(PeerError(f"CONNECT was answered with {body[1]}{_CONNACK.get(body[1], '')}"))
            else:
                self._connack.set_result(bool(body[0]))
        elif first == 0x90:
            waiter = self._subacks.get(int.from_bytes(body[:2], "big"))
            if waiter is not None and not waiter.done():
                waiter.set_result(body[-1])


async def close_all(peers: Iterable[Peer]) -> None:
    """Every peer has left and its socket is closed."""
    everyone = list(peers)
    for peer in everyone:
        peer.leave()
    if everyone:
        await asyncio.wait([peer.closed for peer in everyone], timeout=30)
