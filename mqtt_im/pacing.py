"""Turns of the loop are kept short: whatever comes waits for several of them until it is answered.

Work for many takes a part of each turn, and a smaller one where turns are long (`Share`). Of tasks with much to do one goes on in
each turn (`Relay`). TLS in records of a few bytes, each of
which takes a read of its own, is read bit by bit (`pace`): asyncio reads as long as there is anything, and a client that fills
its socket faster than that would have the loop for itself.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

PER_TURN: Final = 32
"""Reads of a connection in one turn of the loop: some tenths of a millisecond where they are of a byte."""

LONG_S: Final = 0.003
"""A turn of the loop that takes longer is a long one, whatever makes it so."""
_LEAST: Final = 1 / 8
_GROWS: Final = 1.25


class Share:
    """How much of what it may do in one turn of the loop a kind of work does: all, and less as long as turns are long.

    So several kinds of work, each of which would be fair by itself, don't make turns long together, and what is set off by it,
    such as tasks, counts too.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = 0.0
        self.part = 1.0
        """From `_LEAST` to 1."""

    def begin(self) -> None:
        """There is work in this turn, after turns without."""
        self._began = self._clock()

    def next(self) -> float:
        """The turn after the last one has begun; the part of it."""
        now = self._clock()
        took, self._began = now - self._began, now
        if took > LONG_S:
            self.part = max(_LEAST, self.part / 2)
        elif took < LONG_S / 2:
            self.part = min(1.0, self.part * _GROWS)
        return self.part


class Relay:
    """Tasks that have much to do go on one at a time: however many there are, a turn of the loop is as long as with one."""

    def __init__(self) -> None:
        self._share = Share()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self, seconds: float) -> float:
        """The caller may go on now; until when, by `time.perf_counter`: for so long at most, and less where turns are long."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append(future)
        if len(self._waiting) == 1:
            self._share.begin()
            loop.call_soon(self._next)
        await future
        return time.perf_counter() + seconds * self._share.part

    def _next(self) -> None:
        self._share.next()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():  # its task was not cancelled
                future.set_result(None)
                break
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)


class Paced(ssl.SSLObject):
    """Says that there is nothing more for now, where a turn has had its share; see `pace`."""

    _reads = 0
    transport: asyncio.Transport | None = None
    """What reads; None: the handshake, which has no shares."""

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - as in `ssl`
        """See `ssl.SSLObject`."""
        if self.transport is None:
            return super().read(len, buffer)
        if self._reads == PER_TURN:
            raise ssl.SSLWantReadError
        try:
            data = super().read(len, buffer)
        except ssl.SSLWantReadError:
            self._reads = 0
            raise
        self._reads += 1
        if self._reads == PER_TURN:
            asyncio.get_running_loop().call_soon(self._go_on)
        return data

    def _go_on(self) -> None:
        self._reads = 0
        transport = self.transport
        if transport is not None and not transport.is_closing() and transport.is_reading():
            # What waits in the object is read when reading begins again, which is the only way to have that done.
            transport.pause_reading()
            transport.resume_reading()


def pace(transport: asyncio.Transport) -> None:
    """From now on a turn of the loop reads only so many records of this connection, where it is one of TLS."""
    found = transport.get_extra_info("ssl_object")
    if isinstance(found, Paced):
        found.transport = transport
