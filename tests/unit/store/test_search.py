"""The search index against the real log: what it finds, for whom, what it forgets, and what a crash leaves."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mqtt_im.core.gone import remembered as remains
from mqtt_im.core.records import Message, encode
from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.search import finding
from mqtt_im.search.file import FILE_NAME
from mqtt_im.search.finding import FOREVER, Query
from mqtt_im.search.index import SearchIndex
from mqtt_im.search.words import phrases_of
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import pages, reach
from mqtt_im.store.sqlite.tables.files import LOG_FILE
from tests.support.store import Crash, SqliteStore


def everything(engine: Readable, user: str) -> list[reach.Part]:
    """What the user may search in all conversations."""
    return list(learnt(engine, user, reach.Place())[0].values())


def learnt(engine: Readable, user: str, place: reach.Place) -> tuple[dict[str, reach.Part], reach.Place]:
    """What is learnt from this place on, and the place where that ends."""
    parts: dict[str, reach.Part] = {}
    done = False
    while not done:
        step = reach.learn(engine, user, place)
        parts.update((part.conv, part) for part in step.parts)
        place, done = step.place, step.done
    return parts, place


class World:
    """A store and its index, run by hand; each request is a batch of its own, one second after the one before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(folder, Limits(edit_window_s=-1))
        self.index = SearchIndex(folder, self.store.engine.epoch)
        self.now = 0
        self._ids = itertools.count()

    def do(self, user: str, request: rq.Request) -> RequestJob:
        self.now += 1000
        request.id = f"{user}{next(self._ids)}"
        job = RequestJob(Who(user, "phone", 0), request, lambda _: None)
        self.store.run([job], self.now)
        assert job.refusal is None, job.refusal
        return job

    def say(self, user: str, to: str, body: Any) -> int:
        """The message's `seq`."""
        job = self.do(user, rq.Send(to=to, body=raw(body)))
        assert job.commits is not None
        record = job.commits[0].record
        assert isinstance(record, Message)
        return record.seq

    def edit(self, user: str, conv: str, seq: int, body: Any) -> None:
        self.do(user, rq.Edit(id="", conv=conv, seq=seq, body=raw(body)))

    def recall(self, user: str, conv: str, seq: int) -> None:
        self.do(user, rq.Recall(id="", conv=conv, seq=seq))

    def group(self, owner: str, group: str, *members: str) -> None:
        self.do(owner, rq.GroupCreate(id="", group=group, members=list(members)))

    def retain(self, *, gone: list[int], remembered: list[int]) -> None:
        """Log rows are gone, or replaced by what is left of them as long as their id is remembered."""
        with closing(sqlite3.connect(self.folder / LOG_FILE)) as connection, connection:
            for lsn in remembered:
                record = self.store.engine.state.record(lsn)
                assert isinstance(record, Message)
                connection.execute("UPDATE log SET rec = ? WHERE lsn = ?", (encode(remains(record)), lsn))
            connection.executemany("DELETE FROM log WHERE lsn = ?", [(lsn,) for lsn in gone])
            connection.execute("INSERT INTO fold (base, plan) VALUES (0, x'')")

    def catch_up(self) -> None:
        while self.index.follow(1000):
            pass

    def purge(self) -> None:
        self.index.purge()
        assert not self.index.dirty

    def reopen(self, epoch: str | None = None) -> None:
        self.index.close()
        self.index = SearchIndex(self.folder, epoch or self.store.engine.epoch)

    def search(self, user: str, query: str, conv: str | None = None, before: int = FOREVER, limit: int = 100) -> list[Any]:
        """The bodies of the messages that are found."""
        self.catch_up()
        return self.look(user, query, conv, before, limit)

    def look(self, user: str, query: str, conv: str | None = None, before: int = FOREVER, limit: int = 100) -> list[Any]:
        who = Who(user, "phone", 0)
        engine = self.store.engine
        parts = everything(engine, user) if conv is None else reach.searchable(engine, who, conv)
        asked = Query(phrases_of(query), reach.Reach(parts), before)
        lsns = self.index.find(asked, FOREVER, limit, time.monotonic() + 60).lsns
        return [json.loads(message)["body"] for message in pages.found(self.store.engine, who, lsns)]

    def holds(self, word: str) -> bool:
        """Whether the index's files hold these bytes anywhere."""
        return any(word.encode() in file.read_bytes() for file in self.folder.glob(FILE_NAME + "*"))

    def close(self) -> None:
        self.index.close()
        self.store.close()


