"""Whoever waits for a group to come to memory gets it, however many wait for others, and however little room there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.erasing import EraseJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite import arriving
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.state import entities, projected
from mqtt_im.store.threads import gathering, weighing
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
GROUPS = 8
SIZE = 25


def job(user: str, request: rq.Request) -> RequestJob:
    return RequestJob(Who(user, "pc", 0), request, lambda _: None)


def send(user: str, to: str, request_id: str = "1") -> RequestJob:
    return job(user, rq.Send(id=request_id, to=to, body=Raw(b"1")))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """Groups of 25, with room for two of them, and nothing of them in memory; ten members come at once."""
    made = SqliteStore(tmp_path)
    for number in range(GROUPS):
        members = ["ann", *[f"m{number}.{other}" for other in range(SIZE - 2)]]
        made.run([job(f"o{number}", rq.GroupCreate(id="make", group=f"#g{number}", members=members))], NOW)
    made.close()
    monkeypatch.setattr(arriving, "PART", 10)
    monkeypatch.setattr(projected, "PART", 10)
    monkeypatch.setattr(weighing, "LONG", 10)
    monkeypatch.setattr(gathering, "LONG", 10)
    monkeypatch.setattr(entities, "MAX_MEMBERS", 2 * SIZE)
    monkeypatch.setattr(entities, "MAX_CACHED", 5)
    made.reopen()
    yield made
    made.close()
    assert check(tmp_path).problems == []


def work(store: SqliteStore, jobs: list[Job], rounds: int, light: bool = False) -> list[Job]:
    """Those of the jobs that are not over after so many batches; where it is not alone, something `light` comes with each."""
    ledger = store.ledger
    store.clock.set(NOW)
    ledger.gathering.submit(list(jobs))
    for number in range(rounds):
        if light:
            ledger.gathering.submit([send(f"x{number % 7}", "y", f"{number}")])
        waits = ledger.gathering.turns or not ledger.gathering._queue.empty()
        batch = ledger.gathering.gather(store.engine, False) if waits else []
        if batch:
            ledger.writer._work(store.engine, batch)
        store.engine.side_work(len(batch))
        if all(one.commits or one.refusal for one in jobs):
            break
    return [one for one in jobs if not (one.commits or one.refusal)]


@pytest.mark.parametrize("light", [False, True])
def test_all_who_write_to_groups_that_are_not_in_memory_get_through(store: SqliteStore, light: bool) -> None:
    jobs: list[Job] = [send(f"o{number}", f"#g{number}") for number in range(GROUPS)]
    assert work(store, jobs, 400, light) == []


@pytest.mark.parametrize("light", [False, True])
def test_who_writes_to_one_gets_through_beside_others(store: SqliteStore, light: bool) -> None:
    assert work(store, [send("o1", "#g1")], 100, light) == []


def test_who_writes_to_one_for_which_there_is_no_room_gets_through(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entities, "MAX_MEMBERS", SIZE - 1)
    assert work(store, [send("o1", "#g1")], 100) == []


def test_who_was_in_many_groups_is_erased(store: SqliteStore) -> None:
    for number in range(GROUPS):
        store.run([job("ann", rq.GroupLeave(id=f"l{number}", group=f"#g{number}"))], NOW)
    store.close()
    store.reopen()
    one = EraseJob("ann", [f"#g{number}" for number in range(GROUPS)], lambda _: None)
    assert work(store, [one], 400) == []


def test_who_names_many_users_gets_through_beside_others(store: SqliteStore) -> None:
    one = job("bob", rq.GroupCreate(id="a", group="#new", members=[f"n{number}" for number in range(110)]))
    assert work(store, [one], 100, True) == []
