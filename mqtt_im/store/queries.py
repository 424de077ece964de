"""What is read for a reply: pages, conversations, groups, devices. Runs on the reader's thread.

Pages hold ready JSON (`msgspec.Raw`), in lists of at most `limit` items and about `max_bytes`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mqtt_im.core.entries import Lookup, fields
from mqtt_im.core.model import Amended, Conv
from mqtt_im.core.records import MESSAGES, AnyRecord, Message
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.common import conv_of, possible_conv
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.names import direct, members_of_direct

if TYPE_CHECKING:
    from .interface import Readable, Seen

FIRST_CHUNK = 8
CHUNK = 256
"""Messages of a page that are read at once, to begin with and at most: few may be large enough to fill it."""
FEW = 64
"""So many users are looked up one by one; for more, all conversations of a user are gone through …"""
_AS_MANY: Final = 8
"""… unless the groups among them have so many times as many members."""


def sync(engine: Readable, who: Who, request: rq.Sync, limit: int, max_bytes: int) -> dict[str, Any]:
    """The items after a position, as the asking device sees them."""
    owner = engine.state.user(who.user)
    if request.after > owner.head:
        raise Refusal("bad_field", f"after: the newest item is {owner.head}")
    found = engine.entries(owner, request.after, limit, max_bytes)
    items = [msgspec.Raw(entry.item(pos, who.user, who.device, engine.now - engine.behind)) for pos, entry in found]
    last = found[-1][0] if found else request.after
    return {"op": "page", "items": items, "more": last < owner.head}


def history(engine: Readable, who: Who, request: rq.History, limit: int, max_bytes: int) -> dict[str, Any]:
    """Messages of one conversation, ascending, as far as the asking user may read them."""
    conv, member = possible_conv(engine.state, who, request.conv)
    lowest = (request.after or 0) + 1
    highest = conv.head if request.before is None else min(conv.head, request.before - 1)
    forward = request.after is not None
    spans = [[max(first, lowest), min(last, highest)] for first, last in member.spans]
    spans = sorted(span for span in spans if span[0] <= span[1])
    if not forward:
        spans.reverse()
    found: list[bytes] = []
    more = False
    for first, last in spans:
        seqs = _Walk(first, last, forward)
        while (part := seqs.next()) is not None:
            messages = _messages(engine, conv, *part)
            if not messages:
                seqs.skip(engine.state.nearest_message(conv, *seqs.rest, forward))
            for message in messages if forward else reversed(messages):
                if len(found) >= limit or (found and max_bytes < len(message)):
                    more = True
                    break
                found.append(message)
                max_bytes -= len(message)
            if more:
                break
        if more:
            break
    if not forward:
        found.reverse()
    return {"op": "page", "conv": conv.name, "items": [msgspec.Raw(item) for item in found], "more": more}


class _Walk:
    """The seqs from `first` to `last` in ranges of `FIRST_CHUNK` and more, up to `CHUNK`, upward or downward."""

    def __init__(self, first: int, last: int, forward: bool) -> None:
        self._first, self._last, self._forward = first, last, forward
        self._size = min(FIRST_CHUNK, CHUNK)

    @property
    def rest(self) -> tuple[int, int]:
        """What was not walked yet, as first and last."""
        return self._first, self._last

    def skip(self, seq: int | None) -> None:
        """Go on at this one; None ends the walk."""
        if seq is None:
            self._first = self._last + 1
        elif self._forward:
            self._first = seq
        else:
            self._last = seq

    def next(self) -> tuple[int, int] | None:
        if self._first > self._last:
            return None
        size, self._size = self._size, min(CHUNK, 4 * self._size)
        if self._forward:
            part = self._first, min(self._last, self._first + size - 1)
            self._first = part[1] + 1
        else:
            part = max(self._first, self._last - size + 1), self._last
            self._last = part[0] - 1
        return part


def _messages(engine: Readable, conv: Conv, first: int, last: int) -> list[bytes]:
    rows = engine.state.messages(conv, first, last)
    records = engine.state.records([lsn for _, lsn in rows])
    amended = engine.state.amended_of(records)
    found = []
    for _, lsn in rows:
        message = message_json(engine, records.get(lsn), amended.get(lsn))
        if message is not None:
            found.append(message)
    return found


def message_json(engine: Readable, record: AnyRecord | None, amended: Amended | None) -> bytes | None:
    """A message as history shows it: a `msg` without `pos`; None where its content was trimmed."""
    if not isinstance(record, MESSAGES):
        return None
    if isinstance(record, Message) and record.body is None and not (amended is not None and amended.recalled):
        return None
    lookup: Lookup = engine.state.record
    return b'{"op":"msg",%b}' % fields(record, amended, lookup)


def found(engine: Readable, who: Who, lsns: list[int]) -> list[bytes]:
    """Those of these messages that the user may read now, as history shows them."""
    records = engine.state.records(lsns)
    amended_of = engine.state.amended_of(records)
    messages = []
    for lsn in lsns:
        record = records.get(lsn)
        conv = engine.state.conv(record.conv) if isinstance(record, Message) else None
        if not isinstance(record, Message) or conv is None:
            continue
        member = conv.part(who.user)
        amended = amended_of.get(lsn)
        if member is None or not member.sees(record.seq) or (amended is not None and amended.recalled):
            continue
        message = message_json(engine, record, amended)
        if message is not None:
            messages.append(message)
    return messages


def devices(engine: Readable, who: Who) -> list[dict[str, Any]]:
    """The user's devices, without who of them is connected."""
    return [
        {"device": device.device, "pos": device.cursor, "last_seen": device.seen + engine.ahead}
        for device in sorted(engine.state.devices(who.user).values(), key=lambda device: device.device)
    ]


