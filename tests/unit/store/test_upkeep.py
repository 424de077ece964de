"""When retention runs: beside traffic on the ledger's thread, every hour, and for `store compact` with and without a server."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol.errors import StoreError
from mqtt_im.protocol.requests import Send
from mqtt_im.store.common import retaining
from mqtt_im.store.folder import FolderLock
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.sqlite import upkeep
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.opening import open_ledger
from mqtt_im.store.sqlite.retention import passes as retention
from mqtt_im.store.sqlite.retention.folds import Folds
from mqtt_im.store.sqlite.tables.files import open_log
from mqtt_im.store.sqlite.upkeep import Upkeep, compact

FIVE = Policy(retention_messages=5)


def on_a_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        asyncio.run(test(*args, **fixtures))

    return run


async def done(ledger: Ledger, make: Callable[[Callable[[Job], None]], Job]) -> None:
    future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
    ledger.submit(make(future.set_result))
    assert (await future).refusal is None


async def say(ledger: Ledger, count: int) -> None:
    for _ in range(count):
        await done(ledger, lambda notify: RequestJob(Who("ann", "pc", 0), Send(to="ann", body=Raw(b"1")), notify))


@asynccontextmanager
async def running(data_dir: Path, messages: int = 20) -> AsyncIterator[Ledger]:
    ledger = open_ledger(data_dir)
    await ledger.start()
    try:
        await done(ledger, lambda notify: AttachJob(Who("ann", "pc", 0), notify))
        await say(ledger, messages)
        await done(ledger, lambda notify: CursorsJob([("ann", "pc", messages, [])], notify))
        yield ledger
    finally:
        await ledger.stop()


@on_a_loop
async def test_a_pass_runs_between_other_work(tmp_path: Path) -> None:
    with patch.object(retention, "SLICE_ROWS", 2), patch.multiple(retaining, PART_S=0.0, PAUSE_S=0.001):
        async with running(tmp_path) as ledger:
            removed, _ = await asyncio.gather(ledger.compact(FIVE), say(ledger, 100))
            # Of what came meanwhile nothing was acknowledged; but it makes more of the former ones surplus.
            assert 15 <= removed.messages <= 20
            assert (await ledger.compact(FIVE)).messages + removed.messages == 20
    assert check(tmp_path).problems == []


@on_a_loop
async def test_passes_wait_for_each_other(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        found = await asyncio.gather(*(ledger.compact(Policy(retention_messages=keep)) for keep in (10, 5, 5)))
        assert [removed.messages for removed in found] == [10, 5, 0]


@on_a_loop
async def test_a_pass_fails_with_the_store(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        full = patch.object(Folds, "decide", side_effect=sqlite3.OperationalError("disk full"))
        with full, pytest.raises(StoreError, match="can't commit: disk full"):
            await ledger.compact(FIVE)
        await say(ledger, 1)
        assert (await ledger.compact(FIVE)).messages == 16
    assert check(tmp_path).problems == []


@on_a_loop
async def test_a_pass_that_can_not_begin_fails(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        broken = patch.object(Engine, "base", side_effect=sqlite3.OperationalError("disk I/O error"))
        with broken, pytest.raises(StoreError, match="disk I/O error"):
            await asyncio.wait_for(ledger.compact(FIVE), 60)
        await say(ledger, 1)
        assert (await ledger.compact(FIVE)).messages == 16


@on_a_loop
async def test_a_pass_that_is_under_way_ends_with_the_ledger(tmp_path: Path) -> None:
    async with running(tmp_path) as ledger:
        with patch.object(retention.Pass, "step", return_value=True):
            passes = [asyncio.ensure_future(ledger.compact(FIVE)) for _ in range(2)]
            await say(ledger, 1)
            await ledger.stop()
        for one in passes:
            with pytest.raises(StoreError, match="closed"):
                await one
    assert check(tmp_path).problems == []


@on_a_loop
async def test_it_runs_by_itself_where_something_may_go(tmp_path: Path) -> None:
    ran = asyncio.Event()
    noted: list[bool] = []

    async def seen(policy: Policy) -> Removed:
        assert noted, "who is connected is noted first"
        ran.set()
        return await Ledger.compact(ledger, policy)

    with patch.object(upkeep, "POLL_S", 0.001), patch.object(upkeep, "FIRST_S", 0.0):
        async with running(tmp_path) as ledger:
            with patch.object(ledger, "compact", seen):
                task = asyncio.ensure_future(Upkeep(ledger, tmp_path, FIVE, lambda: noted.append(True)).run())
                await ran.wait()
                task.cancel()
            assert (await ledger.compact(FIVE)).messages == 0


@on_a_loop
async def test_a_server_does_it_for_the_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lock = FolderLock(tmp_path)
    lock.take()
    with patch.object(upkeep, "POLL_S", 0.01):
        async with running(tmp_path) as ledger:
            task = asyncio.ensure_future(Upkeep(ledger, tmp_path, FIVE).run())
            removed = await asyncio.to_thread(compact, tmp_path, Policy())
            assert removed.messages == 15
            assert "15 messages are gone" in caplog.text
            full = patch.object(Folds, "settle", side_effect=sqlite3.OperationalError("disk full"))
            with full, pytest.raises(StoreError, match="disk full"):
                await asyncio.to_thread(compact, tmp_path, Policy())
            assert (await asyncio.to_thread(compact, tmp_path, Policy())).messages == 0
            task.cancel()
    lock.release()


def test_without_a_server_the_command_does_it(tmp_path: Path) -> None:
    async def fill() -> None:
        async with running(tmp_path):
            pass

    asyncio.run(fill())
    assert compact(tmp_path, FIVE).messages == 15
    assert not FolderLock.is_held(tmp_path)
    assert check(tmp_path).problems == []
    assert compact(tmp_path, Policy()).messages == 0


def test_where_there_is_no_store_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such file"):
        compact(tmp_path, FIVE)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    asyncio.run(_fill(tmp_path))
    lock = FolderLock(tmp_path)
    lock.take()
    with pytest.raises(StoreError, match="does not answer"):
        compact(tmp_path, FIVE, sleep=lambda _: None)
    db = open_log(tmp_path, readonly=True)
    assert upkeep._noted(db, upkeep._ASKED) == ""  # nor is anything removed later on
    db.close()
    with pytest.raises(StoreError, match="has stopped meanwhile"):
        compact(tmp_path, FIVE, sleep=lambda _: lock.release())


@on_a_loop
async def test_an_answer_that_cannot_be_written_is_said_again_and_asked_for_no_longer(tmp_path: Path) -> None:
    """Carried out once, though the disk is full meanwhile, and told to who asked as what it is."""
    lock = FolderLock(tmp_path)
    lock.take()
    write, refused = upkeep._write, StoreError("the disk is full")
    fails = {"server": True, "asker": False}
    waited = threading.Event()

    def written(data_dir: Path, notes: dict[str, str]) -> None:
        ending = upkeep._ANSWERED in notes and upkeep._ASKED in notes
        if upkeep._WAITED in notes:
            waited.set()
        if (fails["server"] and ending) or (fails["asker"] and upkeep._WAITED in notes):
            raise refused
        write(data_dir, notes)

    passes: list[Policy] = []
    with patch.multiple(upkeep, POLL_S=0.01, PATIENCE_S=1.0, _write=written):
        async with running(tmp_path) as ledger:

            async def counted(policy: Policy) -> Removed:
                passes.append(policy)
                return await Ledger.compact(ledger, policy)

            with patch.object(ledger, "compact", counted):
                task = asyncio.ensure_future(Upkeep(ledger, tmp_path, FIVE).run())
                asked = asyncio.ensure_future(asyncio.to_thread(compact, tmp_path, Policy()))
                assert await asyncio.to_thread(waited.wait, 30)
                assert not asked.done()  # it can write, so that it waits for the server
                fails["server"] = False
                assert (await asked).messages == 15
                fails.update(server=True, asker=True)
                with pytest.raises(StoreError, match="the disk is full"):
                    await asyncio.to_thread(compact, tmp_path, Policy())
                assert len(passes) == 2
            task.cancel()
    lock.release()


async def _fill(data_dir: Path) -> None:
    async with running(data_dir, 1):
        pass
