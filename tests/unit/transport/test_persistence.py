"""`broker.db`: group commits, failures, and files that cannot be used."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mqtt_im.postgres.connecting import Database
from mqtt_im.transport.embedded.sessions import tables as sql
from mqtt_im.transport.embedded.sessions.persistence import Persistence
from mqtt_im.transport.embedded.sessions.shared import SharedPersistence
from tests.unit.transport.harness import on_loop

log = logging.getLogger("test.persistence")


class Counts:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, name: str, amount: float = 1, **labels: str) -> None:
        self.seen.append(name)


OpenStore = Callable[[Counts], Persistence]


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the same store each time; each test meets both databases."""
    if request.param == "sqlite":
        return lambda counts: Persistence(tmp_path / "broker.db", counts, log)
    url = request.getfixturevalue("database")
    return lambda counts: SharedPersistence(SharedPersistence.tables(Database(url)), counts, log)


async def committed(store: Persistence) -> bool:
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    store.committed(future.set_result)
    return await future


@on_loop
async def test_what_is_committed_is_found(open_store: OpenStore) -> None:
    store = open_store(Counts())
    try:
        store.write(sql.SAVE_SESSION, "alice", "phone", "s1", '{"a": 1}', True, 5, 60)
        store.write(sql.ENQUEUE, "s1", 4, 2, False, 1, "ä/b", b"\0\xff", b"\1\1", 7, "$share/g/+")
        store.write(sql.RECEIVED, "s1", 77)
        store.write(sql.RETAIN, "ä/b", 1, b"kept", b"\1\1", 9)
        assert await committed(store)
        assert store.idle
        found = store.session("alice", "phone")
        assert found is not None
        assert (found.id, found.filters, found.received) == ("s1", {"a": 1}, frozenset({77}))
        assert (found.seen, found.expires) == (5, 60)
        assert [(row.properties, row.expires, row.share) for row in found.queue] == [(b"\1\1", 7, "$share/g/+")]
        assert [(row.seq, row.qos, row.stage, row.topic, row.payload) for row in found.queue] == [(4, 2, 1, "ä/b", b"\0\xff")]
        assert store.plain_sessions() == [found]
        assert store.retained() == [("ä/b", 1, b"kept", b"\1\1", 9)]
        assert store.session("alice", "tablet") is None
    finally:
        await store.close()


@on_loop
async def test_what_nobody_waits_for_is_written_too(open_store: OpenStore) -> None:
    store = open_store(Counts())
    store.write(sql.RETAIN, "a", 0, b"", b"", 0)
    await store.close()
    store = open_store(Counts())
    assert store.retained() == [("a", 0, b"", b"", 0)]
    await store.close()


@on_loop
async def test_a_failed_transaction_is_told_and_the_next_one_works(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counts = Counts()
    store = open_store(counts)
    try:
        store.write(sql.RETAIN, "a", 0, b"", b"", 0)
        store.write("INSERT INTO nowhere VALUES (1)")
        assert not await committed(store)
        assert counts.seen == ["session_store_failures"]
        assert "nowhere" in caplog.text
        assert store.idle
        assert store.retained() == []
        store.write(sql.RETAIN, "a", 0, b"", b"", 0)
        assert await committed(store)
    finally:
        await store.close()


@on_loop
async def test_a_locked_database_is_a_failure_of_the_transaction(tmp_path: Path) -> None:
    store = Persistence(tmp_path / "broker.db", Counts(), log, busy_timeout_ms=10)
    other = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        store.write(sql.RETAIN, "a", 0, b"", b"", 0)
        assert not await committed(store)
        other.execute("ROLLBACK")
        store.write(sql.RETAIN, "a", 0, b"", b"", 0)
        assert await committed(store)
    finally:
        other.close()
        await store.close()


@on_loop
async def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is no database" * 100)
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for path in (garbage, newer, tmp_path / "missing" / "broker.db"):
        with pytest.raises(OSError, match=path.name):
            Persistence(path, Counts(), log)


_SCHEMA_1 = """
CREATE TABLE session (user TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, filters TEXT NOT NULL, plain INTEGER NOT NULL,
                      seen INTEGER NOT NULL, PRIMARY KEY (user, name));
CREATE UNIQUE INDEX session_id ON session (id);
CREATE INDEX session_plain ON session (plain);
CREATE TABLE queued (session TEXT NOT NULL, seq INTEGER NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL,
                     stage INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL, PRIMARY KEY (session, seq));
CREATE TABLE received (session TEXT NOT NULL, packet_id INTEGER NOT NULL, PRIMARY KEY (session, packet_id)) WITHOUT ROWID;
CREATE TABLE retained (topic TEXT NOT NULL PRIMARY KEY, qos INTEGER NOT NULL, payload BLOB NOT NULL);
INSERT INTO session VALUES ('alice', 'phone', 's1', '{"a/+": 1}', 1, 7);
INSERT INTO queued VALUES ('s1', 3, 1, 0, 0, 'a/b', x'00ff');
INSERT INTO received VALUES ('s1', 9);
INSERT INTO retained VALUES ('a/c', 1, x'6b');
PRAGMA user_version = 1;
"""
"""What the first version left, which spoke 3.1.1 alone."""


@on_loop
async def test_the_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(_SCHEMA_1)
    connection.close()
    before = int(time.time())
    for _ in range(2):  # the second time it is of this version
        store = Persistence(path, Counts(), log, longest_expiry=100)
        try:
            found = store.session("alice", "phone")
            assert found is not None
            assert (found.id, found.filters, found.received, found.expires) == ("s1", {"a/+": 1}, frozenset({9}), 100)
            assert found.seen >= before
            assert [
                (row.seq, row.qos, row.topic, row.payload, row.properties, row.expires, row.share) for row in found.queue
            ] == [(3, 1, "a/b", b"\0\xff", b"", 0, "")]
            assert store.retained() == [("a/c", 1, b"k", b"", 0)]
            store.write(sql.RETAIN, "a/c", 1, b"k", b"", 0)
            assert await committed(store)
        finally:
            await store.close()
