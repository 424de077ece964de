"""What is done for many at once takes few steps for each of them, so that nobody waits long for a crowd."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from mqtt_im.core.records import Message
from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs import RequestJob
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
        job, found = self.job(request), 0

        def note(_: Any, event: str, __: Any) -> None:
            nonlocal found
            found += event == "call"

        engine = self.store.engine
        engine.prefetch([job])
        former = sys.getprofile()
        sys.setprofile(note)
        try:
            job.prepare(engine)
            engine.commit()
            job.finish(engine)
        finally:
            sys.setprofile(former)
        assert job.refusal is None and job.commits
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
