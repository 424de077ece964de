"""Large groups come to memory a part with each batch, and others' jobs are done between the parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.interface import Later
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite import arriving
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.state import entities, projected
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
MEMBERS = [f"m{number}" for number in range(24)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    """Groups `#g` and `#h` of 25, and nothing of them in memory; ten come at once."""
    made = SqliteStore(tmp_path)
    for group in ("#g", "#h"):
        made.run([job("ann", rq.GroupCreate(id=f"make{group}", group=group, members=MEMBERS))], NOW)
    made.close()
    monkeypatch.setattr(arriving, "PART", 10)
    made.reopen()
    yield made
    made.close()
    assert check(tmp_path).problems == []


def job(user: str, request: rq.Request) -> RequestJob:
    return RequestJob(Who(user, "pc", 0), request, lambda _: None)


def send(user: str, to: str, request_id: str = "1") -> RequestJob:
    return job(user, rq.Send(id=request_id, to=to, body=Raw(b"1")))


def batch(store: SqliteStore, *jobs: RequestJob) -> list[RequestJob]:
    """Those of the jobs that one batch has done."""
    engine, done = store.engine, []
    with engine.changing:
        engine.prefetch(jobs)
        for one in jobs:
            try:
                one.prepare(engine)
            except Later:
                continue
            done.append(one)
    engine.commit()
    return done


def test_a_group_comes_in_parts_and_others_are_served_meanwhile(store: SqliteStore) -> None:
    large, small = send("ann", "#g"), send("bob", "cat")
    assert batch(store, large, small) == [small]
    assert batch(store, large) == []
    assert batch(store, large) == [large]
    record = store.engine.state.record(store.engine.last)
    assert record is not None and len(store.engine.state.conv_for("#g").members) == 25
    assert list(store.engine.state.conv_for("#g").members) == ["ann", *MEMBERS]


def test_a_group_that_was_begun_goes_on_where_its_job_is_not_in_the_batch(store: SqliteStore) -> None:
    first, second = send("ann", "#g"), send("ann", "#h", "2")
    assert batch(store, first) == []
    assert batch(store, send("bob", "cat")) != []
    assert batch(store, second) == []  # `#g` is whole with this one, and five of the other are read
    assert batch(store, first) == [first]
    assert [batch(store, second) for _ in range(2)] == [[], [second]]  # that it was whole is seen by the next look


def test_a_group_that_is_needed_at_once_meanwhile_is_as_it_was_changed(store: SqliteStore) -> None:
    large = send("ann", "#g")
    assert batch(store, large) == []
    store.engine.state.conv_for("#g").members  # noqa: B018 - it is read
    assert batch(store, job("m3", rq.GroupLeave(id="l", group="#g"))) != []
    assert batch(store, large) == [large]
    assert store.engine.state.conv_for("#g").size == 24
    assert not store.engine.state.conv_for("#g").members["m3"].active


def test_who_is_not_in_a_group_makes_nobody_read_it(store: SqliteStore) -> None:
    store.run([refused := send("eve", "#g"), marked := job("m1", rq.Read(conv="#g", seq=2))], NOW)
    assert [one.refusal.code for one in (refused, marked) if one.refusal] == ["not_member", "bad_field"]
    assert not store.engine.state.conv_for("#g").loaded


@pytest.mark.parametrize(
    "request_of",
    [
        rq.Read(conv="#g", seq=1),
        rq.React(id="a", conv="#g", seq=1, emoji="x"),
        rq.GroupRename(id="a", group="#g", name="x"),
        rq.GroupRemove(id="a", group="#g", members=["m1"]),
    ],
)
def test_whatever_needs_the_members_waits_for_them(store: SqliteStore, request_of: rq.Request) -> None:
    one = job("ann", request_of)
    assert [batch(store, one) for _ in range(3)] == [[], [], [one]]


def test_many_users_come_in_parts_too(store: SqliteStore) -> None:
    one = job("ann", rq.GroupCreate(id="a", group="#new", members=[f"n{number}" for number in range(1_500)]))
    assert batch(store, one) == []
    rounds = 1
    while not batch(store, one):
        rounds += 1
    assert rounds == 149
    assert store.engine.state.conv_for("#new").size == 1_501


def test_where_there_is_no_room_for_what_has_come_until_all_is_there_they_stay(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those of the last batch would be forgotten with the next one, without end."""
    monkeypatch.setattr(entities, "MAX_CACHED", 5)
    monkeypatch.setattr(projected, "PART", 10)
    store.run([send(f"u{number}", f"v{number}") for number in range(10)], NOW)
    jobs = [
        job("ann", rq.GroupCreate(id="a", group="#new", members=[f"n{number}" for number in range(110)])),
        job("bob", rq.GroupCreate(id="b", group="#other", members=[f"o{number}" for number in range(110)])),
        send("ann", "#g"),
    ]
    for _ in range(30):
        done = batch(store, *jobs)
        jobs = [one for one in reversed(jobs) if one not in done]
    assert jobs == []


def test_who_has_a_group_read_pays_for_it(store: SqliteStore) -> None:
    """The next job of that user counts as later; what waits for others' groups costs nothing."""
    turns = store.ledger.gathering.turns
    batch_of = [send("ann", "#g"), send("m1", "#h")]
    store.ledger.writer._work(store.engine, list(batch_of))
    assert turns._ends["ann"] > turns._ends.get("m1", 0.0) + 25
    store.run([], NOW)
    while len(turns):
        store.ledger.writer._work(store.engine, store.ledger.gathering.gather(store.engine, False))
    assert all(one.refusal is None and one.commits for one in batch_of)
