"""Retention: what goes, what stays, what holds it back, and that nobody can tell a store that was compacted from its rebuild."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.core.delivery import Delivery
from mqtt_im.core.records import Gone, Message, decode
from mqtt_im.core.rules import Limits, Who
from mqtt_im.core.rules.common import answer
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.queries import listings, pages
from mqtt_im.store.sqlite import backup
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.retention import choosing, folds
from mqtt_im.store.sqlite.retention import passes as retention
from mqtt_im.store.sqlite.retention.folds import Folds
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE
from tests.support.delivery import taken
from tests.support.retention import DAY, compact, projections
from tests.support.store import Crash, SqliteStore

from .power import Power

START = 1_700_000_000_000
ALL = 10**6


def ignore(job: Job) -> None:
    """Nobody waits for the job."""


class World:
    """A store whose clock is moved by hand. `ann` writes to `bob`; both have a device each."""

    def __init__(self, folder: Path, claim: Callable[[str, int], bool] = lambda *_: False) -> None:
        self.folder = folder
        self.now = START
        self.store = SqliteStore(folder, Limits(edit_window_s=-1, drop_blocked=True), claim=claim)

    def run(self, job: Job) -> None:
        self.now += 1
        self.store.run([job], self.now)

    def ask(self, user: str, request: rq.Request, device: str = "pc") -> dict[str, Any]:
        """The reply to a request. Raises its `Refusal`."""
        job = RequestJob(Who(user, device, 0), request, ignore)
        self.run(job)
        if job.refusal is not None:
            raise job.refusal
        assert job.decision is not None
        if job.commits is not None and job.decision.reply is None:
            record = job.commits[0].record
            return answer(record, "", user) if isinstance(record, Message) else {}
        return job.decision.reply or {}

    def say(self, user: str, to: str, body: str = "x", **fields: Any) -> dict[str, Any]:
        return self.ask(user, rq.Send(to=to, body=Raw(json.dumps(body).encode()), **fields))

    def attach(self, user: str, device: str = "pc") -> None:
        job = AttachJob(Who(user, device, 0), ignore)
        self.run(job)
        assert job.refusal is None

    def acknowledge(self, *users: str, device: str = "pc", upto: int | None = None) -> None:
        """The device has everything, or everything up to a position."""
        for user in users:
            head = self.store.engine.state.user(user).head if upto is None else upto
            self.run(CursorsJob([(user, device, head, [])], ignore))

    def keep(self, messages: int = 0, days: int = 0, expiry: int = 0) -> Removed:
        """A pass that leaves so many messages, of so many days. What is stored keeps the promises afterwards."""
        policy = Policy(retention_messages=messages, retention_days=days, device_expiry_days=expiry)
        removed = compact(self.store.engine, policy, self.now)
        self.verify()
        return removed

    def verify(self) -> None:
        """What is stored keeps the promises, and is what a rebuild makes of the log."""
        self.store.engine.flusher.flush()
        assert check(self.folder).problems == []
        stored = projections(self.folder)
        self.store.close()
        self.store.reopen(lose_projection=True)
        self.store.engine.flusher.flush()
        assert projections(self.folder) == stored

    def items(self, user: str, after: int = 0, limit: int = ALL, device: str = "pc") -> list[dict[str, Any]]:
        page = pages.sync(self.store.engine, Who(user, device, self.now), rq.Sync(after=after), limit, ALL)
        return [json.loads(bytes(item)) for item in page["items"]]

    def shape(self, user: str, after: int = 0, limit: int = ALL) -> list[str]:
        """The items in short: the ops, and of voids from where to where they reach."""
        return [
            f"{item['from']}-{item['pos']} {item['why']}" if item["op"] == "void" else item["op"]
            for item in self.items(user, after, limit)
        ]

    def history(self, user: str, conv: str = "ann:bob", **fields: Any) -> list[int]:
        page = pages.history(self.store.engine, Who(user, "pc", self.now), rq.History(conv=conv, **fields), ALL, ALL)
        return [json.loads(bytes(item))["seq"] for item in page["items"]]

    def conv(self, user: str, conv: str = "ann:bob") -> dict[str, Any]:
        page = listings.convs(self.store.engine, Who(user, "pc", self.now), rq.Convs(), ALL, ALL)
        found: dict[str, dict[str, Any]] = {told["conv"]: told for told in (json.loads(bytes(c)) for c in page["convs"])}
        return found[conv]

    def floor(self, user: str) -> int:
        return self.store.engine.state.user(user).floor


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.attach("ann")
    made.attach("bob")
    yield made
    made.store.close()


def test_without_a_policy_no_message_goes_but_what_is_superseded_does(world: World) -> None:
    for _ in range(5):
        world.say("ann", "bob")
        world.acknowledge("ann", "bob")
        world.ask("bob", rq.Read(conv="ann:bob", seq=world.store.engine.state.conv_for("ann:bob").head))
    before = world.items("bob"), world.conv("ann"), world.conv("bob")
    rows = dict(world.store.engine.log.after(0))
    removed = world.keep()
    assert (removed.messages, removed.items) == (0, 0)
    assert len(dict(world.store.engine.log.after(0))) == 5 + 1 < len(rows)
    assert (world.items("bob"), world.conv("ann"), world.conv("bob")) == before


def test_messages_beyond_the_newest_go(world: World) -> None:
    for number in range(10):
        world.say("ann", "bob", f"{number}", id=f"m{number}")
    world.acknowledge("ann", "bob")
    removed = world.keep(messages=3)
    assert (removed.messages, removed.items) == (7, 14)
    for user in ("ann", "bob"):
        assert world.history(user) == [8, 9, 10]
        assert world.floor(user) == 7
    assert world.shape("bob") == ["1-7 retention", "msg", "msg", "msg"]
    assert world.shape("ann") == ["1-7 retention", "sent", "sent", "sent"]
    assert world.keep(messages=3).messages == 0


def test_messages_that_are_old_go(world: World) -> None:
    for _ in range(3):
        world.say("ann", "bob")
        world.now += DAY
    world.acknowledge("ann", "bob")
    assert world.keep(days=4).messages == 0
    assert world.keep(days=2).messages == 2
    assert world.history("bob") == [3]
    world.now += 40 * DAY
    assert world.keep(days=2).messages == 1
    assert world.shape("bob") == ["1-3 retention"]
    assert (world.floor("bob"), world.history("bob")) == (3, [])
    told = world.conv("bob")
    assert (told["seq"], told["unread"], "last" in told) == (3, 0, False)
    assert world.say("ann", "bob")["seq"] == 4
    assert world.items("bob", after=3)[0]["pos"] == 4


def test_content_is_gone_from_the_files(world: World) -> None:
    world.say("ann", "bob", "old-secret", push={"title": "pushed-secret"})
    world.ask("ann", rq.Edit(conv="ann:bob", seq=1, body=Raw(b'"edited-secret"'), id="e"))
    world.ask("bob", rq.Report(conv="ann:bob", seq=1, state="executed", result=Raw(b'"result-secret"'), id="r"))
    world.say("ann", "bob", "kept")
    world.acknowledge("ann", "bob")
    world.store.engine.flusher.flush()
    files = [file for file in world.folder.iterdir() if file.is_file()]
    assert any(b"old-secret" in file.read_bytes() for file in files)
    assert world.keep(messages=1).scoured
    assert not any(b"secret" in file.read_bytes() for file in files)


# What holds it back.


def test_a_device_that_is_away_holds_back_what_it_has_not_got(world: World) -> None:
    for _ in range(6):
        world.say("ann", "bob")
    world.acknowledge("ann")
    world.acknowledge("bob", upto=2)
    assert world.keep(messages=1).messages == 2
    assert world.shape("bob") == ["1-2 retention", "msg", "msg", "msg", "msg"]
    assert world.history("ann") == [3, 4, 5, 6]
    world.acknowledge("bob")
    assert world.keep(messages=1).messages == 3


def test_every_device_of_every_recipient_counts(world: World) -> None:
    world.attach("bob", "tel")
    world.ask("ann", rq.GroupCreate(id="g", group="#g", members=["bob", "cat"]))
    for _ in range(3):
        world.say("ann", "#g")
    world.acknowledge("ann", "bob")
    assert world.keep(messages=1).messages == 0
    world.acknowledge("bob", device="tel")
    assert world.keep(messages=1).messages == 3, "cat has no device, and holds back nothing"
    assert world.history("cat", "#g") == [4]
    assert world.shape("cat") == ["1-3 retention", "msg"]


def test_a_device_that_was_not_seen_for_long_holds_back_nothing(world: World) -> None:
    for _ in range(3):
        world.say("ann", "bob")
    world.now += 10 * DAY
    world.acknowledge("ann")
    assert world.keep(messages=1, expiry=0).messages == 0
    assert world.keep(messages=1, expiry=11).messages == 0
    assert world.keep(messages=1, expiry=9).messages == 2
    assert world.shape("bob") == ["1-2 retention", "msg"]


def test_a_device_that_comes_back_or_is_still_there_is_seen(world: World) -> None:
    world.say("ann", "bob")
    world.say("ann", "bob")
    world.now += 10 * DAY
    world.acknowledge("ann")
    world.attach("bob")
    assert world.keep(messages=1, expiry=9).messages == 0
    world.now += 10 * DAY
    world.acknowledge("bob", upto=0)
    assert world.keep(messages=1, expiry=9).messages == 0


def test_a_forgotten_device_holds_back_nothing(world: World) -> None:
    world.say("ann", "bob")
    world.say("ann", "bob")
    world.acknowledge("ann")
    world.ask("bob", rq.DeviceForget(id="f", device="pc"))
    assert world.keep(messages=1).messages == 1
    # The next one is not the first, and starts at the head.
    world.attach("bob", "new")
    device = world.store.engine.state.device("bob", "new")
    assert device is not None and device.cursor == 2


def test_the_first_device_is_told_what_it_will_not_get(world: World) -> None:
    for _ in range(3):
        world.say("ann", "cat")
    world.acknowledge("ann")
    world.keep(messages=1)
    world.attach("cat")
    device = world.store.engine.state.device("cat", "pc")
    assert device is not None and device.cursor == 0
    assert world.shape("cat") == ["1-2 retention", "msg"]
    with pytest.raises(Refusal, match="items up to 2 are gone"):
        world.ask("cat", rq.Hello(after=1))
    world.ask("cat", rq.Hello(after=2))


# Repeats.


def test_ids_are_remembered_for_thirty_days(world: World) -> None:
    fields: dict[str, Any] = {"key": "k", "ttl": 5, "mentions": ["bob"], "push": {"title": "x"}}
    first = world.say("ann", "bob", "hi", id="m", **fields)
    requests = [
        rq.Edit(id="e", conv="ann:bob", seq=1, body=Raw(b'"ho"')),
        rq.React(id="a", conv="ann:bob", seq=1, emoji="+"),
        rq.Report(id="q", conv="ann:bob", seq=1, state="executed", result=Raw(b"[1]")),
        rq.Report(id="p", conv="ann:bob", seq=1, state="executed"),
        rq.Recall(id="r", conv="ann:bob", seq=1),
    ]
    for request in requests:
        world.ask("ann", request)
    world.say("ann", "bob")
    world.acknowledge("ann", "bob")
    assert world.keep(messages=1).messages == 1
    for _ in range(2):
        assert world.say("ann", "bob", "hi", id="m", **fields) == {**first, "dup": True}
        for request in requests:
            assert world.ask("ann", request) == {"op": "ok", "id": request.id, "dup": True}
        for changed in ({"push": {"title": "y"}}, {"push": None}, {"key": None}, {"mentions": None}, {"body": "he"}):
            with pytest.raises(Refusal, match="was already used"):
                world.say("ann", "bob", id="m", **{"body": "hi", **fields, **changed})
        for result in (b"[2]", b""):
            with pytest.raises(Refusal, match="was already used"):
                world.ask("ann", rq.Report(id="q", conv="ann:bob", seq=1, state="executed", result=Raw(result)))
        with pytest.raises(Refusal, match="was already used"):
            world.ask("ann", rq.Report(id="p", conv="ann:bob", seq=1, state="executed", result=Raw(b"[1]")))
        world.now += 29 * DAY
        world.keep(messages=1)
    world.now += 2 * DAY
    world.keep(messages=1)
    assert world.say("ann", "bob", "something else", id="m")["seq"] == 3


def test_a_repeat_of_a_recalled_message_with_push_is_a_repeat(world: World) -> None:
    first = world.say("ann", "bob", "hi", id="m", push={"title": "x"})
    world.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=1))
    assert world.say("ann", "bob", "hi", id="m", push={"title": "x"}) == {**first, "dup": True}


def test_a_publish_that_is_repeated_with_dup_is_a_repeat(world: World) -> None:
    def publish(dup: bool) -> dict[str, Any]:
        job = RequestJob(Who("ann", "pc", 0, packet=("s", 7, dup)), rq.Send(to="bob", body=Raw(b"1")), ignore)
        world.run(job)
        assert job.decision is not None
        return job.decision.reply or {"made": len(job.decision.records)}

    assert publish(False) == {"made": 1}
    world.say("ann", "bob")
    world.acknowledge("ann", "bob")
    assert world.keep(messages=1).messages == 1
    again = publish(True)
    assert (again["seq"], again["dup"]) == (1, True)


# What became of messages, and commands.


def test_what_became_of_a_message_goes_with_it_or_after_it(world: World) -> None:
    world.say("ann", "bob")
    world.ask("ann", rq.Edit(id="e", conv="ann:bob", seq=1, body=Raw(b'"new"')))
    world.ask("bob", rq.React(id="a", conv="ann:bob", seq=1, emoji="+"))
    world.say("ann", "bob")
    world.acknowledge("ann", "bob", upto=1)
    assert world.keep(messages=1).messages == 1
    assert world.shape("bob") == ["1-1 retention", "edited", "reacted", "msg"]
    assert world.items("bob")[1]["body"] == "new"
    with pytest.raises(Refusal, match="there is no message 1"):
        world.ask("ann", rq.Edit(id="e2", conv="ann:bob", seq=1, body=Raw(b'"newer"')))
    with pytest.raises(Refusal, match="there is no message 1"):
        world.ask("bob", rq.React(id="a2", conv="ann:bob", seq=1, emoji="-"))
    world.acknowledge("ann", "bob")
    assert world.keep(messages=1).items == 4
    assert world.shape("bob") == ["1-3 retention", "msg"]


def test_what_became_of_a_message_stays_with_it(world: World) -> None:
    world.say("ann", "bob")
    world.now += 10 * DAY
    world.say("ann", "bob", "old")
    for number in range(3):
        world.ask("ann", rq.Edit(id=f"e{number}", conv="ann:bob", seq=2, body=Raw(b'"new"')))
    world.acknowledge("ann", "bob")
    assert world.keep(messages=1, days=5).messages == 1
    assert world.history("bob") == [2]
    assert world.items("bob", after=1)[0]["body"] == "new"


def test_an_edit_of_a_recalled_message_that_is_gone_is_void(world: World) -> None:
    world.say("ann", "bob")
    world.ask("ann", rq.Edit(id="e", conv="ann:bob", seq=1, body=Raw(b'"new"')))
    world.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=1))
    world.say("ann", "bob")
    world.acknowledge("ann", "bob", upto=1)
    world.keep(messages=1)
    assert world.shape("bob") == ["1-1 retention", "2-2 retention", "recalled", "msg"]


def test_a_replaced_command_stays_replaced(tmp_path: Path) -> None:
    """Where the message that has replaced another could go first, nothing would say that it had."""
    world = World(tmp_path, claim=lambda *_: True)
    world.ask("ann", rq.GroupCreate(id="g", group="#g", members=["bob", "cat"]))
    world.attach("cat")
    world.say("ann", "#g", "18", key="k")
    world.ask("ann", rq.GroupRemove(id="x", group="#g", members=["cat"]))
    world.say("ann", "#g", "19", key="k")
    world.say("ann", "#g", "20")
    assert world.shape("bob") == ["msg", "2-2 replaced", "msg", "msg", "msg"]
    world.keep(messages=1)
    assert world.shape("bob") == ["msg", "2-2 replaced", "msg", "msg", "msg"]
    world.acknowledge("cat")
    world.keep(messages=1)
    assert world.shape("bob") == ["1-4 retention", "msg"]
    assert world.shape("cat") == ["1-3 retention"]
    world.store.close()


def test_a_key_of_a_message_that_is_gone_replaces_nothing(world: World) -> None:
    world.say("ann", "bob", key="k")
    world.say("ann", "bob")
    world.acknowledge("ann", "bob")
    world.keep(messages=1)
    world.say("ann", "bob", key="k")
    assert world.shape("bob") == ["1-1 retention", "msg", "msg"]


# Unread, groups, blocks.


def test_what_is_gone_is_not_unread(world: World) -> None:
    for _ in range(4):
        world.say("ann", "bob", mentions=["bob"])
    world.acknowledge("ann", "bob")
    told = world.conv("bob")
    assert (told["unread"], told["mentions"]) == (4, 4)
    world.keep(messages=1)
    told = world.conv("bob")
    assert (told["unread"], told["mentions"]) == (1, 1)
    world.ask("bob", rq.Read(conv="ann:bob", seq=2))
    assert world.conv("bob")["unread"] == 1


def test_who_has_left_is_not_shown_that_any_more_once_it_is_gone(world: World) -> None:
    world.ask("ann", rq.GroupCreate(id="g", group="#g", members=["bob"]))
    world.ask("bob", rq.GroupLeave(id="l", group="#g"))
    left = world.conv("bob", "#g")
    assert left["last"]["system"]["event"] == "group.leave" and world.history("bob", "#g")
    world.say("ann", "#g")
    world.say("ann", "#g")
    world.acknowledge("ann", "bob")
    world.keep(messages=1)
    assert world.history("bob", "#g") == []
    del left["last"]
    assert world.conv("bob", "#g") == left


def test_a_group_keeps_its_members_and_loses_its_messages(world: World) -> None:
    world.ask("ann", rq.GroupCreate(id="g", group="#g", members=["bob"], name="old name"))
    world.ask("ann", rq.GroupAdd(id="add", group="#g", members=["cat"]))
    world.say("bob", "#g")
    world.ask("ann", rq.GroupRole(id="role", group="#g", user="cat", role="admin"))
    world.ask("ann", rq.GroupRemove(id="rem", group="#g", members=["bob"]))
    world.say("cat", "#g")
    world.acknowledge("ann", "bob")
    info = listings.group_info(world.store.engine, Who("ann", "pc", 0), rq.GroupInfo(group="#g"), 10, 10**6)
    assert world.keep(messages=1).messages == 5
    assert listings.group_info(world.store.engine, Who("ann", "pc", 0), rq.GroupInfo(group="#g"), 10, 10**6) == info
    assert world.history("ann", "#g") == [6]
    assert world.history("bob", "#g") == []
    assert world.shape("bob") == ["1-5 retention"] and world.floor("bob") == 5
    again = world.ask("ann", rq.GroupAdd(id="add", group="#g", members=["cat"]))
    assert (again["seq"], again["dup"]) == (2, True)
    with pytest.raises(Refusal, match="was already used"):
        world.ask("ann", rq.GroupAdd(id="add", group="#g", members=["bob"]))


def test_a_message_that_was_dropped_for_a_blocked_sender_goes_too(world: World) -> None:
    world.say("ann", "bob", "one")
    world.ask("bob", rq.Block(id="b", user="ann"))
    world.say("ann", "bob", "two", id="two")
    world.say("ann", "bob", "three")
    world.ask("bob", rq.Unblock(id="u", user="ann"))
    world.say("ann", "bob", "four")
    world.ask("ann", rq.Edit(id="e", conv="ann:bob", seq=2, body=Raw(b'"edited"')))
    world.acknowledge("ann", "bob")
    assert world.history("bob") == [1, 4]
    assert world.keep(messages=2).messages == 2
    assert (world.history("ann"), world.history("bob")) == ([3, 4], [4])
    assert world.say("ann", "bob", "two", id="two")["dup"] is True


def test_history_steps_over_what_is_gone(world: World) -> None:
    with patch("mqtt_im.store.queries.pages.CHUNK", 2):
        for _ in range(4):
            world.say("ann", "bob")
        world.ask("ann", rq.Block(id="b", user="bob"))
        for _ in range(20):
            world.say("bob", "ann")  # ann never gets them, so only bob's devices count
        world.ask("ann", rq.Unblock(id="u", user="bob"))
        for _ in range(4):
            world.say("ann", "bob")
        world.acknowledge("bob")
        world.acknowledge("ann", upto=2)
        assert world.keep(messages=2).messages == 22
        for after, before in ((None, None), (0, None), (None, 29)):
            assert world.history("bob", after=after, before=before) == [3, 4, *range(25, 29)]
        assert world.history("bob", before=25) == [3, 4]
        assert world.history("bob", after=4, before=25) == []


# Items, in pages and to devices.


def test_voids_count_as_entries_of_a_page(world: World) -> None:
    for _ in range(4):
        world.say("ann", "bob")
        world.say("ann", "cat")
    world.attach("cat")
    world.acknowledge("ann", "bob")
    assert world.keep(messages=1).messages == 3
    assert world.shape("ann") == ["1-1 retention", "sent", "3-3 retention", "sent", "5-5 retention", "sent", "sent", "sent"]
    assert world.shape("ann", limit=3) == ["1-1 retention", "sent", "3-3 retention"]
    assert world.shape("ann", after=2, limit=1) == ["3-3 retention"]
    assert world.floor("ann") == 1


def test_a_device_below_the_floor_is_offered_a_void(world: World) -> None:
    for _ in range(6):
        world.say("ann", "bob")
    world.now += 10 * DAY
    world.acknowledge("ann")
    world.keep(messages=2, expiry=5)
    engine = world.store.engine
    owner = engine.state.user("bob")
    device = engine.state.device("bob", "pc")
    assert device is not None and device.cursor == 0
    delivery = Delivery("bob", "pc", device.cursor, owner.head, qos=1, window=8, app=False)
    wanted = delivery.want()
    assert wanted is not None
    delivery.fetched(engine.entries(owner, *wanted, ALL), owner.head)
    offered = []
    while (packet := taken(delivery, world.now, lambda *_: True)) is not None:
        offered.append((packet.packet_id, json.loads(packet.payload)))
    assert [(packet_id, item["op"], item.get("from"), item["pos"]) for packet_id, item in offered] == [
        (4, "void", 1, 4),
        (5, "msg", "ann", 5),
        (6, "msg", "ann", 6),
    ]
    assert delivery.acked(4) and delivery.cursor == 4


# Crashes, failures and restarts.


@pytest.mark.parametrize("crash", ["kill", "lose", "power"])
@pytest.mark.parametrize("steps", range(40))
def test_a_crash_at_any_moment_of_a_fold(world: World, steps: int, crash: str) -> None:
    """Until the fold is decided nothing has happened, from then on all of it has, whoever looks."""
    for number in range(6):
        world.say("ann", "bob", id=f"m{number}", key="k", mentions=["bob"])
    world.acknowledge("ann", "bob")
    world.now += 40 * DAY
    world.say("bob", "ann", id="new")
    world.acknowledge("ann", "bob")
    with patch.multiple(folds, SLICE_ROWS=3, LOG_ROWS=3, PART_ROWS=4, TIDIED_PARTS=1), Power(world.store) as power:
        work = retention.Pass(world.store.engine, Policy(retention_messages=2), world.now)
        for _ in range(steps):
            if work.step() and world.store.engine.flusher.writing:
                world.store.engine.flusher.flush()
        decided = world.store.engine.folds.position().number
        if crash == "power":
            power.cut()
        else:
            world.store.crash()
    assert check(world.folder).problems == []
    world.store.reopen(lose_projection=crash == "lose")
    assert world.history("bob") == ([6, 7] if decided else [1, 2, 3, 4, 5, 6, 7])
    world.verify()
    world.keep(messages=2)
    assert world.shape("bob") == ["1-5 retention", "msg", "sent"]


@pytest.mark.parametrize("step", ["decide", "project", "projected_now", "work_off", "settle"])
def test_a_fold_that_fails_is_done_when_the_store_works_again(world: World, step: str) -> None:
    for number in range(6):
        world.say("ann", "bob", id=f"m{number}")
    world.acknowledge("ann", "bob")
    full = patch.object(Folds, step, side_effect=sqlite3.OperationalError("disk full"))
    with full, pytest.raises(sqlite3.OperationalError):
        compact(world.store.engine, Policy(retention_messages=2), world.now)
    world.store.ledger.writer._trouble(world.store.engine, "disk full")
    assert world.store.ledger.writer._recovered(world.store.engine)
    assert world.history("bob") == ([1, 2, 3, 4, 5, 6] if step in ("decide", "settle") else [5, 6])
    world.verify()
    world.keep(messages=2)
    assert world.history("bob") == [5, 6]


def test_a_message_that_is_recalled_while_it_is_looked_at_is_gone(world: World) -> None:
    """What a fold leaves in a row is not what was there when it was planned."""
    secret = Raw(b'"secret"')
    for number in range(2):
        who = Who("ann", "pc", 0, packet=("s", number, False))
        world.run(RequestJob(who, rq.Send(to="bob", body=secret), ignore))
    world.now += 40 * DAY
    world.acknowledge("ann")
    engine = world.store.engine
    work = retention.Pass(engine, Policy(retention_messages=1), world.now)
    while work.step() and not engine.folds.position().number:
        engine.flusher.flush()
    world.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=1))
    while work.step():
        engine.flusher.flush()
    world.verify()
    assert world.items("bob")[0]["recalled"] is True
    bodies = [record.body for record in _records(world) if isinstance(record, Message)]
    assert bodies == [None, b'"secret"']
    assert all("packet" not in (record.extra or {}) for record in _records(world) if isinstance(record, Message))


def test_a_backup_from_the_middle_of_a_fold_holds_all_of_it_or_nothing(world: World, tmp_path: Path) -> None:
    for number in range(4):
        world.say("ann", "bob", id=f"m{number}")
    world.acknowledge("ann", "bob")
    engine = world.store.engine
    kept: list[tuple[bool, Path]] = []
    with patch.multiple(folds, SLICE_ROWS=2, LOG_ROWS=2):
        work = retention.Pass(engine, Policy(retention_messages=2), world.now)
        while work.step():
            engine.flusher.flush()
            target = tmp_path / f"backup{len(kept)}"
            backup.backup(world.folder, target)
            kept.append((bool(engine.folds.position().number), target))
    assert [decided for decided, _ in kept].count(True) > 5
    for decided, file in kept[::3]:
        folder = tmp_path / f"restored-{file.name}"
        backup.restore(file, folder)
        assert check(folder).problems == []
        other = World(folder)
        assert other.history("bob") == ([3, 4] if decided else [1, 2, 3, 4])
        other.verify()
        other.store.close()


def test_what_is_found_while_its_fold_is_worked_off_is_shown_as_it_was(world: World) -> None:
    """A search goes by log rows, which stay longer than history does."""
    for number in range(3):
        world.say("ann", "bob", "old", id=f"m{number}")
        world.ask("ann", rq.Edit(id=f"e{number}", conv="ann:bob", seq=number + 1, body=Raw(b'"new"')))
    world.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=3))
    world.say("ann", "bob", "new")
    world.acknowledge("ann", "bob")
    engine = world.store.engine
    rows = [lsn for lsn, data in engine.log.after(0) if isinstance(decode(data), Message)]
    shown: list[list[Any]] = []
    with patch.multiple(folds, SLICE_ROWS=1, LOG_ROWS=1):
        work = retention.Pass(engine, Policy(retention_messages=1), world.now)
        while work.step():
            engine.flusher.flush()
            found = pages.found(engine, Who("bob", "pc", world.now), rows)
            shown.append([json.loads(one)["body"] for one in found])
    assert shown[0] == ["new"] * 3 and shown[-1] == ["new"]
    assert {body for bodies in shown for body in bodies} == {"new"}


def test_a_part_of_a_pass_is_short_in_a_large_group_too(world: World) -> None:
    world.ask("ann", rq.GroupCreate(id="g", group="#g", name="G", members=[f"user{number}" for number in range(30)]))
    for _ in range(10):
        world.say("ann", "#g")
    looked: list[int] = []
    with (
        patch.object(retention, "SLICE_WEIGHT", 60),
        patch.object(choosing.Choice, "look_at", autospec=True, side_effect=choosing.Choice.look_at) as look,
    ):
        work = retention.Pass(world.store.engine, Policy(retention_messages=2), world.now)
        while work.step():
            world.store.engine.flusher.flush()
            looked.append(look.call_count - sum(looked))
    assert sum(looked) > 10 and max(looked) <= 4
    world.verify()


def test_a_rebuild_that_is_cut_short_begins_anew(world: World) -> None:
    for _ in range(6):
        world.say("ann", "bob")
    world.acknowledge("ann", "bob", upto=5)
    world.keep(messages=2)
    stored = projections(world.folder)
    world.store.close()
    cut_short = patch("mqtt_im.store.sqlite.retention.base.apply", side_effect=[None, Crash()])
    with patch("mqtt_im.store.sqlite.retention.base._FLUSH_ROWS", 1), cut_short, pytest.raises(Crash):
        world.store.reopen(lose_projection=True)
    world.store.reopen()
    world.store.engine.flusher.flush()
    assert projections(world.folder) == stored


def test_projections_of_too_long_ago_are_made_anew(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """As after a power cut that has taken more from the projections than the log can give back."""
    for _ in range(6):
        world.say("ann", "bob")
    world.acknowledge("ann", "bob")
    world.keep(messages=2)
    stored = projections(world.folder)
    world.store.close()
    with closing(sqlite3.connect(world.folder / PROJECTION_FILE)) as projection, projection:
        projection.execute("UPDATE meta SET value = value - 1 WHERE key = 'fold'")
    world.store.reopen()
    assert "are rebuilt" in caplog.text
    world.store.engine.flusher.flush()
    assert projections(world.folder) == stored


def test_projections_of_before_the_base_are_made_anew(world: World) -> None:
    """As after a power cut, where somebody read the projections for so long that a pass could not make sure of them."""
    world.say("ann", "bob", id="first")
    world.store.engine.flusher.flush()
    with patch.object(retention, "_TRIES", 1), patch.object(Folds, "settle", return_value=False), Power(world.store) as power:
        for number in range(5):
            world.say("ann", "bob", id=f"m{number}")
        world.acknowledge("ann", "bob")
        compact(world.store.engine, Policy(retention_messages=2), world.now)
        assert world.store.engine.folds.position().number == 1
        power.cut()
    assert check(world.folder).problems == []
    world.store.reopen()
    assert world.history("bob") == [5, 6]
    world.verify()


def test_small_folds_give_the_same_as_large_ones(world: World) -> None:
    for number in range(30):
        world.say("ann", "bob", id=f"m{number}")
        world.say("bob", "cat")
        world.ask("bob", rq.React(id=f"a{number}", conv="ann:bob", seq=number + 1, emoji="+"))
    world.acknowledge("ann", "bob")
    with (
        patch.object(retention, "SLICE_ROWS", 3),
        patch.object(retention, "FOLD_WEIGHT", 40),
        patch.multiple(folds, SLICE_ROWS=2, LOG_ROWS=2),
    ):
        removed = world.keep(messages=4)
    assert removed.messages == 52
    assert world.history("ann") == [27, 28, 29, 30]
    with patch.object(retention, "SLICE_ROWS", 1), patch.object(retention, "FOLD_WEIGHT", 1):
        assert world.keep(messages=2).messages == 4
    assert world.store.engine.folds.position().number >= 15


def test_the_newest_row_stays_so_that_numbers_go_on(world: World) -> None:
    world.say("ann", "bob")
    world.acknowledge("ann", "bob")
    world.now += 40 * DAY
    world.keep(days=1)
    assert [type(record).__name__ for record in _records(world)] == ["Cursors"]
    last = world.store.engine.last
    world.keep(days=1)
    assert world.store.engine.last == last
    world.say("ann", "bob")
    assert world.store.engine.last == last + 1
    world.verify()


def test_a_pass_by_age_alone_does_not_read_what_is_young(world: World) -> None:
    world.say("ann", "bob")
    world.acknowledge("ann", "bob")
    world.now += 10 * DAY
    world.say("ann", "bob")
    world.acknowledge("ann", "bob")
    assert world.keep(days=5).messages == 1
    assert world.store.engine.folds.position().base == 5


def test_gone_ids_stand_where_their_records_stood(world: World) -> None:
    world.say("ann", "bob", id="m")
    world.say("ann", "bob", id="n")
    world.acknowledge("ann", "bob")
    world.keep(messages=1)
    assert [type(record).__name__ for record in _records(world)] == ["Gone", "Message", "Cursors"]
    (gone, _, _) = _records(world)
    assert isinstance(gone, Gone)
    assert (gone.act.id, gone.act.seq, gone.act.pos) == ("m", 1, [1])


def _records(world: World) -> list[Any]:
    return [decode(data) for _, data in world.store.engine.log.after(0)]
