"""The client library on a bad day of its own machine: full disk, jumping clock, cancelled tasks, a second process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mqtt_im.client import Client, StoreInUse, StoreUnusable, clock
from mqtt_im.client.store.sqlite import SqliteStore
from mqtt_im.testing import ServerProcess
from tests.support.clients import PATIENCE_S, following, run, take
from tests.system.conftest import Name

PROGRAM = """
import asyncio, sys
from mqtt_im.client import Client

async def main():
    async with Client("mqtt://127.0.0.1:1", user="alice", store=sys.argv[1]):
        print("open", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


async def full(im: Client, store: SqliteStore, *, on: bool) -> None:
    """Nothing more fits into the store's file; or again as much as it likes."""
    pages = 1 if on else 1_000_000  # no fewer than there are
    await im._now_open.writer.call(lambda _store: store._db.execute_sql(f"PRAGMA max_page_count = {pages}"))


def test_a_full_disk_is_told_and_loses_nothing(
    server: ServerProcess, tmp_path: Path, name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[SqliteStore] = []
    make = SqliteStore.__init__

    def remembered(self: SqliteStore, *args: Any) -> None:
        make(self, *args)
        stores.append(self)

    monkeypatch.setattr(SqliteStore, "__init__", remembered)

    async def main() -> None:
        url = f"mqtt://127.0.0.1:{server.mqtt_port}"
        async with Client(url, user=name("alice"), store=tmp_path / "a.db") as a, Client(url, user=name("bob")) as b:
            await a.online(PATIENCE_S)
            await (await a.send(b.user, "before")).sent(PATIENCE_S)
            await full(a, stores[0], on=True)

            async def fill() -> None:
                while True:
                    await (await a.send(b.user, "x" * 30_000)).sent(PATIENCE_S)

            with pytest.raises(StoreUnusable, match="full"):
                await fill()
            await full(a, stores[0], on=False)
            await (await a.send(b.user, "after")).sent(PATIENCE_S)
            bodies = [message.body for message in await take(b, 2)]
            while bodies[-1] != "after":
                bodies += [message.body for message in await take(b, 1)]
            assert bodies[0] == "before"
            assert a.outgoing() == []

    run(main)


def test_tasks_that_are_cancelled_at_every_await_lose_nothing(server: ServerProcess, tmp_path: Path, name: Name) -> None:
    async def after(steps: int, work: Any) -> Any:
        """Begin it, and cancel it so many turns of the loop later."""
        task = asyncio.ensure_future(work)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    async def main() -> None:
        url, count = f"mqtt://127.0.0.1:{server.mqtt_port}", 30
        async with (
            Client(url, user=name("alice"), store=tmp_path / "a.db") as a,
            Client(url, user=name("bob"), store=tmp_path / "b.db") as b,
        ):
            await a.online(PATIENCE_S)
            for steps in range(count):
                await after(steps % 12, a.send(b.user, steps, id=f"m{steps}"))
                await a.send(b.user, steps, id=f"m{steps}")  # whether it was stored or not: the same id
            got: list[Any] = []
            messages = b.messages()
            for steps in range(60):
                found = await after(steps % 15, anext(messages))
                if not isinstance(found, BaseException):
                    got.append(found)
            while len(got) < count:
                got.append(await following(messages))
            assert [(message.body, message.again) for message in got] == [(number, False) for number in range(count)]
            for steps in range(8):
                await after(steps, got[-1].done())
                await after(steps, a.history(b.user))
                await after(steps, a.watch(b.user))
            await a.history(b.user)
            await after(3, b.close())
            await b.close()
            assert b.state == "closed"
            await (await a.send(b.user, "last")).sent(PATIENCE_S)
        async with Client(url, user=name("bob"), store=tmp_path / "b.db") as b:
            assert [message.body for message in await take(b, 1)] == ["last"]

    run(main)


def test_a_store_is_one_process_s(tmp_path: Path) -> None:
    store = str(tmp_path / "a.db")
    other = subprocess.Popen([sys.executable, "-c", PROGRAM, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"open\n"

    async def main() -> None:
        with pytest.raises(StoreInUse):
            await Client("mqtt://127.0.0.1:1", user="alice", store=store).connect()
        other.kill()
        other.wait()
        async with Client("mqtt://127.0.0.1:1", user="alice", store=store):
            pass

    run(main)
    other.communicate()


def test_a_clock_that_jumps_changes_no_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    boot = clock.boot()
    made, made_up = time.time(), clock.now()
    monkeypatch.setattr(time, "time", lambda: made - 1e6)
    assert clock.elapsed(made, made_up, boot, boot) < 60
    assert clock.elapsed(made, made_up, "before", boot) == 0
    monkeypatch.setattr(time, "time", lambda: made + 1e6)
    assert clock.elapsed(made, made_up, boot, boot) < 60
    assert clock.elapsed(made, made_up, "before", boot) == pytest.approx(1e6)
