"""A long inbox: few statements a page, what became of each message in it, and what of it stays in memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite import flusher
from mqtt_im.store.sqlite.state import contents
from tests.support.store import SqliteStore

PAGE = 100


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Ten senders have each sent bob twenty messages in turn; of the first ten of each, some were edited or recalled."""
    store = SqliteStore(tmp_path)
    for seq in range(1, 21):
        ask(store, *((f"s{n}", rq.Send(id=f"m{seq}", to="bob", body=Raw(b'"%d"' % seq))) for n in range(10)))
    for number in range(10):
        conv = f"bob:s{number}"
        ask(store, (f"s{number}", rq.Edit(id="e", conv=conv, seq=3, body=Raw(b'"new"'))))
        ask(store, (f"s{number}", rq.Recall(id="r", conv=conv, seq=5)))
        ask(store, ("bob", rq.React(id=f"a{number}", conv=conv, seq=7, emoji="+")))
    store.close()
    store.reopen()
    yield store
    store.close()


def ask(store: SqliteStore, *requests: tuple[str, rq.Request]) -> None:
    jobs = [RequestJob(Who(user, "pc", 0), request, lambda _: None) for user, request in requests]
    store.run(jobs, 1_700_000_000_000)
    assert [job.refusal for job in jobs] == [None] * len(jobs)


def page(store: SqliteStore, after: int, limit: int = PAGE) -> list[dict[str, Any]]:
    entries = store.engine.entries(store.engine.state.user("bob"), after, limit, 1 << 20)
    return [json.loads(entry.item(pos, "bob", "pc", store.engine.now)) for pos, entry in entries]


def test_a_page_shows_what_became_of_its_messages(store: SqliteStore) -> None:
    items = page(store, 0) + page(store, PAGE)
    assert [item["pos"] for item in items] == list(range(1, 201))
    for item in items:
        assert item.get("edited", False) == (item["seq"] == 3)
        assert item.get("recalled", False) == (item["seq"] == 5)
        assert item.get("reactions") == ({"+": ["bob"]} if item["seq"] == 7 else None)
        assert item.get("body") == {3: "new", 5: None}.get(item["seq"], str(item["seq"]))


def test_a_page_takes_few_statements(store: SqliteStore) -> None:
    """A statement for each item is what a device that is far behind would wait for most."""
    asked: list[str] = []
    connections: list[sqlite3.Connection] = [store.engine.log._conn, store.engine.projection._conn]
    for connection in connections:
        connection.set_trace_callback(asked.append)
    assert len(page(store, 0)) == PAGE
    # Of these ten messages of its own each conversation's edit is looked up by itself.
    assert len(asked) - 10 <= 10, asked


def test_the_pages_of_a_long_inbox_fill_no_memory(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_AMENDED", 50)
    ask(store, ("s0", rq.React(id="late", conv="bob:s0", seq=1, emoji="!")))
    for after in range(0, 200, 20):
        page(store, after, 20)
        assert len(store.engine.state._amended) <= 50 + 20 + 1
    assert page(store, 0, 1)[0]["reactions"] == {"!": ["s0"]}


def test_large_messages_are_written_before_they_fill_the_memory(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher, "FLUSH_BYTES", 100_000)
    for number in range(50):
        ask(store, ("s0", rq.Send(id=f"large{number}", to="bob", body=Raw(b'"%b"' % (b"x" * 10_000)))))
        store.keep_up()
        live, frozen = store.engine.state.live, store.engine.state.frozen
        assert live.size + (frozen.size if frozen is not None else 0) <= 250_000
    store.crash()
    store.reopen()
    assert store.engine.state.live.size <= 300_000 + 10_500
