"""What lasts as long as the server goes on after a mistake of ours, which is told in the log and so counted (`logs.mistakes`).

Else a thread or a task would end for good at the first one, and nobody would miss it before what it does is wanted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

AGAIN_S: Final = 1.0
"""After a mistake."""

logger = logging.getLogger(__name__)


async def task(what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """`work` is done, and begins anew where a mistake has ended it; until it has returned, or is cancelled."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("%s met a mistake, and goes on", what)
            await asyncio.sleep(AGAIN_S)
        else:
            return


def thread(what: str, work: Callable[[], None]) -> None:
    """The same for a thread, which this is called on. What says that `work` is to end must not end with it."""
    while True:
        try:
            work()
        except Exception:
            logger.exception("%s met a mistake, and goes on", what)
            time.sleep(AGAIN_S)
        else:
            return
