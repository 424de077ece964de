"""Listings that go on from page to page: one's conversations by activity, and the members of a group by name.

Conversations are listed from the latest activity down, as the listing found them when it began. One that gets a message
meanwhile moves above that beginning, where the listing would not come by; so what has moved there is listed at the end,
by name. That is an order which messages do not change, so the listing ends, and misses none. Where it stands, a page tells
in `next`.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mqtt_im.core.model import FOREVER, Conv, Member, User
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.common import conv_of
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal

from .pages import message_json
from .unread import Counts

if TYPE_CHECKING:
    from mqtt_im.store.interface import Readable

MAX_RECEIPTS: Final = 1000
"""Members of a group whose marks one entry of `convs` holds: those who have read, or else got, the most."""
MAX_MEMBERS: Final = 10_000
"""Of the groups in one page, since the marks of all of them are looked at; a page of larger ones has one."""
_LARGE: Final = 1000
"""Conversations of more members together are told one by one."""
_FIRST_STEP: Final = 8
_MOVED: Final = ":"
"""Between the beginning of a listing and the name where it stands, once it has come to what has moved."""


class _Place:
    """Where a listing stands: below the log row `below` of what is not later than `begin`, or, where that is 0, behind `name`."""

    def __init__(self, begin: int, below: int, name: str = "") -> None:
        self.begin, self.below, self.name = begin, below, name

    @classmethod
    def read(cls, text: str | None) -> _Place:
        """Raises `bad_field` for what is no `next`."""
        if text is None:
            return cls(FOREVER, FOREVER)
        begin, dot, below = text.partition(".")
        moved, colon, name = text.partition(_MOVED)
        if dot and begin.isdecimal() and below.isdecimal() and begin.isascii() and below.isascii():
            return cls(int(begin[:18]), int(below[:18]))
        if colon and moved.isdecimal() and moved.isascii():
            return cls(int(moved[:18]), 0, name)
        raise Refusal("bad_field", "after: expected the `next` of the page before")

    def __str__(self) -> str:
        return f"{self.begin}.{self.below}" if self.below else f"{self.begin}{_MOVED}{self.name}"


def convs(
    engine: Readable, who: Who, request: rq.Convs, limit: int, max_bytes: int, counts: Counts | None = None
) -> dict[str, Any]:
    """One's conversations, latest activity first, and at the end those that have moved since the first page.

    Raises `Unfinished`, and is to be asked again when `counts` keep it, where these have not got all that is unread in one step.
    """
    state = engine.state
    counts = counts or Counts()
    counts.begin()
    user = state.user(who.user)
    place = _Place.read(request.after)
    found: list[msgspec.Raw] = []
    more = False
    members = MAX_MEMBERS
    while not more:
        room = limit - len(found) + 1  # one more tells whether there are more
        if place.below:
            part = state.latest(user, place.below, room)
            if place.begin == FOREVER:
                place.begin = part[0][0] if part else engine.last
        else:
            part = state.later(user, place.begin, place.name, room)
        for (lsn, conv), told in _told(engine, user, part[: room - 1], counts):
            if found and (max_bytes < len(told) or members < conv.size):
                more = True
                break
            max_bytes -= len(told)
            members -= conv.size
            found.append(msgspec.Raw(told))
            if place.below:
                place.below = lsn
            else:
                place.name = conv.name
        if more or len(part) == room:
            more = True
        elif place.below:
            place.below = 0
        else:
            break
    page: dict[str, Any] = {"op": "convs", "convs": found, "more": more}
    if more:
        page["next"] = str(place)
    return page


def _told(
    engine: Readable, user: User, convs: list[tuple[int, Conv]], counts: Counts
) -> Iterator[tuple[tuple[int, Conv], bytes]]:
    """These conversations with their entries, made in a few steps, since the page may be full before all of them are told."""
    start, size = 0, _FIRST_STEP
    while start < len(convs):
        part = convs[start : start + size]
        if sum(conv.size for _, conv in part) > _LARGE:
            part = part[:1]
        yield from zip(part, _entries(engine, user, part, counts), strict=True)
        start, size = start + len(part), 2 * size


def _entries(engine: Readable, user: User, part: list[tuple[int, Conv]], counts: Counts) -> list[bytes]:
    state = engine.state
    members: list[tuple[int, Conv, Member, int]] = []
    parts: list[tuple[Conv, int, int]] = []
    for lsn, conv in part:
        member = conv.part(user.name)
        assert member is not None
        last = member.newest(conv.head)
        members.append((lsn, conv, member, last))
        parts += _unread_parts(conv, member, last)
    unread = counts.of(state, parts, user)
    records = state.records([lsn for lsn, _ in part])
    amended = state.amended_of(records)
    told = []
    for lsn, conv, member, last in members:
        message = message_json(engine, records.get(lsn), amended.get(lsn))
        if message is not None and not member.active and state.message(conv, last) is None:
            message = None  # of a change of the group the log still has what follows from it
        fields: dict[str, Any] = {"conv": conv.name, "seq": last}
        if conv.group and conv.title:
            fields["name"] = conv.title
        if message is not None:
            fields["last"] = msgspec.Raw(message)
        fields["unread"], fields["mentions"] = unread.get(conv.name, (0, 0))
        muted = user.mutes.get(conv.name)
        if muted is not None:
            fields["muted"] = muted
        fields["receipts"] = _receipts(engine, conv, user.name)
        told.append(msgspec.json.encode(fields))
    return told


def _unread_parts(conv: Conv, member: Member, last: int) -> list[tuple[Conv, int, int]]:
    """The parts of a conversation that the member may read and has not read, as first and last `seq`.

    None for who is not in it any more, since nobody can mark those as read.
    """
    if not member.active:
        return []
    if not conv.group:
        read = max(member.read, member.spans[0][0] - 1)  # what came before was a former user's of this name
        return [(conv, read + 1, last)] if read < last else []
    # Who left a group and came back may read what came before and after, but not what came between.
    parts = [(max(member.read + 1, first), min(end, last)) for first, end in member.spans]
    return [(conv, first, end) for first, end in parts if first <= end]


def _receipts(engine: Readable, conv: Conv, name: str) -> dict[str, dict[str, int]]:
    user = engine.state.user
    marked = engine.state.marked(conv)
    if len(marked) > MAX_RECEIPTS:
        marked.sort(key=lambda entry: (entry[0] != name, -entry[1].read, -entry[1].delivered))
    receipts: dict[str, dict[str, int]] = {}
    for other, part in marked:
        if len(receipts) == MAX_RECEIPTS:
            break
        if other != name and name in user(other).blocks:
            continue
        read = part.read if other == name or user(other).read_receipts else 0
        if part.delivered or read:
            receipts[other] = {"delivered": max(part.delivered, read), "read": read}
    return receipts


def group_info(engine: Readable, who: Who, request: rq.GroupInfo, limit: int, max_bytes: int) -> dict[str, Any]:
    """A group's name, head, size, and its present members by name, those after `after`."""
    conv, _ = conv_of(engine.state, who, request.group)
    after = request.after or ""
    names = nsmallest(limit + 1, (name for name, member in conv.members.items() if member.active and name > after))
    members: list[dict[str, str]] = []
    more = False
    for name in names:
        max_bytes -= len(name) + 32
        if len(members) >= limit or (members and max_bytes < 0):
            more = True
            break
        members.append({"user": name, "role": conv.members[name].role})
    return {
        "op": "ok",
        "group": conv.name,
        "name": conv.title,
        "seq": conv.head,
        "count": conv.size,
        "members": members,
        "more": more,
    }
