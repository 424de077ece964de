"""Events for bots and other programs: messages, groups, presence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest

from mqtt_im.hooks import comings, events
from mqtt_im.hooks.events import RETURN_MS
from mqtt_im.protocol import requests as rq
from tests.unit.bridge.hooks_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in found]


def test_a_message_is_an_event_at_once(world: World) -> None:
    desk = world.events()
    message = world.say("ann", "bob", "secret text", cts=5, mentions=["bob"], push={"a": 1})
    (event,) = world.step(desk)
    assert event == {
        "event": "message",
        "id": "e-1",
        "msg": {"conv": "ann:bob", "seq": 1, "from": "ann", "id": "r1", "ts": message.ts, "cts": 5, "mentions": ["bob"]},
        "push": {"a": 1},
    }
    world.answer(desk)
    assert world.outbox.waiting("hooks") == 0


def test_bodies_are_told_only_where_the_configuration_says_so(world: World) -> None:
    desk = world.events(include_body=True)
    world.say("ann", "bob", {"a": 1})
    assert world.step(desk)[0]["msg"]["body"] == {"a": 1}


def test_nothing_of_a_message_that_was_recalled_meanwhile_is_told(world: World) -> None:
    desk = world.events(include_body=True)
    message = world.say("ann", "bob", "secret", push={"title": "secret"})
    desk.follow(world.now)
    world.request("ann", rq.Recall(id="x", conv="ann:bob", seq=message.seq))
    (event,) = world.step(desk)
    assert "secret" not in str(event)
    assert event["msg"]["seq"] == 1


def test_group_changes_are_events(world: World) -> None:
    desk = world.events()
    world.request("ann", rq.GroupCreate(id="g", group="#g", name="Team", members=["bob"]))
    world.request("bob", rq.GroupLeave(id="l", group="#g"))
    first, second = world.step(desk)
    assert kinds([first, second]) == ["group", "group"]
    assert first["msg"]["system"] == {"event": "group.create", "members": ["ann", "bob"], "name": "Team"}
    assert (second["msg"]["from"], second["msg"]["system"]["event"]) == ("bob", "group.leave")


def test_only_events_that_are_switched_on_are_told(world: World) -> None:
    desk = world.events(events=("group",))
    world.say("ann", "bob")
    world.request("ann", rq.GroupCreate(id="g", group="#g", members=["bob"]))
    desk.presence("ann", True, world.now)
    assert kinds(world.step(desk)) == ["group"]


def test_presence_is_told_where_it_is_news(world: World) -> None:
    desk = world.events()
    for online in (True, True, False, False):
        desk.presence("ann", online, 77)
        world.step(desk)
    told = [delivery for delivery in world.answer(desk) if delivery.event == "presence"]
    assert [(delivery.body.count(b"online"), delivery.body.count(b'"last_seen":77')) for delivery in told] == [(1, 0), (0, 1)]


def test_only_the_newest_word_of_a_users_presence_waits(world: World) -> None:
    desk = world.events()
    desk.presence("ann", True, 0)
    world.step(desk)
    world.answer(desk, 500)
    desk.presence("ann", False, 9)
    desk.presence("bob", True, 0)
    assert world.outbox.waiting("hooks") == 1
    told = world.step(desk, 10)
    world.answer(desk)
    told += world.step(desk)
    assert sorted((event["user"], event["state"]) for event in told) == [("ann", "offline"), ("bob", "online")]


def test_what_is_said_while_nothing_can_be_written_is_bounded_and_told_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each coming and going was kept, twice, for as long as the outbox could not be written."""
    desk = world.events()
    for user in ("ann", "bob"):
        desk.presence(user, True, 0)
    world.step(desk)
    world.answer(desk)
    world.online.update(("bob", "cat"))
    monkeypatch.setattr(comings, "MOST_BYTES", 2_000)

    def broken(*_: object) -> None:
        raise peewee.OperationalError("disk is full")

    with monkeypatch.context() as trouble:
        trouble.setattr(desk.outbox, "add_presence", broken)
        for number in range(100):
            for user in ("bob", f"user{number % 20}"):
                desk.presence(user, number % 2 == 0, 5)
            if number % 10 == 0:
                with contextlib.suppress(peewee.OperationalError):
                    world.step(desk)
            assert desk._comings._bytes <= 2_000 and len(desk._comings.words()) < 20
    desk.presence("bob", True, 0)
    told = world.step(desk)
    for _ in range(3):
        world.answer(desk)
        told += world.step(desk)
    assert {"ann": "offline", "cat": "online"}.items() <= {event["user"]: event["state"] for event in told}.items()
    assert not [event for event in told if event["user"] == "bob"], "which is as it was told"


def test_nobody_stays_falsely_online_after_a_kill(world: World) -> None:
    world.attach("ann")
    desk = world.events()
    for user in ("ann", "bob"):
        desk.presence(user, True, 0)
    world.step(desk)
    world.answer(desk)
    world.restart()
    desk = world.events()
    world.online.add("bob")
    desk.presence("bob", True, 0)
    assert world.step(desk, RETURN_MS / 1000 - 0.1) == []
    (event,) = world.step(desk, 0.1)
    assert (event["user"], event["state"]) == ("ann", "offline")
    assert event["last_seen"] > 0


@pytest.mark.parametrize("when", ["before it is followed", "before it is sent", "before it is answered"])
def test_a_kill_loses_no_event(world: World, when: str) -> None:
    desk = world.events()
    world.say("ann", "bob")
    if when == "before it is sent":
        desk.follow(world.now)
    elif when == "before it is answered":
        world.step(desk)
    world.restart()
    desk = world.events()
    (event,) = world.step(desk)
    assert (event["event"], event["id"]) == ("message", "e-1")
    world.answer(desk)
    assert world.outbox.waiting("hooks") == 0


def test_what_was_answered_is_not_told_again_after_a_kill(world: World) -> None:
    desk = world.events()
    world.say("ann", "bob")
    world.step(desk)
    world.answer(desk)
    world.restart()
    assert world.step(world.events()) == []


def test_the_outbox_is_bounded_and_the_log_holds_the_rest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 3)
    desk = world.events()
    for _ in range(8):
        world.say("ann", "bob")
    told = []
    while world.step(desk):
        assert world.outbox.waiting("hooks") <= 3
        told += [delivery.id for delivery in world.answer(desk)]
    assert told == [f"e-{number}" for number in range(1, 9)]


def test_an_event_that_failed_too_often_is_put_aside_and_others_go_on(world: World) -> None:
    desk = world.events(max_attempts=2)
    world.say("ann", "bob")
    world.step(desk)
    world.answer(desk, 400)
    world.say("ann", "bob")
    assert [event["id"] for event in world.step(desk)] == ["e-2"]
    world.answer(desk)
    world.step(desk, 10)
    world.answer(desk, 410)
    assert world.step(desk, 100_000) == []
    (dead,) = world.outbox.dead()
    assert (dead.event, dead.subject, dead.attempts, dead.error) == ("message", "row 1", 2, "status 410")
    assert world.outbox.revive() == 1
    assert [event["id"] for event in world.step(desk)] == ["e-1"]


def test_a_receiver_that_is_switched_on_later_is_not_told_what_was_before(world: World) -> None:
    world.say("ann", "bob")
    world.events()
    world.outbox.forget("hooks")
    world.say("ann", "bob")
    desk = world.events()
    world.say("ann", "bob")
    assert [event["msg"]["seq"] for event in world.step(desk)] == [3]
