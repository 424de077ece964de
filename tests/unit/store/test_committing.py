"""A large bulk write is committed on a thread: nobody waits for it, and everything is seen meanwhile as it is."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.tables.projection import Projection
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
PATIENCE_S = 60.0


def send(user: str, body: int, to: str = "bob") -> RequestJob:
    return RequestJob(Who(user, "pc", 0), rq.Send(id=f"{user}{body}", to=to, body=Raw(b"%d" % body)), lambda _: None)


class Held:
    """Commits of bulk writes begin, and end when they are let go; they raise `error`, where there is one."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.free = threading.Event()
        self.error: Exception | None = None


@pytest.fixture
def held() -> Iterator[Held]:
    held, commit = Held(), Projection.commit

    def slow(projection: Projection, epoch: str, lsn: int) -> None:
        held.begun.set()
        assert held.free.wait(PATIENCE_S)
        if held.error is not None:
            raise held.error
        commit(projection, epoch, lsn)

    with patch.object(Projection, "commit", slow), patch("mqtt_im.store.sqlite.flusher.MANY_ROWS", 1):
        yield held
        held.free.set()


@contextmanager
def committing(folder: Path, held: Held) -> Iterator[SqliteStore]:
    """A store whose first generation, a message of ann's to bob, is being committed."""
    store = SqliteStore(folder)
    store.run([send("ann", 1)], NOW)
    flusher = store.engine.flusher
    while flusher.step(hurry=True):
        pass
    assert held.begun.wait(PATIENCE_S) and flusher.writing
    yield store
    held.free.set()
    store.close()
    assert check(folder).problems == []


def bodies(store: SqliteStore) -> list[int]:
    state = store.engine.state
    found = state.records([lsn for _, lsn in state.items(state.user("bob"), 0, 100)])
    return [int(cast(Message, found[lsn]).body or b"") for lsn in sorted(found)]


def test_jobs_are_done_and_all_is_seen_while_it_lasts(tmp_path: Path, held: Held) -> None:
    with committing(tmp_path, held) as store:
        again, more = send("ann", 1), send("cat", 2)
        store.run([again, more], NOW)
        assert again.refusal is None and not again.commits, "it is known that this was sent before"
        assert more.commits
        assert bodies(store) == [1, 2]
        assert store.see(lambda view: view.state.user("bob").head, NOW) == 2
        flusher = store.engine.flusher
        assert not flusher.step() and flusher.pause(), "there is nothing to do until it is over"
        held.free.set()
        flusher.step(wait=True)
        assert flusher._bulk is None
        assert bodies(store) == [1, 2]


def test_nobody_waits_before_there_is_far_too_much_in_memory(tmp_path: Path, held: Held) -> None:
    with committing(tmp_path, held) as store, patch("mqtt_im.store.sqlite.flusher.FLUSH_ROWS", 2):
        store.run([send("cat", number) for number in range(5)], NOW)
        store.engine.side_work(1)
        assert store.engine.flusher.writing and store.engine.crowded
        store.run([send("dan", number) for number in range(5)], NOW)
        timer = threading.Timer(0.01, held.free.set)
        timer.start()
        store.engine.side_work(1)
        assert held.free.is_set(), "it was waited for"
        timer.join()


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), MemoryError()])
def test_a_commit_that_fails_is_told_and_leaves_nothing(tmp_path: Path, held: Held, error: Exception) -> None:
    with committing(tmp_path, held) as store:
        held.error = error
        held.free.set()
        with pytest.raises(type(error)):
            store.engine.flusher.step(wait=True)
        held.error = None
        store.engine.load()
        assert store.engine.projection.position()[1] == 0
        assert bodies(store) == [1]
        done: list[Job] = [send("cat", 2)]
        store.run(done, NOW)
        assert done[0].refusal is None and bodies(store) == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_a_store_that_is_read_anew_waits_for_it(tmp_path: Path, held: Held, fails: bool) -> None:
    with committing(tmp_path, held) as store:
        if fails:
            held.error = sqlite3.OperationalError("disk I/O error")
        held.free.set()
        store.engine.load()
        held.error = None
        assert not store.engine.flusher.writing
        assert store.engine.projection.position()[1] == (0 if fails else store.engine.last)
        assert bodies(store) == [1]


def test_a_small_one_is_committed_at_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.run([send("ann", 1)], NOW)
    with patch("mqtt_im.store.sqlite.flusher.Committing") as thread:
        while store.engine.flusher.step(hurry=True):
            pass
    assert not store.engine.flusher.writing and not thread.called
    store.close()
