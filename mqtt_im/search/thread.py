"""Search: the thread that keeps the index up with the log, and looks into it for who asks.

It has the lowest claim on the machine: it works in small parts with pauses between them, a tenth of the time while the log
grows faster than it is read, half of it when the log is quiet. A commit does not know of it; it looks by itself, the more
rarely the less there is to find. Only a search makes it hurry: what was committed before it was asked is indexed before it
is answered, unless that takes longer than `CATCH_UP_S`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec
import peewee

from mqtt_im import lasting
from mqtt_im.disk import lacks_room
from mqtt_im.protocol.errors import Refusal, StoreError
from mqtt_im.shares import Bounds

from .file import FILE_NAME, remove
from .finding import Found, Query
from .index import Key, SearchIndex

CATCH_UP_S: Final = 2.0
"""What a search waits for the index, at most."""
FIND_S: Final = 0.1
"""A search that takes longer stands in line again, so that others are not held up."""
BATCH_ROWS: Final = 4_000
_POLL_S: Final = 1.0
_IDLE_POLL_S: Final = 4.0
_SWEEP_EVERY_S: Final = 10.0
"""What retention took is not found from then on; its words leave the index a little later."""
_BREATH_S: Final = 0.001
BATCH_RECALLS: Final = 500
_MAX_RECALLED: Final = 100_000
"""What is beyond leaves the index when it has followed the log so far."""
_PURGE_EVERY_S: Final = 2.0
_PURGE_SHARE: Final = 5
"""Purging writes a shard anew, so what is taken back within a short time is purged together: the next time after this many
seconds, or this many times what it has taken, and at once in all shards that wait."""
_RETRY_S: Final = 5.0
_END_S: Final = 5.0

ERRORS: Final = (sqlite3.Error, peewee.PeeweeException, OSError, StoreError)
"""What an index that can't be read or written raises; anything else is a fault of ours."""

logger = logging.getLogger(__name__)


class Index(Protocol):
    """What the thread keeps up with the log; see `SearchIndex`. Raises one of `ERRORS`."""

    position: int

    @property
    def dirty(self) -> set[int]:
        """See `SearchIndex`."""

    def log_end(self) -> int:
        """See `SearchIndex`."""

    def follow(self, limit: int, breathe: Callable[[], None] = ...) -> bool:
        """See `SearchIndex`."""

    def sweep(self) -> bool:
        """See `SearchIndex`."""

    def take_back(self, messages: Sequence[Key]) -> None:
        """See `SearchIndex`."""

    def purge(self, breathe: Callable[[], None] = ...) -> None:
        """See `SearchIndex`."""

    def find(self, query: Query, below: int, wanted: int, until: float) -> Found:
        """See `SearchIndex`."""

    def close(self) -> None:
        """See `SearchIndex`."""


