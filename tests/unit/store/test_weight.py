"""What the store keeps in memory is bounded by what it weighs: recipients count, and what is common is kept once (INV-16)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from msgspec import Raw

from mqtt_im.config import LimitsConfig
from mqtt_im.core.model import User
from mqtt_im.core.records import AnyRecord, GroupChange, Message, decode
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.shares import DEFAULT_MB, USUAL_MB, Bounds
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.sqlite import flusher, loading, projections
from mqtt_im.store.sqlite.check import check
from mqtt_im.store.sqlite.state import bulks, entities
from mqtt_im.store.sqlite.state.projected import ProjectedState
from mqtt_im.store.sqlite.tables import rows
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE, remove
from mqtt_im.store.sqlite.tables.projection import Projection
from tests.support.store import SqliteStore

NOW = 1_700_000_000_000
MEMBERS = 300
NAMES = [f"member{number:03}" for number in range(MEMBERS)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    found = SqliteStore(tmp_path)
    yield found
    found.close()
    assert check(tmp_path).problems == []


def ask(store: SqliteStore, user: str, request: rq.Request) -> RequestJob:
    job = RequestJob(Who(user, "pc", 0), request, lambda _: None)
    store.run([job], NOW)
    assert job.refusal is None
    return job


def make(store: SqliteStore, group: str) -> RequestJob:
    return ask(store, "ann", rq.GroupCreate(id=f"make{group}", group=group, members=list(NAMES)))


def say(store: SqliteStore, group: str, request_id: str, user: str = "ann", **fields: str) -> RequestJob:
    return ask(store, user, rq.Send(id=request_id, to=group, body=Raw(b'"hi"'), **fields))  # type: ignore[arg-type]


def test_of_a_message_to_many_the_numbers_leave_the_memory_with_the_commit(store: SqliteStore) -> None:
    make(store, "#g")
    job = say(store, "#g", "1", user=NAMES[7])
    assert job.commits is not None
    record = job.commits[0].record
    assert isinstance(record, Message) and record.pos == [2]  # the author's own
    for lsn in (1, 2):
        kept = store.engine.state.record(lsn)
        assert isinstance(kept, Message | GroupChange) and kept.pos == []
        row = store.engine.log.get(lsn)
        assert row is not None
        whole = decode(row)
        assert isinstance(whole, Message | GroupChange) and len(whole.pos) == MEMBERS + 1


def test_what_has_left_the_memory_is_found_in_the_log(store: SqliteStore) -> None:
    """INV-3, INV-4, INV-9: repeats are answered, replaced items are the right ones, a recall rewrites nothing but the content."""
    make(store, "#g")
    sender = NAMES[7]
    say(store, "#g", "1", user=sender, key="k")
    again = say(store, "#g", "1", user=sender, key="k")
    assert again.commits is None and again.decision is not None and again.decision.reply is not None
    assert (again.decision.reply["pos"], again.decision.reply["dup"]) == (2, True)
    made = make(store, "#g")
    assert made.decision is not None and made.decision.reply == {"op": "ok", "id": "make#g", "group": "#g", "seq": 1, "dup": True}
    before = store.engine.log.get(2)
    ask(store, sender, rq.Recall(id="r", conv="#g", seq=2))
    after = store.engine.log.get(2)
    assert before is not None and after is not None
    said, recalled = decode(before), decode(after)
    assert isinstance(said, Message) and isinstance(recalled, Message)
    assert recalled.pos == said.pos and recalled.body is None
    page = store.engine.entries(store.engine.state.user(NAMES[0]), 0, 10, 10**6)
    shown = [json.loads(entry.item(pos, NAMES[0], "pc", NOW)) for pos, entry in page]
    assert [item["op"] for item in shown] == ["msg", "msg", "recalled"]
    assert "system" in shown[0] and shown[1]["recalled"]


def test_messages_to_many_fill_no_memory(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher, "FLUSH_BYTES", 300_000)
    monkeypatch.setattr(flusher, "MOST_S", 60.0)  # on a slow machine more would be left for later
    make(store, "#g")
    for number in range(400):
        say(store, "#g", f"m{number}")
        store.keep_up()
        live, frozen = store.engine.state.live, store.engine.state.frozen
        assert live.weight + (frozen.weight if frozen is not None else 0) <= 900_000
        kept = [*live.records.values(), *(frozen.records.values() if frozen is not None else ())]
        assert sum(len(record.pos) for record in kept if isinstance(record, Message)) == 0
    assert store.engine.state.user(NAMES[0]).head == 401


def test_a_generation_is_full_with_so_many_changed_members(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher, "FLUSH_PARTS", 2 * MEMBERS)
    make(store, "#g")
    assert not store.engine.flusher.full()
    make(store, "#h")
    assert store.engine.flusher.full()  # what is frozen is gathered at once
    store.keep_up()
    frozen = store.engine.state.frozen
    assert frozen is not None and frozen.parts >= 2 * MEMBERS


def test_an_item_of_many_costs_each_of_them_one_number(store: SqliteStore) -> None:
    make(store, "#g")
    for number in range(20):
        say(store, "#g", f"m{number}")
    items = store.engine.state.live.items
    assert len(items) == MEMBERS + 1
    assert all(len(of) == 1 + 21 and of[0] == 1 for of in items.values())
    assert len({id(lsn) for of in items.values() for lsn in of[1:]}) <= 21 + 21  # shared


def test_what_members_have_in_common_is_kept_once(store: SqliteStore) -> None:
    for group in ("#g", "#h"):
        make(store, group)
    for _ in range(2):
        convs = [store.engine.state.conv_for(group) for group in ("#g", "#h")]
        assert len({id(member.spans) for conv in convs for member in conv.members.values()}) == 2
        names = [{id(name) for name in conv.members} for conv in convs]
        assert names[0] == names[1]
        users = [store.engine.state.user(name) for name in NAMES]
        assert len({id(user.blocks) for user in users} | {id(user.mutes) for user in users}) == 2
        store.close()
        store.reopen()


def test_members_of_groups_leave_the_memory_and_come_back(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """INV-3: and get the same numbers, whatever else was changed meanwhile."""
    groups = [f"#g{number}" for number in range(6)]
    monkeypatch.setattr(entities, "MAX_MEMBERS", 2 * MEMBERS + 10)
    for group in groups:
        make(store, group)
    store.engine.flusher.flush()
    for turn in range(3):
        for group in groups:
            say(store, group, f"{turn}{group}")
            ask(store, "ann", rq.GroupRemove(id=f"x{turn}{group}", group=group, members=[NAMES[turn]]))
            store.keep_up()
        store.engine.flusher.flush()
        store.engine.prefetch([])
        loaded = [group for group in groups if store.engine.state.conv_for(group).loaded]
        assert len(loaded) <= 2
    assert store.engine.state.user("ann").head == 6 + 3 * 6 * 2
    assert store.engine.state.user(NAMES[0]).head == 6 + 2 * 6


@pytest.mark.parametrize("way", ["start", "rebuild", "check"])
def test_who_takes_a_log_gives_members_back(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """No more groups are in memory than there is room for, however many the log speaks of."""
    groups = [f"#g{number}" for number in range(6)]
    for group in groups:
        make(store, group)
    store.engine.flusher.flush()
    for turn in range(2):
        for group in groups:
            say(store, group, f"{turn}{group}")
    left = tmp_path / "left"
    shutil.copytree(tmp_path, left)  # as a kill leaves it
    if way == "rebuild":
        remove(left / PROJECTION_FILE)
        monkeypatch.setattr(projections, "FLUSH_ROWS", 1)
    monkeypatch.setattr(entities, "MAX_MEMBERS", 2 * MEMBERS + 10)
    monkeypatch.setattr(loading, "MEMBERS", 2 * MEMBERS + 10)
    monkeypatch.setattr(loading, "ROWS", 4)
    monkeypatch.setattr("mqtt_im.store.sqlite.replay.LOOK", 1)
    loaded: list[int] = []
    whole: list[int] = []
    taking: type[ProjectedState] = ProjectedState if way == "start" else loading.LoadingState
    replay = taking.replay

    def taken(state: ProjectedState, lsn: int, record: AnyRecord, size: int) -> None:
        replay(state, lsn, record, size)
        regrouped = {name for generation in state._generations() for name in generation.regrouped}
        convs = [conv for conv in state._convs.values() if conv.group and conv.loaded and conv.name not in regrouped]
        loaded.append(len(convs))
        whole.extend(len(kept.pos) for kept in state.live.records.values() if isinstance(kept, Message))

    with patch.object(taking, "replay", taken):
        if way == "check":
            assert check(left).problems == []
        else:
            SqliteStore(left).close()
    assert len(loaded) >= 2 * len(groups)
    assert max(loaded) <= 2
    assert not any(whole)


def test_who_has_come_to_a_group_often_counts_as_often(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each time it is kept what one may read; 20 members of whom each came 1,000 times took 3 MB and counted as 20."""
    few = NAMES[:20]
    make(store, "#g")
    for name in ("#g", "#h"):
        if name == "#h":
            ask(store, "ann", rq.GroupCreate(id="h", group="#h", members=few))
        for turn in range(30):
            ask(store, "ann", rq.GroupRemove(id=f"r{turn}{name}", group=name, members=few))
            ask(store, "ann", rq.GroupAdd(id=f"a{turn}{name}", group=name, members=few))
    state = store.engine.state
    assert state.live.pinned >= MEMBERS + 2 * 20 * 2 * 30
    for _ in range(2):
        assert state._groups == {"#g": MEMBERS + 1 + 20 * 30, "#h": 1 + 20 * 31}
        assert state._grouped == sum(state._groups.values())
        members = state.conv_for("#h").members
        assert len({id(members[name].spans) for name in few}) == 1, "who comes and goes together has it in common"
        store.close()
        store.reopen()
        state = store.engine.state
        for name in ("#g", "#h"):
            assert state.conv_for(name).members
    monkeypatch.setattr(entities, "MAX_MEMBERS", MEMBERS + 1 + 20 * 30)
    store.engine.prefetch([])
    assert [state.conv_for(name).loaded for name in ("#g", "#h")] == [False, True]


