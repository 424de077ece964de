"""What nobody waits for is done behind what is light, and before what has to follow it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from unittest.mock import patch

from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.delivering import CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.threads import gathering as gatherings
from mqtt_im.store.threads.behind import Behind
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000


def ask(user: str, request: rq.Request) -> RequestJob:
    return RequestJob(Who(user, "pc", 0), request, lambda _: None)


def send(user: str) -> RequestJob:
    return ask(user, rq.Send(to="bob", body=Raw(b"1")))


def cursors(lazy: bool = True, pos: int = 1) -> CursorsJob:
    return CursorsJob([("bob", "pc", pos, [])], lambda _: None, lazy=lazy)


def gathered(store: SqliteStore, *came: Job) -> list[Job]:
    store.ledger.gathering._queue.put(list(came))
    batch = store.ledger.gathering.gather(store.engine, store.ledger.failing is not None)
    store.ledger.writer._work(store.engine, batch)
    return batch


def test_requests_pass_them_and_what_a_device_says_of_itself_does_not() -> None:
    behind, first, second, third = Behind(), cursors(), cursors(), cursors()
    one, two, hello = send("ann"), send("cat"), ask("bob", rq.Hello(after=0))
    assert behind.part([first, one, second, two]) == [one, two]
    assert behind.part([third, hello]) == [first, second, third, hello]
    assert not behind
    urgent = cursors(lazy=False)
    assert behind.part([first, urgent]) == [first, urgent], "cursors of one device keep their order"


def test_a_message_is_not_committed_with_cursors_that_came_before_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    first, second, message = cursors(), cursors(), send("ann")
    assert gathered(store, first, second, message) == [message]
    assert gathered(store) == [first] and gathered(store) == [second]
    store.close()


def test_they_are_told_where_a_mistake_meets_them_with_what_follows_them(tmp_path: Path) -> None:
    """Else reads, which wait for the server's own jobs, waited for ever."""
    store = SqliteStore(tmp_path)
    writer, told = store.ledger.writer, list[Job]()
    first = CursorsJob([("bob", "pc", 1, [])], told.append, lazy=True)
    assert gathered(store, first, send("ann")) and not told
    store.ledger.gathering._queue.put([ask("bob", rq.Hello())])
    assert first in store.ledger.gathering.gather(store.engine, False)
    writer._let_go(store.engine, RuntimeError("a mistake"))
    assert told == [first] and first.refusal is not None
    store.close()


def test_they_are_passed_by_a_few_batches_at_most(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    lazy = cursors()
    assert gathered(store, lazy, send("ann"))[0] is not lazy
    for _ in range(gatherings.MOST_PASSED - 1):
        assert gathered(store, send("ann"))[0] is not lazy
    last = send("ann")
    assert gathered(store, last) == [lazy]
    assert gathered(store) == [last]
    store.close()


def test_they_take_turns_with_what_is_long(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    members = [f"m{number}" for number in range(2_001)]
    made = [ask(f"u{number}", rq.GroupCreate(id="g", group=f"#g{number}", members=members)) for number in range(3)]
    first, second = cursors(), cursors()
    order = [gathered(store, *made, first, second), *(gathered(store) for _ in range(4))]
    assert [type(job) is CursorsJob for (job,) in order] == [False, True, False, True, False]
    store.close()


def test_where_they_fail_the_others_are_done(tmp_path: Path) -> None:
    """They are handed in again by who has handed them in."""
    store = SqliteStore(tmp_path)
    store.ledger.writer.failing = "the disk is full"
    lazy, message = cursors(), send("ann")
    with patch.object(store.engine, "probe", side_effect=sqlite3.OperationalError("full")):
        assert gathered(store, lazy, message) == [message] and gathered(store) == [lazy]
    assert message.refusal is not None and lazy.refusal is not None
    assert gathered(store, again := cursors(), message := send("ann")) == [message] and gathered(store) == [again]
    assert message.refusal is None and again.refusal is None
    store.close()
