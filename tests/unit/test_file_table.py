"""The table of files, in a file of its own and in the database of many nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mqtt_im.core.model import Upload
from mqtt_im.files.table import FileTable, Stored
from mqtt_im.protocol.errors import StoreError
from mqtt_im.tables import Place


@pytest.fixture
def table(new_place: Callable[[], Place]) -> Iterator[FileTable]:
    table = FileTable(new_place())
    yield table
    table.close()


def _stored(number: int, owner: str = "alice") -> Stored:
    return Stored(f"f{number}", owner, "a name " + "ü" * 120, "text/" + "x" * 300, 10 * number, "0" * 64, 1000 + number)


def test_what_was_uploaded_is_known_to_every_process(table: FileTable, new_place: Callable[[], Place]) -> None:
    table.add(_stored(1))
    other = FileTable(new_place())
    assert other.get("f1") == _stored(1) and other.get("f2") is None and not other.is_new
    assert other.upload("f1") == Upload("f1", "alice", _stored(1).name, _stored(1).type, 10, ())
    assert (other.used("alice"), other.used("bob"), other.total()) == (10, 0, (1, 10))
    other.close()


def test_a_file_is_known_once(table: FileTable) -> None:
    table.add(_stored(1))
    with pytest.raises(StoreError):
        table.add(_stored(1, "bob"))
    assert table.get("f1") == _stored(1)


def test_who_carries_a_file_may_be_said_twice(table: FileTable) -> None:
    for number in (1, 2, 3):
        table.add(_stored(number))
    for _ in range(2):
        table.carry([("f1", "alice:bob", 7), ("f2", "#ops", 8), ("f2", "#ops", 9)])
    upload = table.upload("f2")
    assert upload is not None and sorted(upload.carriers) == [("#ops", 8), ("#ops", 9)]
    assert table.uncarried(9999, 10) == ["f3"] and table.uncarried(1003, 10) == []
    assert table.carried_after("", 10) == ["f1", "f2"] and table.carried_after("f1", 10) == ["f2"]
    assert table.ids("f1", 1) == ["f2"] and sorted(table.owned("alice")) == ["f1", "f2", "f3"]
    table.remove(["f2"])
    assert table.upload("f2") is None and table.carried_after("", 10) == ["f1"]


def test_one_of_those_who_carry_a_file_no_more_says_that_there_were_any(table: FileTable) -> None:
    table.add(_stored(1))
    table.carry([("f1", "alice:bob", number) for number in (7, 8, 9)])
    table.carry_no_more("f1", [("alice:bob", 7)])
    assert sorted(_carriers(table)) == [("alice:bob", 8), ("alice:bob", 9)]
    for _ in range(2):
        table.carry_no_more("f1", [("alice:bob", 8), ("alice:bob", 9)])
        assert len(_carriers(table)) == 1
    assert table.carried_after("", 10) == ["f1"]


def _carriers(table: FileTable) -> tuple[tuple[str, int], ...]:
    upload = table.upload("f1")
    assert upload is not None
    return upload.carriers


def test_the_store_of_the_carriers_has_a_name(table: FileTable) -> None:
    assert table.is_new and table.epoch == ""
    table.add(_stored(1))
    table.carry([("f1", "alice:bob", 7)])
    for epoch in ("one", "two"):
        table.begin(epoch, ())
        assert table.epoch == epoch and table.carried_after("", 10) == []
