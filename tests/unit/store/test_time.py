"""The time of the log does not go back, whatever the clock does (INV-8)."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Raw

from mqtt_im.core.records import decode
from mqtt_im.core.rules import Who
from mqtt_im.protocol.requests import Send
from mqtt_im.store.jobs import RequestJob
from tests.support.store import SqliteStore


def send(store: SqliteStore, now: int) -> None:
    job = RequestJob(Who("ann", "tel", 0), Send(to="bob", body=Raw(b"1")), lambda _: None)
    store.run([job], now)
    assert job.refusal is None


@pytest.mark.parametrize("end", ["close", "crash"])
@pytest.mark.parametrize("lose", [False, True])
def test_a_clock_that_is_set_back_stands_still_over_a_restart_too(tmp_path: Path, end: str, lose: bool) -> None:
    store = SqliteStore(tmp_path)
    send(store, 5_000)
    send(store, 3_000)
    getattr(store, end)()
    store.reopen(lose)
    send(store, 1_000)
    send(store, 6_000)
    assert [decode(row).ts for _, row in store.engine.log.after(0)] == [5_000, 5_000, 5_000, 6_000]
    store.close()
