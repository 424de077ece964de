"""The loop that takes a log has few of its rows in memory, however large they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.records import AnyRecord, Cursors
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.policy import Policy
from mqtt_im.store.sqlite import replay as taking
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.loading import write_all
from mqtt_im.store.sqlite.replay import Row, replay
from mqtt_im.store.sqlite.retention import base
from tests.support.retention import DAY, compact
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
NAMES = [f"member{number:03}" for number in range(150)]


@pytest.mark.parametrize(("size", "most"), [(1, 100), (10, 100), (100, 10), (5_000, 1)])
def test_of_large_rows_few_are_in_memory_at_once(size: int, most: int) -> None:
    read, taken, together = 0, list[int](), list[int]()

    def rows() -> Iterator[Row]:
        nonlocal read
        for read in range(1, 251):
            yield read, Cursors(1, []), size

    def take(lsn: int, _: AnyRecord, __: int) -> None:
        assert read - len(taken) <= most
        taken.append(lsn)

    def prefetch(records: Iterable[AnyRecord]) -> None:
        together.append(len(list(records)))

    with patch.multiple(taking, AT_ONCE=100, AT_ONCE_BYTES=1_000):
        assert replay(rows(), take, lambda: False, lambda: None, prefetch) == 250
    assert taken == list(range(1, 251))
    assert max(together) == most


def test_what_is_kept_below_the_base_is_written_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INV-16: by its weight, which is that of all who have it."""
    store = SqliteStore(tmp_path)

    def ask(now: int, *jobs: Job) -> None:
        store.run(jobs, now)
        assert [job.refusal for job in jobs] == [None] * len(jobs)

    def say(request_id: str) -> Job:
        return RequestJob(Who("ann", "pc", 0), rq.Send(id=request_id, to="#g", body=Raw(b"1")), lambda _: None)

    ask(NOW, AttachJob(Who(NAMES[7], "pc", 0), lambda _: None))  # who acknowledges nothing
    ask(NOW, RequestJob(Who("ann", "pc", 0), rq.GroupCreate(id="make", group="#g", members=list(NAMES)), lambda _: None))
    for number in range(20):
        ask(NOW, say(f"m{number}"))
    ask(NOW + 40 * DAY, say("last"))
    assert compact(store.engine, Policy(retention_days=30), NOW + 41 * DAY).messages == 0
    assert store.engine.folds.position().base > 20
    store.close()
    weights: list[int] = []

    def told(state: Any, *how: Any) -> None:
        weights.append(state.live.weight)
        write_all(state, *how)

    monkeypatch.setattr(base, "_FLUSH_BYTES", 50_000)
    monkeypatch.setattr(taking, "LOOK", 1)
    with patch.object(base, "write_all", told):
        assert check(tmp_path).problems == []
    assert len(weights) > 5
    assert max(weights) <= 50_000 + 200 * len(NAMES)
