"""What is done for many at once takes few steps for each of them, so that nobody waits long for a crowd."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from mqtt_im.core.model import FOREVER
from mqtt_im.core.records import Message
from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite import flusher
from mqtt_im.store.sqlite.state import bulks
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
MANY = 1_000
FEW = 300
"""Calls that are made whatever the number of members, and then some."""


class World:
    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder, Limits(quota_groups=100), claim=lambda *_: True)
        self._tokens = count()

    def job(self, request: rq.Request, user: str = "owner") -> RequestJob:
        return RequestJob(Who(user, "pc", 0, token=f"t{next(self._tokens)}"), request, lambda _: None)

    def do(self, request: rq.Request, user: str = "owner") -> RequestJob:
        job = self.job(request, user)
        self.store.run([job], NOW)
        assert job.refusal is None
        return job

    def calls(self, request: rq.Request) -> int:
        """How many functions of Python's are called for it on the ledger's thread, its users being in memory."""
        job, engine = self.job(request), self.store.engine

        def act() -> None:
            job.prepare(engine)
            engine.commit()
            job.finish(engine)

        engine.prefetch([job])
        found = calls_of(act)
        assert job.refusal is None and job.commits
        return found


def calls_of(act: Callable[[], object]) -> int:
    """How many functions of Python's it calls."""
    found = 0

    def note(_: Any, event: str, __: Any) -> None:
        nonlocal found
        found += event == "call"

    former = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(former)
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def names(first: int = 0) -> list[str]:
    return [f"m{number}" for number in range(first, first + MANY)]


def send(group: str, key: str | None = None) -> rq.Send:
    return rq.Send(to=group, body=Raw(b"1"), key=key)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: rq.GroupRename(id="a", group="#g", name="x"),
        lambda: send("#g"),
        lambda: rq.React(id="b", conv="#g", seq=2, emoji="x"),
        lambda: rq.Edit(id="c", conv="#g", seq=2, body=Raw(b"2")),
        lambda: rq.Recall(id="d", conv="#g", seq=2),
        lambda: rq.GroupLeave(id="e", group="#g"),
    ],
)
def test_what_a_crowd_is_told_calls_nothing_for_each_member(world: World, request_of: Callable[[], rq.Request]) -> None:
    world.do(rq.GroupCreate(id="1", group="#g", members=names()))
    world.do(send("#g"))
    assert world.calls(request_of()) < FEW


def test_what_a_crowd_has_replaced_is_asked_for_once_for_each_member(world: World) -> None:
    world.do(rq.GroupCreate(id="1", group="#g", members=names()))
    world.do(send("#g", "k"))
    assert world.calls(send("#g", "k")) < MANY + FEW
    again = world.do(send("#g", "k"))
    assert again.commits is not None and isinstance(again.commits[0].record, Message)
    assert [user for user, _ in (again.commits[0].record.extra or {})["replaced"]] == names()


@pytest.mark.parametrize("known", [True, False])
def test_a_large_group_is_made_with_two_calls_for_each_member(world: World, known: bool) -> None:
    """Their accounts are asked for, and each is given a part."""
    if known:
        world.do(rq.GroupCreate(id="1", group="#g", members=names()))
    assert world.calls(rq.GroupCreate(id="2", group="#h", members=names())) < 2 * MANY + FEW


def test_members_come_and_go_with_a_few_calls_for_each(world: World) -> None:
    world.do(rq.GroupCreate(id="1", group="#g", members=names()))
    assert world.calls(rq.GroupRemove(id="2", group="#g", members=names())) < 3 * MANY + FEW
    assert world.calls(rq.GroupAdd(id="3", group="#g", members=names())) < 4 * MANY + FEW


def test_a_crowd_that_is_about_to_be_written_is_not_looked_through_at_once(world: World) -> None:
    world.do(rq.GroupCreate(id="1", group="#g", members=names()))
    world.do(send("#g"))
    assert calls_of(world.store.engine.state.freeze) < FEW


@pytest.mark.parametrize("written", [0, 1, MANY // 10])
def test_who_changes_before_the_row_is_made_is_written_as_before(
    world: World, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    monkeypatch.setattr(bulks, "_MADE_ROWS", 10)
    monkeypatch.setattr(flusher, "SLICE_ROWS", 10)
    world.do(rq.GroupCreate(id="1", group="#g", members=names()))
    bulk = world.store.engine.flusher
    for _ in range(1 + written):
        bulk.step(hurry=True)
    world.do(send("#g"))
    assert {user.head for user in world.store.engine.state.users(["owner", *names()])} == {2}
    while bulk.step():
        pass
    world.store.crash()
    world.store.reopen()  # the message is not in the projections, and is taken in once
    users = world.store.engine.state.users(["owner", *names()])
    assert [(user.head, user.sent, user.joined) for user in users] == [(2, 1, 1), *([(2, 0, 1)] * MANY)]
    members = world.store.engine.state.conv_for("#g").members
    assert [member.spans for member in members.values()] == [[[1, FOREVER]]] * (MANY + 1)