def test_rows_of_who_blocks_many_are_made_one_by_one(store: SqliteStore) -> None:
    """Names are put in order and packed: a thousand users with ten thousand held the ledger up for seconds at once."""
    made = rows.user_row
    at_once: list[int] = []
    count = 0

    def counting(user: User) -> tuple[object, ...]:
        nonlocal count
        count += 1
        return made(user)

    for number in range(40):
        ask(store, f"u{number}", rq.Block(id="b", user="bad"))
        store.engine.state.user(f"u{number}").blocks = frozenset(f"bad{each}" for each in range(number % 2 * 20_000))
    live = store.engine.state.live
    with patch.object(rows, "user_row", counting):
        for statement, some in bulks.slices(bulks.bulks_of(live, store.engine.state._uid_of, lambda _: None), 250):
            if statement == rows.PUT_USER:
                at_once.append(count)
                assert sum(1 for row in some if row[6]) <= 2
                count = 0
    assert sum(at_once) >= 40 and max(at_once) <= 2
    for number in range(40):
        store.engine.state.user(f"u{number}").blocks = frozenset(("bad",))


def test_users_who_have_left_the_memory_are_read_together(store: SqliteStore) -> None:
    """Their group may be there still: one by one, five thousand take a tenth of a second."""
    make(store, "#g")
    store.engine.flusher.flush()
    state = store.engine.state
    state._users = state._held_users()
    with patch.object(Projection, "user", side_effect=AssertionError("one by one")):
        assert [user.name for user in state.users(NAMES)] == NAMES
    say(store, "#g", "1")  # so that the reader finds some of them in memory, and one nowhere
    seen = store.see(lambda view: view.state.users([*NAMES, "nobody"]), NOW)
    assert [user.name for user in seen] == [*NAMES, "nobody"]