def raw(body: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(body, ensure_ascii=False).encode())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.search.shards.SHARD_ROWS", 4)


# What is found.


def test_all_words_newest_first(world: World) -> None:
    for body in ("the quick brown fox", "a quick fox jumps", "the lazy dog", "Quick! A FOX."):
        world.say("alice", "bob", body)
    assert world.search("bob", "quick fox") == ["Quick! A FOX.", "a quick fox jumps", "the quick brown fox"]
    assert world.search("alice", "fox lazy") == []
    assert world.search("alice", "qui") == []


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ("今天天气很好", "天气"),
        ("東京タワーに行きました", "タワー"),
        ("買了iPhone手机", "iphone手机"),
        ("학교에서", "학교"),
        ("Grüße aus Köln", "GRUSSE köln"),
        ("naïve café", "cafe"),
        ("on my way 🚗💨", "🚗"),
        ({"title": "map", "parts": ["inside", {"$bin": "AAAA"}]}, "inside map"),
    ],
)
def test_words_of_all_scripts_and_shapes(world: World, body: Any, query: str) -> None:
    world.say("alice", "bob", body)
    assert world.search("bob", query) == [body]


@pytest.mark.parametrize(
    ("body", "query"), [("天很气", "天气"), ("气天", "天气"), ({"word": 1}, "word"), ({"$bin": "AAAA"}, "aaaa")]
)
def test_what_only_looks_alike_is_not_found(world: World, body: Any, query: str) -> None:
    world.say("alice", "bob", body)
    assert world.search("bob", query) == []


@pytest.mark.parametrize(
    "query",
    [
        '"',
        "AND",
        "a OR b",
        "x*",
        "NEAR(a b, 2)",
        "text:x",
        "{text} : x",
        "-x",
        "(",
        "'; DROP TABLE doc; --",
        "\0",
        "^a",
        "\ue0001",
    ],
)
def test_a_query_is_words_and_never_syntax(world: World, query: str) -> None:
    world.say("alice", "bob", "harmless")
    assert world.search("bob", query) == []
    assert world.search("bob", "harmless") == ["harmless"]


def test_conversation_time_and_limit(world: World, small_shards: None) -> None:
    for number in range(10):
        world.say("alice", "bob" if number % 2 else "carol", f"apple {number}")
    assert world.search("alice", "apple", limit=3) == ["apple 9", "apple 8", "apple 7"]
    assert world.search("alice", "apple", "alice:carol", limit=2) == ["apple 8", "apple 6"]
    assert world.search("alice", "apple", before=3000) == ["apple 1", "apple 0"]
    assert world.search("alice", "apple", before=1000) == []
    with pytest.raises(Refusal, match="no conversation bob:carol"):
        world.search("alice", "apple", "bob:carol")


def test_a_search_goes_on_where_it_was_left(world: World, small_shards: None) -> None:
    for number in range(20):
        world.say("alice", "bob", f"apple {number}")
    world.catch_up()
    query = Query(["apple"], reach.Reach(everything(world.store.engine, "bob")))
    lsns: list[int] = []
    below, rounds = FOREVER, 0
    while below:
        # It is late already, so each round looks into one shard only.
        found = world.index.find(query, below, 3, until=0.0)
        assert len(found.lsns) <= 3
        lsns += found.lsns
        below = found.below
        rounds += 1
    assert lsns == list(range(20, 0, -1))
    assert rounds > 5


