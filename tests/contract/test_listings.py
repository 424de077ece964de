"""Listings that go on from page to page: they end and miss nothing, whatever happens meanwhile, on every store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import pytest

from mqtt_im.core.model import Conv, User
from mqtt_im.core.records import Message
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.names import direct
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs import erasing
from mqtt_im.store.jobs.erasing import EraseJob
from mqtt_im.store.jobs.reads import CallJob
from mqtt_im.store.queries import listings, visibility
from mqtt_im.store.queries.unread import Counts, Unfinished

from .test_store import NOW, Store

ALL = 10**6


def read(store: Store, look: Callable[[Readable], Any]) -> Any:
    """What a reader sees."""
    job = CallJob(look, store.done.append)
    store.batches.run([job], NOW)
    if job.refusal is not None:
        raise job.refusal
    return job.result


def page(store: Store, user: str, limit: int, after: str | None = None, size: int = ALL) -> dict[str, Any]:
    told = read(store, lambda view: listings.convs(view, Who(user, "pc", NOW), rq.Convs(after=after), limit, size))
    return {**told, "convs": [json.loads(bytes(conv)) for conv in told["convs"]]}


def names(store: Store, user: str) -> list[str]:
    return [conv["conv"] for conv in page(store, user, ALL)["convs"]]


def info(store: Store, user: str, limit: int, after: str | None = None, size: int = ALL) -> dict[str, Any]:
    who, request = Who(user, "pc", NOW), rq.GroupInfo(group="#g", after=after)
    told: dict[str, Any] = read(store, lambda view: listings.group_info(view, who, request, limit, size))
    return told


@pytest.mark.parametrize(("few", "as_many"), [(100, 8), (0, 100), (0, 0)])
def test_who_is_near_is_the_same_however_it_is_found(
    store: Store, monkeypatch: pytest.MonkeyPatch, few: int, as_many: int
) -> None:
    """One by one, through one's conversations, and one by one since the groups are larger than those who are asked for."""
    monkeypatch.setattr(visibility, "FEW", few)
    monkeypatch.setattr(visibility, "_AS_MANY", as_many)
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob", "cat", "dan", "eve"]))
    store.ask("dan", rq.GroupLeave(id="1", group="#g"))
    store.say("ann", "fay")
    store.ask("eve", rq.Block(id="b", user="ann"))
    store.ask("cat", rq.Settings(id="s", presence=False))
    among = ["ann", "bob", "cat", "dan", "eve", "fay", "gil"]
    assert read(store, lambda view: visibility.nearby_online(view, "ann", among)) == (["bob", "fay"], [])
    assert read(store, lambda view: visibility.seen_by(view, "eve", among)) == (["bob", "cat"], [])


