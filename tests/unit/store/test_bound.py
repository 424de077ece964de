"""What SQLite keeps of statements is bounded: each keeps what its last call has bound, as long as it is prepared (INV-16)."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.search.index import SearchIndex
from mqtt_im.shares import USUAL_MB, Bounds
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite.tables.files import open_log
from mqtt_im.store.sqlite.tables.log import Log
from tests.support.store import SqliteStore

MOST = 128 << 10
"""Bytes that one statement keeps, and an item more."""
LARGE = 60_000


class Bound:
    """A connection that notes what each of its statements has bound last, in bytes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.kept: dict[str, int] = defaultdict(int)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        self.kept[statement] = _size(values)
        return self._connection.execute(statement, values)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        every = list(rows)
        self.kept[statement] = _size(every[-1]) if every else 0
        return self._connection.executemany(statement, every)

    @property
    def largest(self) -> int:
        return max(self.kept.values())


def _size(values: Sequence[Any]) -> int:
    return sum(len(value) for value in values if isinstance(value, bytes | str))


@contextmanager
def logged(folder: Path) -> Iterator[tuple[Log, Bound]]:
    with closing(open_log(folder)) as database:
        bound = Bound(database.connection())  # type: ignore[no-untyped-call]

        class Connected:
            def connection(self) -> Bound:
                return bound

        yield Log(Connected()), bound


@pytest.mark.parametrize("rewrites", [[], [(b"other", 1)]])
def test_a_batch_of_large_records_leaves_little_with_the_log(tmp_path: Path, rewrites: list[tuple[bytes, int]]) -> None:
    with logged(tmp_path) as (log, bound):
        log.append([(1, b"first")], [])
        last = 1
        for size in (1, 2, 3, 10, 64, 65, 130):
            rows = [(last + number, b"x" * LARGE) for number in range(1, size + 1)]
            log.append(rows, rewrites)
            last += size
        assert bound.largest <= MOST
        assert log.last() == last
        assert log.get(last) == b"x" * LARGE
        assert log.get(1) == (b"other" if rewrites else b"first")


def test_a_batch_of_large_records_is_one_transaction(tmp_path: Path) -> None:
    with logged(tmp_path) as (log, _):
        log.append([(3, b"there")], [])
        with pytest.raises(sqlite3.IntegrityError):
            log.append([(number, b"x" * LARGE) for number in (1, 2, 3)], [])
        assert [lsn for lsn, _ in log.after(0)] == [3]


def test_large_texts_leave_little_with_the_search_index(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    try:
        for number in range(70):
            body = Raw(b'"%b w%d"' % (b"word " * (LARGE // 5), number))
            store.run([RequestJob(Who("ann", "pc", 0), rq.Send(id=str(number), to="bob", body=body), lambda _: None)], 1_000)
        with closing(SearchIndex(tmp_path, store.engine.epoch, Bounds(USUAL_MB // 4))) as index:
            index._shards.sql = bound = Bound(index._shards.sql)  # type: ignore[assignment]
            steps = 0
            while index.follow(1_000):
                steps += 1
            assert bound.largest <= MOST
            assert steps > 1, "little is in memory at a time"
            assert index._shards.sql.execute("SELECT count(*) FROM doc").fetchone() == (70,)
            assert index._shards.sql.execute("SELECT rowid FROM word_0 WHERE word_0 MATCH 'w69'").fetchone() == (70,)
    finally:
        store.close()


def test_pages_in_memory_are_a_share_of_what_the_process_may_have(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    try:
        pages = []
        for memory_mb in (USUAL_MB, USUAL_MB // 4):
            bounds = Bounds(memory_mb)
            with closing(open_log(tmp_path, bounds=bounds)) as log:
                pages.append(-log.pragma("cache_size"))
            with closing(SearchIndex(tmp_path, store.engine.epoch, bounds)) as index:
                pages.append(-index._shards.sql.execute("PRAGMA cache_size").fetchone()[0])
        usual, less = pages[:2], pages[2:]
        assert all(few < many / 4 for few, many in zip(less, usual, strict=True))
    finally:
        store.close()
