"""What a request costs does not grow with what else the user has: counted in steps of SQLite and in rows, not in time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
from msgspec import Raw

from mqtt_im.core.model import Conv, Member
from mqtt_im.core.records import Edited, decode
from mqtt_im.core.rules import Limits, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.store.common import delivered
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.queries import listings, pages, stories, visibility
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.state import contents, entities
from mqtt_im.store.sqlite.tables.files import LOG_FILE, PROJECTION_FILE
from mqtt_im.store.sqlite.tables.projection import Projection
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
FEW, MANY = 60, 1200
STEP = 20
"""Instructions of SQLite's virtual machine that are counted as one."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path, Limits(quota_groups=0, changes_per_message=0))
    yield store
    store.close()
    assert check(tmp_path).problems == []


def ask(store: SqliteStore, *requests: tuple[str, rq.Request]) -> None:
    jobs = [RequestJob(Who(user, "pc", 0), request, lambda _: None) for user, request in requests]
    store.run(jobs, NOW)
    assert [job.refusal for job in jobs] == [None] * len(jobs)


def steps(store: SqliteStore, look: Callable[[], Any]) -> int:
    """What a look costs the projections, where nothing is in memory."""
    store.close()
    store.reopen()
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    store.engine.projection._conn.set_progress_handler(tick, STEP)
    look()
    store.engine.projection._conn.set_progress_handler(None, STEP)
    return count


def send(to: str, body: bytes = b"1") -> rq.Send:
    return rq.Send(to=to, body=Raw(body))


def converse(store: SqliteStore, user: str, count: int) -> None:
    ask(store, *((user, send(f"{user}-{number}")) for number in range(count)))


def test_a_page_of_conversations_costs_the_same_however_many_there_are(store: SqliteStore) -> None:
    converse(store, "few", FEW)
    converse(store, "many", MANY)

    def look(user: str, after: str | None = None) -> Callable[[], dict[str, Any]]:
        return lambda: listings.convs(store.engine, Who(user, "pc", NOW), rq.Convs(after=after), 10, 10**6)

    assert steps(store, look("many")) <= 1.3 * steps(store, look("few")) + 5
    second = {user: look(user)()["next"] for user in ("few", "many")}
    assert steps(store, look("many", second["many"])) <= 1.3 * steps(store, look("few", second["few"])) + 5


def test_whether_two_share_a_conversation_is_looked_up(store: SqliteStore) -> None:
    for user, count in (("few", FEW), ("many", MANY)):
        converse(store, user, count)
        ask(store, (user, rq.GroupCreate(id="g", group=f"#{user}", members=["friend"])))

    def look(user: str) -> Callable[[], bool]:
        return lambda: visibility.shares_conversation(store.engine, user, "friend")

    assert steps(store, look("many")) <= 1.3 * steps(store, look("few")) + 5


@pytest.mark.parametrize("flushed", [False, True])
def test_whether_two_share_a_group_takes_as_long_as_the_one_in_fewer_groups_is_in(store: SqliteStore, flushed: bool) -> None:
    """Who was in thousands of groups was compared in each of them with every one of those who were connected."""
    for number in range(MANY):
        ask(store, ("ann", rq.GroupCreate(id=f"{number}", group=f"#{number}", members=["bob"])))
    ask(store, ("cat", rq.GroupCreate(id="c", group="#c", members=["dan", "bob"])))
    ask(store, ("ann", rq.GroupCreate(id="e", group="#e", members=["eve"])))
    if flushed:
        store.engine.flusher.flush()
    looked: list[str] = []
    conv_for = store.engine.state.conv_for

    def counting(name: str) -> Conv:
        looked.append(name)
        return conv_for(name)

    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    with patch.object(store.engine.state, "conv_for", counting):
        store.engine.projection._conn.set_progress_handler(tick, STEP)
        for user, other, expected in (("ann", "cat", False), ("eve", "ann", True), ("dan", "ann", False), ("ann", "dan", False)):
            assert store.engine.state.share_group(user, other) is expected
        store.engine.projection._conn.set_progress_handler(None, STEP)
    assert len(looked) <= 4 and count <= 10


