"""What one user may keep: counted from the log, refused with `quota`, and nothing of a refused request stays."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw, structs

from mqtt_im.core.rules import Limits
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Quota
from mqtt_im.store.jobs.requests import RequestJob

from .test_store import Store


def bound(store: Store, **limits: Any) -> None:
    store.engine.limits = structs.replace(Limits(), **limits)  # type: ignore[misc]


def refused(job: RequestJob) -> str | None:
    assert job.refusal is None or isinstance(job.refusal, Quota)
    return None if job.refusal is None else job.refusal.what


def kept(store: Store, user: str) -> tuple[int, int]:
    found = store.engine.state.user(user)
    return found.kept, found.kept_bytes


def test_messages_and_their_bytes_are_counted_as_they_are_now(store: Store) -> None:
    store.say("ann", "bob", "1234", id="1")
    assert kept(store, "ann") == (1, 6)
    store.say("ann", "bob", "1234", id="1")  # a repeat
    store.say("ann", "bob", "12", push={"a": 1})
    assert kept(store, "ann") == (2, 6 + 4 + 7)
    for number, body in enumerate([b'"123456"', b'"12"', b'"1234567"']):
        store.ask("ann", rq.Edit(id=f"e{number}", conv="ann:bob", seq=1, body=Raw(body)))
    assert kept(store, "ann") == (2, 17 + 9)
    store.ask("bob", rq.Report(id="q", conv="ann:bob", seq=1, state="executed", result=Raw(b'"done"')))
    assert kept(store, "bob") == (0, 6)
    store.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=1))
    assert kept(store, "ann") == (2, 11)


def test_what_an_owner_recalls_is_the_senders(store: Store) -> None:
    store.ask("ann", rq.GroupCreate(id="1", group="#g", members=["bob"]))
    store.say("bob", "#g", "1234")
    store.ask("ann", rq.Recall(id="2", conv="#g", seq=2))
    assert (kept(store, "ann"), kept(store, "bob")) == ((0, 0), (1, 0))


def test_messages_are_bounded(store: Store) -> None:
    bound(store, quota_messages=2)
    assert [refused(store.say("ann", "bob", id=str(number))) for number in range(3)] == [None, None, "messages"]
    assert refused(store.say("bob", "ann")) is None
    assert refused(store.say("ann", "bob", id="1")) is None  # a repeat is no more


def test_bytes_are_bounded_and_room_is_made(store: Store) -> None:
    bound(store, quota_bytes=20)
    assert [refused(store.say("ann", "bob", "12345678", id=str(number))) for number in range(3)] == [None, None, "bytes"]
    edit = rq.Edit(id="e", conv="ann:bob", seq=1, body=Raw(b'"1"'))
    assert refused(store.ask("ann", edit)) == "bytes"
    store.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=2))
    assert refused(store.ask("ann", edit)) is None
    assert refused(
        store.ask("bob", rq.Report(id="q", conv="ann:bob", seq=1, state="failed", result=Raw(b'"%b"' % (b"x" * 20))))
    ) == ("bytes")


def test_groups_made_and_joined_are_bounded(store: Store) -> None:
    bound(store, quota_groups=2)

    def create(user: str, name: str, *members: str) -> str | None:
        return refused(store.ask(user, rq.GroupCreate(id=f"c{name}", group=name, members=list(members))))

    assert [create("ann", "#1", "bob"), create("ann", "#2"), create("ann", "#3")] == [None, None, "groups"]
    store.ask("ann", rq.GroupLeave(id="l", group="#2"))
    assert create("ann", "#3") is None
    store.ask("ann", rq.GroupLeave(id="m", group="#1"))  # bob is in it, so it is still one that ann has made
    assert create("ann", "#4") == "groups"
    assert create("cat", "#5", "bob") is None
    assert create("cat", "#6", "bob") == "groups"  # others have brought bob into two
    store.ask("bob", rq.GroupLeave(id="n", group="#1"))
    assert create("ann", "#4") is None


def test_nobody_takes_the_room_for_ones_own_groups(store: Store) -> None:
    bound(store, quota_groups=2)

    def create(user: str, name: str, *members: str) -> str | None:
        return refused(store.ask(user, rq.GroupCreate(id=f"c{name}", group=name, members=list(members))))

    assert [create("eve", name, "ann") for name in ("#1", "#2")] == [None, None]
    assert create("bob", "#3", "ann") == "groups"
    assert [create("ann", name) for name in ("#4", "#5", "#6")] == [None, None, "groups"]
    assert create("bob", "#3", "cat") is None
    assert refused(store.ask("bob", rq.GroupAdd(id="a", group="#3", members=["ann"]))) == "groups"
    store.ask("ann", rq.GroupLeave(id="l", group="#1"))
    assert refused(store.ask("bob", rq.GroupAdd(id="a", group="#3", members=["ann"]))) is None
    assert store.engine.state.user("ann").joined == 4


def test_blocked_users_and_muted_conversations_are_bounded(store: Store) -> None:
    """Each is a set that is copied with every change, and stands in the user's row."""
    bound(store, quota_blocks=2)

    def block(user: str) -> str | None:
        return refused(store.ask("ann", rq.Block(id="b", user=user)))

    def mute(conv: str, until: int = 2_000_000_000_000) -> str | None:
        return refused(store.ask("ann", rq.Mute(id="m", conv=conv, until=until)))

    assert [block("bob"), block("cat"), block("bob"), block("dan")] == [None, None, None, "blocks"]
    store.ask("ann", rq.Unblock(id="u", user="bob"))
    assert [block("dan"), block("bob")] == [None, "blocks"]
    assert [mute("ann:bob"), mute("ann:cat"), mute("ann:bob", 2_000_000_000_001), mute("ann:dan")] == [None, None, None, "blocks"]
    assert [mute("ann:dan", 0), mute("ann:cat", 0), mute("ann:dan")] == [None, None, None]
    found = store.engine.state.user("ann")
    assert (set(found.blocks), set(found.mutes)) == ({"cat", "dan"}, {"ann:bob", "ann:dan"})


