"""A start is ready once what is behind is in memory; it is written after that, and nothing is lost where that is cut short."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite import flusher
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.replay import without_collecting
from mqtt_im.store.sqlite.tables.projection import Projection
from tests.support.starter import FLUSH_ROWS
from tests.support.store import SqliteStore

ROOT = Path(__file__).parents[3]
NOW = 1_700_000_000_000
USERS = ("ann", "bob", "cat", "dan", "eve")
SMALL: dict[str, Any] = {"FLUSH_ROWS": FLUSH_ROWS, "SLICE_ROWS": 5}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore(tmp_path)
    run(found, send("ann", "bob", "before"))
    found.engine.flusher.flush()
    with patch.multiple(flusher, **SMALL), patch("mqtt_im.store.sqlite.replay.LOOK", 1):
        yield found
        found.close()
    assert check(tmp_path).problems == []


def ignore(_: object) -> None:
    """Nobody waits."""


def run(store: SqliteStore, *jobs: Job) -> None:
    store.run(jobs, NOW)
    assert [job.refusal for job in jobs] == [None] * len(jobs)


def send(user: str, to: str, request_id: str, **fields: str) -> RequestJob:
    request = rq.Send(id=request_id, to=to, body=Raw(json.dumps(request_id).encode()), **fields)  # type: ignore[arg-type]
    return RequestJob(Who(user, "pc", 0), request, ignore)


def fall_behind(store: SqliteStore, rows: int) -> None:
    """So many more rows are in the log alone: messages, most to who never had one, some that replace others, and a group."""
    last = store.engine.last + rows
    run(store, RequestJob(Who("ann", "pc", 0), rq.GroupCreate(id="g", group="#g", members=list(USERS[1:])), ignore))
    number = 0
    while store.engine.last < last:
        number += 1
        user = USERS[number % len(USERS)]
        if number % 7 == 0:
            run(store, send(user, "#g", f"{number}"))
        elif number % 5 == 0:
            run(store, send("ann", "bob", f"{number}", key="k"))
        else:
            run(store, send(user, f"new{number % 50}", f"{number}"))


def inboxes(store: SqliteStore) -> dict[str, list[tuple[int, object]]]:
    """What each user finds, and the number of each item."""
    engine = store.engine
    names = engine.state.user_names("", 1_000)
    return {
        name: [
            (pos, json.loads(entry.item(pos, name, "pc", NOW)))
            for pos, entry in engine.entries(engine.state.user(name), 0, 500, 1 << 24)
        ]
        for name in names
    }


def stored(store: SqliteStore) -> int:
    """Up to which row of the log the projections have everything."""
    return store.engine.projection.position()[1]


def in_memory(store: SqliteStore) -> list[int]:
    """The rows of the log in each generation, the newer ones first."""
    state = store.engine.state
    return [len(generation.records) for generation in (state.live, state.frozen) if generation is not None]


def write_beside(store: SqliteStore) -> None:
    """What the ledger does while nobody comes."""
    while store.engine.flusher.writing or store.engine.flusher.full():
        store.engine.side_work(0)


def test_a_start_writes_nothing_before_it_is_ready(store: SqliteStore) -> None:
    fall_behind(store, 3 * FLUSH_ROWS + 5)
    before, last = inboxes(store), store.engine.last
    store.crash()
    store.reopen()
    assert stored(store) == 1
    assert in_memory(store) == [FLUSH_ROWS + 5, 2 * FLUSH_ROWS]
    assert inboxes(store) == before
    run(store, send("bob", "ann", "after"))  # it may be used at once
    write_beside(store)
    assert stored(store) >= last
    assert {name: items[: len(before[name])] for name, items in inboxes(store).items()} == before


def test_a_start_keeps_no_more_in_memory_than_it_may(store: SqliteStore) -> None:
    """INV-16: however much is behind."""
    fall_behind(store, 11 * FLUSH_ROWS)
    before = inboxes(store)
    store.crash()
    store.reopen()
    assert stored(store) == 1 + 8 * FLUSH_ROWS
    assert in_memory(store) == [FLUSH_ROWS, 2 * FLUSH_ROWS]
    assert inboxes(store) == before


def test_what_was_offered_before_a_start_is_known_from_all_that_is_in_memory(store: SqliteStore) -> None:
    """What has left is not held back, and what has come is, whichever generation says so."""
    for user in ("bob", "cat"):
        run(store, AttachJob(Who(user, "pc", 0), ignore))
    fall_behind(store, 2 * FLUSH_ROWS)  # these are frozen
    run(store, CursorsJob([], ignore, [("bob", "pc", True)]), AttachJob(Who("dan", "pc", 0), ignore))
    store.crash()
    store.reopen()
    assert len(in_memory(store)) == 2
    assert store.engine.cut_off == {("cat", "pc"), ("dan", "pc")}


def test_a_store_that_is_read_anew_sets_aside_as_a_start_does(store: SqliteStore) -> None:
    fall_behind(store, 3 * FLUSH_ROWS + 5)
    before = inboxes(store)
    store.engine.side_work(0)
    for _ in range(2):  # what is half written is given up
        assert store.engine.flusher.writing
        store.engine.load()
        assert stored(store) == 1
        assert inboxes(store) == before
        store.engine.flusher.step()


@pytest.mark.parametrize(
    ("moment", "count"),
    [("takes", 1), ("takes", 50), ("freezes", 1), ("freezes", 2), ("writes", 1), ("writes", 9), ("commits", 1), ("commits", 2)],
)
def test_a_start_that_is_killed_leaves_all_to_the_next(store: SqliteStore, moment: str, count: int) -> None:
    """INV-2 to INV-5: twice, amid what is taken, set aside, and written before it is ready or after that."""
    fall_behind(store, 5 * FLUSH_ROWS + 5)
    before = inboxes(store)
    store.crash()
    for _ in range(2):
        command = [sys.executable, "-m", "tests.support.starter", str(store.data_dir), moment, str(count)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    store.reopen()
    assert inboxes(store) == before
    run(store, send("ann", "bob", "after", key="k"))
    repeat = send("ann", "bob", "before")
    store.run([repeat], NOW)
    assert repeat.refusal is None and repeat.commits is None


def test_a_start_looks_for_no_conversation_that_begins(store: SqliteStore) -> None:
    """In a large store that takes longest; those that were there are read."""
    fall_behind(store, FLUSH_ROWS)
    run(store, send("bob", "ann", "again"))
    before = inboxes(store)
    store.crash()
    asked: list[str] = []
    convs = Projection.convs

    def told(projection: Projection, names: Sequence[str], *how: Any) -> Any:
        asked.extend(names)
        return convs(projection, names, *how)

    with patch.object(Projection, "convs", told):
        store.reopen()
    assert set(asked) == {"ann:bob", "#g"}
    assert inboxes(store) == before


def test_what_a_start_has_made_is_not_looked_through_for_garbage() -> None:
    """That would stop everything for a tenth of a second, once it is ready."""
    gc.collect(0)
    with without_collecting():
        made = [[number] for number in range(1_000)]
    young = {id(one) for generation in (0, 1) for one in gc.get_objects(generation)}
    assert gc.isenabled()
    assert not young.intersection(map(id, made))
