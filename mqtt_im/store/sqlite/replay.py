"""The one loop that takes a log: at the start, at a rebuild, in `store check`, and where the base is restored."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from mqtt_im.core.records import AnyRecord, decode

AT_ONCE: Final = 1_000
"""Rows whose entities are looked up together …"""
AT_ONCE_BYTES: Final = 512 << 10
"""… but of about so many bytes at most, since all of them are in memory: a number that a message to thousands has given out
takes ten times of what it has in the log."""
LOOK: Final = 32
"""Rows between two looks at how full the memory is, which take a tenth of the time …"""
LARGE: Final = 4096
"""… unless there is one of so many bytes: a message to hundreds."""

Row = tuple[int, AnyRecord, int]
"""A row's number, its record, and how many bytes it has in the log."""


@contextmanager
def without_collecting() -> Iterator[None]:
    """Nothing here is cyclic, and going through a million new objects again and again takes a fifth of the time.

    After it they count as old: going through them once takes a tenth of a second, in which nothing else runs.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def decoded(rows: Iterable[tuple[int, bytes]]) -> Iterable[Row]:
    """The rows of the log with their records."""
    for lsn, data in rows:
        yield lsn, decode(data), len(data)


def replay(
    rows: Iterable[Row],
    take: Callable[[int, AnyRecord, int], object],
    full: Callable[[], bool],
    make_room: Callable[[], None],
    prefetch: Callable[[Iterable[AnyRecord]], None] = lambda _: None,
) -> int:
    """Every row was taken, and room made whenever the memory was `full`; returns how many rows there were.

    `prefetch` is told what is taken next.
    """
    count = 0
    for part in _parts(rows):
        prefetch(record for _, record, _ in part)
        for lsn, record, size in part:
            take(lsn, record, size)
            count += 1
            if (not count % LOOK or size > LARGE) and full():
                make_room()
    return count


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += row[2]
        if len(part) >= AT_ONCE or size >= AT_ONCE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
