"""INV-9: recalled content leaves the files, and nobody waits for it, whoever reads them and whatever fails."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.records import Edited
from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.tables.files import LOG_FILE
from tests.support.store import SqliteStore

NOW = 1_000_000
NEEDLE = b"unmistakable-needle"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore(tmp_path, Limits(edit_window_s=-1))
    yield found
    found.close()
    assert check(tmp_path).problems == []


def job(request: rq.Request) -> RequestJob:
    return RequestJob(Who("ann", "pc", 0), request, lambda _: None)


def ask(store: SqliteStore, *requests: rq.Request) -> None:
    jobs = [job(request) for request in requests]
    store.run(jobs, NOW)
    assert [job.refusal for job in jobs] == [None] * len(jobs)


def say(store: SqliteStore) -> None:
    ask(store, rq.Send(id="1", to="bob", body=Raw(b'"%b"' % NEEDLE)))


def recall(store: SqliteStore) -> None:
    ask(store, rq.Recall(id="2", conv="ann:bob", seq=1))


def in_files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if NEEDLE in file.read_bytes())


def test_the_files_are_rid_of_it_right_after_the_commit(store: SqliteStore, tmp_path: Path) -> None:
    say(store)
    store.keep_up()
    assert in_files(tmp_path)
    recall(store)
    store.engine.erasure.due = 0.0
    store.keep_up()
    assert in_files(tmp_path) == []
    assert store.engine.erasure.pause() is None


def test_a_recall_does_not_wait_for_who_reads_the_log(store: SqliteStore, tmp_path: Path) -> None:
    """`store check`, `store backup`, a tool that copies: they hold a snapshot for as long as they like."""
    say(store)
    with closing(sqlite3.connect(f"file:{tmp_path / LOG_FILE}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM log").fetchone()
        began = time.monotonic()
        recall(store)
        store.engine.erasure.due = 0.0
        store.keep_up()
        assert time.monotonic() - began < 4, "it waited for the reader"
        assert store.engine.erasure.pause() is not None, "it is tried again"
    store.engine.erasure.due = 0.0
    store.keep_up()
    assert in_files(tmp_path) == []


def test_a_recall_whose_emptying_fails_is_done_all_the_same(store: SqliteStore, tmp_path: Path) -> None:
    say(store)
    with patch.object(store.engine.log, "checkpoint", side_effect=sqlite3.OperationalError("disk I/O error")):
        recall(store)
        store.engine.erasure.due = 0.0
        store.keep_up()
    assert store.ledger.failing is None
    store.engine.erasure.due = 0.0
    store.keep_up()
    assert in_files(tmp_path) == []


def test_what_a_killed_server_had_still_to_do_is_done_by_the_next(store: SqliteStore, tmp_path: Path) -> None:
    say(store)
    store.keep_up()
    recall(store)
    assert in_files(tmp_path)
    store.crash()
    store.reopen()
    store.keep_up()
    assert in_files(tmp_path) == []


def test_many_recalls_empty_the_file_once_in_a_while(store: SqliteStore) -> None:
    erasure = store.engine.erasure
    store.keep_up()
    erasure.ask()
    pause = erasure.pause()
    assert pause is not None and pause > 0


def test_an_edit_leaves_nothing_of_the_one_before(store: SqliteStore, tmp_path: Path) -> None:
    """So that a recall has two rows to empty, however often the message was edited."""
    ask(store, rq.Send(id="1", to="bob", body=Raw(b'"first"')))
    ask(store, rq.Edit(id="e", conv="ann:bob", seq=1, body=Raw(b'"%b"' % NEEDLE)))
    ask(store, *(rq.Edit(id=f"e{number}", conv="ann:bob", seq=1, body=Raw(b"%d" % number)) for number in range(50)))
    bodies = [store.engine.state.record(lsn) for lsn in range(2, store.engine.last + 1)]
    assert [record.body for record in bodies if isinstance(record, Edited)] == [None] * 50 + [b"49"]
    again = job(rq.Edit(id="e", conv="ann:bob", seq=1, body=Raw(b'"%b"' % NEEDLE)))
    store.run([again], NOW)
    assert again.decision is not None and again.decision.reply is not None and again.decision.reply["dup"] is True
    rewritten: list[int] = []
    append = store.engine.log.append

    def counted(rows: Sequence[tuple[int, bytes]], rewrites: Sequence[tuple[bytes, int]]) -> None:
        rewritten.extend(lsn for _, lsn in rewrites)
        append(rows, rewrites)

    with patch.object(store.engine.log, "append", counted):
        recall(store)
    assert len(rewritten) == 2
