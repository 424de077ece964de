"""Whether the store can commit, for `/health/ready`, which everybody may ask as often as they like.

A look is a transaction, which waits for the disk in front of everybody's messages. So there is one at a time, whoever asks
meanwhile shares it, and few begin in a second. An answer is never older than its question but for one that was under way.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

from mqtt_im.protocol.errors import Refusal

PROBE_S: Final = 3.0
"""So long the store may take."""
PAUSE_S: Final = 0.05
"""Between the beginnings of two looks: on a disk that takes 5 ms for each, they have a tenth of its time."""


class Store(Protocol):
    """See `store.ledger.Ledger`."""

    @property
    def failing(self) -> str | None:
        """See the class that this stands for."""

    async def probe(self) -> None:
        """See the class that this stands for."""


class Readiness:
    """Looks whether one store can commit."""

    def __init__(self, store: Store, pause_s: float = PAUSE_S) -> None:
        self._store = store
        self._pause_s = pause_s
        self._begun = -pause_s
        self._look: asyncio.Task[str] | None = None

    async def ask(self) -> str:
        """`"ok"` where the store can commit now, else why it can't."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._find_out())
        return await asyncio.shield(self._look)  # of many who wait one may go

    async def _find_out(self) -> str:
        if (wait := self._begun + self._pause_s - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        self._begun = time.monotonic()
        try:
            async with asyncio.timeout(PROBE_S):
                await self._store.probe()
        except Refusal as refusal:
            return self._store.failing or refusal.message
        except TimeoutError:
            return f"no answer within {PROBE_S:g} s"
        return "ok"
