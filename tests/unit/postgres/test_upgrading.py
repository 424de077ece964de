"""A new release beside the old one, and the upgrade once that has gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtt_im.postgres import meta, nodes, upgrading
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import WrongDatabase
from mqtt_im.protocol.errors import StoreError

FIRST = nodes.DDL[0].replace(", knows int2 NOT NULL DEFAULT 1", "")
"""As a release made it that knew of no others."""


@pytest.fixture(autouse=True)
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """This release is the first one."""
    for module in (meta, nodes):
        monkeypatch.setattr(module, "SCHEMA", 1)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """This release knows a schema more."""
    for module in (meta, nodes):
        monkeypatch.setattr(module, "SCHEMA", 2)
    monkeypatch.setattr(upgrading, "UPGRADES", {2: ("ALTER TABLE something ADD COLUMN y int", "UPDATE something SET y = x")})


def _schema(there: Database, connection: Connection) -> int:
    found = meta.read(there, connection)
    assert found is not None
    return found.schema


def _start(there: Database, connection: Connection, name: str, folder: Path) -> nodes.Me:
    meta.prepare(there, connection, (FIRST, "CREATE TABLE something (x int)", "INSERT INTO something VALUES (7)"))
    me = nodes.Me(name)
    (folder / name).mkdir()
    nodes.register(there, connection, me, folder / name)
    return me


def test_a_column_that_the_first_release_did_not_have_is_added_by_a_start(database: str, tmp_path: Path) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        _start(there, connection, "one", tmp_path)
        assert connection.execute("SELECT name, knows FROM node").fetchall() == [("one", 1)]
        meta.prepare(there, connection, ())  # once


def test_the_upgrade_waits_for_the_last_node_of_the_old_release(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        old = _start(there, connection, "old", tmp_path)
        request.getfixturevalue("newer")
        new = _start(there, connection, "new", tmp_path)  # beside it, on the tables as they are
        assert _schema(there, connection) == 1
        with pytest.raises(StoreError, match="nodes of an older version run on it: old; stop them first"):
            upgrading.upgrade(there, connection)
        nodes.leave(connection, old)
        assert upgrading.upgrade(there, connection) == (1, 2)
        assert connection.execute("SELECT y FROM something").fetchall() == [(7,)] and nodes.beat(connection, new)
        assert upgrading.upgrade(there, connection) == (2, 2)


def test_an_upgrade_that_fails_has_done_nothing(
    database: str, tmp_path: Path, newer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        _start(there, connection, "new", tmp_path)
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
        monkeypatch.setattr(upgrading, "UPGRADES", {2: ("ALTER TABLE something ADD COLUMN y int", "nonsense")})
        with pytest.raises(WrongDatabase, match="syntax error"):
            upgrading.upgrade(there, connection)
        assert _schema(there, connection) == 1
        assert connection.execute("SELECT * FROM something").fetchall() == [(7,)]


def test_the_old_release_does_not_start_on_upgraded_tables(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        _start(there, connection, "one", tmp_path)
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema'")
        for start in (lambda: meta.prepare(there, connection, ()), lambda: upgrading.upgrade(there, connection)):
            with pytest.raises(WrongDatabase, match="made by a newer version"):
                start()


def test_there_must_be_a_store(database: str) -> None:
    there = Database(database)
    with there.connect("test") as connection, pytest.raises(WrongDatabase, match="there is no store"):
        upgrading.upgrade(there, connection)
