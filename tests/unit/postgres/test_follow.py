"""The log in PostgreSQL is read a part at a time: nothing is left out, nothing comes twice, and large rows are few."""

from __future__ import annotations

from pathlib import Path

from msgspec import Raw

from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.postgres.connecting import Database
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.postgres.follow import MAX_BYTES, LogReader
from tests.support.pgstore import PostgresStore


def test_large_rows_are_read_a_few_at_a_time(database: str, tmp_path: Path) -> None:
    store = PostgresStore(database, tmp_path)
    for number in range(50):
        body = Raw(b'"' + b"x" * (60_000 if number % 2 else 3) + b'"')
        store.run([RequestJob(Who("ann", "pc", 0), rq.Send(id=f"{number}", to="bob", body=body), lambda _: None)], 1_000_000)
    reader = LogReader(Database(database))
    reader.settle(5.0)
    parts, last = list[list[int]](), 0
    while rows := reader.after(last, 20):
        size = sum(len(record.body or b"") for _, record in rows if isinstance(record, Message))
        assert size < MAX_BYTES + 60_000 and len(rows) <= 20
        parts.append([record.seq for _, record in rows if isinstance(record, Message)])
        last = rows[-1][0]
    reader.close()
    store.close()
    assert [seq for part in parts for seq in part] == list(range(1, 51))
    assert [len(part) for part in parts] == [20, 20, 10]


def test_what_stands_behind_enough_bytes_comes_with_the_next_part(database: str, tmp_path: Path) -> None:
    store = PostgresStore(database, tmp_path)
    for number in range(40):
        body = Raw(b'"' + b"x" * 60_000 + b'"')
        store.run([RequestJob(Who("ann", "pc", 0), rq.Send(id=f"{number}", to="bob", body=body), lambda _: None)], 1_000_000)
    reader = LogReader(Database(database))
    reader.settle(5.0)
    last, parts = 0, list[tuple[int, bool]]()
    while rows := reader.after(last, 500):
        parts.append((len(rows), reader.more))
        last = rows[-1][0]
    assert parts == [(18, True), (18, True), (4, False)]
    reader.close()
    store.close()