def test_who_asks_about_one_member_reads_no_others(store: SqliteStore) -> None:
    make(store, "#g")
    store.close()
    store.reopen()

    def look(view: Readable) -> tuple[bool, bool, bool]:
        conv = view.state.conv_for("#g")
        return conv.part(NAMES[3]) is not None, conv.part("nobody") is not None, conv.loaded

    assert store.see(look, NOW) == (True, False, False)
    refused = RequestJob(Who("nobody", "pc", 0), rq.Send(id="1", to="#g", body=Raw(b"1")), lambda _: None)
    store.run([refused], NOW)
    assert refused.refusal is not None and refused.refusal.code == "not_member"
    assert not store.engine.state.conv_for("#g").loaded


def test_bounds_follow_what_the_process_may_take() -> None:
    assert Bounds().of(50_000) == Bounds(USUAL_MB).of(50_000) == 50_000
    assert Bounds(200).of(30_000) == 10_000
    assert Bounds(100).of(30_000) == 3_000
    assert Bounds(1_000).of(30_000) == 90_000


def test_what_is_configured_holds_from_the_default_memory_on() -> None:
    assert LimitsConfig().memory_mb == DEFAULT_MB
    assert Bounds(DEFAULT_MB).less(50_000) == Bounds(1_000).less(50_000) == 50_000
    assert Bounds(150).less(50_000) == 12_500


