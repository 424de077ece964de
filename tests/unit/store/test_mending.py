"""Damage of the projections is met by who touches it and by nobody else, and is gone a moment later: they are made anew."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.reads import CallJob, FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import listings, pages
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.mending import Mending
from mqtt_im.store.sqlite.tables.files import LOG_FILE, PROJECTION_FILE, UNFINISHED
from tests.support.store import SqliteStore

NOW = 1_000_000
MESSAGES = 600


def everything(engine: Readable) -> object:
    who = Who("ann", "pc", NOW)
    convs = listings.convs(engine, who, rq.Convs(), 9, 10**6)
    return [convs, pages.history(engine, who, rq.History(conv="ann:bob", after=0), 1000, 10**6)]


def ignore(_: Job) -> None:
    pass


def send(user: str, to: str, request_id: str) -> RequestJob:
    return RequestJob(Who(user, "pc", 0), rq.Send(id=request_id, to=to, body=Raw(b'"hi"')), ignore)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ann has written to bob, cat to dan."""
    store = SqliteStore(tmp_path)
    store.run([send("ann", "bob", f"a{number}") for number in range(MESSAGES)], NOW)
    store.run([send("cat", "dan", "c")], NOW)
    store.close()
    return tmp_path


def damage(file: Path, table: str) -> None:
    """The pages that hold the rows of a table are overwritten."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        pages = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno", (table,)
        ).fetchall()
    with file.open("r+b") as content:
        for (page,) in pages:
            content.seek((page - 1) * size)
            content.write(b"\xaa" * 200)


def mended(store: SqliteStore) -> None:
    """What the ledger's thread does until the projections are whole."""
    mending = store.engine._mending
    assert mending is not None
    mending.wait()
    assert store.engine.mended
    with store.reader.suspended():
        store.engine.replace()
    assert not under_way(store)


def is_over(store: SqliteStore) -> bool:
    return store.engine.mended


def under_way(store: SqliteStore) -> bool:
    return store.engine._mending is not None


def codes(*jobs: RequestJob) -> list[str | None]:
    return [job.refusal.code if job.refusal is not None else None for job in jobs]


def test_only_who_meets_the_damage_is_concerned_and_it_is_mended(folder: Path) -> None:
    damage(folder / PROJECTION_FILE, "request")
    store = SqliteStore(folder)
    jobs = [send("cat", "dan", "c1"), send("ann", "bob", "a3"), send("dan", "cat", "d1"), send("eve", "ann", "e1")]
    store.run(jobs, NOW)
    assert codes(jobs[1]) == ["unavailable"]
    assert codes(jobs[3]) == [None]
    assert store.ledger.failing is None
    mended(store)
    again = [send("ann", "bob", "a3"), send("eve", "ann", "e1"), send("cat", "dan", "c")]
    store.run(again, NOW)
    assert [job.decision.reply.get("dup") for job in again if job.decision and job.decision.reply] == [True, True, True]
    store.close()
    assert check(folder).problems == []
    assert (folder / f"{PROJECTION_FILE}.damaged").exists()
    assert not (folder / UNFINISHED).exists()


def test_an_id_that_could_not_be_looked_up_is_not_taken_for_a_new_one(folder: Path) -> None:
    """INV-4: the look-up for the whole batch has failed, so nothing is known of any id of it."""
    damage(folder / PROJECTION_FILE, "request")
    store = SqliteStore(folder)
    jobs = [send("ann", "bob", f"a{number}") for number in range(5)]
    store.run(jobs, NOW)
    assert codes(*jobs) == ["unavailable"] * 5
    mended(store)
    store.close()
    assert check(folder).messages == MESSAGES + 1


def test_what_is_committed_meanwhile_is_in_the_new_ones(folder: Path) -> None:
    damage(folder / PROJECTION_FILE, "item")
    store = SqliteStore(folder)
    job = FetchJob("ann", 0, 10, 10**6, ignore)
    store.run([job], NOW)
    assert job.refusal is not None
    for number in range(20):
        store.run([send("cat", "dan", f"m{number}")], NOW)
        store.keep_up()
    mended(store)
    job = FetchJob("dan", 0, 100, 10**6, ignore)
    store.run([job], NOW)
    assert [pos for pos, _ in job.entries] == list(range(1, 22))
    store.close()
    assert check(folder).problems == []


@pytest.mark.parametrize("table", ["user", "conv", "member", "device", "item", "message", "request", "meta"])
def test_whatever_is_damaged_is_mended(folder: Path, table: str) -> None:
    damage(folder / PROJECTION_FILE, table)
    store = SqliteStore(folder)
    for number in range(3):
        jobs: list[Job] = [send("ann", "bob", f"new{number}"), send("cat", "dan", f"c{number}"), FetchJob("bob", 0, 9, 9, ignore)]
        store.run(jobs, NOW)
        assert store.ledger.failing is None
        if store.engine._mending is not None:
            mended(store)
        store.run([CallJob(everything, ignore)], NOW)
        if store.engine._mending is not None:
            mended(store)
    last: list[Job] = [send("ann", "bob", "last"), FetchJob("bob", 0, 9, 9, ignore), CallJob(everything, ignore)]
    store.run(last, NOW)
    assert [job.refusal for job in last] == [None] * 3
    store.close()
    assert check(folder).problems == []


