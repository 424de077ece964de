"""Changes of accounts, where no whole server is needed to see what they mean."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, cast

import pytest

from mqtt_im import account_changes
from mqtt_im.account_changes import AccountChanges
from mqtt_im.accounts.models import ERASED, Change
from mqtt_im.metrics import Metrics
from mqtt_im.protocol.errors import Refusal, StoreError


class Unreadable:
    """Accounts on a broken disk."""

    def take_changes(self) -> Any:
        raise StoreError("disk I/O error")


def test_accounts_that_can_not_be_read_are_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """They are looked at four times a second, and with each change."""
    metrics, nobody = Metrics(), cast(Any, None)
    changes = AccountChanges(cast(Any, Unreadable()), nobody, nobody, partial(metrics.count, "log_lines_suppressed"))
    for _ in range(20):
        changes.act()
    (line,) = caplog.records
    assert (line.levelname, line.message, line.__dict__["reason"]) == ("ERROR", "the accounts can't be read", "disk I/O error")
    assert b"mqtt_im_log_lines_suppressed_total 19.0" in metrics.render()


class OneToErase:
    """Accounts of which one is to be erased, and a store that lets that be done the third time."""

    def __init__(self, shared: bool = False) -> None:
        self.shared = shared
        self.tasks: list[asyncio.Task[None]] = []
        self.attempts = 0
        self.done: list[str] = []
        self.bridge = self

    def to_hand_on(self) -> list[str]:
        return []

    def to_erase(self) -> list[str]:
        return ["ann"]

    def take_changes(self) -> list[Change]:
        return [Change("ann", ERASED)]

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def erase(self, user: str) -> bool:
        self.attempts += 1
        if self.attempts < 3:
            raise Refusal("unavailable", "the store can't commit")
        self.done.append(user)
        return True

    async def fold_away(self) -> None:
        self.done.append("folded away")


@pytest.mark.parametrize("at_start", [False, True])
def test_who_could_not_be_erased_is_so_at_last(at_start: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it may be done, and nobody gets the name until all of it is."""
    monkeypatch.setattr(account_changes, "AGAIN_S", 0.0)

    async def run() -> OneToErase:
        world = cast(Any, OneToErase())
        changes = AccountChanges(world, world, world, lambda: None)
        if at_start:
            await changes.work_off()
        else:
            changes.act()
        await asyncio.gather(*world.tasks)
        return cast(OneToErase, world)

    world = asyncio.run(run())
    assert (world.attempts, world.done) == (3, ["ann", "folded away"])


@pytest.mark.parametrize("shared", [False, True])
def test_a_node_that_finds_a_user_half_erased_by_another_one_logs_no_error(
    shared: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is one when that lasts."""
    monkeypatch.setattr(account_changes, "AGAIN_S", 0.0)
    caplog.set_level("INFO")

    async def run() -> None:
        world = cast(Any, OneToErase(shared))
        AccountChanges(world, world, world, lambda: None).act()
        await asyncio.gather(*world.tasks)

    asyncio.run(run())
    said = [record.levelname for record in caplog.records if "erased" in record.message]
    assert said == (["INFO", "ERROR"] if shared else ["ERROR", "ERROR"])
