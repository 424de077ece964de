"""Memory goes back to the system."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import platform
import subprocess
import sys
import weakref

import pytest

from mqtt_im import memory


def given_back(looks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """At which of these looks, at what is used and what of it is free, something is given back."""
    trims: list[tuple[int, int]] = []
    came = iter(looks)
    now = next(came)

    def used() -> int:
        nonlocal now
        now = next(came, now)
        return now[0]

    async def scenario() -> None:
        task = asyncio.create_task(
            memory.give_back(lambda: trims.append(now), used, lambda: now[1], look_s=0.0, growth=memory.GROWTH)
        )
        while now != looks[-1]:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    return trims


def test_what_was_freed_is_given_back_once() -> None:
    more = memory.GROWTH + 1
    start, end = (100, 10), (1, 0)
    assert given_back([start, start, (100 + more, 10), end]) == [], "it is in use"
    assert given_back([start, start, (90, 10 + more), end]) == [], "the system has it already"
    freed = (100 + 2 * more, 10 + more)
    assert given_back([start, start, freed, (100 + more, 10 + more), freed, end]) == [freed]
    later = (100 + 2 * more, 10 + more + memory.GROWTH)
    assert given_back([start, start, freed, later, later, end]) == [freed], "not enough of it is new"
    again = (100 + 2 * more, 20 + more)
    assert given_back([start, start, freed, (100 + 3 * more, 20), again, again, end]) == [freed, again]


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


def test_new_objects_are_looked_at_sooner_where_a_look_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is done meanwhile: 10 ms five times a second met one message in twenty."""
    waits: list[float] = []
    took = [8 * memory.AIM_S] * 3 + [0.0] * 4
    times = itertools.accumulate(part for each in took for part in (0.0, each))

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 8:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(memory.look_at_new(memory.NEW_S, lambda: next(times)))
    assert waits[0] == memory.NEW_S == max(waits)
    assert min(waits) == memory.LEAST_NEW_S
    assert waits[-1] == memory.NEW_S


def test_what_few_servers_ask_for_is_not_imported_by_all() -> None:
    code = "import sys, mqtt_im.app, mqtt_im.cli.serve; print(*{'cryptography', 'jwt', 'boto3'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not found.stdout.strip()
