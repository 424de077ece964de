"""A whole store as plain rows, whatever it is kept in: to be copied into another one, and to be compared with it.

Internal numbers of users and conversations, and numbers of log rows, are the same in a copy. What follows from other rows
(unread counts, the order of `convs`, what an `id` has done) is none of these; what only one kind of store keeps is neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, zip_longest
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from mqtt_im.core.model import EVERYTHING, Amended, Conv, Device, Member, User
from mqtt_im.core.records import Act, AnyRecord, Gone

T = TypeVar("T")

AT_ONCE: Final = 2_000
"""Rows that are in memory together."""


class UserPart(NamedTuple):
    """A user, all settings included."""

    user: User


class DirectPart(NamedTuple):
    """A direct conversation with its members, and their numbers in the order of its name: of notes to oneself one twice."""

    conv: Conv
    first: int
    second: int


class GroupPart(NamedTuple):
    """A group, its members aside."""

    conv: Conv


class MemberPart(NamedTuple):
    """A group's member, present or past."""

    cid: int
    uid: int
    member: Member


class DevicePart(NamedTuple):
    """A registered device."""

    uid: int
    device: Device


class LogPart(NamedTuple):
    """A row of the log that makes items, or is remembered for its `id`; `seq` and `by` are 0 where it is no message."""

    lsn: int
    cid: int
    seq: int
    by: int
    """The sender's number; 0 where the message counts as unread for nobody."""
    data: bytes
    """The record (`core.records`)."""


class ItemPart(NamedTuple):
    """An item of an inbox: its log row, negative where it was replaced."""

    uid: int
    pos: int
    lsn: int


class AmendedPart(NamedTuple):
    """What became of a message."""

    cid: int
    seq: int
    amended: Amended


class ChangePart(NamedTuple):
    """How many changes of a message a user has made."""

    cid: int
    seq: int
    uid: int
    changes: int


class MentionPart(NamedTuple):
    """A message mentions a user, or everybody (`*`)."""

    cid: int
    seq: int
    name: str


class PacketPart(NamedTuple):
    """The newest PUBLISH without `id` of each packet identifier of a device's session."""

    uid: int
    device: str
    session: str
    packet: int
    lsn: int


class KeyPart(NamedTuple):
    """The newest message of a sender with a key in a conversation."""

    uid: int
    cid: int
    key: str
    lsn: int


KINDS: Final = (
    UserPart,
    DirectPart,
    GroupPart,
    MemberPart,
    DevicePart,
    LogPart,
    ItemPart,
    AmendedPart,
    ChangePart,
    MentionPart,
    PacketPart,
    KeyPart,
)
"""In the order in which a store takes them: each names only what came before it."""

Kind = type[Any]
Progress = Callable[[int], None]
"""Is told that so many more rows are done."""


class Whole(Protocol):
    """A store that nobody writes to. Raises `StoreError`."""

    last: int
    """No log row has a higher number, nor is one named anywhere."""
    time: int
    """No record is newer; ms since 1970."""

    def count(self) -> int:
        """About how many parts there are."""

    def parts(self, kind: Kind) -> Iterator[Any]:
        """All parts of one kind, in the order of their columns, users and conversations by their numbers."""


def difference(one: Whole, other: Whole, progress: Progress = lambda _: None) -> str:
    """The first part in which two stores differ, in words; empty where there is none."""
    for kind in KINDS:
        for number, (found, wanted) in enumerate(zip_longest(other.parts(kind), one.parts(kind)), 1):
            if found != wanted and _plain(found) != _plain(wanted):
                return f"{kind.__name__.removesuffix('Part').lower()}: {_plain(found)} in place of {_plain(wanted)}"
            if number % AT_ONCE == 0:
                progress(AT_ONCE)
        progress(number % AT_ONCE if number else 0)
    return ""


def _plain(part: Any) -> Any:
    """A part without what is only in memory, to be compared."""
    match part:
        case UserPart(user):
            told = _values(user, "changed")
            return {**told, "blocks": sorted(user.blocks), "mutes": dict(user.mutes)}
        case DirectPart(conv, first, second):
            members = {name: _values(member) for name, member in conv.members.items()}
            return _conv(conv), first, second, members
        case GroupPart(conv):
            return _conv(conv)
        case MemberPart(cid, uid, member):
            return cid, uid, _values(member)
        case DevicePart(uid, device):
            return uid, _values(device)
        case AmendedPart(cid, seq, amended):
            return cid, seq, _values(amended), list(amended.reactions)
    return part


def _values(entity: Any, *without: str) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in entity.FIELDS if name not in without}


def _conv(conv: Conv) -> tuple[Any, ...]:
    return conv.cid, conv.name, conv.head, conv.lsn, conv.title, conv.size, conv.born, conv.maker


def direct(cid: int, name: str, head: int, lsn: int, parts: list[Member]) -> Conv:
    """A direct conversation; `parts` are those of its users, in the order of its name."""
    conv = Conv(cid, name)
    conv.head, conv.lsn = head, lsn
    for user, member in zip(conv.users or (), parts, strict=True):
        if member.spans is EVERYTHING:
            member.last = 0  # it is the conversation's newest
        conv.members[user] = member
    return conv


def act_of(record: AnyRecord) -> Act | None:
    """What somebody did; None of a record that is about settings, which are no rows of a copy's log."""
    act = record.act if isinstance(record, Gone) else record
    return act if isinstance(act, Act) else None


def batches(parts: Iterable[T]) -> Iterator[list[T]]:
    """The same, `AT_ONCE` at a time."""
    parts = iter(parts)
    while batch := list(islice(parts, AT_ONCE)):
        yield batch
