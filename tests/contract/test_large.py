"""Large groups on PostgreSQL: one row tells all their members, and each takes it into the inbox later, once and in its order."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, patch

import pytest
from msgspec import Raw

from mqtt_im.bridge.claims import Claims
from mqtt_im.copying import copy_store
from mqtt_im.core.rules import Who
from mqtt_im.postgres import meta, nodes, upgrading
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.nodes import leave
from mqtt_im.protocol import requests as rq
from mqtt_im.store.common.retaining import DAY_MS
from mqtt_im.store.jobs.delivering import AttachJob, CursorsJob, PullJob
from mqtt_im.store.jobs.reads import FetchJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.policy import Policy
from mqtt_im.store.postgres import large, telling
from mqtt_im.store.postgres.check import check
from mqtt_im.store.postgres.committing import Line
from mqtt_im.store.postgres.errors import Lost
from mqtt_im.store.postgres.kept import kept_by
from mqtt_im.store.postgres.lags import Lags
from mqtt_im.store.postgres.telling import Telling
from mqtt_im.store.queries import belongings, stories
from mqtt_im.store.sqlite.check import check as check_files
from tests.support.pgstore import PostgresStore
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
MEMBERS = ["ann", "bob", "cat", "dan"]

Make = Callable[..., PostgresStore]


@pytest.fixture
def make(database: str, tmp_path: Path) -> Iterator[Make]:
    """Makes nodes on one database, on which groups of three are large."""
    made: list[PostgresStore] = []

    def one(most_at_once: int = 2, **options: Any) -> PostgresStore:
        folder = tmp_path / f"node{len(made)}"
        folder.mkdir()
        made.append(PostgresStore(database, folder, online=MEMBERS, name=folder.name, most_at_once=most_at_once, **options))
        return made[-1]

    yield one
    for store in made:
        store.close()
    with Database(database).connect("test") as connection:
        exists = connection.execute("SELECT to_regclass('im_user') IS NOT NULL").fetchone()
    if exists and exists[0]:
        assert check(Database(database)).problems == []


def ask(store: PostgresStore, user: str, request: rq.Request, now: int = NOW) -> RequestJob:
    job = RequestJob(Who(user, "pc", 0, token="made"), request, lambda _: None)
    store.run([job], now)
    assert job.refusal is None, job.refusal
    return job


def say(store: PostgresStore, user: str, to: str, body: object, now: int = NOW, **fields: Any) -> RequestJob:
    return ask(store, user, rq.Send(to=to, body=Raw(json.dumps(body).encode()), **fields), now)


def pull(store: PostgresStore, *users: str) -> PullJob:
    job = PullJob(users, "", lambda _: None)
    store.run([job], NOW)
    assert job.refusal is None
    return job


def attach(store: PostgresStore, user: str, device: str) -> AttachJob:
    job = AttachJob(Who(user, device, 0), lambda _: None)
    store.run([job], NOW)
    assert job.refusal is None and job.state is not None
    return job


def inbox(store: PostgresStore | SqliteStore, user: str) -> list[Any]:
    """What the user has been told: bodies, and the kinds of other items."""
    job = FetchJob(user, 0, 1000, 10**6, lambda _: None)
    store.run([job], NOW)
    items = [json.loads(entry.item(pos, user, "x", NOW)) for pos, entry in job.entries]
    assert [item["pos"] for item in items] == list(range(1, len(items) + 1))
    return [item.get("body") or item.get("system", {}).get("event") or item["op"] for item in items]


def group(store: PostgresStore, *members: str) -> None:
    ask(store, "ann", rq.GroupCreate(id="make", group="#g", members=list(members or MEMBERS[1:])))


def test_a_message_changes_nobody_but_its_sender(make: Make) -> None:
    store = make()
    group(store)
    before = {user: store.see(lambda view, user=user: view.state.user(user).head, NOW) for user in MEMBERS}  # type: ignore[misc]
    job = say(store, "ann", "#g", 1)
    assert job.commits is not None and job.commits[0].to == [("ann", 2)] and job.commits[0].members == 4
    assert store.woken[-1] == (["ann"], ["#g"])
    for user, head in before.items():
        assert store.see(lambda view, user=user: view.state.user(user).head, NOW) == head + (user == "ann")  # type: ignore[misc]
    told = pull(store, *MEMBERS).told
    assert [(commit.to, commit.entry is None) for commit in told] == [([(user, 2) for user in MEMBERS[1:]], False)]
    assert pull(store, *MEMBERS).told == []
    assert all(inbox(store, user) == ["group.create", 1] for user in MEMBERS)


def test_a_conversation_is_told_in_its_order_and_others_stand_between(make: Make) -> None:
    """INV-3: what one conversation tells stands in its order, what several tell in whichever."""
    store = make()
    group(store)
    say(store, "ann", "#g", "first")
    say(store, "cat", "bob", "direct")
    say(store, "bob", "#g", "second")  # bob has the first one by now
    assert inbox(store, "bob") == ["group.create", "direct", "first", "second"]
    pull(store, *MEMBERS)
    assert inbox(store, "cat") == ["group.create", "direct", "first", "second"]
    assert inbox(store, "ann") == ["group.create", "first", "second"]


def test_two_nodes_that_take_for_one_user_at_once_take_it_once(make: Make) -> None:
    nodes = [make(), make()]
    group(nodes[0])
    for number in range(30):
        say(nodes[number % 2], "ann", "#g", number + 1)
        threads = [threading.Thread(target=pull, args=(node, "bob", "cat")) for node in nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for user in ("bob", "cat"):
        assert inbox(nodes[0], user) == ["group.create", *range(1, 31)]


def test_one_who_was_away_takes_it_a_page_at_a_time(make: Make) -> None:
    store = make()
    group(store)
    attach(store, "bob", "pc")
    for number in range(7):
        say(store, "ann", "#g", number + 1)
    with patch.object(telling, "PAGE", 3):
        job = attach(store, "bob", "pc")
        assert job.more and job.pulled and job.state is not None and job.state.head == 4
        assert pull(store, "bob").more == ["bob"] and pull(store, "bob").more == []
    assert inbox(store, "bob") == ["group.create", *range(1, 8)]


def test_a_further_device_begins_behind_all_that_was_told(make: Make) -> None:
    store = make()
    group(store)
    attach(store, "bob", "pc")
    for number in range(7):
        say(store, "ann", "#g", number + 1)
    with patch.object(telling, "PAGE", 2):
        job = attach(store, "bob", "phone")
    assert job.state is not None and job.state.cursor == job.state.head == 8 and not job.more


def test_who_leaves_and_comes_back_has_what_was_told_meanwhile_to_nobody_of_that_name(make: Make) -> None:
    store = make()
    group(store)
    say(store, "ann", "#g", "before")
    ask(store, "ann", rq.GroupRemove(id="r", group="#g", members=["bob"]))
    say(store, "ann", "#g", "without bob")
    ask(store, "ann", rq.GroupAdd(id="a", group="#g", members=["bob"]))
    say(store, "ann", "#g", "after")
    ask(store, "bob", rq.GroupLeave(id="l", group="#g"))
    say(store, "ann", "#g", "last")
    pull(store, *MEMBERS)
    assert inbox(store, "bob") == ["group.create", "before", "group.remove", "group.add", "after", "group.leave"]
    assert inbox(store, "cat")[-3:] == ["after", "group.leave", "last"]


def test_the_heir_of_a_group_is_told_so(make: Make) -> None:
    store = make()
    group(store)
    say(store, "ann", "#g", 1)
    ask(store, "ann", rq.GroupLeave(id="l", group="#g"))
    pull(store, *MEMBERS)
    for user in MEMBERS[1:]:
        assert inbox(store, user) == ["group.create", 1, "group.leave", "group.role"]
    assert inbox(store, "ann") == ["group.create", 1, "group.leave"]


def test_a_group_becomes_large_with_its_members_and_stays_so(make: Make) -> None:
    nodes = [make(), make()]
    group(nodes[0], "bob")
    assert len(say(nodes[0], "ann", "#g", "small").commits[0].record.pos) == 2  # type: ignore[index, union-attr]
    ask(nodes[1], "ann", rq.GroupAdd(id="a", group="#g", members=["cat"]))
    say(nodes[0], "bob", "#g", "large")
    ask(nodes[1], "ann", rq.GroupRemove(id="r", group="#g", members=["cat"]))
    job = say(nodes[0], "ann", "#g", "still")
    assert len(job.commits[0].record.pos) == 1  # type: ignore[index, union-attr]
    pull(nodes[1], *MEMBERS)
    for user in ("ann", "bob"):
        assert inbox(nodes[0], user) == ["group.create", "small", "group.add", "large", "group.remove", "still"]
    assert inbox(nodes[0], "cat") == ["group.add", "large", "group.remove"]


def test_what_was_recalled_before_it_was_taken_is_not_shown(make: Make) -> None:
    store = make()
    group(store)
    say(store, "ann", "#g", "secret")
    say(store, "ann", "#g", "wrong")
    ask(store, "ann", rq.Recall(id="r", conv="#g", seq=2))
    ask(store, "ann", rq.Edit(id="e", conv="#g", seq=3, body=Raw(b'"right"')))
    ask(store, "cat", rq.React(id="x", conv="#g", seq=3, emoji="+"))
    pull(store, *MEMBERS)
    for user in MEMBERS:
        assert inbox(store, user) == ["group.create", "msg", "right", "recalled", "right", "reacted"]


def test_what_a_later_message_with_its_key_has_replaced_comes_as_a_void(make: Make) -> None:
    """INV-12: of what is in the inbox already it may have been offered, so that stays."""
    nodes = [make(), make()]
    group(nodes[0])
    say(nodes[0], "ann", "#g", 1, key="k")
    pull(nodes[0], "bob")
    for number in range(2, 5):
        say(nodes[number % 2], "ann", "#g", number, key="k")
        say(nodes[0], "cat", "#g", -number, key="k")
    pull(nodes[1], *MEMBERS)
    assert inbox(nodes[0], "bob") == ["group.create", 1, "void", "void", "void", "void", 4, -4]
    assert inbox(nodes[0], "dan") == ["group.create", "void", "void", "void", "void", "void", 4, -4]
    assert inbox(nodes[0], "ann")[:2] == ["group.create", 1]


def test_a_key_replaces_over_pages_too(make: Make) -> None:
    store = make()
    group(store)
    attach(store, "bob", "pc")
    for number in range(1, 6):
        say(store, "ann", "#g", number, key="k")
        say(store, "cat", "#g", -number)
    with patch.object(telling, "PAGE", 3):
        more = [pull(store, "bob").more for _ in range(4)]
    assert more == [["bob"], ["bob"], ["bob"], []]
    assert inbox(store, "bob") == ["group.create", "void", -1, "void", -2, "void", -3, "void", -4, 5, -5]


def test_what_nobody_was_offered_yet_is_replaced_in_the_inbox_as_in_a_small_group(make: Make) -> None:
    """INV-12. The node that takes it for the member asks what it has offered; a device that another node has may have been."""
    claims = Claims()
    first, second = make(claim=claims.take_back, unclaim=claims.release), make()
    group(first)
    attach(first, "bob", "pc")
    say(first, "ann", "#g", 1, key="k")
    pull(first, "bob")
    say(first, "ann", "#g", 2, key="k")
    assert pull(first, "bob").told[0].to == [("bob", 3)]
    assert inbox(first, "bob") == ["group.create", "void", 2]
    assert first.settled == [("bob", 2)]
    assert not claims.still_there("bob", 2), "until the loop was told so"
    assert claims.offer("bob", 3)
    say(first, "ann", "#g", 3, key="k")
    pull(first, "bob")
    assert inbox(first, "bob") == ["group.create", "void", 2, 3]
    say(first, "ann", "#g", 4, key="k")
    pull(second, "bob")
    assert inbox(first, "bob") == ["group.create", "void", 2, 3, 4], "the other node does not know whether it was offered"
    for number in range(large.LOOK_BACK // 100):
        first.run(
            [RequestJob(Who("cat", "pc", 0), rq.Send(to="bob", body=Raw(b"%d" % n)), lambda _: None) for n in range(99)], NOW
        )
        say(first, "ann", "#g", number, key="far")
        pull(first, "bob")
    assert inbox(first, "bob").count("void") == 1 + large.LOOK_BACK // 100 - 1, "behind many others too"


def test_an_item_that_was_not_replaced_after_all_is_offered_again(make: Make) -> None:
    claims = Claims()
    store = make(claim=claims.take_back, unclaim=claims.release)
    group(store)
    attach(store, "bob", "pc")
    say(store, "ann", "#g", 1, key="k")
    pull(store, "bob")
    say(store, "ann", "#g", 2, key="k")
    with patch.object(Line, "send", side_effect=Lost("the connection to the database is lost")):
        store.run([PullJob(["bob"], "", lambda _: None)], NOW)
    assert store.ledger.writer._recovered(store.engine)
    assert claims.offer("bob", 2)
    pull(store, "bob")
    assert inbox(store, "bob") == ["group.create", 1, 2]


def test_one_who_lags_far_behind_takes_it_with_several_batches_before_the_first_word_of_its_own(make: Make) -> None:
    """A hundred thousand items were one transaction. Others go on between, and what the user says next waits in its turn."""
    store = make()
    group(store)
    attach(store, "dan", "pc")
    for number in range(1, 11):
        say(store, "ann", "#g", number)
    largest: list[int] = []
    run = Telling._come

    def come(self: Telling, users: Any, refs: Any) -> None:
        largest.append(sum(map(len, refs.values())))
        run(self, users, refs)

    bob, done = Who("bob", "pc", 0), list[Any]()
    jobs = [
        RequestJob(bob, rq.Send(id="a", to="#g", body=Raw(b'"a"')), done.append),
        RequestJob(bob, rq.Send(id="b", to="ann", body=Raw(b'"b"')), done.append),
        RequestJob(Who("ann", "pc", 0), rq.Send(id="c", to="cat", body=Raw(b'"c"')), done.append),
    ]
    with patch.object(telling, "PAGE", 3), patch.object(Telling, "_come", come):
        store.run(jobs, NOW)
        attached = attach(store, "dan", "phone")
    assert [job.request.id for job in done] == ["c", "a", "b"] and not any(job.refusal for job in done)
    assert max(largest) == 3
    assert inbox(store, "bob") == ["group.create", *range(1, 11), "a", "b"]
    assert attached.state is not None and attached.state.head == attached.state.cursor == 12, "it begins at the head"


def test_what_has_still_to_come_counts_as_behind(make: Make) -> None:
    store = make()
    group(store)
    attach(store, "bob", "pc")
    for number in range(3):
        say(store, "ann", "#g", number)
    (device,) = store.see(lambda view: belongings.lags(view, "bob"), NOW)
    assert (device["pos"], device["head"], device["lag"]) == (0, 4, 4)
    story = store.see(lambda view: stories.story(view, "#g", 3), NOW)
    assert story is not None
    told = store.see(lambda view: stories.recipients(view, "#g", 3, story.members).told, NOW)
    told += store.see(lambda view: stories.waiting(view, "#g", 3), NOW)
    assert [(one["user"], one["pos"], one["devices"]) for one in told] == [
        ("ann", 3, []),
        ("bob", None, [{"device": "pc", "acknowledged": False}]),
        ("cat", None, []),
        ("dan", None, []),
    ]
    asked = SimpleNamespace(call=AsyncMock(side_effect=lambda look: store.see(look, NOW)))
    lags = Lags(cast(Any, asked))
    for piece in (500, 1):
        with patch("mqtt_im.store.postgres.lags.PIECE", piece), patch("mqtt_im.store.postgres.lags.SHARE", 0):
            assert asyncio.run(lags._look()) == (1, 4)
    kept = kept_by(store.database, "ann")
    assert kept is not None and (kept.messages, kept.groups, kept.made, kept.inbox) == (3, 1, 1, True)
    assert kept_by(store.database, "nobody") is None


def test_retention_waits_for_members_who_have_not_taken_it(make: Make) -> None:
    store = make()
    group(store)
    attach(store, "bob", "pc")
    say(store, "ann", "#g", "old")
    later = NOW + 3 * DAY_MS

    def compact() -> int:
        ended: list[Any] = []
        store.engine.retain(Policy(retention_days=1), later, ended.append)
        while not ended:
            store.engine.side_work(0)
        store.engine.load()
        return int(ended[0].messages)

    assert compact() == 0, "bob's device has not even been offered it"
    pull(store, "bob")
    assert compact() == 0, "nor has it been acknowledged"
    head = store.see(lambda view: view.state.user("bob").head, NOW)
    store.run([CursorsJob([("bob", "pc", head, [])], lambda _: None)], later)
    assert compact() == 2, "cat, who has no device, holds back nothing"
    say(store, "ann", "#g", "new", later)
    pull(store, *MEMBERS)
    found = store.see(lambda view: view.state.items(view.state.user("cat"), 0, 10), NOW)
    assert len(found) == 1


def _as_it_was(connection: Connection) -> None:
    """The tables of the release before."""
    for statement in (
        "DROP TABLE told",
        "DROP INDEX grp_large",
        "UPDATE meta SET value = '1' WHERE key = 'schema'",
        "UPDATE grp SET large = false",
    ):
        connection.execute(statement)


def test_beside_an_older_release_everything_is_written_out(make: Make, database: str) -> None:
    there = Database(database)
    with there.connect("test") as connection:
        first = make(200)
        group(first)
        _as_it_was(connection)
        newer = make()
        job = ask(newer, "ann", rq.GroupRemove(id="r", group="#g", members=["dan"]))
        assert len(job.commits[0].record.pos) == 4  # type: ignore[index, union-attr]
        assert len(say(newer, "ann", "#g", 1).commits[0].record.pos) == 3  # type: ignore[index, union-attr]
        with patch.dict(upgrading.UPGRADES, {2: tuple(one.replace("200", "2") for one in upgrading.UPGRADES[2])}):
            assert upgrading.upgrade(there, connection) == (1, meta.SCHEMA)
        assert nodes.beat(connection, newer.me)  # from the next one on a running node knows
        assert len(say(newer, "ann", "#g", 2).commits[0].record.pos) == 1  # type: ignore[index, union-attr]
        pull(newer, *MEMBERS)
    for user in ("ann", "bob", "cat"):
        assert inbox(newer, user)[-2:] == [1, 2]
    ask(newer, "cat", rq.GroupCreate(id="other", group="#h", members=["ann"]))
    ask(newer, "cat", rq.GroupAdd(id="a", group="#h", members=["bob", "dan"]))
    assert len(say(newer, "ann", "#h", 2).commits[0].record.pos) == 1  # type: ignore[index, union-attr]
    assert nodes.DDL and large.SINCE == 2


def test_what_is_still_to_be_taken_is_copied_too(make: Make, database: str, tmp_path: Path) -> None:
    store = make()
    group(store)
    attach(store, "bob", "pc")
    say(store, "ann", "#g", "first")
    say(store, "cat", "bob", "direct")
    say(store, "ann", "#g", "second", key="k")
    pull(store, "bob")
    say(store, "ann", "#g", "newer", key="k")
    say(store, "ann", "#g", "newest", key="k")
    assert inbox(store, "bob") == ["group.create", "direct", "first", "second"]
    store.run([CursorsJob([("bob", "pc", 2, [])], lambda _: None)], NOW)
    say(store, "cat", "#g", "third")
    with store.database.connect("test") as connection:
        leave(connection, store.me)
    copy_store(database, str(tmp_path / "files"), lambda _: lambda _: None)
    assert check_files(tmp_path / "files").problems == []
    files = SqliteStore(tmp_path / "files")
    assert inbox(files, "bob") == ["group.create", "first", "direct", "second", "void", "newest", "third"]
    assert inbox(files, "dan") == ["group.create", "first", "void", "void", "newest", "third"]
    device = files.engine.state.device("bob", "pc")
    assert device is not None and device.cursor == 1, "it had the direct message, and gets it again behind the first one"
    files.close()
    assert inbox(store, "dan") == ["group.create"], "the source is as it was"
