"""Entries: records as the items that devices see, as things are now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mqtt_im.core.entries import Entry, Lookup, fields, reactions, render, void_entry
from mqtt_im.core.model import Amended
from mqtt_im.core.records import (
    AnyRecord,
    Cursors,
    Edited,
    GroupChange,
    Message,
    Reacted,
    Recalled,
    Reported,
)

EXTRA: dict[str, Any] = {"cts": 1.5, "reply_to": 1, "mentions": ["bob"], "ttl": 10, "push": {"a": 1}, "own": 1}


def message(body: bytes | None = b'{"a": 1}', extra: dict[str, Any] | None = None, id_: str | None = 'a"b') -> Message:
    return Message(5_000, "ann:bob", 2, "ann", "tel", id_, 0, [1, 1], body, extra)


def edited(body: bytes | None = b'"new"') -> Edited:
    return Edited(6_000, "ann:bob", 2, "ann", "tel", None, 0, [2, 2], body)


def nowhere(lsn: int) -> AnyRecord | None:
    return None


def amended(*, edits: int = 0, recalled: bool = False, **reacted: str) -> Amended:
    found = Amended()
    found.edits = found.edited = edits
    found.recalled = recalled
    found.reactions = reacted
    return found


def item(entry: Entry, user: str = "bob", device: str = "pc", pos: int = 7, now: int = 0) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(entry.item(pos, user, device, now))
    return shown


def test_a_body_is_spliced_as_its_sender_wrote_it() -> None:
    payload = render(message(), None, nowhere).item(7, "bob", "pc", 0)
    assert payload == b'{"op":"msg","pos":7,"conv":"ann:bob","seq":2,"from":"ann","id":"a\\"b","body":{"a": 1},"ts":5000}'


@pytest.mark.parametrize("id_", [None, "1"])
@pytest.mark.parametrize("extra", [None, EXTRA], ids=["plain", "with extras"])
def test_a_message_has_the_fields_that_it_was_given_and_no_others(id_: str | None, extra: dict[str, Any] | None) -> None:
    shown = item(render(message(extra=extra, id_=id_), None, nowhere))
    given = {} if id_ is None else {"id": id_}
    rare = {} if extra is None else {"cts": 1.5, "reply_to": 1, "mentions": ["bob"]}
    assert shown == {
        "op": "msg", "pos": 7, "conv": "ann:bob", "seq": 2, "from": "ann", "body": {"a": 1}, "ts": 5000, **given, **rare,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("user", "device", "op"), [("ann", "tel", "sent"), ("ann", "pc", "msg"), ("bob", "tel", "msg"), ("bob", "pc", "msg")]
)
def test_the_sending_device_alone_sees_sent(user: str, device: str, op: str) -> None:
    assert item(render(message(), None, nowhere), user, device)["op"] == op
    assert item(render(message(), None, nowhere), "ann", "tel") == {
        "op": "sent", "pos": 7, "id": 'a"b', "conv": "ann:bob", "seq": 2, "ts": 5000,
    }  # fmt: skip


@pytest.mark.parametrize(("user", "now", "void"), [("bob", 14_999, False), ("bob", 15_000, True), ("ann", 99_999, False)])
def test_a_message_expires_for_its_recipients(user: str, now: int, void: bool) -> None:
    entry = render(message(extra=EXTRA), None, nowhere)
    assert (item(entry, user, now=now) == {"op": "void", "pos": 7, "from": 7, "why": "expired"}) is void
    assert entry.is_void(user, now) is void
    assert (entry.offered(user, now).seq == 0) is void


def test_what_is_void_delivers_no_message() -> None:
    entry = render(message(None), None, nowhere)
    assert entry.void == "retention" and entry.offered("bob", 0).seq == 0
    notice = render(Recalled(5, "ann:bob", 2, "ann", "tel", None, 0, [2, 2]), None, nowhere)
    assert notice.offered("bob", 0) is notice


def test_a_key_is_known() -> None:
    assert [render(message(extra=extra), None, nowhere).keyed for extra in (None, {"ttl": 1}, {"key": "k"})] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("lookup", "body"),
    [
        ({2: edited(b"2"), 1: edited(b"1")}, 2),
        ({1: edited(b"1")}, {"a": 1}),
        ({2: message()}, {"a": 1}),
    ],
)
def test_an_edited_message_carries_its_newest_body(lookup: dict[int, AnyRecord], body: Any) -> None:
    shown = item(render(message(), amended(edits=2, bob="+", ann="-", cat="+"), lookup.get))
    assert (shown["body"], shown["edited"]) == (body, True)
    assert shown["reactions"] == {"+": ["bob", "cat"], "-": ["ann"]}


@pytest.mark.parametrize("body", [b'"x"', None])
def test_a_recalled_message_carries_no_body_and_mentions_nobody(body: bytes | None) -> None:
    entry = render(message(body, EXTRA), amended(edits=1, recalled=True), {1: edited()}.get)
    assert entry.recalled and not entry.void
    assert item(entry) == {
        "op": "msg", "pos": 7, "conv": "ann:bob", "seq": 2, "from": "ann", "id": 'a"b', "ts": 5000, "cts": 1.5, "reply_to": 1,
        "recalled": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("became", "lookup", "told"),
    [
        (None, {}, {"body": "new"}),
        (amended(edits=2), {2: edited(b'"newest"')}, {"body": "newest"}),
        (amended(edits=2), {}, {"body": "new"}),
        (amended(bob="+"), {}, {"body": "new"}),
        (amended(edits=1, recalled=True), {}, {"recalled": True}),
    ],
)
def test_an_edited_item_follows_the_message(became: Amended | None, lookup: dict[int, AnyRecord], told: dict[str, Any]) -> None:
    entry = render(edited(), became, lookup.get)
    assert item(entry) == {"op": "edited", "pos": 7, "conv": "ann:bob", "seq": 2, "by": "ann", "ts": 6000, **told}
    assert (entry.seq, entry.recalled) == (0, "recalled" in told)


def test_an_edit_whose_body_is_gone_is_void() -> None:
    assert item(render(edited(None), None, nowhere))["why"] == "retention"


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (Recalled(5, "ann:bob", 2, "ann", "tel", "1", 0, [2, 2]), {"op": "recalled"}),
        (Reacted(5, "ann:bob", 2, "ann", "tel", "1", 0, [2, 2], '"'), {"op": "reacted", "emoji": '"'}),
        (Reported(5, "ann:bob", 2, "ann", "tel", "1", 0, [2], "bob", "failed", None), {"op": "report", "state": "failed"}),
        (
            Reported(5, "ann:bob", 2, "ann", "tel", "1", 0, [2], "bob", "executed", b"[1]"),
            {"op": "report", "state": "executed", "result": [1]},
        ),
    ],
    ids=str,
)
def test_items_about_a_message(record: AnyRecord, shown: dict[str, Any]) -> None:
    assert item(render(record, None, nowhere), "ann", "tel") == {
        "pos": 7, "conv": "ann:bob", "seq": 2, "by": "ann", "ts": 5, **shown,
    }  # fmt: skip


@pytest.mark.parametrize(
    "system",
    [
        {"event": "group.create", "members": ["ann"], "name": "us"},
        {"event": "group.role", "user": "bob", "role": "admin"},
        {"event": "group.leave", "user": "bob"},
    ],
    ids=str,
)
def test_a_change_to_a_group_is_a_message_of_the_system(system: dict[str, Any]) -> None:
    event, *_ = system.values()
    record = GroupChange(5, "#g", 2, "ann", "tel", "1", 0, [1], event, ["ann"], asked={"group": "#g"})
    for name, value in system.items():
        setattr(record, name, value)
    assert item(render(record, amended(bob="+"), nowhere), "ann", "tel") == {
        "op": "msg", "pos": 7, "conv": "#g", "seq": 2, "from": "ann", "ts": 5, "system": system, "reactions": {"+": ["bob"]},
    }  # fmt: skip


def test_voids_name_what_they_stand_for() -> None:
    assert item(void_entry("replaced")) == {"op": "void", "pos": 7, "from": 7, "why": "replaced"}
    assert item(void_entry("retention", 3)) == {"op": "void", "pos": 7, "from": 3, "why": "retention"}
    assert item(render(Cursors(5, []), None, nowhere))["why"] == "retention"


def test_history_shows_the_fields_alone() -> None:
    lookup: Lookup = nowhere
    assert json.loads(b"{%b}" % fields(message(), None, lookup))["body"] == {"a": 1}
    assert json.loads(b"{%b}" % fields(message(None), None, lookup)).keys() == {"conv", "seq", "from", "id", "ts"}
    assert reactions(amended()) == {}


def test_the_size_of_an_entry_is_about_its_items() -> None:
    entry = render(message(b'"%b"' % (b"x" * 1000)), None, nowhere)
    assert 1000 < entry.size < 1300 and abs(entry.size - len(entry.item(7, "bob", "pc", 0))) < 50