def test_who_has_had_many_conversations_is_compared_with_others_in_steps(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with those left long ago: twenty thousand of them were gone through at every coming and going."""
    for name, value in (("FEW", 2), ("_SOME", 3), ("_FOR_EACH", 0), ("AT_ONCE", 2)):
        monkeypatch.setattr(visibility, name, value)
    shares, asked = visibility.shares_conversation, list[str]()

    def spy(engine: Any, user: str, other: str) -> bool:
        asked.append(other)
        return shares(engine, user, other)

    monkeypatch.setattr(visibility, "shares_conversation", spy)
    among = ["ann", "bob", "cat", "dan", "eve"]
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob"]))
    store.say("ann", "dan")
    assert read(store, lambda view: visibility.nearby_online(view, "ann", among)) == (["bob", "dan"], [])
    for number in range(3):
        store.ask("ann", rq.GroupCreate(id=f"make{number}", group=f"#left{number}", members=["eve"]))
        store.ask("ann", rq.GroupLeave(id=f"leave{number}", group=f"#left{number}"))
    assert not asked
    steps, rest = list[tuple[list[str], list[str]]](), among

    def step(view: Any) -> tuple[list[str], list[str]]:
        return visibility.nearby_online(view, "ann", rest, rest=bool(steps))

    while rest:
        found, rest = read(store, step)
        steps.append((found, asked[:]))
        asked.clear()
    assert steps == [(["bob"], ["bob"]), (["dan"], ["cat", "dan"]), ([], ["eve"])]
    assert read(store, lambda view: visibility.seen_by(view, "ann", among)) == (["bob"], ["cat", "dan", "eve"])


def test_whether_to_go_through_all_conversations_is_decided_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was in large groups was charged for going through all conversations at each step, and for nothing."""
    for name, value in (("FEW", 1), ("_AS_MANY", 0), ("AT_ONCE", 2)):
        monkeypatch.setattr(visibility, name, value)
    through, looks = visibility._through_conversations, list[int]()

    def spy(engine: Any, owner: Any, among: Any) -> Any:
        looks.append(len(among))
        return through(engine, owner, among)

    monkeypatch.setattr(visibility, "_through_conversations", spy)
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob", "eve"]))
    for look in (visibility.nearby_online, visibility.seen_by):
        among, told = ["ann", "bob", "cat", "dan", "eve", "fay"], list[str]()

        def step(view: Any) -> tuple[list[str], list[str]]:
            return look(view, "ann", among, rest=len(among) < 6)  # noqa: B023 - it is asked at once

        while among:
            found, among = read(store, step)
            told += found
        assert (told, looks) == (["bob", "eve"], [6])
        looks.clear()


def test_conversations_come_by_activity_and_pages_join(store: Store) -> None:
    for number in range(7):
        store.say("ann", f"u{number}")
    store.say("u3", "ann")
    expected = [f"ann:u{number}" for number in (3, 6, 5, 4, 2, 1, 0)]
    assert names(store, "ann") == expected
    for limit in (1, 2, 3, 7):
        found: list[str] = []
        told = page(store, "ann", limit)
        while True:
            found += [conv["conv"] for conv in told["convs"]]
            assert told["more"] == ("next" in told)
            if not told["more"]:
                break
            told = page(store, "ann", limit, told["next"])
        assert found == expected


def test_what_one_does_not_see_moves_nothing_and_pages_join(store: Store) -> None:
    """Not for whom a message is hidden since they block its sender, nor for who has left a group."""
    store.ask("ann", rq.GroupCreate(id="g", group="#left", members=["bob"]))
    store.ask("ann", rq.GroupCreate(id="h", group="#stays", members=["bob"]))
    for number in range(6):
        store.say("ann", f"u{number}")
    store.ask("ann", rq.GroupLeave(id="l", group="#left"))
    store.ask("ann", rq.Block(id="b1", user="u1"))
    store.ask("ann", rq.Block(id="b2", user="zoe"))
    for user, to in (
        ("u1", "ann"),
        ("zoe", "ann"),
        ("bob", "#left"),
        ("u2", "ann"),
        ("bob", "#stays"),
        ("ann", "ann"),
        ("u1", "ann"),
    ):
        store.say(user, to)
    expected = ["ann:ann", "#stays", "ann:u2", "#left", *(f"ann:u{number}" for number in (5, 4, 3, 1, 0))]
    assert names(store, "ann") == expected
    for limit in (1, 2, 4):
        told = page(store, "ann", limit)
        found = [conv["conv"] for conv in told["convs"]]
        while told["more"]:
            told = page(store, "ann", limit, told["next"])
            found += [conv["conv"] for conv in told["convs"]]
        assert found == expected
    assert names(store, "u1") == ["ann:u1"]


@pytest.mark.parametrize("seed", range(8))
def test_a_listing_ends_and_misses_none_while_conversations_move(store: Store, seed: int) -> None:
    dice = random.Random(seed)
    peers = [f"u{number}" for number in range(20)]
    for peer in peers:
        store.say("ann", peer)
    seen: list[str] = []
    told = page(store, "ann", 3)
    pages = 1
    while told["more"]:
        seen += [conv["conv"] for conv in told["convs"]]
        for peer in dice.choices(peers, k=dice.randrange(5)):
            store.say(peer, "ann")
        told = page(store, "ann", 3, told["next"])
        pages += 1
    seen += [conv["conv"] for conv in told["convs"]]
    assert set(seen) == {f"ann:{peer}" for peer in peers}
    assert max(map(seen.count, seen)) <= 2
    assert pages <= 2 * len(peers)


def test_a_conversation_that_is_always_moving_comes_at_the_end(store: Store) -> None:
    for number in range(6):
        store.say("ann", f"u{number}")
    told = page(store, "ann", 2)
    seen = [conv["conv"] for conv in told["convs"]]
    while told["more"]:
        store.say("u0", "ann")  # the last one of the listing, always on its way to the front
        told = page(store, "ann", 2, told["next"])
        seen += [conv["conv"] for conv in told["convs"]]
    assert seen == [f"ann:u{number}" for number in (5, 4, 3, 2, 1, 0)]


@pytest.mark.parametrize("after", ["ann:bob", "", ".", "1.", "1.x", "-1.1", "1", "²:x", "x:y"])
def test_what_is_no_next_is_refused(store: Store, after: str) -> None:
    with pytest.raises(Refusal) as refusal:
        page(store, "ann", 1, after)
    assert refusal.value.code == "bad_field"


def test_a_page_is_bounded_by_bytes_but_never_empty(store: Store) -> None:
    for number in range(5):
        store.say("ann", f"u{number}", "x" * 500)
    told = page(store, "ann", 5, size=1)
    assert [conv["conv"] for conv in told["convs"]] == ["ann:u4"] and told["more"]
    assert [conv["conv"] for conv in page(store, "ann", 5, told["next"])["convs"]] == [f"ann:u{n}" for n in (3, 2, 1, 0)]


def test_where_one_has_left_nothing_moves_any_more(store: Store) -> None:
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob"]))
    store.ask("bob", rq.GroupLeave(id="2", group="#g"))
    store.say("bob", "cat")
    store.say("ann", "#g")
    assert names(store, "bob") == ["bob:cat", "#g"]
    assert names(store, "ann") == ["#g"]


def test_who_has_left_a_group_has_nothing_unread_in_it(store: Store) -> None:
    """Nobody could mark it as read any more."""
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob", "cat"]))
    store.say("ann", "#g", mentions=["*"])
    store.ask("bob", rq.GroupLeave(id="1", group="#g"))
    for user, unread in (("bob", (0, 0)), ("cat", (1, 1))):
        conv = page(store, user, 10)["convs"][0]
        assert (conv["unread"], conv["mentions"]) == unread
    store.ask("ann", rq.GroupAdd(id="2", group="#g", members=["bob"]))
    assert page(store, "bob", 10)["convs"][0]["unread"] == 1


def test_unread_leaves_out_what_was_recalled_and_what_the_system_said(store: Store) -> None:
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob"]))
    for number in range(4):
        store.say("ann", "#g", id=f"m{number}", mentions=["bob", "*"])
    store.say("bob", "#g", mentions=["*"])

    def counts() -> tuple[int, int]:
        (conv,) = page(store, "bob", 9)["convs"]
        return conv["unread"], conv["mentions"]

    assert counts() == (4, 4)
    store.ask("ann", rq.Recall(id="r", conv="#g", seq=3))
    assert counts() == (3, 3)
    store.ask("bob", rq.Read(conv="#g", seq=4))
    assert counts() == (1, 1)


@pytest.mark.parametrize("step", [1, 3, 100])
def test_what_is_unread_is_counted_in_steps_that_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Who had a million unread mentions held the reader's thread for a second."""
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob"]))
    for number in range(9):
        store.say("ann", "#g", id=f"m{number}", mentions=["*"] if number % 2 else [])
        if number == 2:
            store.ask("bob", rq.GroupLeave(id="leave", group="#g"))
        if number == 4:
            store.ask("ann", rq.GroupAdd(id="add", group="#g", members=["bob"]))
    store.say("bob", "#g", mentions=["*"])
    store.say("ann", "bob", mentions=["bob"])
    store.say("cat", "bob")
    whole = page(store, "bob", 10)
    assert [(conv["conv"], conv["unread"], conv["mentions"]) for conv in whole["convs"]] == [
        ("bob:cat", 1, 0), ("ann:bob", 1, 1), ("#g", 7, 3)
    ]  # fmt: skip
    asked, counts, steps = list[int](), Counts(step), 0

    def look(view: Readable) -> dict[str, Any] | None:
        state = view.state
        unread = state.unread

        def counting(parts: Sequence[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
            asked.append(sum(last - first + 1 for _, first, last in parts))
            return unread(parts, user)

        with patch.object(state, "unread", counting):
            try:
                return listings.convs(view, Who("bob", "pc", NOW), rq.Convs(), 10, ALL, counts)
            except Unfinished:
                counts.keep()
                return None

    while (found := read(store, look)) is None:
        steps += 1
        assert sum(asked) <= step
        asked.clear()
        if steps == 2:
            store.say("ann", "#g", id="meanwhile")
    assert [json.loads(bytes(conv)) | {"last": None, "seq": 0} for conv in found["convs"]] == [
        conv | {"last": None, "seq": 0} for conv in page(store, "bob", 10)["convs"]
    ]
    assert (steps > 2) == (step < 100)


def test_counting_begins_anew_where_some_were_read_meanwhile(store: Store) -> None:
    counts = Counts(2)

    def look(view: Readable) -> tuple[int, int] | None:
        state = view.state
        conv = state.conv_for("ann:bob")
        member = conv.part("bob")
        assert member is not None
        try:
            counts.begin()
            return counts.of(state, [(conv, member.read + 1, conv.head)], state.user("bob"))["ann:bob"]
        except Unfinished:
            counts.keep()
            return None

    for number in range(6):
        store.say("ann", "bob", id=f"{number}", mentions=["bob"])
    assert read(store, look) is None
    store.ask("bob", rq.Read(conv="ann:bob", seq=3))
    assert [read(store, look) for _ in range(2)] == [None, (3, 3)]


def test_a_step_that_is_done_again_counts_again(store: Store) -> None:
    """A look begins anew where one of its messages was recalled meanwhile, which was told as unread all the same."""
    counts = Counts(10)

    def unread() -> int:
        who, request = Who("bob", "pc", NOW), rq.Convs()
        told = read(store, lambda view: listings.convs(view, who, request, 10, ALL, counts))
        found: int = json.loads(bytes(told["convs"][0]))["unread"]
        return found

    for number in range(3):
        store.say("ann", "bob", id=f"{number}")
    assert unread() == 3
    store.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=2))
    assert unread() == 2


def test_a_group_tells_its_members_by_name_and_page(store: Store) -> None:
    members = [f"u{number}" for number in range(5)]
    store.ask("x", rq.GroupCreate(id="1", group="#g", members=members))
    store.ask("u1", rq.GroupLeave(id="1", group="#g"))
    found: list[str] = []
    told = info(store, "x", 2)
    while True:
        assert told["count"] == 5
        found += [member["user"] for member in told["members"]]
        if not told["more"]:
            break
        told = info(store, "x", 2, found[-1])
    assert found == ["u0", "u2", "u3", "u4", "x"]
    assert [member["user"] for member in info(store, "x", 9, size=1)["members"]] == ["u0"]
    assert info(store, "x", 9, "x")["members"] == []


def test_who_shares_a_group_now(store: Store) -> None:
    def shares(user: str, other: str) -> bool:
        return bool(read(store, lambda view: visibility.shares_conversation(view, user, other)))

    assert not shares("ann", "bob")
    for name in ("#g", "#h"):
        store.ask("ann", rq.GroupCreate(id=name, group=name, members=["bob", "cat"]))
    assert shares("ann", "bob") and shares("cat", "bob")
    store.ask("bob", rq.GroupLeave(id="1", group="#g"))
    assert shares("ann", "bob")
    store.ask("bob", rq.GroupLeave(id="2", group="#h"))
    assert not shares("ann", "bob") and shares("ann", "cat")
    store.say("bob", "ann")
    assert shares("ann", "bob")


@pytest.mark.parametrize("few", [100, 0])
def test_who_has_an_erased_name_anew_shares_nothing_of_the_former_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """A right that does not outlive the erasure, in either direction: neither presence nor watching."""
    monkeypatch.setattr(visibility, "FEW", few)

    def near() -> list[list[str]]:
        online = ["ann", "bob", "cat"]
        return list(read(store, lambda view: [visibility.nearby_online(view, user, online)[0] for user in ("ann", "bob")]))

    def shares() -> list[bool]:
        pairs = [("ann", "bob"), ("bob", "ann")]
        return list(read(store, lambda view: [visibility.shares_conversation(view, *pair) for pair in pairs]))

    store.say("ann", "bob")
    store.say("cat", "ann")
    assert (near(), shares()) == ([["bob", "cat"], ["ann"]], [True, True])
    store.batches.run([EraseJob("bob", [direct("ann", "bob")], store.done.append)], NOW)
    assert (near(), shares()) == ([["cat"], []], [False, False])
    store.say("bob", "ann")
    assert (near(), shares()) == ([["bob", "cat"], ["ann"]], [True, True])


@pytest.mark.parametrize("anew", [False, True])
def test_what_nobody_else_has_is_taken_back_a_part_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch, anew: bool) -> None:
    """And as long as nobody else has it: whoever makes such a group anew is told nothing of what was said before."""
    monkeypatch.setattr(erasing, "TAKEN_BACK", 2)
    monkeypatch.setattr(erasing, "LOOKED_AT", 3)
    store.ask("ann", rq.GroupCreate(id="make", group="#own", members=[]))
    for number in range(6):
        store.say("ann", "#own", f"{number}", id=f"{number}")
    store.ask("ann", rq.Recall(id="one", conv="#own", seq=3))
    store.ask("ann", rq.GroupLeave(id="leave", group="#own"))
    store.say("ann", "bob", id="hi")
    names, alone = read(store, lambda view: erasing.conversations(view, "ann"))
    assert sorted(names) == ["#own", direct("ann", "bob")]
    assert alone == [erasing.Alone("#own", 1, 8)]
    (what,), jobs = alone, 0
    while what.first <= what.last:
        job = erasing.TakeBackJob("ann", what, store.done.append)
        store.batches.run([job], NOW)
        assert job.refusal is None and len(job.commits or ()) <= 2
        what, jobs = what._replace(first=job.following), jobs + 1
        if anew and jobs == 2:
            store.ask("bob", rq.GroupCreate(id="anew", group="#own", members=["cat"]))
            store.say("bob", "#own", "mine", id="mine")
    state = store.engine.state
    conv = state.conv_for("#own")
    records = [state.message(conv, seq) for seq in range(1, conv.head + 1)]
    bodies = [bytes(record.body) for record in records if isinstance(record, Message) and record.body is not None]
    assert (jobs, bodies) == ((3, [b'"4"', b'"5"', b'"mine"']) if anew else (4, []))
    told = [item["op"] for item in store.inbox("cat")]
    assert told == (["msg", "msg"] if anew else [])
