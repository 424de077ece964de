"""What lasts as long as the server goes on after a mistake of ours, which is told in the log and so counted (`logs.mistakes`).

Else a thread or a task would end for good at the first one, and nobody would miss it before what it does is wanted; and who
stands behind the one whom a mistake has met would not be told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from mqtt_im.logs import RateLimited

AGAIN_S: Final = 1.0
"""After a mistake."""

_log = RateLimited(logging.getLogger(__name__), 4)


async def task(what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """`work` is done, and begins anew where a mistake has ended it; until it has returned, or is cancelled."""
    me = asyncio.current_task()
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - told in the log
            _log.exception(f"{what} met a mistake, and goes on", error)
            if me is not None and me.cancelling():
                return  # it was made in ending
            await asyncio.sleep(AGAIN_S)
        else:
            return


def thread(what: str, work: Callable[[], None]) -> None:
    """The same for a thread, which this is called on. What says that `work` is to end must not end with it."""
    while True:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - told in the log
            _log.exception(f"{what} met a mistake, and goes on", error)
            time.sleep(AGAIN_S)
        else:
            return


def each(what: str, acts: Iterable[Callable[..., None]], *args: Any) -> None:
    """All of them are called with these arguments; a mistake in one keeps nothing from the others."""
    for act in acts:
        try:
            act(*args)
        except Exception as error:  # noqa: BLE001 - told in the log
            _log.exception(f"{what} met a mistake, and the others go on", error)
