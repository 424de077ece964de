"""How a generation is written into the projections: its rows, in bulk."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from mqtt_im.core.model import Conv, Device, Member, User
from mqtt_im.store.sqlite.tables import rows

from .generation import Generation

Row = tuple[Any, ...]
_Part = tuple[int, Conv, Member]
"""The uid of a member, of which conversation, and as it is."""
Bulk = tuple[str, Callable[[], Iterable[Row | None]]]
"""A statement, and what makes its rows, sorted as the table is. None: something was done for which there is no row."""

_PAUSE_ROWS: Final = 1_000
"""So many are looked at, without a row for any of them, before there is a pause."""
_SORTED_ROWS: Final = 4_000
"""Rows that are sorted at once: a millisecond in which no other thread runs."""
_MADE_ROWS: Final = 1_000
"""Rows that are made at once where that takes microseconds for each …"""
_NAMES: Final = 20
"""… as which so many names count that a user blocks or mutes: they are put in order, and packed."""


def bulks_of(held: Generation, uid_of: Callable[[str], int], written: Callable[[Sequence[User]], None]) -> list[Bulk]:
    """Everything as rows; `uid_of` finds the number of a member or of who has a device.

    Only what may still change is copied at once. Members' parts are replaced where they change, and users have to stay as they
    are until `written` is called with them; their rows are made, and all rows are sorted, when their turn comes, so that no
    step takes long.
    """
    convs = [rows.conv_row(row) for row in held.convs.values()]
    owned = [(uid_of(name), device, row) for name, of in held.devices.items() for device, row in of.items()]
    dropped = [(uid, device) for uid, device, row in owned if row is None]
    devices = [rows.device_row(uid, row) for uid, _, row in owned if row is not None]
    amended = [rows.amended_row(cid, seq, row) for (cid, seq), row in held.amended.items()]
    messages, changes = held.messages, held.changes
    told = set[tuple[int, int]]()
    return [
        (rows.PUT_USER, lambda: _user_rows(held, written)),
        (rows.PUT_CONV, lambda: _ordered(convs)),
        (rows.PUT_MEMBER, lambda: _ordered_between(_unchanged_order(held, uid_of))),
        (rows.PUT_ACTIVE_MEMBER, lambda: _ordered_between(_changed_order(held, uid_of, told))),
        (rows.PUT_NEW_MEMBER, lambda: _ordered(_new_members(held, {row[0]: row[3] for row in convs}))),
        (rows.PUT_LATEST, lambda: _latest_rows(held, told)),
        (rows.DROP_DEVICE, lambda: dropped),
        (rows.PUT_DEVICE, lambda: _ordered(devices)),
        (rows.PUT_AMENDED, lambda: _ordered(amended)),
        (rows.PUT_CHANGE, lambda: _ordered((*key, uid, count) for key, of in changes.items() for uid, count in of.items())),
        (rows.PUT_ITEM, lambda: _item_rows(held)),
        (rows.VOID_ITEM, lambda: _ordered(held.voids)),
        (rows.PUT_MESSAGE, lambda: ((cid, seq, lsn, by) for cid in sorted(messages) for seq, lsn, by in messages[cid])),
        (rows.HIDE_MESSAGE, lambda: _ordered((cid, seq) for cid, seqs in held.hidden.items() for seq in seqs)),
        (rows.PUT_MENTION, lambda: _ordered((cid, *row) for cid, rows in held.mentions.items() for row in rows)),
        (rows.PUT_REQUEST, lambda: _ordered((uid, name, lsn) for (uid, name), lsn in held.requests.items())),
        (rows.PUT_PACKET, lambda: [(*key, lsn) for key, lsn in held.packets.items()]),
        (rows.PUT_KEYED, lambda: [(*key, lsn) for key, lsn in held.keyed.items()]),
    ]


def entities_of(held: Generation, user: Callable[[str], User]) -> list[tuple[str, Iterator[Row | None]]]:
    """The users, conversations, members and devices alone, made as they are taken; they must not change meanwhile.

    In between comes None, where something was done for which there is no row yet.
    """
    return [
        (rows.PUT_USER, (rows.user_row(one) for one in sorted(held.users.values(), key=attrgetter("uid")))),
        # By name, since the names' index is what is larger.
        (rows.PUT_CONV, (rows.conv_row(one) for one in sorted(held.convs.values(), key=attrgetter("name")))),
        (rows.PUT_NEW_MEMBER, _joined_rows(held)),
        (rows.PUT_MEMBER, _marked_rows(held, user)),
        (rows.DROP_DEVICE, ((uid, name) for uid, name, device in _owned(held, user) if device is None)),
        (rows.PUT_DEVICE, (rows.device_row(uid, device) for uid, _, device in _owned(held, user) if device is not None)),
    ]


def _joined_rows(held: Generation) -> Iterator[Row | None]:
    joined: dict[int, list[Row]] = {}
    for count, row in enumerate(_new_members(held, {conv.cid: conv.lsn for conv in held.fresh})):
        joined.setdefault(row[0], []).append(row)
        if not count % _PAUSE_ROWS:
            yield None
    for uid in sorted(joined):
        yield from joined[uid]


def _marked_rows(held: Generation, user: Callable[[str], User]) -> Iterator[Row]:
    for uid, name in sorted((user(name).uid, name) for name in held.members):
        for _, (conv, member) in sorted(held.members[name].items()):
            yield rows.member_row(uid, conv, member)


def _owned(held: Generation, user: Callable[[str], User]) -> Iterator[tuple[int, str, Device | None]]:
    for uid, owner in sorted((user(owner).uid, owner) for owner in held.devices):
        for name, device in sorted(held.devices[owner].items()):
            yield uid, name, device


def _user_rows(held: Generation, written: Callable[[Sequence[User]], None]) -> Iterator[Row | None]:
    users = iter(held.users.values())
    while part := _few(users):
        part.sort(key=attrgetter("uid"))
        made = [rows.user_row(user) for user in part]
        written(part)
        yield from made
        if len(part) < _MADE_ROWS:
            yield None


def _few(users: Iterator[User]) -> list[User]:
    """The next ones, of whom rows are made at once."""
    found: list[User] = []
    room = _MADE_ROWS
    for user in users:
        found.append(user)
        room -= 1 + (len(user.blocks) + len(user.mutes)) // _NAMES if user.blocks or user.mutes else 1
        if room <= 0:
            break
    return found


def _parts(held: Generation, uid_of: Callable[[str], int]) -> Iterator[tuple[_Part, int | None]]:
    """What rows of members are made of, with the log row of the newest message of the conversation, where they got one."""
    nothing: dict[str, int] = {}
    for name, parts in held.members.items():
        uid = uid_of(name)
        lsns = held.latest.get(uid, nothing)
        for conv, member in parts.values():
            yield (uid, conv, member), lsns.get(conv.name)


def _unchanged_order(held: Generation, uid_of: Callable[[str], int]) -> Iterator[Row | None]:
    """Of those who got no message of the conversation."""
    for count, (part, lsn) in enumerate(_parts(held, uid_of), 1):
        if lsn is None:
            yield rows.member_row(*part)
        if not count % _PAUSE_ROWS:
            yield None


def _changed_order(held: Generation, uid_of: Callable[[str], int], told: set[tuple[int, int]]) -> Iterator[Row | None]:
    """Of those who got one; uid and cid of each are in `told` after that."""
    for count, (part, lsn) in enumerate(_parts(held, uid_of), 1):
        if lsn is not None:
            told.add((part[0], part[1].cid))
            yield (*rows.member_row(*part), lsn)
        if not count % _PAUSE_ROWS:
            yield None


def _new_members(held: Generation, lsns: Mapping[int, int]) -> Iterator[Row]:
    """The rows of who is in a new direct conversation, as far as nothing else has changed them: they got all of it.

    `lsns` are the conversations' newest log rows, by cid.
    """
    members, users = held.members, held.users
    for conv in held.fresh:
        cid = conv.cid
        lsn = lsns[cid]
        for order, name in enumerate(conv.users or ()):
            if not members or name not in members or cid not in members[name]:
                yield users[name].uid, cid, order, lsn


def _latest_rows(held: Generation, told: Container[tuple[int, int]]) -> Iterator[Row | None]:
    new = {conv.cid for conv in held.fresh}
    count = 0
    for uid in sorted(held.latest):
        for name, lsn in held.latest[uid].items():
            cid = held.convs[name].cid
            if cid not in new and (uid, cid) not in told:
                yield lsn, uid, cid
            count += 1
            if not count % _PAUSE_ROWS:
                yield None


def _item_rows(held: Generation) -> Iterator[Row]:
    for uid in sorted(held.items):
        first, *lsns = held.items[uid]
        for pos, lsn in enumerate(lsns, first):
            yield uid, pos, lsn
    held.scattered.sort()
    yield from held.scattered


def _ordered(found: Iterable[Row]) -> Iterator[Row]:
    """The rows, those that stand together in the table next to each other, as far as so many are sorted at once."""
    rows = iter(found)
    while part := list(islice(rows, _SORTED_ROWS)):
        part.sort()
        yield from part


def _ordered_between(found: Iterable[Row | None]) -> Iterator[Row | None]:
    """The same, as far as they stand between two pauses."""
    part: list[Row] = []
    for row in found:
        if row is not None:
            part.append(row)
            continue
        part.sort()
        yield from part
        yield None
        part.clear()
    part.sort()
    yield from part


def slices(bulks: Sequence[Bulk], size: int) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each statement in their order, at most `size` at a time; none where there was a pause instead."""
    for statement, make in bulks:
        part: list[Row] = []
        for row in make():
            if row is not None:
                part.append(row)
                if len(part) < size:
                    continue
            yield statement, part
            part = []
        if part:
            yield statement, part
