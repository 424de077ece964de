"""What the store on disk promises beside the twin: nothing changes by a restart, by a failed commit, or by its bounds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.bridge.claims import Claims
from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.common.rendered import Rendered
from mqtt_im.store.jobs.reads import FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import listings
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.tables.projection import Projection
from tests.support.store import SqliteStore

NOW = 1_000_000


@pytest.fixture
def claims() -> Claims:
    return Claims()


@pytest.fixture
def store(tmp_path: Path, claims: Claims) -> Iterator[SqliteStore]:
    found = SqliteStore(tmp_path, claim=claims.take_back, unclaim=claims.release)
    yield found
    found.close()
    assert check(tmp_path).problems == []


def ask(store: SqliteStore, user: str, request: rq.Request, now: int = NOW) -> RequestJob:
    job = RequestJob(Who(user, "pc", 0), request, lambda _: None)
    store.run([job], now)
    return job


def say(store: SqliteStore, user: str, to: str, body: object = "hi", now: int = NOW, **fields: Any) -> RequestJob:
    return ask(store, user, rq.Send(to=to, body=Raw(json.dumps(body).encode()), **fields), now)


def message(job: RequestJob) -> Message:
    assert job.refusal is None and job.commits is not None
    record = job.commits[0].record
    assert isinstance(record, Message)
    return record


def bodies(store: SqliteStore, user: str, after: int = 0, limit: int = 100) -> list[object]:
    job = FetchJob(user, after, limit, 10**6, lambda _: None)
    store.run([job], NOW)
    shown = [json.loads(entry.item(pos, user, "x", NOW)) for pos, entry in job.entries]
    return [item.get("body", item.get("why")) for item in shown]


def fail_next_commit(store: SqliteStore) -> Any:
    return patch.object(store.engine.log, "append", side_effect=sqlite3.OperationalError("disk I/O error"))


@pytest.mark.parametrize("lose_projection", [False, True])
def test_who_came_back_to_a_group_keeps_the_same_place_over_a_restart(store: SqliteStore, lose_projection: bool) -> None:
    """INV-3, INV-5: a record's numbers are in the order of the members, which must not depend on where they were read."""
    ask(store, "ann", rq.GroupCreate(id="1", group="#g", members=["bob", "cat"]))
    ask(store, "ann", rq.GroupRemove(id="2", group="#g", members=["bob"]))
    ask(store, "ann", rq.GroupAdd(id="3", group="#g", members=["bob"]))
    before = message(say(store, "cat", "#g"))
    store.close()
    store.reopen(lose_projection)
    after = message(say(store, "cat", "#g"))
    assert after.pos == [pos + 1 for pos in before.pos]
    assert (after.extra or {}).get("own") == (before.extra or {}).get("own")


def test_the_clock_may_be_behind_after_a_restart(store: SqliteStore) -> None:
    """INV-8: also where everything is in the projections already, and nothing is replayed."""
    say(store, "ann", "bob", now=NOW)
    store.close()
    store.reopen()
    assert not store.engine.state.live.records
    assert message(say(store, "ann", "bob", now=NOW - 5000)).ts == NOW


@pytest.mark.parametrize("kept", range(1, 8))
def test_a_page_is_whole_however_many_entries_are_kept(store: SqliteStore, kept: int) -> None:
    """INV-13, INV-16: what the cache had to forget for this page came as `void` once."""
    for number in range(8):
        say(store, "ann", "bob", number)
    store.engine.rendering.kept = Rendered(1_000 * kept)
    for after in (0, 4, 2, 6, 0):
        assert bodies(store, "bob", after, 4) == list(range(after, min(after + 4, 8)))
        assert len(store.engine.rendering.kept) <= kept


def test_a_batch_that_failed_has_replaced_nothing(store: SqliteStore, claims: Claims) -> None:
    """INV-6, INV-12: what it would have replaced can be offered."""
    say(store, "ann", "bob", "one", key="k")
    with fail_next_commit(store):
        job = say(store, "ann", "bob", "two", key="k")
    assert job.refusal is not None and job.refusal.retry
    assert claims.offer("bob", 1)
    assert bodies(store, "bob") == ["one"]


def test_a_batch_that_seemed_to_fail_has_replaced_what_it_replaced(store: SqliteStore, claims: Claims) -> None:
    """INV-12: where it is on disk after all, the item is not offered as it was."""
    say(store, "ann", "bob", "one", key="k")
    append = store.engine.log.append

    def kept(*rows: Any) -> None:
        append(*rows)
        raise sqlite3.OperationalError("disk I/O error")

    with patch.object(store.engine.log, "append", kept):
        assert say(store, "ann", "bob", "two", key="k").refusal is not None
    assert not claims.offer("bob", 1)
    assert bodies(store, "bob") == ["replaced", "two"]


