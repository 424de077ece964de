"""The time of the log does not go back, whatever the clock does (INV-8)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from mqtt_im.core.records import decode
from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.requests import Send
from mqtt_im.store.jobs import FetchJob, RequestJob
from tests.support.store import SqliteStore


def send(store: SqliteStore, now: int) -> None:
    job = RequestJob(Who("ann", "tel", 0), Send(to="bob", body=Raw(b"1")), lambda _: None)
    store.run([job], now)
    assert job.refusal is None


@pytest.mark.parametrize("end", ["close", "crash"])
@pytest.mark.parametrize("lose", [False, True])
def test_a_clock_that_is_set_back_stands_still_over_a_restart_too(tmp_path: Path, end: str, lose: bool) -> None:
    store = SqliteStore(tmp_path)
    send(store, 5_000)
    send(store, 3_000)
    getattr(store, end)()
    store.reopen(lose)
    send(store, 1_000)
    send(store, 6_000)
    assert [decode(row).ts for _, row in store.engine.log.after(0)] == [5_000, 5_000, 5_000, 6_000]
    store.close()


START = 1_000_000_000
HOUR = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore(tmp_path, Limits(edit_window_s=60))
    yield found
    found.close()


def say(store: SqliteStore, body: str, after: int, **fields: Any) -> None:
    job = RequestJob(Who("ann", "pc", 0), Send(to="bob", body=Raw(b'"%b"' % body.encode()), **fields), lambda _: None)
    store.run([job], START + after)
    assert job.refusal is None


def offered(store: SqliteStore, after: int, last: int = 0) -> str:
    """What bob's device is offered at that time: the op of the item at `last`, or of the newest one."""
    job = FetchJob("bob", 0, 10, 10**6, lambda _: None)
    store.run([job], START + after)
    pos, entry = job.entries[last - 1]
    return str(json.loads(entry.item(pos, "bob", "tel", START + after))["op"])


def test_a_time_to_live_runs_by_the_clock_whatever_the_time_of_the_log_says(store: SqliteStore) -> None:
    """INV-8 holds `ts` up after the clock was put right; a command must not live so much longer."""
    say(store, "on", HOUR)
    say(store, "open the door", 0, ttl=2)
    assert offered(store, 1_000) == "msg"
    assert offered(store, 2_000) == "void"


def test_a_clock_that_is_set_back_ends_what_is_short(store: SqliteStore) -> None:
    """Nobody knows how long it was: rather too early than too late."""
    say(store, "open the door", HOUR, ttl=2)
    say(store, "tomorrow", HOUR, ttl=86_400)
    assert [offered(store, 1_000, pos) for pos in (1, 2)] == ["void", "msg"]


def test_what_was_sent_before_the_clock_was_set_back_can_not_be_changed_for_ever(store: SqliteStore) -> None:
    say(store, "old", HOUR)
    say(store, "new", 0)
    for seq, code in ((1, "forbidden"), (2, None)):
        job = RequestJob(Who("ann", "pc", 0), rq.Edit(id=f"e{seq}", conv="ann:bob", seq=seq, body=Raw(b"1")), lambda _: None)
        store.run([job], START + 1_000)
        assert (job.refusal.code if job.refusal else None) == code
