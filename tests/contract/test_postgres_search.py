"""Words of messages on PostgreSQL: found by whoever may read them, from any node, and gone with what held them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec import Raw

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.search.finding import FOREVER, Query
from mqtt_im.search.postgres import PostgresIndex
from mqtt_im.search.words import phrases_of
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import pages, reach
from tests.support.pgstore import PostgresStore

NOW = 1_000_000


class World:
    """A store and two indexes on it, as two nodes have them."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.indexes = [PostgresIndex(store.database), PostgresIndex(store.database)]
        self.count = 0

    def ask(self, user: str, request: rq.Request) -> None:
        job = RequestJob(Who(user, "pc", 0, token="made"), request, lambda _: None)
        self.store.run([job], NOW)
        assert job.refusal is None, job.refusal

    def say(self, user: str, to: str, body: object) -> None:
        self.count += 1
        self.ask(user, rq.Send(id=f"m{self.count}", to=to, body=Raw(json.dumps(body).encode())))

    def find(self, user: str, text: str, conv: str | None = None, wanted: int = 10, before: int = FOREVER) -> list[object]:
        """What is found, the same on both nodes; the newest first."""
        who = Who(user, "pc", NOW)
        results = []
        for index in self.indexes:
            while index.follow(3):
                pass
            parts = self._parts(who, conv)
            told = index.find(Query(phrases_of(text), reach.Reach(parts), before), FOREVER, wanted, time.monotonic() + 1)
            messages = self.store.see(partial(pages.found, who=who, lsns=told.lsns), NOW)
            results.append([json.loads(message)["body"] for message in messages])
        assert results[0] == results[1]
        return results[0]

    def _parts(self, who: Who, conv: str | None) -> list[reach.Part]:
        if conv is not None:
            return self.store.see(lambda view: reach.searchable(view, who, conv), NOW)
        found: list[reach.Part] = []
        step = reach.Step([], reach.Place(), done=False)
        while not step.done:
            step = self.store.see(partial(reach.learn, user=who.user, place=step.place), NOW)
            found += step.parts
        return found

    def words(self) -> str:
        with self.store.database.connect("test") as connection:
            return str(connection.execute("SELECT array_agg(array_to_string(words, ' ')) FROM word").fetchone())


@pytest.fixture
def world(database: str, tmp_path: Path) -> Iterator[World]:
    store = PostgresStore(database, tmp_path)
    made = World(store)
    yield made
    for index in made.indexes:
        index.close()
    store.close()


def test_words_are_found_by_who_may_read_them(world: World) -> None:
    world.say("ann", "bob", "The Crème brûlée, at 8")
    world.say("bob", "cat", "creme fraiche")
    world.say("ann", "bob", {"text": ["deep creme", {"$bin": "Y3JlbWU="}]})
    assert world.find("ann", "creme") == [{"text": ["deep creme", {"$bin": "Y3JlbWU="}]}, "The Crème brûlée, at 8"]
    assert world.find("bob", "CRÈME", wanted=3) == [
        {"text": ["deep creme", {"$bin": "Y3JlbWU="}]},
        "creme fraiche",
        "The Crème brûlée, at 8",
    ]
    assert world.find("bob", "creme", conv="bob:cat") == ["creme fraiche"]
    assert world.find("bob", "brulee 8") == ["The Crème brûlée, at 8"]
    assert world.find("cat", "brulee") == []
    assert world.find("bob", "creme", before=NOW) == []
    assert world.find("bob", "?!") == []


def test_what_is_written_without_gaps_is_found_as_a_phrase(world: World) -> None:
    for body in ("明天北京见", "明天见，北京", "京北"):
        world.say("ann", "bob", body)
    assert world.find("bob", "北京") == ["明天见，北京", "明天北京见"]
    assert world.find("bob", "明天北京") == ["明天北京见"]


def test_a_word_without_end_costs_nobody_anything(world: World) -> None:
    world.say("ann", "bob", "x" * 60_000)
    world.say("ann", "bob", "after")
    assert world.find("bob", "after") == ["after"]
    assert world.find("bob", "x" * 60_000) == ["x" * 60_000]


def test_an_edit_takes_the_place_of_the_text_and_a_recall_leaves_nothing(world: World) -> None:
    world.say("ann", "bob", "first secret")
    assert world.find("bob", "secret") == ["first secret"]
    world.ask("ann", rq.Edit(id="e", conv="ann:bob", seq=1, body=Raw(b'"second secret"')))
    assert world.find("bob", "second") == ["second secret"]
    assert world.find("bob", "first") == []
    world.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=1))
    assert "secret" not in world.words()  # with the commit itself, whether an index has looked or not
    assert world.find("bob", "secret") == []


def test_who_came_later_does_not_find_what_was_said_before(world: World) -> None:
    world.ask("ann", rq.GroupCreate(id="g", group="#g", members=["bob"]))
    world.say("ann", "#g", "word before")
    world.ask("ann", rq.GroupAdd(id="a", group="#g", members=["cat"]))
    world.say("ann", "#g", "word after")
    assert world.find("cat", "word") == ["word after"]
    assert world.find("bob", "word") == ["word after", "word before"]
