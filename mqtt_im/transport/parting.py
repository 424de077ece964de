"""Closing a socket so that what was written last arrives: the lingering close of web servers.

A kernel answers input that comes to a closed socket with a reset, and a reset takes from the peer what it has not read yet. So
the transport is closed as ever, which says goodbye in its own way (TLS, WebSocket), and a duplicate of its socket stays for a
while: it tells the peer that nothing more follows, and throws away what still comes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final, Self

MAX_BYTES: Final = 64 << 20
"""So much is thrown away: who has written more before it reads has lost what it was told."""
_PIECE: Final = 64 * 1024
_thrown_away: Final = bytearray(_PIECE)


class Parting:
    """What stays of a socket: `begin` is due when the transport is gone, `end` where it is not closed after all."""

    __slots__ = ("_bytes", "_done", "_loop", "_socket", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, duplicate: socket.socket) -> None:
        self._loop = loop
        self._socket = duplicate
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._done: Callable[[], None] = _nothing

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, transport: asyncio.BaseTransport) -> Self | None:
        """Made before `transport` is closed; None where it has no socket, or there are no more files to be had."""
        ours = transport.get_extra_info("socket")
        if ours is None:
            return None
        try:
            return cls(loop, socket.socket(fileno=os.dup(ours.fileno())))
        except OSError:
            return None

    def begin(self, seconds: float, done: Callable[[], None]) -> None:
        """Read until the peer has closed its side, for `seconds` at most; then `done` is called, once."""
        self._done = done
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the peer is gone, or `end` was called before
            self.end()
            return
        self._loop.add_reader(self._socket, self._read)
        self._timer = self._loop.call_later(seconds, self.end)

    def _read(self) -> None:
        try:
            size = self._socket.recv_into(_thrown_away)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        self._bytes += size
        if not size or self._bytes > MAX_BYTES:
            self.end()

    def end(self) -> None:
        """Close it, whether it has begun or not; a second call does nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._loop.remove_reader(self._socket)
        self._socket.close()
        done, self._done = self._done, _nothing
        done()


def _nothing() -> None:
    pass
