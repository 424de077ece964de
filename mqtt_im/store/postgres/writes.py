"""What a batch writes: a statement for each table, with all its rows as arrays, sorted as every batch sorts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from mqtt_im.core.model import Conv
from mqtt_im.core.records import encode

from . import tables
from .large import PUT_PULLED, PUT_TOLD, Group
from .node import FENCE
from .state import Work
from .wire import Statement, Step, ints

_USERS: Final = (
    "UPDATE im_user u SET head = v.head, first = v.first, tail = v.tail, sent = v.sent, sent_bytes = v.bytes"
    " FROM unnest(${}, ${}, ${}, ${}, ${}, ${}) v (uid, head, first, sent, bytes, tail) WHERE u.uid = v.uid"
)
_LOG: Final = "INSERT INTO log (lsn, cid, seq, by, idh, rec) SELECT * FROM unnest($1, $2, $3, $4, $5, $6)"
_AND_USERS: Final = f"WITH users AS ({_USERS.format(*range(7, 13))})"
_PUT_USERS: Final = Statement(_USERS.format(*range(1, 7)), "IIIIIB ")
_PUT: Final = Statement(f"{_AND_USERS} {_LOG}", "IIIIUB IIIIIB")
"""What nearly every batch writes, as one statement: each takes the node a hundredth of a small batch."""
_PUT_GUARDED: Final = Statement(f"{_AND_USERS}, log AS ({_LOG}), {FENCE.format(13, 14)}", "IIIIUB IIIIIB ii")
"""The same with the fence."""
_REWRITE: Final = Statement("UPDATE log SET rec = v.rec FROM unnest($1, $2) v (lsn, rec) WHERE log.lsn = v.lsn", "IB")
_HIDE: Final = Statement(
    "UPDATE log SET by = 0 FROM unnest($1, $2) v (cid, seq) WHERE log.cid = v.cid AND log.seq = v.seq AND log.seq > 0", "II"
)
_PUT_SELDOM: Final = Statement(
    "UPDATE im_user u SET acked = v.acked, settings = v.settings, floor = v.floor, began = v.began, registered = v.registered,"
    " gone = v.gone, gone_bytes = v.gone_bytes, joined = v.joined, made = v.made"
    " FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    " v (uid, acked, settings, floor, began, registered, gone, gone_bytes, joined, made) WHERE u.uid = v.uid",
    "IIBIIFIIII",
)
_PUT_CHUNKS: Final = Statement(
    "INSERT INTO chunk (uid, first, refs) SELECT * FROM unnest($1, $2, $3)"
    " ON CONFLICT (uid, first) DO UPDATE SET refs = excluded.refs",
    "IIB",
)
_DROP_CHUNKS: Final = Statement(
    "DELETE FROM chunk USING unnest($1, $2) v (uid, first) WHERE chunk.uid = v.uid AND chunk.first = v.first", "II"
)
"""Of which retention has taken everything."""
_NEW_DIRECTS: Final = Statement(
    "INSERT INTO direct (a, b, cid, head, lsn, ts) SELECT * FROM unnest($1, $2, $3, $4, $5, $6)", "IIIIII "
)
_GROWN_DIRECTS: Final = Statement(
    "UPDATE direct d SET head = v.head, lsn = v.lsn, ts = v.ts FROM unnest($1, $2, $3, $4, $5, $6)"
    " v (a, b, cid, head, lsn, ts) WHERE d.a = v.a AND d.b = v.b",
    "IIIIII ",
)
"""What a message changes; this and what is new are nearly all that there is, and a third of what is below."""
_PUT_DIRECTS: Final = Statement(
    "UPDATE direct d SET head = v.head, lsn = v.lsn, ts = v.ts, a_read = v.a_read, a_delivered = v.a_delivered,"
    " b_read = v.b_read, b_delivered = v.b_delivered, parts = v.parts"
    " FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
    " v (a, b, cid, head, lsn, ts, a_read, a_delivered, b_read, b_delivered, parts) WHERE d.a = v.a AND d.b = v.b",
    "IIIIIIIIIIB ",
)
"""Whoever changes one has locked its two users, so one that was not there is not there yet."""
_PUT_GROUPS: Final = Statement(
    "UPDATE grp g SET head = v.head, lsn = v.lsn, ts = v.ts, title = v.title, size = v.size, born = v.born, maker = v.maker,"
    " large = v.large, acts = v.acts FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    " v (cid, head, lsn, ts, title, size, born, maker, large, acts) WHERE g.cid = v.cid",
    "IIIITIITFI",
)
_PUT_MEMBERS: Final = Statement(
    "INSERT INTO member (cid, uid, ord, role, active, read, delivered, last, spans)"
    " SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)"
    " ON CONFLICT (cid, uid) DO UPDATE SET ord = excluded.ord, role = excluded.role, active = excluded.active,"
    " read = excluded.read, delivered = excluded.delivered, last = excluded.last, spans = excluded.spans",
    "IIITFIIIB",
)
_PUT_DEVICES: Final = Statement(
    "INSERT INTO device (uid, device, cursor, acked, app, n, exposed, server, created, seen, left_by, offered)"
    " SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
    " ON CONFLICT (uid, device) DO UPDATE SET cursor = excluded.cursor, acked = excluded.acked, app = excluded.app,"
    " n = excluded.n, exposed = excluded.exposed, server = excluded.server, created = excluded.created, seen = excluded.seen,"
    " left_by = excluded.left_by, offered = excluded.offered",
    "ITIIFIFIIIII",
)
_DROP_DEVICES: Final = Statement(
    "DELETE FROM device USING unnest($1, $2) v (uid, device) WHERE device.uid = v.uid AND device.device = v.device", "IT"
)
_PUT_AMENDED: Final = Statement(
    "INSERT INTO amended (cid, seq, recalled, edits, edited, size, reactions) SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)"
    " ON CONFLICT (cid, seq) DO UPDATE SET recalled = excluded.recalled, edits = excluded.edits, edited = excluded.edited,"
    " size = excluded.size, reactions = excluded.reactions",
    "IIFIIIB",
)
_PUT_CHANGES: Final = Statement(
    "INSERT INTO change (cid, seq, uid, count) SELECT * FROM unnest($1, $2, $3, $4)"
    " ON CONFLICT (cid, seq, uid) DO UPDATE SET count = excluded.count",
    "IIII",
)
_PUT_MENTIONS: Final = Statement(
    "INSERT INTO mention (cid, name, seq) SELECT * FROM unnest($1, $2, $3) ON CONFLICT DO NOTHING", "ITI"
)
_PUT_PACKETS: Final = Statement(
    "INSERT INTO packet (uid, device, session, packet, lsn) SELECT * FROM unnest($1, $2, $3, $4, $5)"
    " ON CONFLICT (uid, device, session, packet) DO UPDATE SET lsn = excluded.lsn",
    "ITTII",
)
_PUT_KEYS: Final = Statement(
    "INSERT INTO keyed (sender, cid, key, lsn) SELECT * FROM unnest($1, $2, $3, $4)"
    " ON CONFLICT (sender, cid, key) DO UPDATE SET lsn = excluded.lsn",
    "IITI",
)


_NO_USERS: Final[tuple[Sequence[Any], ...]] = ((),) * 6

_WAIT_FOR_INDEX: Final = Statement("SELECT FROM meta WHERE key = 'searched' FOR SHARE")
_UNINDEX: Final = Statement("DELETE FROM word WHERE lsn = ANY ($1)", "I")


def forgotten(lsns: list[int]) -> list[Step]:
    """Nobody finds these messages any more by what they said (`mqtt_im.search.postgres`)."""
    return [Step(_WAIT_FOR_INDEX), Step(_UNINDEX, (lsns,))] if lsns else []


def steps(state: Work, rewrites: dict[int, bytes]) -> list[Step]:
    """Everything that the batch has changed."""
    often, seldom = _users(state)
    found: list[Step] = []
    if state.rows:
        *columns, records = zip(*state.rows.values(), strict=True)
        log = (list(state.rows), *columns, [encode(record) for record in records])
        found.append(Step(_PUT, (*log, *(zip(*often, strict=True) if often else _NO_USERS))))
    elif often:
        found.append(Step(_PUT_USERS, tuple(zip(*often, strict=True))))
    tables = (*seldom, *_tables(state, rewrites))
    found += [Step(statement, tuple(zip(*rows, strict=True))) for statement, rows in tables if rows]
    return found


def guarded(found: list[Step], fence: Step) -> list[Step]:
    """The steps of a batch, with the fence among them."""
    if found and found[0].statement is _PUT and fence.values:
        return [Step(_PUT_GUARDED, (*found[0].values, *fence.values)), *found[1:]]
    return [*found, fence]


def _tables(state: Work, rewrites: dict[int, bytes]) -> Iterator[tuple[Statement, list[Any]]]:
    if rewrites or state.hidden:
        yield _REWRITE, sorted(rewrites.items())
        yield _HIDE, sorted(state.hidden)
    yield from _convs(state)
    if state.changed_devices:
        yield from _devices(state)
    if state.changed_amended or state.counts:
        yield from _amended(state)
    if state.mentions:
        yield _PUT_MENTIONS, sorted(set(state.mentions))
    if state.packets:
        yield _PUT_PACKETS, sorted((*key, lsn) for key, lsn in state.packets.items())
    if state.keys:
        yield _PUT_KEYS, sorted((*key, lsn) for key, lsn in state.keys.items())


def _amended(state: Work) -> Iterator[tuple[Statement, list[Any]]]:
    yield (
        _PUT_AMENDED,
        [
            (*key, found.recalled, found.edits, found.edited, found.size, tables.reactions_of(found))
            for key, found in sorted(state.changed_amended.items())
        ],
    )
    yield _PUT_CHANGES, sorted((*key, count) for key, count in state.counts.items())


def _users(state: Work) -> tuple[list[Any], list[tuple[Statement, list[Any]]]]:
    """Rows of users whose inboxes have grown, and what else was changed of users."""
    often: list[Any] = []
    seldom: list[Any] = []
    chunks: list[Any] = []
    empty: list[Any] = []
    for user in sorted(state.changed_users.values(), key=lambda user: user.uid):
        row, inbox = state.stored_users[user.uid], state.inbox_of(user)
        if (user.head, user.sent, user.sent_bytes) != (row[2], row[5], row[6]) or user.uid in state.replaced:
            often.append((user.uid, user.head, inbox.first, user.sent, user.sent_bytes, inbox.packed()))
            for part in (inbox.changed, inbox.full):
                for first, refs in part.items():
                    if any(refs):
                        chunks.append((user.uid, first, ints(refs)))
                    else:
                        empty.append((user.uid, first))
        if (user.name in state.touched and tables.seldom_differs(user, row)) or user.name in state.acked_anew:
            seldom.append((user.uid, user.acked, *tables.seldom(user)))
    return often, [(_PUT_SELDOM, seldom), (_PUT_CHUNKS, chunks), (_DROP_CHUNKS, empty)]


def _convs(state: Work) -> Iterator[tuple[Statement, list[Any]]]:
    marked = {name for name, _ in state.changed_members}
    names = {*state.changed_convs, *state.fresh_directs, *marked}
    fresh = state.fresh_directs
    new: list[Any] = []
    grown: list[Any] = []
    directs: list[Any] = []
    groups: list[Any] = []
    for name in names:
        conv = state.conv_for(name)
        if not isinstance(conv, Group):
            row = _direct_row(state, conv)
            if name in fresh:
                new.append(row)
            if name in marked:
                directs.append((*row, *_parts_of(state, conv)))
            elif name not in fresh:
                grown.append(row)
        elif name in state.changed_convs:
            groups.append((*_of_group(state, conv), conv.large, conv.acts))
    for statement, rows in ((_NEW_DIRECTS, new), (_GROWN_DIRECTS, grown), (_PUT_DIRECTS, directs)):
        yield statement, sorted(rows)
    yield _PUT_GROUPS, sorted(groups)
    members = []
    for name, user in state.changed_members:
        if name[0] == "#":
            conv = state.conv_for(name)
            part = conv.members[user]
            marks = part.read, part.delivered, part.last
            members.append((conv.cid, state.number_of(user), part.order, part.role, part.active, *marks, tables.spans_of(part)))
    yield _PUT_MEMBERS, sorted(members)
    yield PUT_PULLED, sorted((*key, pulled) for key, pulled in state.telling.pulled.items())
    yield PUT_TOLD, sorted((*key, told.lsn, told.former) for key, told in state.telling.told.items())


def _of_group(state: Work, conv: Conv) -> tuple[Any, ...]:
    return conv.cid, conv.head, conv.lsn, state.time_of(conv.name), conv.title, conv.size, conv.born, conv.maker


def _direct_row(state: Work, conv: Conv) -> tuple[Any, ...]:
    users = conv.users or []
    a, b = state.number_of(users[0]), state.number_of(users[-1])
    return min(a, b), max(a, b), conv.cid, conv.head, conv.lsn, state.time_of(conv.name)


def _parts_of(state: Work, conv: Conv) -> tuple[Any, ...]:
    """The marks of both members, and what is seldom told of them."""
    names = sorted(conv.users or (), key=state.number_of)
    first, second = conv.members[names[0]], conv.members[names[-1]]
    parts = tables.parts_of(first, second if len(names) > 1 else None)
    return first.read, first.delivered, second.read, second.delivered, parts


def _devices(state: Work) -> Iterator[tuple[Statement, list[Any]]]:
    rows: list[Any] = []
    dropped: list[Any] = []
    for (user, name), device in sorted(state.changed_devices.items()):
        uid = state.number_of(user)
        if device is None:
            dropped.append((uid, name))
            continue
        acked, server = state.acked_of(user, name), state.server_of(user, name)
        told = device.app, device.n, device.exposed, server, device.created, device.seen
        rows.append((uid, name, device.cursor, acked, *told, *state.left_of(user, name)))
    yield _DROP_DEVICES, dropped
    yield _PUT_DEVICES, sorted(rows)