@pytest.mark.parametrize(("most", "many"), [(0, 1000), (300, 1000), (300, 0), (0, 0)])
def test_only_what_one_may_read(world: World, small_shards: None, monkeypatch: pytest.MonkeyPatch, most: int, many: int) -> None:
    for name, value in (("_MAX_CONV_WORDS", most), ("_MANY", many), ("_IN_VAIN", 1)):
        monkeypatch.setattr(finding, name, value)
    world.group("alice", "#g")
    world.say("alice", "#g", "treasure one")
    world.say("alice", "carol", "treasure of carol")
    world.do("alice", rq.GroupAdd(id="", group="#g", members=["bob"]))
    world.say("alice", "#g", "treasure two")
    world.do("alice", rq.GroupRemove(id="", group="#g", members=["bob"]))
    world.say("alice", "#g", "treasure three")
    assert world.search("bob", "treasure") == ["treasure two"]
    world.do("alice", rq.GroupAdd(id="", group="#g", members=["bob"]))
    world.say("alice", "#g", "treasure four")
    assert world.search("bob", "treasure") == ["treasure four", "treasure two"]
    assert world.search("alice", "treasure", "#g") == [f"treasure {word}" for word in ("four", "three", "two", "one")]
    assert world.search("mallory", "treasure") == []


def test_a_conversation_is_numbered_once_and_anew_for_another_index() -> None:
    asked: list[str] = []

    def number(conv: str) -> int:
        asked.append(conv)
        return len(asked)

    one, other, later = (reach.Part(conv, 0, last, ()) for conv, last in (("a:b", 5), ("a:c", 6), ("a:b", 9)))
    within = reach.Reach([one, other])
    assert within.numbered("key", number) == {1: one, 2: other}
    assert within.numbered("key", number) == {1: one, 2: other} and asked == ["a:b", "a:c"]
    within.add([later])
    assert within.parts == {"a:b": later, "a:c": other}
    assert within.numbered("key", lambda conv: {"a:b": 1}[conv]) == {1: later, 2: other}
    assert within.numbered("other key", lambda conv: {"a:b": 7, "a:c": 8}[conv]) == {7: later, 8: other}


def test_where_conversations_end_is_known_as_they_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_STEP", 10)
    numbers = {"a:b": 1, "a:c": 2, "a:d": 3}
    one, other, third, later = (reach.Part(*part, ()) for part in (("a:b", 0, 5), ("a:c", 0, 19), ("a:d", 0, 7), ("a:b", 0, 10)))
    within = reach.Reach([one, other, third])
    within.numbered("key", numbers.__getitem__)
    assert within.ending() == [(19, {2: other}), (9, {1: one, 3: third})]
    within.add([later])
    within.numbered("key", numbers.__getitem__)
    assert within.ending() == [(19, {2: other, 1: later}), (9, {3: third})]


