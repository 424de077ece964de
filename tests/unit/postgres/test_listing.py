"""A page of conversations costs what it has, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_im.bridge.claims import Claims
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.reads import CallJob
from mqtt_im.store.postgres import tables
from mqtt_im.store.postgres.wire import Link, Statement
from mqtt_im.store.queries import listings
from tests.contract.test_store import NOW, Store
from tests.support.pgstore import PostgresStore

MANY = 60


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[Store]:
    claims = Claims()
    postgres = PostgresStore(database, tmp_path, claim=claims.take_back, unclaim=claims.release, online=())
    yield Store(postgres, postgres.engine, claims)
    postgres.close()


def test_a_page_reads_hardly_more_conversations_than_it_has(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them were read for each: with 11,000, 64 requests for one conversation had the reader's thread for seconds."""
    for number in range(MANY):
        store.say("ann", f"u{number}")
        store.ask("ann", rq.GroupCreate(id=f"g{number}", group=f"#g{number}", members=["bob"]))
    rows: list[int] = []
    one = Link.one

    def counted(link: Link, statement: Statement, *values: object) -> list[tuple[object, ...]]:
        found = one(link, statement, *values)
        if statement in (tables.ACTIVE_DIRECTS, tables.ACTIVE_GROUPS, tables.PARTS, tables.DIRECTS_OF):
            rows.append(len(found))
        return found

    def look(view: Readable) -> dict[str, object]:
        return listings.convs(view, Who("ann", "pc", NOW), rq.Convs(), 2, 10**6)

    monkeypatch.setattr(Link, "one", counted)
    job = CallJob(look, store.done.append)
    store.batches.run([job], NOW)
    assert len(job.result["convs"]) == 2
    assert 0 < sum(rows) <= 10