def test_memory_stays_bounded_while_it_is_mended(folder: Path) -> None:
    """INV-16: what can't be written meanwhile is kept in memory, until that is too heavy; then who writes waits for the end."""
    damage(folder / PROJECTION_FILE, "item")
    store = SqliteStore(folder)
    began, go_on = threading.Event(), threading.Event()
    make = Mending._make

    def slowly(mending: Mending) -> None:
        began.set()
        assert go_on.wait(60)
        make(mending)

    with patch.object(Mending, "_make", slowly):
        store.run([FetchJob("ann", 0, 9, 9, ignore)], NOW)
        assert began.wait(60)
    with patch("mqtt_im.store.sqlite.flusher.FLUSH_ROWS", 5):
        store.run([send("cat", "dan", f"c{number}") for number in range(30)], NOW)
        store.engine.side_work(30)
        assert not is_over(store), "many rows alone keep nobody waiting"
    go_on.set()
    with patch("mqtt_im.store.sqlite.flusher.FLUSH_BYTES", 100):
        store.engine.side_work(0)
        assert is_over(store)
    with store.reader.suspended():
        store.engine.replace()
    assert not under_way(store)
    store.close()
    assert check(folder).problems == []


@pytest.mark.parametrize("when", ["begun", "made", "moved"])
def test_a_server_that_is_killed_meanwhile_leaves_it_to_the_next(folder: Path, when: str) -> None:
    damage(folder / PROJECTION_FILE, "request")
    store = SqliteStore(folder)
    store.run([send("ann", "bob", "a3")], NOW)
    assert store.engine._mending is not None
    store.engine._mending.wait()
    if when == "begun":
        (folder / UNFINISHED).write_bytes(b"")
    store.crash()
    if when == "moved":
        (folder / PROJECTION_FILE).unlink()
    store.reopen()
    job = send("ann", "bob", "a3")
    store.run([job], NOW)
    assert job.decision is not None and job.decision.reply is not None and job.decision.reply["dup"] is True
    store.close()
    assert check(folder).problems == []
    assert not (folder / UNFINISHED).exists()


def test_where_the_log_is_damaged_too_everybody_else_is_served_on(folder: Path) -> None:
    damage(folder / PROJECTION_FILE, "request")
    store = SqliteStore(folder)
    with patch("mqtt_im.store.sqlite.mending.restore", side_effect=_corrupt(folder)):
        store.run([send("ann", "bob", "a3")], NOW)
        mended_in_vain(store)
    jobs = [send("ann", "bob", "a3"), send("eve", "dan", "e")]
    store.run(jobs, NOW)
    assert codes(*jobs) == ["unavailable", None]
    assert store.engine._mending is None, "it is not tried for ever"
    store.crash()


def _corrupt(folder: Path) -> sqlite3.DatabaseError:
    copy = folder / "copy"
    copy.write_bytes((folder / LOG_FILE).read_bytes()[:4096] + b"\xaa" * 8192)
    with closing(sqlite3.connect(copy)) as connection, pytest.raises(sqlite3.DatabaseError) as caught:
        connection.execute("SELECT * FROM log").fetchall()
    return caught.value


def mended_in_vain(store: SqliteStore) -> None:
    mending = store.engine._mending
    assert mending is not None
    mending.wait()
    store.engine.replace()


def test_it_is_not_begun_twice(folder: Path) -> None:
    damage(folder / PROJECTION_FILE, "request")
    store = SqliteStore(folder)
    made: list[Any] = []

    def make(*args: Any) -> Mending:
        made.append(args)
        return Mending(*args)

    with patch("mqtt_im.store.sqlite.engine.Mending", make):
        for _ in range(3):
            store.run([send("ann", "bob", "a3")], NOW)
    assert len(made) == 1
    assert isinstance(store.engine, Engine)
    mended(store)
    store.close()


def test_a_fault_of_ours_in_one_request_is_nobody_elses(folder: Path) -> None:
    """INV-6: what it had appended is forgotten, and the others of its batch are carried out."""
    store = SqliteStore(folder)
    jobs = [send("cat", "dan", f"c{number}") for number in range(7)]
    poison = jobs[4]
    prepare = RequestJob.prepare

    def faulty(job: RequestJob, engine: Any) -> None:
        prepare(job, engine)
        if job is poison:
            raise ZeroDivisionError

    with patch.object(RequestJob, "prepare", faulty):
        store.run(jobs, NOW)
    assert codes(*jobs) == [None] * 4 + ["unavailable"] + [None] * 2
    assert poison.refusal is not None and not poison.refusal.retry
    assert store.ledger.failing is None
    store.close()
    report = check(folder)
    assert report.problems == []
    assert report.messages == MESSAGES + 1 + 6