def test_what_came_after_all_of_ones_conversations_is_not_looked_at(
    world: World, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has many, and said nothing lately, does not go through what everybody else has said since."""
    monkeypatch.setattr(reach, "_STEP", 4)
    monkeypatch.setattr(finding, "_MANY", 0)
    world.say("alice", "bob", "apple of bob")
    for _ in range(40):
        world.say("carol", "dave", "apple")
    world.catch_up()
    asked: list[str] = []
    world.index._shards.sql.set_trace_callback(asked.append)
    assert world.look("bob", "apple") == ["apple of bob"]
    assert sum("MATCH" in statement for statement in asked) == 1


def test_what_is_learnt_again_and_again_is_kept_once() -> None:
    """An index that goes by names asks for no numbers."""
    within = reach.Reach()
    for last in range(1_000):
        within.add([reach.Part("a:b", 0, last, ((1, last),))])
    assert len(within._unnumbered) == 1
    assert within.bytes == reach.Reach([reach.Part("a:b", 0, 5, ((1, 5),))]).bytes
    assert reach.Reach([reach.Part("a:b", 0, 5, ((1, 2),) * 100)]).bytes > 10 * within.bytes, "spans count"


# What is forgotten.


@pytest.mark.parametrize("step", [1, 1000])
def test_edits_are_found_by_their_new_text_only(world: World, small_shards: None, step: int) -> None:
    for number in range(6):
        world.say("alice", "bob", f"wording {number}")
    world.index.follow(6)
    world.say("alice", "bob", 7)
    world.edit("alice", "alice:bob", 2, "phrase")
    world.edit("alice", "alice:bob", 7, "phrase of a number")
    world.edit("alice", "alice:bob", 2, "sentence")
    while world.index.follow(step):
        pass
    assert world.search("bob", "phrase") == ["phrase of a number"]
    assert world.search("bob", "sentence") == ["sentence"]
    assert world.search("bob", "wording 1") == []
    assert len(world.search("bob", "wording")) == 5


@pytest.mark.parametrize("step", [1, 1000])
def test_of_recalled_messages_nothing_is_left(world: World, step: int) -> None:
    for number in range(200):
        world.say("alice", "bob", f"message {number} of many")
    secrets = ["regretted", "reworded", "retracted", "忘記"]
    seq = world.say("alice", "bob", "regretted saying")
    other = world.say("alice", "bob", "忘記")
    world.catch_up()
    world.edit("alice", "alice:bob", seq, "reworded saying")
    world.catch_up()
    world.edit("alice", "alice:bob", seq, "retracted saying")
    assert world.search("bob", "retracted") == ["retracted saying"]
    assert all(world.holds(word) for word in secrets[:3])
    world.recall("alice", "alice:bob", seq)
    world.recall("alice", "alice:bob", other)
    while world.index.follow(step):
        pass
    assert world.index.dirty
    assert world.look("bob", "saying") == []
    world.reopen()
    assert world.index.dirty, "the duty outlives a crash"
    world.purge()
    assert not any(world.holds(word) for word in [*secrets, "regr", "retra", "忘"])
    assert len(world.search("bob", "many", limit=300)) == 200
    world.reopen()
    assert not world.index.dirty


def test_what_is_recalled_before_it_is_indexed_never_is(world: World) -> None:
    seq = world.say("alice", "bob", "regretted")
    world.edit("alice", "alice:bob", seq, "reworded")
    world.recall("alice", "alice:bob", seq)
    assert world.search("bob", "regretted") == world.search("bob", "reworded") == []
    assert not world.holds("regretted") and not world.holds("reworded")
    assert not world.index.dirty


def test_a_message_that_is_recalled_while_it_is_rendered_is_not_shown(world: World) -> None:
    seq = world.say("alice", "bob", "regretted")
    world.catch_up()
    world.recall("alice", "alice:bob", seq)
    assert world.look("bob", "regretted") == []


def test_a_complete_shard_is_merged_into_one_piece(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mqtt_im.search.shards.SHARD_ROWS", 20)
    for number in range(21):
        world.say("alice", "bob", f"apple {number}")
        world.index.follow(1)
    assert world.index.dirty == {0}
    world.purge()
    with closing(sqlite3.connect(world.folder / FILE_NAME)) as connection:
        assert connection.execute("SELECT count(DISTINCT segid) FROM word_0_idx").fetchone() == (1,)
    assert len(world.search("bob", "apple")) == 21


@pytest.mark.parametrize("remembered", [[], [1, 3, 6, 9]])
def test_what_retention_took_is_gone(world: World, small_shards: None, remembered: list[int]) -> None:
    for number in range(1, 12):
        world.say("alice", "bob", f"apple word{number}x")
    world.catch_up()
    assert not world.index.sweep()
    world.retain(gone=[lsn for lsn in (1, 2, 3, 5, 6, 9) if lsn not in remembered], remembered=remembered)
    assert world.index.sweep()
    world.reopen()
    while world.index.sweep():
        pass
    world.purge()
    world.reopen()
    assert not world.index.sweep()
    query = Query(["apple"], reach.Reach(everything(world.store.engine, "bob")))
    assert world.index.find(query, FOREVER, 100, time.monotonic() + 60).lsns == [11, 10, 8, 7, 4]
    assert [number for number in range(1, 12) if world.holds(f"word{number}x")] == [4, 7, 8, 10, 11]
    with closing(sqlite3.connect(world.folder / FILE_NAME)) as connection:
        assert connection.execute("SELECT number FROM shard").fetchall() == [(1,), (2,)], "the emptied one is dropped"


def test_a_store_of_which_retention_took_everything_is_still_the_same(world: World) -> None:
    world.say("alice", "bob", "apple")
    world.catch_up()
    with closing(sqlite3.connect(world.folder / LOG_FILE)) as connection, connection:
        connection.execute("DELETE FROM log")
        connection.execute("INSERT INTO fold (base, plan) VALUES (1, x'')")
    world.reopen()
    assert world.index.position == world.index.log_end() == 1


# Where it comes from.


def lost(world: World) -> str | None:
    for file in world.folder.glob(FILE_NAME + "*"):
        file.unlink()
    return None


def another_epoch(world: World) -> str | None:
    return "another"


def ahead_of_the_log(world: World) -> str | None:
    edit(world, "UPDATE meta SET value = '99' WHERE key = 'lsn'")
    return None


def of_another_version(world: World) -> str | None:
    edit(world, "UPDATE meta SET value = '0' WHERE key = 'version'")
    return None


def edit(world: World, statement: str) -> None:
    with closing(sqlite3.connect(world.folder / FILE_NAME)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


@pytest.mark.parametrize("change", [lost, another_epoch, ahead_of_the_log, of_another_version])
def test_an_index_that_does_not_fit_is_made_anew(world: World, change: Callable[[World], str | None]) -> None:
    seq = world.say("alice", "bob", "apple one")
    world.say("alice", "bob", "apple two")
    world.edit("alice", "alice:bob", seq, "pear one")
    assert world.search("bob", "apple") == ["apple two"]
    world.reopen(change(world))
    assert world.index.position == 0
    assert world.look("bob", "apple") == []
    assert world.search("bob", "apple") == ["apple two"]
    assert world.search("bob", "pear") == ["pear one"]


def test_a_step_that_fails_leaves_nothing(world: World, small_shards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    world.say("alice", "bob", "apple zero")
    world.catch_up()
    for number in range(9):
        world.say("alice", "carol", f"apple {number}")
    world.recall("alice", "alice:bob", 1)
    before = world.index.position

    def fail(number: int) -> None:
        raise Crash

    monkeypatch.setattr(world.index._shards, "mark", fail)
    with pytest.raises(Crash):
        world.index.follow(1000)
    monkeypatch.undo()
    monkeypatch.setattr("mqtt_im.search.shards.SHARD_ROWS", 4)
    assert world.index.position == before and not world.index.dirty
    assert world.search("alice", "apple") == [f"apple {number}" for number in range(8, -1, -1)]


_INDEXER = """\
import os, signal, sys
from pathlib import Path
from mqtt_im.search import index as search_index
from mqtt_im.search import shards

class Shards(shards.Shards):
    def mark(self, number):
        super().mark(number)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)

