"""The store's thread: calls queue up, and all that waits is written as one transaction (group commit).

The event loop never waits for the disk. What was asked for earlier is on disk earlier, or together.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from mqtt_im.client.errors import ClientError, StoreUnusable

from .interface import Loaded, Store

Call = Callable[[Store], None]
_MAX_BATCH = 500
_SLICE = 10


class Writer:
    """Runs the calls on one store, in order. `start` first, `close` last, both on the event loop that it reports to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calls: queue.SimpleQueue[tuple[Call, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()
        self._results: deque[tuple[asyncio.Future[Any], Any]] = deque()
        """What is done and was not told yet."""
        self._resolving = False

    async def start(self, user: str, device: str | None) -> Loaded:
        """Open the store. Raises `StoreInUse`, `StoreUnusable`."""
        opened: asyncio.Future[Loaded] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(user, device, opened), name="mqtt-im-store", daemon=True)
        self._thread.start()
        try:
            return await asyncio.shield(opened)
        except asyncio.CancelledError:
            self._calls.put(None)
            raise

    def call(self, call: Call) -> asyncio.Future[None]:
        """Do `call` in the thread; the future is done when it is on disk, or has the error that kept it from that."""
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(_seen)
        self._calls.put((call, done))
        return done

    async def close(self) -> None:
        """Write what still waits, and let the store go."""
        if self._thread is not None:
            ended = self._loop.create_future()
            self._calls.put((lambda _store: None, ended))
            self._calls.put(None)
            await asyncio.shield(ended)
            await asyncio.to_thread(self._thread.join)

    def _run(self, user: str, device: str | None, opened: asyncio.Future[Loaded]) -> None:
        try:
            loaded = self._store.open(user, device)
        except BaseException as error:  # noqa: BLE001 - raised again where the opening is waited for
            self._report([(opened, error if isinstance(error, ClientError) else StoreUnusable(str(error)))])
            return
        self._report([(opened, loaded)])
        ended = False
        while not ended:
            first = self._calls.get()
            if first is None:
                break
            batch = [first]
            while len(batch) < _MAX_BATCH:
                try:
                    following = self._calls.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                    break
                batch.append(following)
            self._write(batch)
        self._store.close()

    def _write(self, batch: list[tuple[Call, asyncio.Future[None]]]) -> None:
        try:
            with self._store.transaction():
                for call, _ in batch:
                    call(self._store)
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            if len(batch) > 1:
                for each in batch:
                    self._write([each])
            else:
                self._report([(batch[0][1], error if isinstance(error, ClientError) else StoreUnusable(str(error)))])
        else:
            self._report([(done, None) for _, done in batch])

    def _report(self, results: list[tuple[asyncio.Future[Any], Any]]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._arrived, results)

    def _arrived(self, results: list[tuple[asyncio.Future[Any], Any]]) -> None:
        self._results += results
        if not self._resolving:
            self._resolve()

    def _resolve(self) -> None:
        """A slice in each turn of the loop, all of them in the order of the calls: what waits for them may have work to do."""
        for _ in range(min(_SLICE, len(self._results))):
            future, result = self._results.popleft()
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._resolving = bool(self._results)
        if self._resolving:
            self._loop.call_soon(self._resolve)


def _seen(done: asyncio.Future[None]) -> None:
    """An error nobody waits for is no news to asyncio; who must act on it has a callback of its own."""
    if not done.cancelled():
        done.exception()
