"""The one loop that takes a log: at the start, at a rebuild, in `store check`, and where the base is restored."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mqtt_im.core.records import AnyRecord, decode


def decoded(rows: Iterable[tuple[int, bytes]]) -> Iterable[tuple[int, AnyRecord, int]]:
    """Each row's number, its record, and how many bytes it has in the log."""
    for lsn, data in rows:
        yield lsn, decode(data), len(data)


def replay(
    rows: Iterable[tuple[int, AnyRecord, int]],
    take: Callable[[int, AnyRecord, int], None],
    full: Callable[[], bool],
    flush: Callable[[], None],
) -> int:
    """Every row was taken, and what is in memory was written whenever it was `full`; returns how many rows there were."""
    count = 0
    for lsn, record, size in rows:
        take(lsn, record, size)
        count += 1
        if full():
            flush()
    return count