shards.SHARD_ROWS = 4
search_index.Shards = Shards
index = search_index.SearchIndex(Path(sys.argv[1]), sys.argv[2])
while index.follow(int(sys.argv[3])):
    pass
"""


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_a_killed_indexer_goes_on_where_it_was(world: World, small_shards: None, step: int) -> None:
    """SIGKILL within the transaction of a step; those before it stay, of that one nothing does."""
    for number in range(30):
        world.say("alice", "bob", f"apple {number}")
    world.index.close()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", _INDEXER, str(world.folder), world.store.engine.epoch, str(step)]
    assert subprocess.run(command, env=environment, check=False, timeout=300).returncode == -signal.SIGKILL
    world.index = SearchIndex(world.folder, world.store.engine.epoch)
    done = world.index.position
    assert done == {1: 10, 5: 10, 1000: 0}[step]
    assert world.look("bob", "apple") == [f"apple {number}" for number in range(done - 1, -1, -1)]
    assert world.search("bob", "apple") == [f"apple {number}" for number in range(29, -1, -1)]


def test_conversations_are_learnt_a_few_at_a_time_and_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "AT_ONCE", 3)
    for number in range(8):
        world.say("bob", f"user{number}", "apple")
    engine = world.store.engine
    first = reach.learn(engine, "bob", reach.Place())
    assert [part.conv for part in first.parts] == ["bob:user7", "bob:user6", "bob:user5"]
    # While they are learnt, one that was to come moves up, and there is a new one.
    world.say("user0", "bob", "pear")
    world.say("bob", "zoe", "plum")
    parts, place = learnt(engine, "bob", first.place)
    assert parts.keys() == {*(f"bob:user{number}" for number in range(5)), "bob:zoe"}
    assert parts["bob:user0"].last == engine.last - 1, "as it is now"
    assert learnt(engine, "bob", place) == ({}, place), "nothing has changed"
    world.say("user3", "bob", "fig")
    again, _ = learnt(engine, "bob", place)
    assert again.keys() == {"bob:user3"}, "only what has changed is looked at again"
