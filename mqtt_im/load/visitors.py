"""Clients that come until they are served: connect, wait for CONNACK, subscribe.

One that is refused, cut off or out of patience comes back after about a second.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, cast

from mqtt_im.load import wire
from mqtt_im.load.broker import Broker

SILENT: Final = "silent"
CUT: Final = "cut"
AGAIN_S: Final = 1.0


@dataclass(slots=True)
class Tally:
    """What the clients of a round saw."""

    served_s: list[float] = field(default_factory=list)
    """From a client's first try to SUBACK, however often it had to come."""
    connack_s: list[float] = field(default_factory=list)
    """From a try to the CONNACK that let it in."""
    failed: Counter[str] = field(default_factory=Counter)
    """Tries that failed: `refused 3`, …, cut off, or without an answer until the client lost patience."""


class Visitor(asyncio.Protocol):
    """One try of one client."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.answer: asyncio.Future[str] = loop.create_future()
        """`in`, `refused` with a code, or cut off."""
        self.subscribed: asyncio.Future[bool] = loop.create_future()
        """False where the connection ended first."""
        self._rest = b""

    async def knock(self, broker: Broker, connect: bytes, patience_s: float, source: str | None = None) -> str:
        """What CONNECT was answered with."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience_s):
                local = None if source is None else (source, 0)
                await loop.create_connection(lambda: self, broker.host, broker.port, ssl=broker.tls, local_addr=local)
                self.transport.write(connect)
                return await self.answer
        except TimeoutError:
            self.close()
            return SILENT
        except OSError:
            return CUT

    def close(self) -> None:
        """Hang up, without a word."""
        if hasattr(self, "transport"):
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiter, result in ((self.answer, CUT), (self.subscribed, False)):
            if not waiter.done():
                waiter.set_result(result)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= 2 and len(self._rest) >= 2 + self._rest[1]:  # all that comes here is short
            packet, self._rest = self._rest[: 2 + self._rest[1]], self._rest[2 + self._rest[1] :]
            if packet[0] == 0x20 and not self.answer.done():
                self.answer.set_result(f"refused {packet[3]}" if packet[3] else "in")
            elif packet[0] == 0x90 and not self.subscribed.done():
                self.subscribed.set_result(True)


async def visit(
    broker: Broker, user: str, password: str | None, tally: Tally, patience_s: float, begin: float, dice: random.Random
) -> Visitor:
    """Come from `begin` on (`time.perf_counter`) until served; the connection is kept."""
    await asyncio.sleep(max(0.0, begin - time.perf_counter()))
    connect = broker.login(user, password)
    while True:
        visitor, start = Visitor(), time.perf_counter()
        answer = await visitor.knock(broker, connect, patience_s)
        if answer == "in":
            tally.connack_s.append(time.perf_counter() - start)
            visitor.transport.write(wire.subscribe(1, broker.down(user)))
            if await visitor.subscribed:
                tally.served_s.append(time.perf_counter() - begin)
                return visitor
            answer = CUT
        tally.failed[answer] += 1
        visitor.close()
        await asyncio.sleep(AGAIN_S * dice.uniform(0.5, 1.5))