def typing_audience(engine: Readable, who: Who, to: str) -> tuple[str, list[str]]:
    """The conversation, and the connected users who are to learn that `who` types in it. Raises `Refusal`."""
    state = engine.state
    if to[0] == "#":
        conv, _ = conv_of(state, who, to)
        return conv.name, [name for name in engine.connected(conv) if name != who.user and not hidden(state, who.user, name)]
    if not state.has_account(to):
        raise Refusal("not_found", f"to: there is no user {to}")
    conv_name = direct(who.user, to)
    return conv_name, [] if hidden(state, who.user, to) or to == who.user or to not in engine.online else [to]


def hidden(state: Seen, user: str, other: str) -> bool:
    """Whether one of two users has blocked the other, so that they do not see each other typing."""
    return user in state.user(other).blocks or other in state.user(user).blocks


def shares_conversation(engine: Readable, user: str, other: str) -> bool:
    """Whether two users are in one conversation now."""
    state = engine.state
    return user == other or _share_direct(state, user, other) or state.share_group(user, other)


def _share_direct(state: Seen, user: str, other: str) -> bool:
    """Whether both have something in their direct conversation: whose name was erased and taken anew has not."""
    conv = state.conv(direct(user, other))
    if conv is None:
        return False
    parts = conv.part(user), conv.part(other)
    return all(part is not None and part.newest(conv.head) for part in parts)


def sees_presence(engine: Readable, watcher: str, user: str) -> bool:
    """Whether `watcher` may know whether `user` is connected."""
    if watcher == user:
        return True
    subject = engine.state.user(user)
    return subject.presence and watcher not in subject.blocks and shares_conversation(engine, watcher, user)


def seen_by(engine: Readable, user: str, among: Collection[str]) -> list[str]:
    """Those `among` who may know whether the user is connected."""
    subject = engine.state.user(user)
    return sorted(_near(engine, user, among) - subject.blocks) if subject.presence else []


def nearby_online(engine: Readable, watcher: str, online: Collection[str]) -> list[str]:
    """Those `online` who share a conversation with the watcher and let it know."""
    state = engine.state
    found = sorted(_near(engine, watcher, online))
    return [name for name in found if (user := state.user(name)).presence and watcher not in user.blocks]


def _near(engine: Readable, user: str, among: Collection[str]) -> set[str]:
    """Those `among`, the user aside, who share a conversation with the user now."""
    state = engine.state
    found: set[str] = set()
    groups: list[Conv] = []
    if len(among) > FEW:
        for conv_name in state.conv_names(state.user(user)):
            pair = members_of_direct(conv_name)
            if pair is not None:
                found.update(name for name in pair if name in among and name != user and _share_direct(state, user, name))
            elif (conv := state.conv(conv_name)) is not None and conv.member(user) is not None:
                groups.append(conv)
    if len(among) <= FEW or sum(conv.size for conv in groups) > len(among) * _AS_MANY:
        return {name for name in list(among) if name != user and shares_conversation(engine, user, name)}
    for conv in groups:
        names = conv.members if len(conv.members) < len(among) else list(among)
        found.update(name for name in names if name in among and conv.member(name) is not None)
    found.discard(user)
    return found


def last_seen(engine: Readable, user: str) -> int:
    """When the last of a user's devices was seen, in ms since 1970; 0 for a user without devices."""
    seen = max((device.seen for device in engine.state.devices(user).values()), default=0)
    return seen + engine.ahead if seen else 0


def lags(engine: Readable, user: str) -> list[dict[str, Any]]:
    """The user's registered devices by name, with how far each is behind the inbox, and what has still to come to that."""
    owner = engine.state.user(user)
    head = owner.head + engine.state.waiting(owner)
    return [
        {
            "device": device.device,
            "pos": device.cursor,
            "head": head,
            "lag": head - device.cursor,
            "last_seen": device.seen + engine.ahead,
        }
        for device in sorted(engine.state.devices(user).values(), key=lambda device: device.device)
    ]


def has_inbox(engine: Readable, user: str) -> bool:
    """Whether the user has left, or was left, anything: items, a device, a setting."""
    owner = engine.state.user(user)
    return bool(owner.head > owner.begin or owner.registered or owner.blocks or owner.mutes)


def owned_groups(engine: Readable, user: str) -> list[str]:
    """The groups that the user is an owner of."""
    state = engine.state
    named = [state.conv(name) for name in state.conv_names(state.user(user)) if name[0] == "#"]
    members = [(conv.name, conv.member(user)) for conv in named if conv is not None]
    return sorted(name for name, member in members if member is not None and member.role == "owner")


def belongings(engine: Readable, user: str) -> tuple[list[str], list[str]]:
    """The groups that the user is in, and the user's registered devices."""
    state = engine.state
    named = [state.conv(name) for name in state.conv_names(state.user(user)) if name[0] == "#"]
    groups = sorted(conv.name for conv in named if conv is not None and conv.member(user) is not None)
    return groups, sorted(state.devices(user))
