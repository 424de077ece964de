"""Each test of this folder that asks for a `store` meets every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mqtt_im.bridge.claims import Claims
from mqtt_im.store.given import Given
from mqtt_im.store.memory.engine import MemoryEngine
from tests.support.pgstore import PostgresStore
from tests.support.store import SqliteStore

from .test_store import ONLINE, Store


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    claims = Claims()
    if request.param == "memory":
        memory = MemoryEngine(Given(claim=claims.take_back, online=ONLINE))
        yield Store(memory, memory, claims)
        return
    if request.param == "postgres":
        url = request.getfixturevalue("database")
        postgres = PostgresStore(url, tmp_path, claim=claims.take_back, unclaim=claims.release, online=ONLINE)
        yield Store(postgres, postgres.engine, claims)
        postgres.close()
        return
    sqlite = SqliteStore(tmp_path, claim=claims.take_back, unclaim=claims.release, online=ONLINE)
    yield Store(sqlite, sqlite.engine, claims)
    sqlite.close()
