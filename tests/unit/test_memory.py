"""Memory goes back to the system."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import platform
import sys
import weakref

from mqtt_im import memory


def test_what_has_grown_is_given_back_once() -> None:
    sizes = iter([100, 100 + memory.GROWTH, 101 + memory.GROWTH, 90, 90, 80 + memory.GROWTH, 91 + memory.GROWTH, 200])
    trims: list[int] = []
    looks: list[int] = []

    def used() -> int:
        looks.append(next(sizes, 200))
        return looks[-1]

    async def scenario() -> None:
        task = asyncio.create_task(memory.give_back(lambda: trims.append(looks[-1]), used, look_s=0.0))
        while len(looks) < 8:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert trims == [101 + memory.GROWTH, 91 + memory.GROWTH], "whenever it has grown by so much, beyond the least it was since"


def test_freed_memory_leaves_the_process_where_the_c_library_can_do_that() -> None:
    trim = memory.trim_of_libc()
    assert (trim is not None) == (sys.platform == "linux" and platform.libc_ver()[0] == "glibc")
    if trim is None:
        asyncio.run(memory.give_back())  # has nothing to do
        return
    kept = [bytes(2_000 + number % 1_000) for number in range(40_000)]
    kept[:] = kept[::40]
    before = memory.resident()
    trim()
    assert memory.resident() < before - (40 << 20)


def test_new_objects_are_looked_at_though_as_many_go_as_come() -> None:
    class Circle:
        def __init__(self) -> None:
            self.itself = self

    async def scenario() -> None:
        task = asyncio.create_task(memory.look_at_new(0.0))
        garbage = weakref.ref(Circle())
        assert garbage() is not None
        async with asyncio.timeout(60):
            while garbage() is not None:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()
