"""Verifications: turns, patience, and who hangs up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from mqtt_im.bridge import password_pool
from mqtt_im.bridge.password_pool import NotYetError, PasswordPool, PoolFullError
from tests.unit.transport.harness import on_loop


class Unwanted(Exception):
    pass


class Work:
    """A verification that says when its turn came, and is computed when `gate` opens."""

    def __init__(self, name: str, begun: list[str], *, gate: threading.Event | None = None, wanted: bool = True) -> None:
        self.name = name
        self.begun = begun
        self.gate = gate
        self.wanted = wanted
        self.ended = asyncio.Event()

    def begin(self) -> Callable[[], bool]:
        if not self.wanted:
            raise Unwanted
        self.begun.append(self.name)
        return lambda: self.gate is None or self.gate.wait(10)

    def end(self, right: bool) -> int:
        self.ended.set()
        return len(self.name) if right else 0


class Pool:
    """A pool of one thread, which works on "first" until `release` is called."""

    def __init__(self) -> None:
        self.pool = PasswordPool(1, patience_s=60.0)
        self.begun: list[str] = []
        self._gate = threading.Event()
        self.first = self.start("0", "first", gate=self._gate)

    def start(
        self, address: str, name: str, *, gate: threading.Event | None = None, wanted: bool = True, digest: str = ""
    ) -> asyncio.Future[int]:
        work = Work(name, self.begun, gate=gate, wanted=wanted)
        return asyncio.ensure_future(self.pool.run(address, (digest or name).encode(), work))

    def release(self) -> None:
        self._gate.set()

    async def close(self) -> None:
        self.release()
        await self.first
        self.pool.close()


async def steps() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@on_loop
async def test_addresses_take_turns() -> None:
    pool = Pool()
    jobs = [pool.start("a", "a1"), pool.start("a", "a2"), pool.start("a", "a3"), pool.start("b", "b1")]
    await steps()
    assert pool.pool.waiting == 4
    pool.release()
    assert await asyncio.gather(*jobs) == [2, 2, 2, 2]
    assert pool.pool.waiting == 0
    assert pool.begun == ["first", "a1", "b1", "a2", "a3"]
    await pool.close()


@on_loop
async def test_what_is_not_worth_it_costs_nobody_a_turn() -> None:
    pool = Pool()
    unwanted = [pool.start("a", name, wanted=False) for name in ("a1", "a2")]
    wanted = [pool.start("a", "a3"), pool.start("b", "b1")]
    pool.release()
    assert [type(error) for error in await asyncio.gather(*unwanted, return_exceptions=True)] == [Unwanted, Unwanted]
    await asyncio.gather(*wanted)
    assert pool.begun == ["first", "a3", "b1"]
    await pool.close()


@on_loop
async def test_who_hangs_up_leaves_the_queue_and_costs_nothing() -> None:
    pool = Pool()
    gone = [pool.start(address, f"{address}{number}") for address in "ab" for number in range(3)]
    stays = pool.start("a", "stays")
    await steps()
    for job in gone:
        job.cancel()
    await steps()
    assert pool.pool.waiting == 1
    pool.release()
    await stays
    assert pool.begun == ["first", "stays"]
    await pool.close()


@on_loop
async def test_what_was_begun_for_somebody_who_hung_up_is_not_lost() -> None:
    pool = PasswordPool(1)
    gate = threading.Event()
    work = Work("gone", [], gate=gate)
    gone = asyncio.ensure_future(pool.run("a", b"x", work))
    await steps()
    gone.cancel()
    await steps()
    again = asyncio.ensure_future(pool.run("a", b"x", Work("again", work.begun)))
    await steps()
    gate.set()
    assert await again == len("gone")
    assert work.ended.is_set()
    assert work.begun == ["gone"]
    pool.close()


@on_loop
async def test_who_waited_long_enough_is_told_so_and_finds_the_place_again() -> None:
    pool = Pool()
    await steps()
    pool.pool._patience_s = 0.0
    early = pool.start("a", "early")
    with pytest.raises(NotYetError):
        await early
    assert pool.pool.waiting == 1
    pool.pool._patience_s = 60.0
    late, back = pool.start("a", "late"), pool.start("a", "back again", digest="early")
    await steps()
    assert pool.pool.waiting == 2
    pool.release()
    assert [await back, await late] == [len("early"), len("late")]
    assert pool.begun == ["first", "early", "late"]
    await pool.close()


@on_loop
async def test_who_was_told_to_come_back_is_worked_for_meanwhile() -> None:
    pool = Pool()
    await steps()
    pool.pool._patience_s = 0.0
    work = Work("away", pool.begun)
    with pytest.raises(NotYetError):
        await pool.pool.run("a", b"away", work)
    pool.release()
    await work.ended.wait()
    await pool.close()


@on_loop
async def test_as_many_wait_as_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_pool, "MAX_WAITING", 3)
    monkeypatch.setattr(password_pool, "MAX_WAITING_PER_ADDRESS", 2)
    pool = Pool()
    await steps()
    jobs = [pool.start(address, f"{address}{number}") for address in "abc" for number in range(3)]
    await steps()
    full = [isinstance(job.exception(), PoolFullError) if job.done() else False for job in jobs]
    assert full == [False, False, True, False, True, True, True, True, True]
    same = pool.start("a", "once more", digest="a0")
    pool.release()
    await same
    await asyncio.gather(*jobs, return_exceptions=True)
    await pool.close()


@on_loop
async def test_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (2, 2), (64, password_pool.MAX_THREADS)):
        monkeypatch.setattr(password_pool, "_cores", lambda cores=cores: cores)
        pool = PasswordPool()
        assert pool._executor._max_workers == threads
        pool.close()