def test_a_small_memory_makes_generations_smaller(tmp_path: Path) -> None:
    small = SqliteStore(tmp_path, memory_mb=130)
    with patch.object(flusher, "FLUSH_BYTES", 3_000_000):
        for number in range(1_000):
            ask(small, "ann", rq.Send(id=f"{number}", to="bob", body=Raw(b'"%b"' % (b"x" * 1_000))))
            small.keep_up()
            live, frozen = small.engine.state.live, small.engine.state.frozen
            assert live.weight + (frozen.weight if frozen is not None else 0) <= 700_000
    small.close()


def test_messages_that_replace_weigh_what_they_take_back(tmp_path: Path) -> None:
    """An item that is void is a row to be written, and an entry in memory until then."""
    store = SqliteStore(tmp_path, claim=lambda *_: True)
    make(store, "#g")
    say(store, "#g", "1", key="k")
    live = store.engine.state.live
    made, weight = live.rows, live.weight
    say(store, "#g", "2")
    plain = (live.rows - made, live.weight - weight)
    made, weight = live.rows, live.weight
    say(store, "#g", "3", key="k")
    assert live.rows - made - plain[0] >= MEMBERS - 1
    assert live.weight - weight - plain[1] >= 100 * (MEMBERS - 1)
    store.close()


def test_no_more_rows_are_sorted_at_once_than_hold_up_nobody(store: SqliteStore) -> None:
    """Sorting stops every thread: a hundred thousand rows take a third of a second."""
    make(store, "#g")
    state = store.engine.state
    live = state.live
    live.voids.update((uid, pos) for uid in range(50) for pos in range(100))
    made = dict(bulks.bulks_of(live, state._uid_of, state._written))
    with patch.object(bulks, "_SORTED_ROWS", 1_000):
        voids = [row for row in made[rows.VOID_ITEM]() if row is not None]
    assert len(voids) == 5_000 and set(voids) == live.voids
    parts = [voids[start : start + 1_000] for start in range(0, 5_000, 1_000)]
    assert all(part == sorted(part) for part in parts) and voids != sorted(voids)
    live.voids.clear()


def test_no_step_looks_at_more_than_a_few_members_without_a_row(store: SqliteStore) -> None:
    """All of a crowd have got a message: neither those who got none, nor orders that stand alone, have a row for any of them."""
    for name in ("#g", "#h", "#i"):
        make(store, name)
        say(store, name, name[1:])
    state = store.engine.state
    made = bulks.bulks_of(state.live, state._uid_of, state._written)
    told = 3 * (MEMBERS + 1)
    with patch.object(bulks, "_PAUSE_ROWS", 100):
        found = list(bulks.slices([one for one in made if one[0] in (rows.PUT_MEMBER, rows.PUT_ACTIVE_MEMBER)], 1_000))
        found += list(bulks.slices([one for one in made if one[0] == rows.PUT_LATEST], 1_000))
    parts = {statement: [part for name, part in found if name == statement] for statement, _ in found}
    for nothing in (rows.PUT_MEMBER, rows.PUT_LATEST):
        assert len(parts[nothing]) == told // 100 and not any(parts[nothing])
    written = parts[rows.PUT_ACTIVE_MEMBER]
    assert sum(map(len, written)) == told and max(map(len, written)) <= 100
    assert all(part == sorted(part) for part in written)