class _Ask:
    """Somebody who waits for a search."""

    __slots__ = ("below", "deadline", "future", "loop", "query", "wanted")

    def __init__(self, query: Query, below: int, wanted: int) -> None:
        self.query = query
        self.below = below
        self.wanted = wanted
        self.deadline = time.monotonic() + CATCH_UP_S
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Found] = self.loop.create_future()

    def answer(self, found: Found | Refusal) -> None:
        """Tell the event loop, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._answer, found)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            return

    def _answer(self, found: Found | Refusal) -> None:
        if self.future.done():
            return
        if isinstance(found, Refusal):
            self.future.set_exception(found)
        else:
            self.future.set_result(found)


class Search:
    """The event loop's side of the search index."""

    def __init__(self, data_dir: Path, epoch: str, make: Callable[[], Index] | None = None, bounds: Bounds | None = None) -> None:
        """`make` opens another index than the one in `data_dir`; `bounds` give that one's memory."""
        self._data_dir = data_dir
        self._make: Callable[[], Index] = make or (lambda: SearchIndex(data_dir, epoch, bounds))
        self._asked: deque[_Ask] = deque()
        self._recalled: deque[Key] = deque(maxlen=_MAX_RECALLED)
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=lasting.thread, args=("search", self._run), name="search", daemon=True)
        self._end = 0
        self._pause = _POLL_S
        self._rest_until = self._sweep_at = 0.0
        self.failing: str | None = None
        """Why the index can't be used now; None while it can."""

    def start(self) -> None:
        """The index is followed, and made where it is not there. The ledger runs already."""
        self._thread.start()

    async def stop(self) -> None:
        """The index knows all that was committed, as far as that takes few seconds, and the files are closed."""
        self._stopping = True
        self._wake.set()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._refuse()

    def take_back(self, conv: str, seq: int) -> None:
        """A message was recalled, and leaves the index before anything else is done, however far that is behind the log."""
        self._recalled.append((conv, seq))
        self._wake.set()

    async def find(self, query: Query, below: int, wanted: int) -> Found:
        """The newest `wanted` messages below log row `below`, or fewer, see `Found`.

        Everything committed before the call is considered, unless the index is far behind. Raises `Refusal` `unavailable`.
        """
        if self._stopping:
            raise _unavailable()
        ask = _Ask(query, below, wanted)
        self._asked.append(ask)
        self._wake.set()
        return await ask.future

    # The thread.

    def _run(self) -> None:
        index: Index | None = None
        while not self._stopping:
            try:
                if index is None:
                    index = self._make()
                self._serve(index)
                pause = self._advance(index)
                if self.failing is not None:
                    self.failing = None
                    logger.warning("search: the index works again")
            except Exception as error:  # noqa: BLE001 - messages are more important than their index
                pause = self._failed(error, index)
                if not lacks_room(error):
                    index = None
            self._wake.wait(max(pause, 0.0))
            self._wake.clear()
        if index is not None:
            try:
                self._finish(index)
            except Exception as error:
                trace = None if isinstance(error, ERRORS) else error
                logger.warning("search: the index is not up to date (%s); it will be", error, exc_info=trace)
            index.close()

    def _serve(self, index: Index) -> None:
        """Everybody who waits now has an answer."""
        for _ in range(len(self._asked)):
            ask = self._asked[0]
            end = index.log_end()
            while index.position < end and time.monotonic() < ask.deadline and not self._stopping and self._follows(index):
                pass
            began = time.thread_time()
            found = index.find(ask.query, ask.below, ask.wanted, time.monotonic() + FIND_S)
            self._asked.popleft()
            ask.answer(msgspec.structs.replace(found, seconds=time.thread_time() - began))

    def _follows(self, index: Index) -> bool:
        """Whether more of the log was taken in; what there is can be searched while nothing can be written."""
        try:
            return index.follow(BATCH_ROWS)
        except ERRORS as error:
            if not lacks_room(error):
                raise
            return False

    def _advance(self, index: Index) -> float:
        """Do one part of what there is to do; seconds to wait before the next."""
        if self._recalled:
            index.take_back([self._recalled[number] for number in range(min(len(self._recalled), BATCH_RECALLS))])
            for _ in range(min(len(self._recalled), BATCH_RECALLS)):
                self._recalled.popleft()
        self._purge(index)
        began, before = time.monotonic(), index.position
        swept = began >= self._sweep_at and index.sweep()
        if began >= self._sweep_at and not swept:
            self._sweep_at = began + _SWEEP_EVERY_S
        if not index.follow(BATCH_ROWS, self._breathe):
            pause, self._pause = self._pause, min(2 * self._pause, _IDLE_POLL_S)
        elif index.position < before + BATCH_ROWS:
            pause = self._pause = _POLL_S
        else:
            self._pause = _POLL_S
            end, self._end = self._end, index.log_end()
            pause = (time.monotonic() - began) * (1 if self._end == end else 9)
        if swept:
            pause = min(pause, time.monotonic() - began)
        return self._until_purge(index, pause)

    def _purge(self, index: Index) -> None:
        """Purge what is to be purged, if it may be now."""
        began = time.monotonic()
        if not index.dirty or began < self._rest_until:
            return
        index.purge(self._breathe)
        took = time.monotonic() - began
        self._rest_until = began + took + max(_PURGE_EVERY_S, _PURGE_SHARE * took)

    def _until_purge(self, index: Index, pause: float) -> float:
        """At most `pause`, and not longer than until what is to be purged may be."""
        return min(pause, self._rest_until - time.monotonic()) if index.dirty else pause

    def _breathe(self) -> None:
        if not self._asked and not self._stopping:
            time.sleep(_BREATH_S)

    def _finish(self, index: Index) -> None:
        """What was taken back last is gone from the file too."""
        deadline = time.monotonic() + _END_S
        while time.monotonic() < deadline and (index.follow(BATCH_ROWS) or index.sweep()):
            pass
        index.purge()

    def _failed(self, error: Exception, index: Index | None) -> float:
        """It is told, and the index removed where it is damaged; seconds to wait before the next attempt."""
        first = self.failing is None
        if first:
            trace = None if isinstance(error, ERRORS) else error
            logger.error("search: the index can't be used: %s", error, exc_info=trace)
        self.failing = str(error) or type(error).__name__
        if lacks_room(error) and index is not None:
            return _RETRY_S  # whoever asks is shown what it has
        if index is not None:
            with suppress(*ERRORS):
                index.close()
        damaged = isinstance(error, sqlite3.DatabaseError | peewee.DatabaseError)
        if damaged and not isinstance(error, sqlite3.OperationalError | peewee.OperationalError):
            with suppress(OSError):
                remove(self._data_dir)
            if first:
                logger.warning("search: the index is made anew from the log")
                return 0.0
        self._refuse()
        return _RETRY_S

    def _refuse(self) -> None:
        while self._asked:
            self._asked.popleft().answer(_unavailable())


def refresh(data_dir: Path, epoch: str) -> None:
    """An index that is there holds what the log holds and nothing that is gone from it. For where no server runs."""
    if not (data_dir / FILE_NAME).exists():
        return
    try:
        index = SearchIndex(data_dir, epoch)
        try:
            while index.follow(BATCH_ROWS) or index.sweep():
                pass
            index.purge()
        finally:
            index.close()
    except ERRORS as error:
        logger.warning("search: the index can't be used (%s), and will be made anew", error)
        remove(data_dir)


def _unavailable() -> Refusal:
    return Refusal("unavailable", "nothing can be searched at the moment; try again", retry=True, retry_after=5.0)
