"""Memory goes back to the system: what was freed after a rush would stay with the C library, and count as ours, for ever.

And new objects are looked at for garbage so often that it never takes long.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
LARGE: Final = 128 * 1024
_LEAST_LARGE: Final = 32 * 1024
"""Blocks that go back when they are freed: each costs some 45 µs more then, since the system has to fill it with zeros anew."""
LOOK_S: Final = 10.0
GROWTH: Final = 32 << 20
"""Bytes by which the process must have grown for it to be worth the time of another thread: a few milliseconds to fifty."""
LEAST_LOOK_S: Final = 1.0

NEW_S: Final = 0.2
LEAST_NEW_S: Final = 0.05
AIM_S: Final = 0.002
"""As long as a look at new objects may take: nothing else is done meanwhile, in no thread."""


def resident() -> int:
    """Bytes of memory that the process takes (Linux)."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def share_blocks(large: int = LARGE) -> None:
    """What one thread frees is used by the others, and blocks of `large` bytes go back to the system when they are freed.

    Before there are other threads. glibc would give each thread a heap of its own, and what a message leaves in each of them
    stays there; and it would raise that bound with the first such block. Where there is little memory, the holes that bodies
    and large groups leave between what stays would be a fifth of it.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, max(_LEAST_LARGE, large))


class _Figures(ctypes.Structure):
    """What glibc tells of its heaps (`struct mallinfo2`)."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    )


def free() -> int:
    """Bytes that are free in the C library's heaps, whether the system has them back or not; 0 where it does not tell.

    What is free is looked through, so that it takes up to a few milliseconds.
    """
    figures = getattr(ctypes.CDLL(None), "mallinfo2", None) if sys.platform == "linux" else None
    if figures is None:
        return 0
    figures.restype = _Figures
    return int(figures().fordblks)


def trim_of_libc() -> Callable[[], object] | None:
    """What gives freed memory back, where the C library has such a thing (glibc)."""
    if sys.platform != "linux":
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if found is None else lambda: found(0)


async def give_back(
    trim: Callable[[], object] | None = None,
    used: Callable[[], int] = resident,
    unused: Callable[[], int] = free,
    look_s: float = LOOK_S,
    growth: int = GROWTH,
) -> None:
    """Look every `look_s` seconds whether the process has grown by `growth` bytes, and give back what it does not need.

    That is where `growth` bytes more are `unused` than there were at some time since the last time: what was given back counts
    as unused too, and what was in use then may be free a moment later. Until it is cancelled.
    """
    trim = trim or trim_of_libc()
    if trim is None:
        return
    least, before = used(), unused()
    while True:
        await asyncio.sleep(look_s)
        now = used()
        least = min(least, now)
        if now <= least + growth:
            continue
        left = unused()
        if left > before + growth:
            await asyncio.to_thread(trim)
            before = left
        before = min(before, left)


async def look_at_new(look_s: float = NEW_S, clock: Callable[[], float] = time.thread_time) -> None:
    """Look through the new objects for garbage every `look_s` seconds, until it is cancelled; sooner where that takes long.

    The interpreter does so by how many more were made than went. Where as many go as come, as with connections that come and go
    or caches that are full, that is never, and then it stops everything for a tenth of a second.
    """
    wait = look_s
    while True:
        await asyncio.sleep(wait)
        began = clock()
        gc.collect(1)
        took = clock() - began
        # What a look takes goes by how many objects have come since the last one.
        wait = min(look_s, max(LEAST_NEW_S, wait * (AIM_S / took if took > AIM_S / 2 else 2)))
