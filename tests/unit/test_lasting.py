"""What lasts as long as the server goes on after a mistake, wherever that was; the log tells of it, and it is counted."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import Raw

from mqtt_im import lasting, logs
from mqtt_im.account_changes import AccountChanges
from mqtt_im.accounts.models import REMOVED, Change
from mqtt_im.cluster import bus
from mqtt_im.config import LogConfig
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal, Undecided
from mqtt_im.store.interface import Anew, Later
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.opening import open_ledger
from mqtt_im.store.threads import weighing, writer
from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.persistence import Persistence
from tests.support.store import SqliteStore

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all of it is told."""
    monkeypatch.setattr(lasting, "AGAIN_S", 0.0)
    for module in (lasting, writer, weighing):
        monkeypatch.setattr(module, "_log", logs.RateLimited(logging.getLogger("mistakes"), 1_000))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many mistakes the log tells of."""
    return lambda: len([record for record in caplog.records if record.exc_info])


class Sometimes:
    """Fails as often as `fails` says, and then does what it stands for."""

    def __init__(self, really: Callable[..., Any], fails: int = 1) -> None:
        self._really = really
        self._fails = fails

    def __call__(self, *args: Any) -> Any:
        self._fails -= 1
        if self._fails >= 0:
            raise RuntimeError("a mistake")
        return self._really(*args)


def test_a_task_and_a_thread_begin_anew_until_they_are_done(told: Callable[[], int]) -> None:
    done: list[str] = []

    async def work() -> None:
        worked("task")

    worked = Sometimes(done.append, 3)
    asyncio.run(lasting.task("a task", work))
    worked = Sometimes(done.append, 2)
    lasting.thread("a thread", lambda: worked("thread"))
    assert done == ["task", "thread"] and told() == 5


def test_a_task_that_is_cancelled_ends() -> None:
    async def scenario() -> None:
        task = asyncio.create_task(lasting.task("a task", asyncio.Event().wait))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_task_ends_also_where_being_cancelled_makes_a_mistake(told: Callable[[], int]) -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("a mistake")

    async def scenario() -> None:
        task = asyncio.create_task(lasting.task("a task", work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait_for(asyncio.wait([task]), PATIENCE_S)

    asyncio.run(scenario())
    assert told() == 1


def test_what_meets_the_same_mistake_for_ever_is_told_of_now_and_then(
    monkeypatch: pytest.MonkeyPatch, told: Callable[[], int]
) -> None:
    monkeypatch.setattr(lasting, "_log", logs.RateLimited(logging.getLogger("mistakes"), 4))
    before = logs.mistakes()
    lasting.thread("a thread", Sometimes(lambda: None, 100))
    assert told() == 4 and logs.mistakes() - before >= 96


def test_what_the_log_tells_of_is_counted_and_so_is_a_thread_that_ends() -> None:
    root, before, hook = logging.getLogger(), logs.mistakes(), threading.excepthook
    kept, level = root.handlers[:], root.level
    try:
        logs.set_up(LogConfig())
        limited = logs.RateLimited(logging.getLogger("here"), 1)
        for _ in range(3):
            limited.exception("twice held back", RuntimeError())
        thread = threading.Thread(target=Sometimes(print))
        thread.start()
        thread.join()
        logging.getLogger("here").error("nothing unexpected")
        assert logs.mistakes() - before == 4
    finally:
        root.handlers[:], threading.excepthook = kept, hook
        root.setLevel(level)


# The store.


async def refusal_of(ledger: Ledger, user: str) -> Refusal | None:
    future: asyncio.Future[RequestJob] = asyncio.get_running_loop().create_future()
    ledger.submit(RequestJob(Who(user, "pc", 0), rq.Send(to="bob", body=Raw(b"1"), id="a"), future.set_result))
    return (await asyncio.wait_for(future, PATIENCE_S)).refusal


@pytest.mark.parametrize("where", ["commit", "pause", "on_batch", "cost", "weight", "recovered"])
def test_the_ledger_goes_on_and_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], int], where: str
) -> None:
    async def scenario() -> None:
        ledger = open_ledger(tmp_path, synchronous="off")
        await ledger.start()
        engine, writer = cast(Engine, ledger._store), ledger.writer
        if where in ("commit", "pause"):
            monkeypatch.setattr(engine, where, Sometimes(getattr(engine, where)))
        elif where == "on_batch":
            writer.on_batch = Sometimes(lambda _: None)
        elif where == "cost":
            monkeypatch.setattr("mqtt_im.store.threads.gathering.cost", Sometimes(lambda _: 1.0, 100))
        elif where == "weight":
            ledger.gathering._most = 1
            monkeypatch.setattr(RequestJob, "recipients", Sometimes(lambda _: 0, 100))
        else:
            monkeypatch.setattr(engine, "probe", Sometimes(engine.probe, 2))
            writer.failing = "a test"
        asks = [asyncio.ensure_future(refusal_of(ledger, user)) for user in ("ann", "cat", "dan")]
        for refusal in await asyncio.gather(*asks):
            assert refusal is None or isinstance(refusal, Undecided) or refusal.retry
        while await refusal_of(ledger, "ann") is not None:  # noqa: ASYNC110 - until the store has recovered
            await asyncio.sleep(0.01)
        assert await ledger.call(lambda view: view.state.user("bob").head) >= 1
        await ledger.stop()

    asyncio.run(scenario())
    assert told() or where == "cost", "which only counts where somebody waits"


def test_a_mistake_when_the_end_has_come_does_not_make_it_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        ledger = open_ledger(tmp_path, synchronous="off")
        await ledger.start()
        monkeypatch.setattr(ledger.gathering.outflow, "full", Sometimes(ledger.gathering.outflow.full))
        await asyncio.wait_for(ledger.stop(), PATIENCE_S)

    asyncio.run(scenario())


@pytest.mark.parametrize("needs", [Later(1.0), Anew()])
def test_what_needs_a_batch_while_there_is_none_is_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], int], needs: Exception
) -> None:
    """A device that said `hello` while PostgreSQL had no room was told that the server has a fault, and not to ask again."""
    store = SqliteStore(tmp_path)
    store.ledger.writer.failing = "a test"
    monkeypatch.setattr("mqtt_im.store.threads.writer.Writer._recovered", lambda *_: False)
    job = RequestJob(Who("ann", "pc", 0), rq.Hello(), lambda _: None)

    def prepare(_: RequestJob, __: object) -> None:
        raise needs

    monkeypatch.setattr(RequestJob, "prepare", prepare)
    store.run([job], 1_700_000_000_000)
    assert job.refusal is not None and job.refusal.retry and not told()
    store.close()


def test_the_reader_goes_on_also_when_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], int]) -> None:
    async def scenario() -> None:
        ledger = open_ledger(tmp_path, synchronous="off")
        await ledger.start()
        reader = ledger._reader
        monkeypatch.setattr(reader._turns, "charge", Sometimes(reader._turns.charge))
        for _ in range(3):
            assert await asyncio.wait_for(ledger.call(lambda view: view.state.user("bob").head), PATIENCE_S) == 0
        monkeypatch.setattr(reader, "serve", Sometimes(reader.serve))
        await asyncio.wait_for(ledger.stop(), PATIENCE_S)

    asyncio.run(scenario())
    assert told() == 2


def test_who_wants_the_reader_to_rest_need_not_wait_for_what_it_can_t_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], int]
) -> None:
    async def scenario() -> None:
        ledger = open_ledger(tmp_path, synchronous="off")
        await ledger.start()
        reader = ledger._reader
        await ledger.call(lambda _: None)
        assert reader._reading is not None
        monkeypatch.setattr(reader._reading, "close", Sometimes(reader._reading.close))

        def rest() -> bool:
            with reader.suspended():
                return reader._reading is None

        assert await asyncio.wait_for(asyncio.to_thread(rest), PATIENCE_S)
        assert await asyncio.wait_for(ledger.call(lambda view: view.state.user("bob").head), PATIENCE_S) == 0
        await ledger.stop()

    asyncio.run(scenario())
    assert told() == 1


def test_who_waits_no_more_keeps_no_answer_from_others(tmp_path: Path, told: Callable[[], int]) -> None:
    async def scenario() -> None:
        ledger = open_ledger(tmp_path, synchronous="off")
        await ledger.start()
        asks = [asyncio.ensure_future(refusal_of(ledger, user)) for user in ("ann", "cat", "dan")]
        await asyncio.sleep(0)
        over = asyncio.ensure_future(ledger.over())
        await asyncio.sleep(0)
        over.cancel()
        assert not any(await asyncio.gather(*asks))
        await ledger.stop()

    asyncio.run(scenario())
    assert not told()


# Sessions.


def test_sessions_go_on_and_who_waited_is_told_that_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], int]
) -> None:
    async def scenario() -> None:
        store = Persistence(tmp_path / "broker.db", lambda *_, **__: None, logging.getLogger("sessions"))

        async def keep(number: object) -> bool:
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            store.write(sql.RECEIVED, "s1", number)
            store.committed(future.set_result)
            return await asyncio.wait_for(future, PATIENCE_S)

        assert not await keep(1 << 70), "no number of SQLite's: an OverflowError"
        assert await keep(1)
        monkeypatch.setattr(store, "_tell", Sometimes(store._tell))
        await store.close()

    asyncio.run(scenario())
    assert told() >= 1


# Accounts, and nodes.


def test_a_change_of_an_account_keeps_nothing_from_the_next_one(told: Callable[[], int]) -> None:
    closed: list[str] = []

    class Accounts:
        def take_changes(self) -> list[Change]:
            return [Change("ann", REMOVED), Change("bob", REMOVED)]

    class Links:
        def links(self, user: str) -> list[Any]:
            if user == "ann":
                raise RuntimeError("a mistake")
            closed.append(user)
            return []

    class Eraser:
        bridge = cast(Any, None)

    eraser = cast(Any, Eraser())
    eraser.bridge = eraser
    eraser.background = lambda work: work.close()
    AccountChanges(cast(Any, Accounts()), eraser, cast(Any, Links()), lambda: None).act()
    assert closed == ["bob"] and told() == 1


def test_all_hear_of_it_also_where_one_makes_a_mistake(told: Callable[[], int]) -> None:
    heard: list[int] = []
    lasting.each("a test", [Sometimes(heard.append), heard.append], 7)
    assert heard == [7] and told() == 1


def test_the_bus_waits_for_files_of_any_number() -> None:
    """A database that comes back while there are a thousand connections has a file of a number that `select` does not know."""
    read, write = os.pipe()
    high = 1_500
    try:
        os.dup2(read, high)
    except OSError:
        pytest.skip("so many files may not be open here")
    try:
        assert not bus._wait([high], 0.0)
        os.write(write, b"x")
        assert bus._wait([read, high], PATIENCE_S)
    finally:
        for file in (read, write, high):
            os.close(file)