def test_a_page_looks_at_the_members_of_few_large_groups_and_misses_none(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "MAX_MEMBERS", 40)
    monkeypatch.setattr(listings, "_LARGE", 30)
    for number in range(12):
        members = [f"u{other}" for other in range(2 if number % 3 else 19)]
        ask(store, ("ann", rq.GroupCreate(id=f"g{number}", group=f"#g{number}", members=members)))
    converse(store, "ann", 5)
    store.engine.flusher.flush()
    read: list[int] = []
    members_of_group = store.engine.projection.members_of_group

    def counting(cid: int) -> Any:
        found = members_of_group(cid)
        read.append(len(found))
        return found

    told: list[dict[str, Any]] = []
    pages, after = 0, None
    with patch.object(store.engine.projection, "members_of_group", counting):
        while pages == 0 or after is not None:
            for conv in store.engine.state._convs.values():
                if conv.group and conv.loaded:
                    conv.unload()
            read.clear()
            page = listings.convs(store.engine, Who("ann", "pc", NOW), rq.Convs(after=after), 50, 10**6)
            assert sum(read) <= 40 + 20, "one more may have been looked at in vain"
            told += [json.loads(bytes(conv)) for conv in page["convs"]]
            pages, after = pages + 1, page.get("next")
    names = [f"ann:ann-{number}" for number in reversed(range(5))] + [f"#g{number}" for number in reversed(range(12))]
    assert [conv["conv"] for conv in told] == names
    assert pages >= 3


def test_who_is_named_in_a_request_is_looked_up_together(store: SqliteStore) -> None:
    members = [f"u{number}" for number in range(300)]
    ask(store, ("ann", rq.GroupCreate(id="1", group="#1", members=members)))
    store.close()
    store.reopen()
    statements: list[str] = []
    store.engine.projection._conn.set_trace_callback(statements.append)
    ask(store, ("ann", rq.GroupCreate(id="2", group="#2", members=[*members, *(f"new{number}" for number in range(300))])))
    ask(store, ("ann", rq.GroupRemove(id="3", group="#1", members=members[:200])))
    store.engine.projection._conn.set_trace_callback(None)
    assert len(statements) < 60


