"""Batches of a store where each costs the same, whatever is in it: they wait a moment where the last one had more jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtt_im.store.jobs.delivering import PullJob
from mqtt_im.store.threads import gathering as gatherings
from tests.support.store import SqliteStore


@pytest.mark.parametrize(
    ("gathers_s", "before", "found"),
    [(0.0005, gatherings.GATHERED, [3, 3]), (0.0005, gatherings.GATHERED - 1, [1, 3]), (0.0, gatherings.GATHERED, [1, 3])],
)
def test_a_batch_waits_for_more_where_the_last_one_had_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gathers_s: float, before: int, found: list[int]
) -> None:
    store = SqliteStore(tmp_path)
    gathering, engine = store.ledger.gathering, store.engine
    monkeypatch.setattr(type(engine), "gathers_s", gathers_s)
    waited: list[float] = []

    def come(count: int) -> None:
        for _ in range(count):
            gathering._queue.put([PullJob([], "", lambda _: None)])

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        come(2)

    monkeypatch.setattr("mqtt_im.store.threads.gathering.time.sleep", sleep)
    come(before)
    assert len(gathering.gather(engine, False)) == before
    come(1)
    batches = [len(gathering.gather(engine, False))]
    come(3)
    batches.append(len(gathering.gather(engine, False)))
    assert batches == found
    assert waited == ([gathers_s] if found[0] == 3 else [])
    store.close()