def test_changes_of_one_message_are_bounded(store: Store) -> None:
    bound(store, changes_per_message=3, reactions_per_message=1)
    store.say("ann", "bob")
    edits = [refused(store.ask("ann", rq.Edit(id=f"e{number}", conv="ann:bob", seq=1, body=Raw(b"1")))) for number in range(4)]
    assert edits == [None, None, None, "changes"]
    reports = [
        refused(store.ask("bob", rq.Report(id=f"q{number}", conv="ann:bob", seq=1, state="failed"))) for number in range(2)
    ]
    assert reports == [None, None]
    assert refused(store.ask("bob", rq.React(id="a1", conv="ann:bob", seq=1, emoji="+"))) is None
    assert refused(store.ask("bob", rq.React(id="a2", conv="ann:bob", seq=1, emoji="-"))) == "changes"
    assert refused(store.ask("bob", rq.React(id="a3", conv="ann:bob", seq=1, emoji=""))) is None
    assert refused(store.ask("ann", rq.Recall(id="r", conv="ann:bob", seq=1))) is None


def test_reactions_of_one_message_are_bounded(store: Store) -> None:
    bound(store, reactions_per_message=1)
    store.say("ann", "bob")
    store.ask("ann", rq.React(id="1", conv="ann:bob", seq=1, emoji="+"))
    assert refused(store.ask("bob", rq.React(id="1", conv="ann:bob", seq=1, emoji="+"))) == "reactions"
    assert refused(store.ask("ann", rq.React(id="2", conv="ann:bob", seq=1, emoji="-"))) is None


def test_devices_are_bounded(store: Store) -> None:
    bound(store, quota_devices=1)
    assert store.attach("ann", "one").refusal is None
    assert isinstance(store.attach("ann", "two").refusal, Quota)
    store.ask("ann", rq.DeviceForget(id="1", device="one"))
    assert store.attach("ann", "two").refusal is None


@pytest.mark.parametrize(("bounded", "most", "names"), [("MAX_FORMER", 5, "abcdefg"), ("MAX_COMINGS", 9, "aaaaaaa")])
def test_who_comes_to_a_group_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch, bounded: str, most: int, names: str
) -> None:
    """Whoever has left may read on what came before, so the group knows of them for ever: without a bound it was never full."""
    monkeypatch.setattr(f"mqtt_im.core.rules.groups.{bounded}", most)
    bound(store, group_members=4)

    def change(kind: type[rq.GroupAdd | rq.GroupRemove], number: int, *names: str) -> str | None:
        return refused(store.ask("ann", kind(id=f"{kind.__name__}{number}", group="#g", members=list(names))))

    store.ask("ann", rq.GroupCreate(id="g", group="#g", members=["bob"]))
    for number, name in enumerate(names):
        assert (change(rq.GroupAdd, number, name), change(rq.GroupRemove, number, name)) == (None, None)
    assert change(rq.GroupAdd, 7, "dan") == "members"
    assert change(rq.GroupAdd, 8, "a") == (None if bounded == "MAX_FORMER" else "members")
    assert change(rq.GroupAdd, 9, "bob") is None  # who is in it, comes no more
    assert refused(store.say("bob", "#g")) is None
    for name in ("ann", "bob", "a"):
        store.ask(name, rq.GroupLeave(id="l", group="#g"))
    assert refused(store.ask("dan", rq.GroupCreate(id="g", group="#g", members=[]))) == "members"
    assert refused(store.ask("dan", rq.GroupCreate(id="h", group="#h", members=[]))) is None
