"""What uploads have in memory until the disk has it: gathered into pieces, and bounded for all of them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from mqtt_im.files.receiving import PIECE
from mqtt_im.shares import Bounds

USUAL_BYTES: Final = 16 << 20
"""Of all uploads together, with the usual share of memory: one half may be gathered, the other wait for the disk."""


class Gathering:
    """Counts these bytes, and says when there is room for more."""

    def __init__(self, bounds: Bounds) -> None:
        """`bounds` give a share of what the process may take."""
        self._half = bounds.of(USUAL_BYTES) // 2
        self._gathered = self._writing = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def size(self) -> int:
        """As many as there are now."""
        return self._gathered + self._writing

    async def room(self) -> None:
        """The disk is not so far behind that what comes should stay where it is. Bytes are taken right after it."""
        while not self._room.is_set():
            await self._room.wait()

    async def gather(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The same bytes in pieces of about `PIECE`, smaller where much is gathered; each is written when the next is asked for.

        Neither here nor in whoever hands them on does a variable name one that was handed on: it would stay until the next comes,
        which a client may put off for ever.
        """
        waiting: list[bytes] = []
        size = 0
        try:
            async for piece in pieces:
                waiting.append(piece)
                size += len(piece)
                self._gathered += len(piece)
                del piece
                if size >= PIECE or self._gathered > self._half:
                    with self._to_disk(size):
                        size = 0
                        yield _taken(waiting)
            if waiting:
                with self._to_disk(size):
                    size = 0
                    yield _taken(waiting)
        finally:
            self._gathered -= size

    @contextmanager
    def _to_disk(self, size: int) -> Iterator[None]:
        """So many bytes of those that were gathered wait for the disk meanwhile."""
        self._gathered -= size
        self._wait_for_disk(size)
        try:
            yield
        finally:
            self._wait_for_disk(-size)

    def _wait_for_disk(self, more: int) -> None:
        self._writing += more
        if self._writing > self._half:
            self._room.clear()
        else:
            self._room.set()


def _taken(pieces: list[bytes]) -> bytes:
    """All of them as one; the list is empty then."""
    whole = b"".join(pieces)
    pieces.clear()
    return whole
