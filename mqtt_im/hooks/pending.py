"""What a push has to tell: questions to the ledger, answered on its thread. All of them only read, and each is short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from mqtt_im.core.model import User
from mqtt_im.core.records import MESSAGES, AnyRecord, GroupChange, Message, steady
from mqtt_im.store.interface import Readable, Seen
from mqtt_im.store.queries.pages import message_json

MAX_ITEMS: Final = 200
"""Items that one push tells of; the next one goes on after them."""
LOOKED_THROUGH: Final = 20_000
"""Of an inbox that is not in the order of the log so many items, the newest, are looked through."""
MAX_BYTES: Final = 262_144
"""Content in one push; at least one item is told."""


class Summary(msgspec.Struct):
    """What a user has not been told up to log row `upto`, by conversation, the latest first. `more` has come after that."""

    upto: int
    newest: int = 0
    """The newest log row that counts."""
    count: int = 0
    conversations: list[dict[str, Any]] = []
    more: bool = False


def members(engine: Readable, groups: Iterable[str]) -> dict[str, list[str]]:
    """The present members of each of these groups."""
    found = {}
    for name in groups:
        conv = engine.state.conv(name)
        if conv is not None:
            found[name] = conv.present_names
    return found


def unacknowledged(engine: Readable, newest: Mapping[str, int]) -> set[str]:
    """Those of these users whom no device has acknowledged everything up to the user's log row."""
    found = set()
    for name, lsn in newest.items():
        user = engine.state.user(name)
        acked = engine.state.acknowledged(user)
        if acked < user.head:
            first = engine.state.items(user, max(acked, user.floor), 1 if engine.state.in_log_order(user) else MAX_ITEMS)
            if any(abs(row) <= lsn for _, row in first):
                found.add(name)
    return found


def summary(engine: Readable, name: str, told: int, include_body: bool, settled: int) -> Summary:
    """What the user is to be told of what came after log row `told` and no device has acknowledged.

    Up to log row `settled` nothing will come any more. Several nodes may commit rows after such with higher numbers, but not for
    one user: what comes to an inbox stands in the order of the log, but for what large groups tell, which is there by now.
    """
    state = engine.state
    user = state.user(name)
    items, rest = _new_items(state, user, told)
    records = state.records([lsn for _, lsn in items if lsn > 0])
    gathered = Summary(max(settled, abs(items[-1][1]) if items else 0))
    conversations: dict[str, dict[str, Any]] = {}
    size = 0
    for index, (_, lsn) in enumerate(items):
        record = records.get(lsn)
        told_of = _tells(engine, user, record) if record is not None else None
        if told_of is None:
            continue
        assert isinstance(record, MESSAGES)
        size += len(msgspec.json.encode(told_of.get("push"))) + (len(record.body or b"") if isinstance(record, Message) else 0)
        if size > MAX_BYTES and gathered.count:
            gathered.upto, gathered.more = abs(items[index - 1][1]), True
            break
        gathered.count += 1
        gathered.newest = lsn
        # Taken out and put in again: the latest conversation stands last.
        entry = conversations.pop(record.conv, {"conv": record.conv, "count": 0})
        entry.pop("system", None)
        entry.update(told_of)
        entry["count"] += 1
        conversations[record.conv] = entry
    else:
        if len(items) == MAX_ITEMS:
            gathered.upto = abs(items[-1][1])
            gathered.more = rest
    if include_body:
        for entry in conversations.values():
            _add_body(engine, entry)
    gathered.conversations = list(reversed(conversations.values()))
    return gathered


def _new_items(state: Seen, user: User, told: int) -> tuple[list[tuple[int, int]], bool]:
    """The oldest items that are new to the user, at most `MAX_ITEMS`, in the order of the log, and whether there are more."""
    if state.in_log_order(user):
        after = _position_after(state, user, told)
        items = state.items(user, after, MAX_ITEMS) if after < user.head else []
        return items, bool(items) and items[-1][0] < user.head
    first = max(state.acknowledged(user), user.floor, user.head - LOOKED_THROUGH)
    items = [item for item in state.items(user, first, LOOKED_THROUGH) if abs(item[1]) > told]
    items.sort(key=lambda item: abs(item[1]))
    return items[:MAX_ITEMS], len(items) > MAX_ITEMS


def _position_after(state: Seen, user: User, told: int) -> int:
    """The position behind which all is new to the user: neither acknowledged nor told."""
    low = max(state.acknowledged(user), user.floor)
    high = user.head
    while low < high:  # the items of an inbox stand in the order of the log
        middle = (low + high) // 2
        found = state.items(user, middle, 1)
        if found and abs(found[0][1]) <= told:
            low = found[0][0]
        else:
            high = middle
    return low


def _tells(engine: Readable, user: User, record: AnyRecord) -> dict[str, Any] | None:
    """What a push says of one item; None where it is nothing to wake the user for."""
    state, now = engine.state, engine.now
    if not isinstance(record, MESSAGES) or record.by == user.name:
        return None
    conv = state.conv_for(record.conv)
    entry: dict[str, Any] = {"seq": record.seq, "from": record.by, "ts": record.ts}
    if conv.title:
        entry["name"] = conv.title
    muted = user.mutes.get(record.conv, 0) > now
    if isinstance(record, GroupChange):
        if muted or user.name not in concerned(record):
            return None
        return {**entry, "system": record.event}
    amended = state.amended(conv, record.seq)
    extra = record.extra or {}
    mentions = extra.get("mentions", ())
    mentioned = user.name in mentions or "*" in mentions
    ttl = extra.get("ttl")
    if (
        record.body is None
        or (muted and not mentioned)
        or (ttl and now - engine.behind >= steady(record) + ttl * 1000)
        or (amended is not None and amended.recalled)
    ):
        return None
    if mentioned:
        entry["mentioned"] = True
    if "push" in extra:
        entry["push"] = extra["push"]
    return entry


def concerned(record: GroupChange) -> list[str]:
    """The users whom a change to a group is about: who is in it now, is out of it now, or has another role."""
    return record.members or ([record.user] if record.user is not None else [])


def _add_body(engine: Readable, entry: dict[str, Any]) -> None:
    conv = engine.state.conv_for(entry["conv"])
    shown = message_json(engine, engine.state.message(conv, entry["seq"]), engine.state.amended(conv, entry["seq"]))
    body = None if shown is None else msgspec.json.decode(shown, type=dict[str, msgspec.Raw]).get("body")
    if body is not None:
        entry["body"] = body
