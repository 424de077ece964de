"""Which nodes there are: names, deaths and the fence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mqtt_im.postgres import nodes
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.meta import prepare
from mqtt_im.protocol.errors import MqttImError
from mqtt_im.store.postgres.node import Fence
from mqtt_im.store.postgres.wire import BEGIN, COMMIT, Link, Step
from tests.support.postgres import enter


@pytest.fixture
def there(database: str) -> Database:
    return Database(database)


@pytest.fixture
def connection(there: Database) -> Iterator[Connection]:
    with there.connect("test") as connection:
        prepare(there, connection, nodes.DDL)
        yield connection


def _fence(me: nodes.Me) -> Fence:
    fence = Fence(me)
    fence.begin()
    return fence


def _age(connection: Connection, me: nodes.Me) -> None:
    connection.execute("UPDATE node SET seen = seen - interval '1 minute' WHERE incarnation = %s", (me.incarnation,))


def test_each_node_has_a_number_of_its_own(there: Database, connection: Connection, tmp_path: Path) -> None:
    one, two = (enter(there, connection, name, tmp_path / name) for name in ("one", "two"))
    assert (one.node, two.node) == (1, 2) and one.incarnation != two.incarnation
    assert nodes.living(connection) == {1: (one.incarnation, "one"), 2: (two.incarnation, "two")}
    nodes.leave(connection, one)
    assert enter(there, connection, "three", tmp_path / "three").node == 1


def test_a_second_node_of_a_living_name_is_refused(there: Database, connection: Connection, tmp_path: Path) -> None:
    one = enter(there, connection, "one", tmp_path / "a")

    class Beating(Connection):
        def execute(self, *rest: Any, **more: Any) -> Any:
            nodes.beat(connection, one)
            return super().execute(*rest, **more)

    other = there.connect("test")
    other.__class__ = Beating
    with other, pytest.raises(MqttImError, match="a node named one runs already") as told:
        enter(there, other, "one", tmp_path / "b")
    assert told.value.code == "node" and nodes.beat(connection, one)


def test_a_node_that_was_killed_takes_its_place_at_once(there: Database, connection: Connection, tmp_path: Path) -> None:
    before = enter(there, connection, "one", tmp_path / "a")
    after = enter(there, connection, "one", tmp_path / "a")
    assert after.incarnation != before.incarnation and not nodes.beat(connection, before) and nodes.beat(connection, after)


def test_the_place_of_a_dead_node_is_free_for_another_machine(there: Database, connection: Connection, tmp_path: Path) -> None:
    before = enter(there, connection, "one", tmp_path / "a")
    _age(connection, before)
    enter(there, connection, "one", tmp_path / "b")
    assert not nodes.beat(connection, before)


def test_a_dead_node_is_buried_once_and_its_fence_holds(there: Database, connection: Connection, tmp_path: Path) -> None:
    dead, living = (enter(there, connection, name, tmp_path / name) for name in ("dead", "living"))
    _age(connection, dead)
    assert nodes.bury(connection) == [(dead.node, dead.incarnation, "dead")] and nodes.bury(connection) == []
    link = Link(there.connect("test"))
    with pytest.raises(psycopg.errors.DivisionByZero):
        link.run(Step(BEGIN), _fence(dead).next(), Step(COMMIT))
    link.roll_back()
    link.run(Step(BEGIN), _fence(living).next(), Step(COMMIT))
    link.close()


def test_a_node_in_the_middle_of_a_commit_is_buried_later(there: Database, connection: Connection, tmp_path: Path) -> None:
    slow = enter(there, connection, "slow", tmp_path)
    _age(connection, slow)
    link = Link(there.connect("test"))
    link.run(Step(BEGIN), _fence(slow).next())
    assert nodes.bury(connection) == []  # and nobody waits for it
    link.run(Step(COMMIT))
    assert nodes.bury(connection) == [(slow.node, slow.incarnation, "slow")]
    link.close()


def test_the_name_is_made_once(tmp_path: Path) -> None:
    assert nodes.own_name("", tmp_path, "host:1883") == "host:1883"
    assert nodes.own_name("", tmp_path, "other:1884") == "host:1883"
    assert nodes.own_name("chosen", tmp_path, "other:1884") == "chosen"
