"""The client's store on disk: what it must not tell."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from mqtt_im.client.store.interface import Row
from mqtt_im.client.store.memory import MemoryStore
from mqtt_im.client.store.sqlite import SqliteStore
from mqtt_im.client.store.writer import Writer


def test_no_log_says_what_people_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("peewee").setLevel(logging.DEBUG)
    store = SqliteStore(tmp_path / "a.db", "full")
    store.open("alice", "pc")
    row = Row(1, "c1", "send", {"to": "bob"}, "json", b"the secret", 1, False, 0.0, 0.0, "", None, None)
    with store.transaction():
        store.add(row)
        store.replace(row)
        store.tried([1])
    store.close()
    again = SqliteStore(tmp_path / "a.db", "full")
    assert again.open("alice", None).rows[0].raw == b"the secret"
    again.close()
    assert "secret" not in caplog.text


def test_what_is_on_disk_is_told_in_the_order_of_the_calls_however_they_were_written() -> None:
    """Else what two tasks send could change places: an entry joins the outbox when it is told."""

    async def main() -> None:
        writer = Writer(MemoryStore())
        loop = asyncio.get_running_loop()
        told: list[int] = []
        batches: list[list[tuple[asyncio.Future[Any], None]]] = []
        for first in (0, 100, 200):
            batches.append([])
            for number in range(first, first + 100):
                future: asyncio.Future[Any] = loop.create_future()
                future.add_done_callback(lambda _future, number=number: told.append(number))  # type: ignore[misc]
                batches[-1].append((future, None))
        for batch in batches:
            writer._report(batch)
        await asyncio.gather(*(future for batch in batches for future, _ in batch))
        assert told == list(range(300))

    asyncio.run(main())
