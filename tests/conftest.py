"""How thoroughly hypothesis looks, and PostgreSQL for whoever asks for it.

`MQTT_IM_HYPOTHESIS=long` looks for hours, the default for seconds and always alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mqtt_im.tables import Folder, Place
from tests.support.postgres import Cluster, new_database

settings.register_profile("common", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
common = settings.get_profile("common")
settings.register_profile("default", common, database=None, derandomize=True)
settings.register_profile("long", common, max_examples=5_000, stateful_step_count=100)
settings.load_profile(os.environ.get("MQTT_IM_HYPOTHESIS", "default"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server that all tests of this process share: whoever stops it has one of its own (`own_postgres`)."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def own_postgres() -> Iterator[Cluster]:
    """A PostgreSQL server of this test's own, to be killed, frozen and started again."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Place]]:
    """Makes a `Place` each time, as each process has one of its own; all have the same tables. Each test meets both databases."""
    if request.param == "sqlite":
        yield lambda: Folder(tmp_path)
        return
    from mqtt_im.postgres.connecting import Database
    from mqtt_im.tables.postgres import Schemas

    url = request.getfixturevalue("database")
    made: list[Schemas] = []

    def make() -> Schemas:
        made.append(Schemas(Database(url)))
        return made[-1]

    yield make
    for place in made:
        place.close()
