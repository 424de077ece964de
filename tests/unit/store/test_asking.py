"""Jobs that somebody waits for (`Ledger.ask`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.sqlite.opening import open_ledger


def sending(to: str) -> Callable[[Callable[[RequestJob], None]], RequestJob]:
    return lambda notify: RequestJob(Who("ann", "pc", 0), rq.Send(to=to, body=Raw(b"1")), notify)


def on_a_ledger(folder: Path, scenario: Callable[[Ledger], Any]) -> None:
    async def within() -> None:
        ledger = open_ledger(folder, synchronous="off")
        await ledger.start()
        try:
            async with asyncio.timeout(60):
                await scenario(ledger)
        finally:
            await ledger.stop()

    asyncio.run(within())


def test_who_asks_is_told_after_everybody_else(tmp_path: Path) -> None:
    async def scenario(ledger: Ledger) -> None:
        told: list[RequestJob] = []
        job = await ledger.ask(sending("bob"), told.append)
        assert told == [job] and job.commits
        with pytest.raises(Refusal, match="group"):
            await ledger.ask(sending("#nowhere"), told.append)
        assert len(told) == 2 and told[1].refusal is not None

    on_a_ledger(tmp_path, scenario)


def test_who_went_away_meanwhile_keeps_nobody_from_being_told(tmp_path: Path) -> None:
    async def scenario(ledger: Ledger) -> None:
        told: list[RequestJob] = []
        asking = asyncio.ensure_future(ledger.ask(sending("bob"), told.append))
        await asyncio.sleep(0)
        asking.cancel()
        await ledger.over()
        assert asking.cancelled() and len(told) == 1 and told[0].commits

    on_a_ledger(tmp_path, scenario)


def test_a_fault_in_telling_leaves_nobody_waiting(tmp_path: Path) -> None:
    def broken(job: RequestJob) -> None:
        raise ZeroDivisionError

    async def scenario(ledger: Ledger) -> None:
        assert (await ledger.ask(sending("bob"), broken)).commits

    on_a_ledger(tmp_path, scenario)
