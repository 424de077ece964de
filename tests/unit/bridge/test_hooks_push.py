"""Who is woken by a push, with what, and when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mqtt_im.core.records import Message
from mqtt_im.hooks import pending
from mqtt_im.hooks.desk import Desk
from mqtt_im.hooks.push import CHECK_MS
from mqtt_im.protocol import requests as rq
from tests.unit.bridge.hooks_world import START, World

FAR = START + 10**9


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def convs(push: dict[str, Any]) -> dict[str, int]:
    return {entry["conv"]: entry["count"] for entry in push["conversations"]}


def test_a_user_who_is_away_is_pushed_after_the_delay(world: World) -> None:
    desk = world.pushes(delay_s=2)
    message = world.say("ann", "bob", "secret text", push={"title": "Ann"})
    assert world.step(desk, 1.9) == []
    (push,) = world.step(desk, 0.1)
    assert (push["event"], push["user"], push["count"]) == ("push", "bob", 1)
    assert push["conversations"] == [
        {"conv": "ann:bob", "count": 1, "seq": 1, "from": "ann", "ts": message.ts, "push": {"title": "Ann"}}
    ]
    world.answer(desk)
    assert world.step(desk, 100) == []
    assert world.counts == [("push", "taken")]


def test_what_is_too_young_is_not_read_again_until_it_is_old_enough(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = world.pushes(delay_s=2)
    world.step(desk, 3)
    world.say("ann", "bob")
    reads, after = list[int](), world._log.after
    monkeypatch.setattr(world._log, "after", lambda lsn, limit: reads.append(lsn) or after(lsn, limit))  # type: ignore[func-returns-value]
    for _ in range(19):
        assert world.step(desk, 0.1) == []
    assert len(reads) == 1
    (push,) = world.step(desk, 0.1)
    assert push["user"] == "bob"


def test_large_rows_are_read_a_few_at_a_time(world: World) -> None:
    desk = world.pushes(delay_s=0)
    first = desk.position
    for number in range(50):
        world.say("ann", f"bob{number}", "x" * 60_000)
    some = world._log.after(first, 500)
    assert 1 << 20 <= sum(len(record.body or b"") for _, record in some if isinstance(record, Message)) < 1_200_000
    sent = set()
    for _ in range(10):
        sent |= {push["user"] for push in world.step(desk, 1)}
        world.answer(desk)
    assert len(sent) == 50


@pytest.mark.parametrize("kind", ["push", "hooks"])
def test_what_comes_while_the_log_is_followed_waits_for_the_next_look(world: World, kind: str) -> None:
    """Else each message would be a transaction of its own, one after the other."""
    desk: Desk[Any] = world.pushes(delay_s=0) if kind == "push" else world.events()
    for number in range(3):
        world.say("ann", f"bob{number}")
    world.now += 1
    position = desk.position
    assert not desk.follow(world.now) and desk.position > position
    for number in range(20):
        world.say("ann", f"cat{number}", "x" * 60_000)
    world.now += 1
    assert desk.follow(world.now), "there is more than is read at once"
    assert not desk.follow(world.now)


def test_a_device_that_comes_back_within_the_delay_gets_no_push(world: World) -> None:
    world.attach("bob")
    desk = world.pushes(delay_s=2)
    world.say("ann", "bob")
    world.now += 1000
    world.acknowledge("bob")
    assert world.step(desk, 5) == []
    assert world.outbox.waiting("push") == 0


def test_who_is_connected_and_acknowledges_is_never_looked_at_again(world: World) -> None:
    world.attach("bob")
    world.online.add("bob")
    desk = world.pushes()
    world.say("ann", "bob")
    world.acknowledge("bob")
    assert world.step(desk, 5) == []
    assert world.outbox.waiting("push") == 0


def test_a_connection_that_turns_out_to_be_dead_leads_to_a_push(world: World) -> None:
    """The device was connected, as far as anybody knew, and acknowledged nothing until its keep-alive ended it."""
    world.attach("bob")
    world.online.add("bob")
    desk = world.pushes(delay_s=0)
    world.say("ann", "bob")
    assert world.step(desk) == []
    assert world.step(desk, CHECK_MS / 1000) == []
    world.online.discard("bob")
    assert world.step(desk, CHECK_MS / 1000 - 0.1) == []
    (push,) = world.step(desk, 0.1)
    assert push["user"] == "bob"


def test_many_messages_are_one_push(world: World) -> None:
    desk = world.pushes(delay_s=1, coalesce_s=5)
    for number in range(5):
        world.say("ann", "bob", number, push={"n": number})
    world.say("cat", "bob")
    (push,) = world.step(desk, 1)
    assert push["count"] == 6
    assert [entry["conv"] for entry in push["conversations"]] == ["bob:cat", "ann:bob"]
    assert push["conversations"][1]["push"] == {"n": 4}
    assert push["conversations"][1]["seq"] == 5
    world.answer(desk)
    world.say("ann", "bob")
    world.say("ann", "bob")
    assert world.step(desk, 4.9) == []
    (push,) = world.step(desk, 0.1)
    assert convs(push) == {"ann:bob": 2}


def test_messages_younger_than_the_delay_that_were_told_along_are_not_told_again(world: World) -> None:
    desk = world.pushes(delay_s=2, coalesce_s=0)
    world.say("ann", "bob")
    world.now += 1900
    world.say("ann", "bob")
    (push,) = world.step(desk, 0.1)
    assert push["count"] == 2
    world.answer(desk)
    world.restart()
    assert world.step(world.pushes(delay_s=2, coalesce_s=0), 5) == []


def test_what_comes_while_a_push_is_under_way_is_the_next_one(world: World) -> None:
    desk = world.pushes(delay_s=0, coalesce_s=5)
    world.say("ann", "bob")
    (first,) = world.step(desk)
    world.say("ann", "bob")
    assert len(world.step(desk, 1)) == 1
    world.answer(desk)
    assert world.step(desk, 4.9) == []
    (second,) = world.step(desk, 0.1)
    assert convs(second) == {"ann:bob": 1}
    assert first["id"] != second["id"]


def test_the_sender_is_not_pushed_for_what_the_sender_did(world: World) -> None:
    desk = world.pushes(delay_s=0)
    world.say("ann", "ann")
    world.request("ann", rq.GroupCreate(id="g", group="#g", members=["ann"]))
    world.say("ann", "#g")
    assert world.step(desk) == []


def test_groups_push_their_members_and_changes_those_whom_they_concern(world: World) -> None:
    desk = world.pushes(delay_s=0, coalesce_s=0)
    world.request("ann", rq.GroupCreate(id="g", group="#g", name="Team", members=["bob", "cat"]))
    pushes = world.step(desk)
    assert [push["user"] for push in pushes] == ["bob", "cat"]
    assert pushes[0]["conversations"][0].items() >= {"system": "group.create", "name": "Team"}.items()
    world.answer(desk)
    world.request("ann", rq.GroupRename(id="n", group="#g", name="New"))
    world.request("ann", rq.GroupRole(id="r", group="#g", user="cat", role="admin"))
    pushes = world.step(desk, 1)
    assert [(push["user"], push["conversations"][0]["system"]) for push in pushes] == [("cat", "group.role")]
    world.answer(desk)
    world.say("cat", "#g")
    pushes = world.step(desk, 1)
    assert sorted(push["user"] for push in pushes) == ["ann", "bob"]
    assert all("system" not in push["conversations"][0] for push in pushes)


def test_who_left_before_a_message_is_not_pushed_for_it(world: World) -> None:
    desk = world.pushes(delay_s=2)
    world.request("ann", rq.GroupCreate(id="g", group="#g", members=["bob", "cat"]))
    world.step(desk, 2)
    world.answer(desk)
    world.request("bob", rq.GroupLeave(id="l", group="#g"))
    world.say("ann", "#g")
    assert [push["user"] for push in world.step(desk, 10)] == ["cat"]


def test_a_new_member_is_not_pushed_for_what_came_before(world: World) -> None:
    desk = world.pushes(delay_s=2)
    world.request("ann", rq.GroupCreate(id="g", group="#g", members=[]))
    world.say("ann", "#g")
    world.request("ann", rq.GroupAdd(id="a", group="#g", members=["bob"]))
    (push,) = world.step(desk, 2)
    assert (push["user"], push["count"], push["conversations"][0]["system"]) == ("bob", 1, "group.add")


@pytest.mark.parametrize("mentions", [["bob"], ["*"]])
def test_a_muted_conversation_pushes_mentions_only(world: World, mentions: list[str]) -> None:
    desk = world.pushes(delay_s=0)
    world.say("bob", "ann")
    world.request("bob", rq.Mute(id="m", conv="ann:bob", until=FAR))
    world.say("ann", "bob")
    world.say("ann", "bob", mentions=["cat"])
    assert [push["user"] for push in world.step(desk)] == ["ann"]
    world.answer(desk)
    message = world.say("ann", "bob", mentions=mentions)
    (push,) = world.step(desk, 10)
    assert push["conversations"] == [
        {"conv": "ann:bob", "count": 1, "seq": message.seq, "from": "ann", "ts": message.ts, "mentioned": True}
    ]


def test_a_mute_ends_at_its_time(world: World) -> None:
    desk = world.pushes(delay_s=0)
    world.say("bob", "ann")
    world.step(desk)
    world.answer(desk)
    world.request("bob", rq.Mute(id="m", conv="ann:bob", until=world.now + 60_000))
    world.say("ann", "bob")
    assert world.step(desk, 59) == []
    world.now += 1000
    world.say("ann", "bob")
    (push,) = world.step(desk)
    assert push["count"] == 1


@pytest.mark.parametrize("include", [False, True])
def test_bodies_are_told_only_where_the_configuration_says_so(world: World, include: bool) -> None:
    desk = world.pushes(delay_s=0, include_body=include)
    world.say("ann", "bob", "one")
    message = world.say("ann", "bob", {"text": "two"})
    world.request("ann", rq.Edit(id="e", conv="ann:bob", seq=message.seq, body=b'"three"'))  # type: ignore[arg-type]
    (push,) = world.step(desk)
    assert push["conversations"][0].get("body") == ("three" if include else None)


def test_what_was_recalled_has_expired_or_was_replaced_wakes_nobody(world: World) -> None:
    desk = world.pushes(delay_s=5)
    recalled = world.say("ann", "bob")
    world.request("ann", rq.Recall(id="x", conv="ann:bob", seq=recalled.seq))
    world.say("ann", "bob", ttl=3)
    assert world.step(desk, 5) == []
    world.say("ann", "bob", 18, key="t")
    world.say("ann", "bob", 19, key="t")
    (push,) = world.step(desk, 5)
    assert (push["count"], push["conversations"][0]["seq"]) == (1, 4)


def test_more_than_one_push_can_hold_goes_on_in_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_ITEMS", 3)
    desk = world.pushes(delay_s=0, coalesce_s=1)
    for _ in range(5):
        world.say("ann", "bob")
    (push,) = world.step(desk)
    assert (push["count"], push["more"], push["conversations"][0]["seq"]) == (3, True, 3)
    world.answer(desk)
    (push,) = world.step(desk, 1)
    assert (push["count"], push.get("more"), push["conversations"][0]["seq"]) == (2, None, 5)


def test_a_push_is_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_BYTES", 100)
    desk = world.pushes(delay_s=0, coalesce_s=0)
    for number in range(3):
        world.say("ann", "bob", "x" * 60, push={"n": number})
    seen = []
    while found := world.step(desk):
        seen.append((found[0]["count"], found[0].get("more", False)))
        world.answer(desk)
    assert seen == [(1, True), (1, True), (1, False)]


def test_dropped_messages_of_a_blocked_sender_push_nobody(tmp_path: Path) -> None:
    world = World(tmp_path, drop_blocked=True)
    pushes, events = world.pushes(delay_s=0), world.events()
    world.request("bob", rq.Block(id="b", user="ann"))
    world.say("ann", "bob")
    assert world.step(pushes) == world.step(events) == []
    world.close()


# Failures


def test_a_push_that_failed_is_sent_again_ever_later_and_put_aside_at_last(world: World) -> None:
    desk = world.pushes(delay_s=0, max_attempts=3)
    world.say("ann", "bob")
    ids = set()
    for wait_s in (1, 2):
        (push,) = world.step(desk)
        ids.add(push["id"])
        world.answer(desk, 400)
        assert world.step(desk, wait_s - 0.1) == []
        world.now += 100
    (push,) = world.step(desk)
    world.answer(desk, 400)
    assert world.step(desk, 100_000) == []
    assert ids == {push["id"]}
    (dead,) = world.outbox.dead()
    assert (dead.event, dead.subject, dead.attempts, dead.error) == ("push", "bob", 3, "status 400")
    assert world.counts == [("push", "failed")] * 3 + [("push", "dead")]
    assert world.outbox.revive() == 1
    assert world.step(desk)[0]["id"] == push["id"]


def test_a_new_message_revives_a_dead_push(world: World) -> None:
    desk = world.pushes(delay_s=0, max_attempts=1)
    world.say("ann", "bob")
    world.step(desk)
    world.answer(desk, 500)
    assert world.outbox.dead_count("push") == 1
    world.say("ann", "bob")
    (push,) = world.step(desk, 10)
    assert push["count"] == 2
    assert world.outbox.dead_count("push") == 0


def test_a_push_that_has_become_needless_is_not_sent_again(world: World) -> None:
    world.attach("bob")
    desk = world.pushes(delay_s=0)
    world.say("ann", "bob")
    world.step(desk)
    world.answer(desk, 503)
    world.acknowledge("bob")
    assert world.step(desk, 10) == []
    assert world.outbox.waiting("push") == 0


def test_a_receiver_out_of_order_is_tried_with_one_at_a_time(world: World) -> None:
    desk = world.pushes(delay_s=0, coalesce_s=0)
    for user in ("bob", "cat", "dan"):
        world.say("ann", user)
    assert len(world.step(desk)) == 3
    world.answer(desk, 0, error="refused")
    for user in ("eve", "fay"):
        world.say("ann", user)
    assert world.step(desk) == []
    assert len(world.step(desk, 60)) == 1
    world.answer(desk)
    assert len(world.step(desk)) == 4


def test_retry_after_is_honoured(world: World) -> None:
    desk = world.pushes(delay_s=0)
    world.say("ann", "bob")
    world.step(desk)
    world.answer(desk, 429, retry_after=120)
    assert world.step(desk, 119) == []
    assert len(world.step(desk, 1)) == 1


@pytest.mark.parametrize("when", ["before it is followed", "before it is sent", "before it is answered"])
def test_a_kill_loses_no_push(world: World, when: str) -> None:
    desk = world.pushes(delay_s=0)
    world.say("ann", "bob")
    if when == "before it is sent":
        desk.follow(world.now)
    elif when == "before it is answered":
        world.step(desk)
    world.restart()
    (push,) = world.step(world.pushes(delay_s=0))
    assert (push["user"], push["count"]) == ("bob", 1)


def test_users_whose_devices_were_cut_off_by_a_restart_have_their_delay_too(world: World) -> None:
    world.pushes(delay_s=2)
    world.say("ann", "bob")
    world.now += 60_000
    world.restart()
    desk = world.pushes(delay_s=2)
    assert world.step(desk, 1.9) == []
    assert len(world.step(desk, 0.1)) == 1


def test_rows_of_users_who_know_everything_are_swept_away(world: World) -> None:
    desk = world.pushes(delay_s=0, coalesce_s=1)
    world.say("ann", "bob")
    world.step(desk)
    world.answer(desk)
    world.step(desk, 120)
    world.step(desk)
    assert world.outbox._push_rows(True) == []
