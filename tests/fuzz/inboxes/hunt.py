"""Runs, one after the other, each of which follows from its number; the steps that a failure needs."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Container
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from mqtt_im.bridge.changing import UplinkJob
from mqtt_im.protocol.errors import Refusal
from tests.fuzz.connections import Found

from .world import World

STEPS: Final = 400
_START: Final = 1_700_000_000.0
_SHRINK_S: Final = 120.0
_TOLD: Final = 150
"""Lines of the trace."""
_SMALL: Final[dict[str, object]] = {
    "mqtt_im.bridge.telling.CROWD": 2,
    "mqtt_im.bridge.slices.PER_TURN": 9,
    "mqtt_im.bridge.slices._AT_ONCE": 3,
    "mqtt_im.bridge.slices._GIVING_WAY_S": 0.0,
    "mqtt_im.bridge.reading.STEP": 2,
    "mqtt_im.bridge.pump.READY": 5,
    "mqtt_im.bridge.cursors.AT_ONCE": 2,
    "mqtt_im.bridge.parking.MAX_PARKED": 3,
    "mqtt_im.core.delivery.MAX_BUFFERED": 4,
    "mqtt_im.core.delivery.APP_AHEAD": 9,
    "mqtt_im.core.delivery.BATCH_ITEMS": 3,
    "mqtt_im.core.offered.BATCH_FIRST": 150,
    "mqtt_im.core.offered.BATCH_MOST": 300,
    "mqtt_im.store.sqlite.flusher.FLUSH_ROWS": 40,
    "mqtt_im.store.sqlite.flusher.SLICE_ROWS": 5,
    "mqtt_im.store.threads.writer.TOLD_AT_ONCE": 2,
    "mqtt_im.store.threads.gathering.MIN_JOBS": 3,
    "mqtt_im.store.threads.writer.MAX_WEIGHT": 60,
    "mqtt_im.store.sqlite.state.entities.MAX_CACHED": 2,
}
"""Bounds that a short run reaches, so that what happens there happens."""
_CLOCKS: Final = (
    "time.monotonic",
    "time.perf_counter",
    "time.thread_time",
    "mqtt_im.store.threads.writer.perf_counter",
    "mqtt_im.store.threads.writer.thread_time",
    "mqtt_im.bridge.reading.thread_time",
)
"""Real time: what depends on it depends on the steps alone."""


class _Faults(logging.Handler):
    """What the server says of faults of its own."""

    def __init__(self, found: list[BaseException | str]) -> None:
        super().__init__(logging.ERROR)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging`."""
        if record.exc_info:
            self._found.append(record.exc_info[1] or record.getMessage())


def run(seed: int, steps: int = STEPS, trace: list[str] | None = None, left_out: Container[int] = ()) -> Counter[str]:
    """One run, but for the steps that are left out; how often each kind was made. Raises `Broken`, and what else goes wrong."""
    trace = [] if trace is None else trace
    clock = [_START]
    faults: list[Any] = []
    refused: set[tuple[str, str]] = set()
    refuse = UplinkJob.refuse

    def noted(job: UplinkJob, refusal: Refusal) -> None:
        if not refusal.retry:
            refused.add((job.who.user, job.request.id or ""))
        refuse(job, refusal)

    def now() -> float:
        return clock[0]

    async def play(folder: Path) -> Counter[str]:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told.get("exception", told["message"])))
        world = World(seed, folder, trace, clock, faults, refused)
        await world.begin()
        for number in range(steps):
            if number not in left_out:
                trace.append(f"-- {number}")
                await world.step(number)
        await world.end()
        return world.counts

    with ExitStack() as undo:
        for name, value in _SMALL.items():
            undo.enter_context(patch(name, value))
        for name in _CLOCKS:
            undo.enter_context(patch(name, now))
        undo.enter_context(patch.object(UplinkJob, "refuse", noted))
        logger, handler = logging.getLogger("mqtt_im"), _Faults(faults)
        undo.callback(setattr, logger, "propagate", logger.propagate)
        undo.callback(logger.removeHandler, handler)
        logger.propagate = False
        logger.addHandler(handler)
        folder = undo.enter_context(tempfile.TemporaryDirectory())
        return asyncio.run(play(Path(folder)))


def hunt(seed: int, seconds: float, rounds: int | None = None) -> str:
    """Runs with this number and those behind it, for so long or so many; returns one line about them. Raises `Found`."""
    started, number = time.monotonic(), 0
    counts: Counter[str] = Counter()
    while number < rounds if rounds is not None else time.monotonic() - started < seconds:
        try:
            counts += run(seed + number)
        except Exception as error:
            raise Found(_shrunk(seed + number, error)) from error
        number += 1
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{number} runs from {seed} on ({told})"


def _shrunk(seed: int, error: Exception) -> str:
    """What has happened, and with how few steps it happens."""
    started = time.monotonic()
    left_out: set[int] = set()
    size = STEPS // 4
    while size:
        for begin in range(0, STEPS, size):
            more = left_out | set(range(begin, begin + size))
            if more != left_out and time.monotonic() - started < _SHRINK_S and _fails(seed, more, error):
                left_out = more
        size //= 2
    trace: list[str] = []
    try:
        run(seed, STEPS, trace, left_out)
    except Exception as found:  # noqa: BLE001 - the same
        told = "\n".join(trace[-_TOLD:])
        return f"seed {seed}: {type(found).__name__}: {found}\n{told}\nwith {STEPS - len(left_out)} of {STEPS} steps"
    return f"seed {seed}: {type(error).__name__}: {error}, and not again: PYTHONHASHSEED makes it the same each time"


def _fails(seed: int, left_out: set[int], error: Exception) -> bool:
    try:
        run(seed, STEPS, None, left_out)
    except Exception as found:  # noqa: BLE001 - of the same kind
        return type(found) is type(error)
    return False