def test_what_hangs_on_users_and_messages_leaves_the_memory(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few users may have many names that they block and mute, and many devices; few messages many reactions."""
    monkeypatch.setattr(entities, "MAX_BESIDE", 20 * entities.NAME_BYTES)
    monkeypatch.setattr(contents, "MAX_REACTIONS", 5)
    users = [f"u{number}" for number in range(30)]
    for user in users:
        ask(store, *((user, rq.Block(id="b", user=f"bad{number}")) for number in range(3)))
        ask(store, (user, rq.Mute(id="m", conv=f"friend:{user}", until=NOW + 1)), (user, send("friend")))
        ask(store, *((by, rq.React(id=f"r{user}", conv=f"friend:{user}", seq=1, emoji="+")) for by in (user, "friend")))
        store.run([AttachJob(Who(user, "pc", 0), lambda _: None)], NOW)
        store.engine.flusher.flush()

    def look() -> None:
        state = store.engine.state
        assert sum(len(user.blocks) + len(user.mutes) for user in state._users.values()) <= 24
        assert sum(map(len, state._devices.values())) <= 5
        assert sum(len(amended.reactions) for amended in state._amended.values() if amended is not None) <= 7

    look()
    store.close()
    store.reopen()
    for user in users:
        ask(store, ("friend", rq.React(id=f"t{user}", conv=f"friend:{user}", seq=1, emoji="-")), ("friend", send(user)))
        assert store.engine.state.user(user).blocks == {"bad0", "bad1", "bad2"}
        assert list(store.engine.state.devices(user)) == ["pc"]
        store.engine.flusher.flush()
    look()


@pytest.mark.parametrize("look", ["sync", "history", "convs"])
def test_a_page_full_of_large_bodies_reads_no_more_than_it_shows(store: SqliteStore, look: str) -> None:
    body = b'"%b"' % (b"x" * 5000)
    for number in range(200):
        ask(store, ("ann", send(f"u{number}" if look == "convs" else "bob", body)))
    store.close()
    store.reopen()
    read: list[int] = []
    get_many = store.engine.log.get_many

    def counting(lsns: list[int]) -> Any:
        read.extend(lsns)
        return get_many(lsns)

    who, user = Who("ann", "pc", NOW), store.engine
    with patch.object(store.engine.log, "get_many", counting):
        if look == "sync":
            page = pages.sync(user, who, rq.Sync(after=0), 500, 20_000)["items"]
        elif look == "history":
            page = pages.history(user, who, rq.History(conv="ann:bob"), 500, 20_000)["items"]
        else:
            page = listings.convs(user, who, rq.Convs(), 500, 20_000)["convs"]
    assert 2 <= len(page) <= 5
    assert len(read) <= 8


def test_a_recall_rewrites_two_rows_however_often_the_message_was_edited(store: SqliteStore) -> None:
    ask(store, ("ann", send("bob")))
    for number in range(50):
        ask(store, ("ann", rq.Edit(id=f"e{number}", conv="ann:bob", seq=1, body=Raw(b'"%d"' % number))))
    written: list[int] = []
    append = store.engine.log.append

    def counting(rows: Any, rewrites: Any) -> None:
        written.append(len(rewrites))
        append(rows, rewrites)

    with patch.object(store.engine.log, "append", counting):
        ask(store, ("ann", rq.Recall(id="r", conv="ann:bob", seq=1)))
    assert written == [2]
    assert [record.body for _, data in store.engine.log.after(0) if isinstance(record := decode(data), Edited)] == [None] * 50


def test_a_store_of_before_quotas_counts_what_it_has(store: SqliteStore) -> None:
    """Schema 3: no figures of users, no order of conversations, and each edit with its content."""
    ask(store, ("ann", rq.GroupCreate(id="1", group="#g", members=["bob", "cat"])))
    ask(store, ("cat", rq.GroupLeave(id="1", group="#g")), ("ann", send("#g")), ("ann", send("bob", b'"12"')))
    store.engine.flusher.flush()
    seen = listings.convs(store.engine, Who("cat", "pc", NOW), rq.Convs(), 9, 10**6)
    store.close()
    with closing(sqlite3.connect(store.data_dir / LOG_FILE)) as connection, connection:
        for table, columns in {
            "user": ("sent", "sent_bytes", "gone", "gone_bytes", "joined", "made"),
            "conv": ("size", "born", "maker"),
            "member": ("last", "latest"),
        }.items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 3")
    with closing(sqlite3.connect(store.data_dir / PROJECTION_FILE)) as connection, connection:
        connection.execute("PRAGMA user_version = 2")
    store.reopen()
    ann = store.engine.state.user("ann")
    assert (ann.kept, ann.kept_bytes, ann.joined, ann.made) == (2, 5, 1, 1)
    assert listings.convs(store.engine, Who("cat", "pc", NOW), rq.Convs(), 9, 10**6) == seen


def test_members_of_a_large_group_are_read_once(store: SqliteStore) -> None:
    """Not for each page; and again where one of them was written anew."""
    names = [f"m{number:03}" for number in range(300)]
    ids = map(str, range(100))

    def shown() -> list[str]:
        who = Who("ann", "pc", NOW)
        found = store.see(lambda view: listings.group_info(view, who, rq.GroupInfo(group="#g"), 500, 1 << 20), NOW)
        return [member["user"] for member in found["members"]]

    ask(store, ("ann", rq.GroupCreate(id=next(ids), group="#g", members=list(names))))
    store.close()
    store.reopen()
    loads, load = 0, Projection.members_of_group

    def counted(projection: Projection, cid: int) -> list[tuple[str, Member]]:
        nonlocal loads
        loads += 1
        return load(projection, cid)

    with patch.object(Projection, "members_of_group", counted):
        assert shown() == shown() == ["ann", *names]
        assert loads == 1
        for _ in range(3):
            ask(store, ("ann", rq.GroupRemove(id=next(ids), group="#g", members=[names.pop()])))
            assert shown() == ["ann", *names]
            store.engine.flusher.flush()
            assert shown() == ["ann", *names]
        for _ in range(2):
            ask(store, ("ann", rq.GroupRemove(id=next(ids), group="#g", members=[names.pop()])))
            store.engine.flusher.flush()
            assert shown() == ["ann", *names]


def test_of_a_large_group_whose_members_are_not_in_memory_those_with_marks_are_read(store: SqliteStore) -> None:
    """What a page of conversations tells is the same, and does not take the others to memory."""
    names = [f"m{number}" for number in range(20)]
    ask(store, ("ann", rq.GroupCreate(id="1", group="#g", members=names)), ("ann", send("#g")))
    ask(store, ("m3", rq.Read(conv="#g", seq=2)), ("m5", rq.Read(conv="#g", seq=2)), ("m5", rq.GroupLeave(id="l", group="#g")))

    def receipts() -> Any:
        page = store.see(lambda view: listings.convs(view, Who("ann", "pc", 0), rq.Convs(), 50, 1 << 20), NOW)
        return json.loads(bytes(page["convs"][0]))["receipts"]

    told = receipts()
    assert told == {"m3": {"delivered": 2, "read": 2}}
    store.close()
    store.reopen()
    with patch.object(Projection, "members_of_group", side_effect=AssertionError):
        assert receipts() == told
    ask(store, ("m4", rq.Read(conv="#g", seq=1)))
    assert receipts() == {**told, "m4": {"delivered": 1, "read": 1}}


def test_where_a_message_stands_in_an_inbox_is_found_in_few_looks(store: SqliteStore) -> None:
    """Each number that the message has in any inbox was looked for in every one: of a group of 5,000, whose inboxes are not
    alike, twelve million times, while nobody else could read."""
    members = [f"m{number:03}" for number in range(120)]
    for number, member in enumerate(members):
        ask(store, *(("ann", send(member)) for _ in range(number)))
    ask(store, ("ann", rq.GroupCreate(id="g", group="#g", members=members)))
    for number in range(20):
        ask(store, ("ann", send("#g")), ("ann", send(members[number])))
    for flushed in (False, True):  # of what is not, the numbers have left the memory
        if flushed:
            store.engine.flusher.flush()
        for seq in (1, 7):
            story = stories.story(store.engine, "#g", seq)
            assert story is not None and story.members == ["ann", *members]
            counted = Mock(side_effect=store.engine.state.items)
            with patch.object(store.engine.state, "items", counted):
                found = stories.recipients(store.engine, "#g", seq, story.members)
            assert counted.call_count <= 14 * len(story.members)
            assert {one["user"]: one["pos"] for one in found.told} == found.positions
            ((_, lsn),) = store.engine.state.messages(store.engine.state.conv_for("#g"), seq, seq)
            for name in story.members:
                pos = found.positions[name]
                assert store.engine.state.items(store.engine.state.user(name), pos - 1, 1) == [(pos, lsn)]


def test_what_a_device_says_it_has_is_looked_up_at_once(store: SqliteStore) -> None:
    """An `ack` of 5,000 items in as many conversations held up everybody's commits for 0.3 s, and it may go back and forth."""
    ask(store, *((f"u{number}", send("bob")) for number in range(MANY)))
    store.run([AttachJob(Who("bob", "phone", 0), lambda _: None)], NOW)
    ask(store, ("bob", rq.Hello(ack="app")))
    store.close()
    store.reopen()
    with patch.object(Projection, "member", side_effect=AssertionError("one by one")):
        marks = store.engine.state.delivered("bob", 0, MANY)
        convs = [store.engine.state.conv(str(name)) for name in marks[::2]]
        assert [conv is not None and conv.part("bob") is not None for conv in convs] == [True] * len(convs)
    assert len(convs) == 1000 == delivered.MAX_DELIVERED
