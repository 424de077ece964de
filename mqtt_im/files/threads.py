"""What blocks is done by threads, and whatever they open is closed again, also where nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO, Final, TypeVar

THREADS: Final = 4
T = TypeVar("T")


class Threads:
    """A few of them, for whoever calls from the loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "files")

    def run(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """What `function` returns on one of them, at some time."""
        return asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args))

    async def make(self, make: Callable[[], T], undo: Callable[[T], object]) -> T:
        """What `make` returns; `undo` is given it where the caller is cancelled before it has it."""
        making = self.run(make)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            _when_done(making, lambda: undo(making.result()) if making.exception() is None else None)
            raise

    def stop(self) -> None:
        """What they have begun is done, and nothing else any more."""
        self._pool.shutdown(wait=True)


class Content:
    """Bytes of a file, to be read piece by piece, and closed."""

    def __init__(self, stream: BinaryIO, size: int, threads: Threads) -> None:
        self._stream = stream
        self._left = size
        self._threads = threads
        self._reading: asyncio.Future[bytes] | None = None

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return self._left

    async def read(self, most: int) -> bytes:
        """The next ones, of which there are some left, `most` of them at most. Raises `OSError`, also where there are too few."""
        self._reading = self._threads.run(self._stream.read, min(most, self._left))
        try:
            piece = await asyncio.shield(self._reading)
        finally:
            if self._reading.done():
                self._reading = None  # and with it the piece, which has left with the caller
        if not piece:
            raise OSError("the file's content is shorter than it was")
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Nothing more is read; what is being read is let go when it is there, since another file may get the same descriptor."""
        if self._reading is None:
            self._stream.close()
        else:
            _when_done(self._reading, self._stream.close)


def _when_done(future: asyncio.Future[T], function: Callable[[], object]) -> None:
    def done(_: asyncio.Future[T]) -> None:
        if not future.cancelled():
            future.exception()  # nobody is left to be told of it
            function()

    future.add_done_callback(done)
