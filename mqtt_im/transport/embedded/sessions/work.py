"""Work that asks the database: once for all that has come up while it was under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from mqtt_im.transport.embedded.sessions.persistence import StoreFailed

RETRY_S: Final = 1.0

logger = logging.getLogger(__name__)


class Work:
    """One kind of work. Lives on the event loop."""

    def __init__(
        self,
        work: Callable[[set[Any]], Coroutine[Any, Any, None]],
        background: Callable[[Coroutine[Any, Any, None]], None],
        failed: Callable[[StoreFailed], None],
    ) -> None:
        """`work` is given all that is to be done; where it raises `StoreFailed`, `failed` is told, and it is done again."""
        self._work = work
        self._background = background
        self._failed = failed
        self._waiting: set[Any] = set()
        self._begun = False
        self.idle = asyncio.Event()
        """Nothing is to be done."""
        self.idle.set()

    def add(self, what: Iterable[Any]) -> None:
        """This is done soon, once work has begun."""
        self._waiting.update(what)
        if self._waiting and self._begun and self.idle.is_set():
            self.idle.clear()
            self._background(self._run())

    def begin(self) -> None:
        """What has come up so far is done, and whatever comes."""
        self._begun = True
        self.add(())

    async def _run(self) -> None:
        try:
            while self._waiting:
                what, self._waiting = self._waiting, set()
                try:
                    await self._work(what)
                except StoreFailed as failure:
                    self._waiting |= what
                    self._failed(failure)
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    logger.exception("what other nodes have told met a mistake")
        finally:
            self.idle.set()
