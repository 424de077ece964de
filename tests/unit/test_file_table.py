"""The table of files, in a file of its own and in the database of many nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import peewee
import pytest

from mqtt_im.core.model import Upload
from mqtt_im.core.records import Message
from mqtt_im.files.table import Aged, FileTable, Stored
from mqtt_im.protocol.errors import StoreError
from mqtt_im.tables import Place

FIRST = Aged(0, "", False)


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
    upload = other.upload("f1")
    assert upload is not None and not upload.carriers
    assert upload == Upload("f1", "alice", _stored(1).name, _stored(1).type, 10, upload.carriers)
    assert (other.used("alice"), other.used("bob"), other.total()) == ((1, 10), (0, 0), (1, 10))
    other.close()


def test_what_a_user_has_is_known_whatever_comes_and_goes(table: FileTable) -> None:
    for number in (1, 2, 3):
        table.add(_stored(number))
        assert table.used("alice").files == number
    table.add(_stored(4, "bob"))
    with pytest.raises(StoreError):
        table.add(_stored(3))
    table.remove(["f2", "f4", "f5"])
    table.remove(["f2"])
    assert (table.used("alice"), table.used("bob")) == ((2, 40), (0, 0))
    table.begin("epoch", [Message(9, "alice:bob", 1, "alice", "pc", None, 0, [1], b"1", {"files": [["f9", "n", "t", 100]]})])
    assert table.used("alice") == (3, 140)


def test_nothing_takes_in_proportion_to_all_files_of_a_user(tmp_path: Path) -> None:
    """Who waits for it has everybody's commit wait: an upload took 0.1 s where its user had 100,000 files, and a look for those
    that nobody carries as much for each file that there was. Counted in steps of SQLite."""
    table = FileTable(tmp_path)
    connection, count = table._tables.db.connection(), 0  # type: ignore[attr-defined]

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    def steps(do: Callable[[], object]) -> int:
        nonlocal count
        count = 0
        connection.set_progress_handler(tick, 10)
        do()
        connection.set_progress_handler(None, 10)
        return count

    def all_that_is_done(number: int) -> int:
        table.add(_stored(number))
        return (
            steps(lambda: table.used("alice"))
            + steps(lambda: table.aged(Aged(1000 + number - 1, f"f{number - 1}", False), 9999, 10))
            + steps(lambda: table.owned("alice", (10 * number - 10, f"f{number - 1}"), 10))
            + steps(lambda: table.remove([f"f{number}"]))
        )

    table.used("alice")
    few = all_that_is_done(1)
    for number in range(2, 500):
        table.add(_stored(number))
    assert all_that_is_done(500) <= few + 5
    table.close()


def test_indexes_are_made_where_an_earlier_version_had_others(table: FileTable, new_place: Callable[[], Place]) -> None:
    table.add(_stored(1))
    table._tables.sql("DROP INDEX file_owner_size")
    table._tables.sql("CREATE INDEX file_owner ON file (owner)")
    other = FileTable(new_place())
    with pytest.raises(peewee.PeeweeException):
        table._tables.sql("CREATE INDEX file_owner_size ON file (owner, size, id)")
    other._tables.sql("CREATE INDEX file_owner ON file (owner)")
    assert other.used("alice") == (1, 10)
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
    assert [(file.id, file.is_carried) for file in table.aged(FIRST, 1003, 10)] == [("f1", True), ("f2", True)]
    assert table.aged(Aged(1001, "f1", True), 9999, 1) == [Aged(1002, "f2", True)]
    assert table.aged(Aged(1002, "f2", True), 9999, 10) == [Aged(1003, "f3", False)]
    assert table.carried_after("", 10) == ["f1", "f2"] and table.carried_after("f1", 10) == ["f2"]
    assert table.ids("f1", 1) == ["f2"]
    assert table.owned("alice", (-1, ""), 2) == [(10, "f1"), (20, "f2")] and table.owned("alice", (20, "f2"), 2) == [(30, "f3")]
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
    return tuple(upload.carriers)


def test_the_store_of_the_carriers_has_a_name(table: FileTable) -> None:
    assert table.is_new and table.epoch == ""
    table.add(_stored(1))
    table.carry([("f1", "alice:bob", 7)])
    for epoch in ("one", "two"):
        table.begin(epoch, ())
        assert table.epoch == epoch and table.carried_after("", 10) == []


def test_of_many_that_carry_a_file_those_are_read_that_are_looked_at(table: FileTable, monkeypatch: pytest.MonkeyPatch) -> None:
    table.add(_stored(1))
    carriers = [*((f"alice:b{number}", seq) for number in range(40) for seq in (9, 10)), ("#a", 1), ("#a", 2), ("#b", 1)]
    table.carry([("f1", *one) for one in carriers])
    upload = table.upload("f1")
    assert upload is not None
    read: list[int] = []
    part = table.carriers
    monkeypatch.setattr(table, "carriers", lambda *asked: read.append(len(found := part(*asked))) or found)  # type: ignore[func-returns-value]
    assert len(upload.carriers) == len(carriers) and upload.carriers.groups() == {"#a", "#b"}
    assert next(iter(upload.carriers))[1] == 10 and not read
    found = list(upload.carriers)
    assert sorted(found) == sorted(carriers) and 0 < sum(read) < len(carriers)
    for conv in {conv for conv, _ in carriers}:
        places = [place for place, (name, _) in enumerate(found) if name == conv]
        seqs = [found[place][1] for place in places]
        assert places == list(range(places[0], places[0] + len(places))) and seqs == sorted(seqs, reverse=True), conv
