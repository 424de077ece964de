"""The search index's thread: what it promises to who searches, and what it survives."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.search import thread as search
from mqtt_im.search.file import FILE_NAME
from mqtt_im.search.finding import FOREVER, Query
from mqtt_im.search.index import SearchIndex
from mqtt_im.search.thread import Search
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries.reach import Part, Reach
from mqtt_im.store.sqlite.tables.files import LOG_FILE
from tests.support.raw import PATIENCE_S
from tests.support.store import SqliteStore

QUERY = Query(["apple"], Reach([Part("alice:bob", 0, FOREVER, ((1, FOREVER),))]))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_RETRY_S", 0.0)


@asynccontextmanager
async def running(store: SqliteStore) -> AsyncIterator[Search]:
    found = Search(store.data_dir, store.engine.epoch)
    found.start()
    try:
        yield found
    finally:
        await found.stop()


def commit(store: SqliteStore, *requests: rq.Request) -> None:
    jobs = [RequestJob(Who("alice", "phone", 0), request, lambda _: None) for request in requests]
    store.run(jobs, 1000)
    assert [job.refusal for job in jobs if job.refusal] == []


def message(body: bytes = b'"an apple"') -> rq.Send:
    return rq.Send(to="bob", body=msgspec.Raw(body))


async def count(search: Search) -> int:
    return len((await search.find(QUERY, FOREVER, 100_000)).lsns)


def test_a_search_finds_what_was_committed_before_it(store: SqliteStore) -> None:
    async def main() -> None:
        async with running(store) as search:
            for number in range(1, 20):
                commit(store, message())
                assert await count(search) == number
            commit(store, *(message() for _ in range(3000)))
            assert await count(search) == 3019

    asyncio.run(main())


def test_an_index_that_is_far_behind_answers_with_what_it_has(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CATCH_UP_S", 0.0)
    monkeypatch.setattr(search, "BATCH_ROWS", 10)

    async def main() -> None:
        commit(store, *(message() for _ in range(300)))
        async with running(store) as search:
            assert await count(search) <= 300
            while await count(search) < 300:
                pass

    asyncio.run(main())


def held(store: SqliteStore, *words: bytes) -> set[bytes]:
    """Which of these words are in a file of the index."""
    found = b"".join(file.read_bytes() for file in store.data_dir.glob(FILE_NAME + "*"))
    return {word for word in words if word in found}


async def gone(store: SqliteStore, *words: bytes) -> None:
    """None of these words is in a file of the index, without anybody searching or stopping."""
    began = time.monotonic()
    while left := held(store, *words):
        assert time.monotonic() < began + PATIENCE_S, f"still there: {left}"
        await asyncio.sleep(0.02)


def test_what_was_recalled_leaves_the_file_by_itself(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """INV-9: from all shards, one after the other or together, the write-ahead file included."""
    monkeypatch.setattr("mqtt_im.search.shards.SHARD_ROWS", 4)
    words = [b"regretted%02d" % number for number in range(48)]

    async def main() -> None:
        commit(store, *(message(b'"%b apple"' % word) for word in words))
        async with running(store) as search:
            assert await count(search) == len(words)
            assert held(store, *words) == set(words)
            commit(store, rq.Recall(id="r1", conv="alice:bob", seq=1))
            search.take_back("alice:bob", 1)
            await gone(store, words[0])
            recalled = range(2, len(words) + 1, 3)
            for seq in recalled:
                commit(store, rq.Recall(id=f"r{seq}", conv="alice:bob", seq=seq))
                search.take_back("alice:bob", seq)
            await gone(store, *(words[seq - 1] for seq in recalled))
            assert len(held(store, *words)) == len(words) - 1 - len(recalled) == await count(search)

    asyncio.run(main())


def test_what_was_recalled_does_not_wait_until_the_log_was_followed(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        commit(store, message(b'"regretted apple"'), message())
        async with running(store) as search:
            assert await count(search) == 2
            monkeypatch.setattr(SearchIndex, "follow", lambda *_: False)  # as if it was far behind
            commit(store, rq.Recall(id="r", conv="alice:bob", seq=1))
            search.take_back("alice:bob", 1)
            await gone(store, b"regretted")
            monkeypatch.undo()
            assert await count(search) == 1

    asyncio.run(main())


def test_a_stop_waits_for_what_was_recalled_last(store: SqliteStore) -> None:
    async def main() -> None:
        commit(store, message(b'"regretted apple"'), message(), message(b'"regretted too, apple"'))
        async with running(store) as search:
            assert await count(search) == 3
            for seq in (1, 3):
                commit(store, rq.Recall(id=f"r{seq}", conv="alice:bob", seq=seq))
        assert not held(store, b"regretted")

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"", b"this is no database" * 1000])
def test_a_damaged_file_is_made_anew(store: SqliteStore, content: bytes) -> None:
    async def main() -> None:
        commit(store, message())
        (store.data_dir / FILE_NAME).write_bytes(content)
        async with running(store) as search:
            await eventually(search, 1)

    asyncio.run(main())


@pytest.mark.parametrize("method", ["follow", "find", "log_end"])
@pytest.mark.parametrize(
    "error", [sqlite3.DatabaseError("malformed"), sqlite3.OperationalError("disk is full"), OSError("gone"), KeyError("a fault")]
)
def test_trouble_is_told_and_survived(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    troubles = [error, error]
    original = getattr(SearchIndex, method)

    def troubled(index: SearchIndex, *args: Any, **options: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return original(index, *args, **options)

    async def main() -> None:
        commit(store, message(), message())
        async with running(store) as search:
            await eventually(search, 2)
            monkeypatch.setattr(SearchIndex, method, troubled)
            commit(store, rq.Recall(id="r", conv="alice:bob", seq=1), message())
            search.take_back("alice:bob", 1)
            await eventually(search, 2)
        assert not troubles
        assert search.failing is None

    asyncio.run(main())
    assert "the index works again" in caplog.text


async def eventually(search: Search, wanted: int) -> None:
    """Search again while it is refused; nothing but `unavailable` may be."""
    for _ in range(1000):
        try:
            if await count(search) == wanted and search.failing is None:
                return
        except Refusal as refusal:
            if refusal.code != "unavailable" or not refusal.retry:
                raise
    raise AssertionError(f"{wanted} were never found: {search.failing}")


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk is full"), KeyError("a fault")])
def test_trouble_at_the_end_ends_it_all_the_same(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def troubled(search: Search, index: SearchIndex) -> None:
        raise error

    monkeypatch.setattr(Search, "_finish", troubled)

    async def main() -> None:
        async with running(store) as search:
            assert await count(search) == 0

    asyncio.run(main())
    assert "the index is not up to date" in caplog.text


@pytest.mark.parametrize("state", ["good", "damaged", "absent"])
def test_where_no_server_runs_the_index_is_refreshed_by_hand(store: SqliteStore, state: str) -> None:
    async def main() -> None:
        commit(store, message(b'"regretted apple"'), message())
        async with running(store) as found:
            assert await count(found) == 2

    asyncio.run(main())
    commit(store, rq.Recall(id="r", conv="alice:bob", seq=1), message())
    file = store.data_dir / FILE_NAME
    if state == "damaged":
        file.write_bytes(b"regretted" * 1000)
    elif state == "absent":
        file.unlink()
    search.refresh(store.data_dir, store.engine.epoch)
    assert file.exists() is (state == "good")
    assert not any(b"regretted" in part.read_bytes() for part in store.data_dir.glob(FILE_NAME + "*"))


def test_retention_is_followed_under_load(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_SWEEP_EVERY_S", 0.0)

    async def main() -> None:
        commit(store, message(), message())
        async with running(store) as found:
            assert await count(found) == 2
            with closing(sqlite3.connect(store.data_dir / LOG_FILE)) as connection, connection:
                connection.execute("DELETE FROM log WHERE lsn = 1")
                connection.execute("INSERT INTO fold (base, plan) VALUES (0, x'')")
            sent = 2
            while await count(found) == sent:
                commit(store, message())  # so there is always something to follow
                sent += 1
            assert await count(found) == sent - 1

    asyncio.run(main())


def test_nobody_waits_for_ever(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        found = Search(store.data_dir, store.engine.epoch)
        asks = [asyncio.ensure_future(count(found)) for _ in range(3)]
        await asyncio.sleep(0)
        found.start()
        await found.stop()
        for outcome in await asyncio.gather(*asks, return_exceptions=True):
            assert outcome == 0 or (isinstance(outcome, Refusal) and outcome.code == "unavailable")
        with pytest.raises(Refusal):
            await count(found)

    asyncio.run(main())
