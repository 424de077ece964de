"""TLS in records of a few bytes, each of which takes a read of its own: a turn of the loop reads only so many of a connection.

asyncio reads as long as there is anything, and a client that fills its socket faster than that would have the loop for itself.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

PER_TURN: Final = 32
"""Reads of a connection in one turn of the loop: some tenths of a millisecond where they are of a byte."""


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