def test_after_a_failed_commit_numbers_and_ids_go_on_as_if_it_had_not_been(store: SqliteStore) -> None:
    """INV-2, INV-3, INV-4, INV-6."""
    say(store, "ann", "bob", id="1")
    with fail_next_commit(store):
        assert say(store, "ann", "bob", id="2").refusal is not None
    record = message(say(store, "ann", "bob", id="2"))
    assert (record.seq, record.pos) == (2, [2, 2])


def test_a_recalled_body_is_not_read_back_from_its_old_row(store: SqliteStore) -> None:
    """INV-9: the row is rewritten by the commit; who looks at it in the same batch must not keep what it was."""
    say(store, "ann", "bob", "secret", id="1")
    store.close()
    store.reopen()
    batch = [
        RequestJob(Who("ann", "pc", 0), rq.Recall(id="2", conv="ann:bob", seq=1), lambda _: None),
        RequestJob(Who("ann", "pc", 0), rq.Send(id="1", to="bob", body=Raw(b'"secret"')), lambda _: None),
    ]
    store.run(batch, NOW)
    assert batch[1].commits is None and batch[1].refusal is None
    record = store.engine.state.record(1)
    assert isinstance(record, Message) and record.body is None
    row = store.engine.log.get(1)
    assert row is not None and b"secret" not in row


def test_unread_counts_every_stay_in_a_group_and_nothing_between(store: SqliteStore) -> None:
    """INV-15."""
    ask(store, "ann", rq.GroupCreate(id="1", group="#g", members=["bob", "cat"]))
    say(store, "cat", "#g")
    say(store, "cat", "#g", mentions=["bob"])
    ask(store, "ann", rq.GroupRemove(id="2", group="#g", members=["bob"]))
    say(store, "cat", "#g", mentions=["bob"])
    ask(store, "ann", rq.GroupAdd(id="3", group="#g", members=["bob"]))
    say(store, "cat", "#g")
    told = listings.convs(store.engine, Who("bob", "pc", NOW), rq.Convs(), 10, 10**6)["convs"]
    assert [(conv["unread"], conv["mentions"]) for conv in map(json.loads, map(bytes, told))] == [(3, 1)]


def test_generations_stay_bounded_under_load(store: SqliteStore) -> None:
    """INV-16: one is written before the next one is full."""
    with patch("mqtt_im.store.sqlite.flusher.FLUSH_ROWS", 50), patch("mqtt_im.store.sqlite.flusher.SLICE_ROWS", 5):
        for batch in range(40):
            jobs = [
                RequestJob(Who(f"u{batch}-{number}", "pc", 0), rq.Send(to="bob", body=Raw(b"1")), lambda _: None)
                for number in range(10)
            ]
            store.run(jobs, NOW)
            store.keep_up(len(jobs))
            state = store.engine.state
            frozen = len(state.frozen.records) if state.frozen is not None else 0
            assert len(state.live.records) + frozen <= 3 * 50
    assert bodies(store, "bob", 0, 1000) == [1] * 400


def test_a_full_generation_is_written_a_part_at_a_time(store: SqliteStore) -> None:
    """More than has come meanwhile, but not all at once, however far behind it is."""
    written = 0
    write = Projection.write

    def count(projection: Projection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        nonlocal written
        written += len(rows)
        write(projection, statement, rows)

    sizes: dict[str, Any] = {"FLUSH_ROWS": 100, "SLICE_ROWS": 5, "MOST_ROWS": 20}
    with patch.multiple("mqtt_im.store.sqlite.flusher", **sizes), patch.object(Projection, "write", count):
        for batch in range(60):
            jobs = [
                RequestJob(Who(f"u{batch}-{number}", "pc", 0), rq.Send(to="bob", body=Raw(b"1")), lambda _: None)
                for number in range(10)
            ]
            live, before = store.engine.state.live, store.engine.state.live.rows
            store.run(jobs, NOW)
            made = live.rows - before
            written = 0
            store.keep_up(len(jobs))
            assert written <= 2 * made + 5
    assert store.engine.projection.position()[1] > 100


def test_what_a_failed_batch_had_made_and_replaced_is_not_taken_back_for_ever(store: SqliteStore, claims: Claims) -> None:
    """INV-12: another item has its number now, and can be offered."""
    with fail_next_commit(store):
        jobs = [send_job("ann", "bob", text, "k") for text in ("one", "two")]
        store.run(jobs, NOW)
    assert all(job.refusal is not None and job.refusal.retry for job in jobs)
    say(store, "ann", "bob", "three", key="k")
    assert claims.offer("bob", 1)
    assert bodies(store, "bob") == ["three"]


def send_job(user: str, to: str, body: str, key: str) -> RequestJob:
    request = rq.Send(to=to, body=Raw(json.dumps(body).encode()), key=key)
    return RequestJob(Who(user, "pc", 0), request, lambda _: None)
