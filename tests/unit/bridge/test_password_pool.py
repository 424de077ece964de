"""Verifications: turns, patience, and who hangs up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from mqtt_im.bridge.logins import password_pool
from mqtt_im.bridge.logins.password_pool import NotYetError, PasswordPool, Place, PoolFullError, Standing
from tests.unit.transport.harness import on_loop


class Unwanted(Exception):
    pass


class Work:
    """A verification that says when its turn came, and is computed when `gate` opens."""

    def __init__(
        self,
        name: str,
        begun: list[str],
        party: str = "",
        *,
        gate: threading.Event | None = None,
        standing: Standing = Standing.NEW,
    ) -> None:
        self.name = name
        self.begun = begun
        self.party = party
        self.gate = gate
        self.standing = standing
        self.wanted = True
        self.ended = asyncio.Event()

    def place(self) -> Place:
        if not self.wanted:
            raise Unwanted
        return Place(self.standing, self.party)

    def begin(self) -> Callable[[], bool]:
        self.begun.append(self.name)
        return lambda: self.gate is None or self.gate.wait(60)

    def end(self, right: bool) -> int:
        self.ended.set()
        return len(self.name) if right else 0


class Pool:
    """A pool of one thread, which works on "first" until `release` is called."""

    def __init__(self) -> None:
        self.pool = PasswordPool(1, patience_s=60.0)
        self.begun: list[str] = []
        self.works: dict[str, Work] = {}
        self._gate = threading.Event()
        self.first = self.start("0", "first", gate=self._gate)

    def start(
        self,
        address: str,
        name: str,
        *,
        gate: threading.Event | None = None,
        standing: Standing = Standing.NEW,
        digest: str = "",
    ) -> asyncio.Future[int]:
        self.works[name] = work = Work(name, self.begun, address, gate=gate, standing=standing)
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
    assert pool.begun == ["first", "b1", "a1", "a2", "a3"]
    await pool.close()


@on_loop
async def test_who_comes_after_a_crowd_waits_for_one_turn_and_the_crowd_goes_on() -> None:
    pool = Pool()
    crowd = [pool.start(f"crowd{number}", f"crowd{number}") for number in range(8)]
    await steps()
    late = [pool.start("late", "late"), pool.start("late", "late too")]
    await steps()
    pool.release()
    await asyncio.gather(*crowd, *late)
    assert pool.begun == [
        "first",
        "late",
        "crowd0",
        "crowd7",
        "crowd1",
        "crowd6",
        "crowd2",
        "crowd5",
        "crowd3",
        "crowd4",
        "late too",
    ]
    await pool.close()


@on_loop
async def test_who_stays_has_his_turn_although_others_come_anew_all_the_time() -> None:
    pool = Pool()
    stays = pool.start("stays", "stays")
    others = [pool.start("other0", "other0")]
    await steps()

    def another() -> Callable[[], bool]:
        if not stays.done():
            others.append(pool.start(f"other{len(others)}", f"other{len(others)}"))
        return lambda: True

    for work in pool.works.values():
        work.begin = another  # type: ignore[method-assign]
    pool.release()
    assert await stays == len("stays")
    assert len(others) <= 4
    await asyncio.gather(*others)
    await pool.close()


@on_loop
async def test_guessers_have_the_smallest_share_of_the_turns_and_not_none() -> None:
    pool = Pool()
    jobs = [
        pool.start(f"{standing.name}{number}", f"{standing.name} {number}", standing=standing)
        for standing in Standing
        for number in range(20)
    ]
    await steps()
    pool.release()
    await asyncio.gather(*jobs)
    early = [name.split()[0] for name in pool.begun[1:25]]
    for standing in Standing:
        assert abs(early.count(standing.name) - standing * 3) <= 1
    await pool.close()


@on_loop
async def test_a_line_in_which_nobody_waited_has_saved_up_no_turns() -> None:
    pool = Pool()
    pool.release()
    await asyncio.gather(pool.first, *(pool.start("new", f"before{number}") for number in range(30)))
    gate = threading.Event()
    held = pool.start("new", "held", gate=gate)
    await steps()
    jobs = [
        pool.start(f"{standing.name}{number}", f"{standing.name} {number}", standing=standing)
        for standing in (Standing.NEW, Standing.SUSPECT)
        for number in range(20)
    ]
    await steps()
    gate.set()
    await asyncio.gather(held, *jobs)
    early = [name.split()[0] for name in pool.begun[-40:-28]]
    assert early.count("SUSPECT") <= 4
    await pool.close()


@on_loop
async def test_what_waits_for_a_guesser_moves_when_he_is_found_out() -> None:
    pool = Pool()
    guesses = [pool.start("guesser", f"guess{number}") for number in range(3)]
    await steps()
    for number in range(3):
        pool.works[f"guess{number}"].standing = Standing.SUSPECT
    others = [pool.start(address, address) for address in "abcd"]
    await steps()
    assert pool.pool.waiting == 7
    pool.release()
    await asyncio.gather(*guesses, *others)
    assert pool.begun.index("guess1") > 4 and set(pool.begun[1:3]) <= {"guess0", *"abcd"}
    assert pool.pool.waiting == 0
    await pool.close()


@on_loop
async def test_what_is_not_worth_it_costs_nobody_a_turn() -> None:
    pool = Pool()
    unwanted = [pool.start("a", name) for name in ("a1", "a2")]
    wanted = [pool.start("a", "a3"), pool.start("b", "b1")]
    await steps()
    for name in ("a1", "a2"):
        pool.works[name].wanted = False
    pool.release()
    assert [type(error) for error in await asyncio.gather(*unwanted, return_exceptions=True)] == [Unwanted, Unwanted]
    await asyncio.gather(*wanted)
    assert pool.begun == ["first", "b1", "a3"]
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
    assert full == [False, False, True, False, True, True, False, True, True], "each address has room for one"
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
