"""The thread of the webhooks goes on whatever the disk or the ledger does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import peewee
import pytest

from mqtt_im.config import HooksConfig, PushConfig
from mqtt_im.hooks import Hooks
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.refusals import unavailable
from mqtt_im.store.sqlite.opening import open_ledger


def raising(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    return Hooks(PushConfig(), HooksConfig(), tmp_path, open_ledger(tmp_path), set(), lambda *_, **__: None)


@pytest.mark.parametrize("error", [peewee.OperationalError("database is locked"), unavailable(), TimeoutError()])
def test_trouble_is_told_once_and_so_is_its_end(hooks: Hooks, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    assert isinstance(error, peewee.PeeweeException | Refusal | TimeoutError)
    assert [hooks._guarded(raising(error)) for _ in range(3)] == [False, False, False]
    assert hooks._guarded(lambda: None)
    assert hooks._guarded(lambda: None)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


def test_a_fault_of_ours_is_logged_and_ends_nothing(hooks: Hooks, caplog: pytest.LogCaptureFixture) -> None:
    assert not hooks._guarded(raising(KeyError("x")))
    assert hooks._guarded(lambda: None)
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def start_and_stop(hooks: Hooks) -> None:
    await hooks.start()
    hooks.presence("ann", True, 0)
    await hooks.stop()


def test_without_receivers_nothing_is_started(hooks: Hooks, tmp_path: Path) -> None:
    asyncio.run(start_and_stop(hooks))
    assert list(tmp_path.iterdir()) == []
