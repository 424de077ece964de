"""A copy of another store (`tools.whole`) is written into empty tables, within a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from mqtt_im.core.model import Conv
from mqtt_im.core.records import decode
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import explained
from mqtt_im.store.tools.whole import (
    AmendedPart,
    ChangePart,
    DevicePart,
    DirectPart,
    GroupPart,
    ItemPart,
    KeyPart,
    LogPart,
    MemberPart,
    MentionPart,
    PacketPart,
    Progress,
    UserPart,
    Whole,
    act_of,
    batches,
)

from . import tables
from .inbox import CHUNK
from .large import MEMBERS
from .wire import ints

_MAX_NAMES: Final = 200_000
"""Users whose numbers are remembered."""
_KINDS: Final = {"i": "int8", "t": "text", "b": "bytea", "f": "bool", "u": "uuid"}
_NUMBERS: Final = "SELECT name, uid FROM im_user WHERE name = ANY (%s)"
_USER: Final = (
    "im_user (uid, name, head, sent, sent_bytes, acked, settings, floor, began, registered, gone, gone_bytes, joined, made)"
)
_DIRECT: Final = "direct (a, b, cid, head, lsn, ts, a_read, a_delivered, b_read, b_delivered, parts)"
_GROUP: Final = "grp (cid, name, head, lsn, ts, title, size, born, maker)"
_MEMBER: Final = "member (cid, uid, ord, role, active, read, delivered, last, spans)"
_DEVICE: Final = "device (uid, device, cursor, acked, app, n, exposed, server, created, seen)"
_PUT_TAILS: Final = """
    UPDATE im_user u SET first = v.first, tail = v.tail FROM unnest(%s::int8[], %s::int8[], %s::bytea[]) v (uid, first, tail)
    WHERE u.uid = v.uid"""
_FINISH: Final = (
    "UPDATE device d SET acked = u.acked FROM im_user u WHERE u.uid = d.uid AND u.acked < d.acked",
    *(
        f"UPDATE {table} t SET gone = t.head - l.n FROM (SELECT c.cid, count(l.cid) AS n FROM {table} c"  # noqa: S608 - our own names
        " LEFT JOIN log l ON l.cid = c.cid AND l.seq > 0 GROUP BY 1) l WHERE l.cid = t.cid AND l.n <> t.head"
        for table in ("direct", "grp")
    ),
    "SELECT setval(pg_get_serial_sequence('im_user', 'uid'), (SELECT coalesce(max(uid), 0) + 1 FROM im_user), false)",
    "SELECT setval('cid', greatest((SELECT max(cid) FROM direct), (SELECT max(cid) FROM grp), 0) + 1, false)",
    "UPDATE meta SET value = '' WHERE key = 'searched'",
    "DELETE FROM word",
    f"ANALYZE {', '.join(tables.TABLES)}",
)


def is_empty(connection: Connection) -> bool:
    """Whether nobody has ever used the store's tables. Raises `psycopg.Error`."""
    found = connection.execute(" UNION ALL ".join(f"SELECT EXISTS (SELECT FROM {table})" for table in tables.TABLES).encode())  # noqa: S608
    return not any(there for (there,) in found)


class Taking:
    """Writes a copy. Raises `StoreError`."""

    def __init__(self, database: Database, connection: Connection, progress: Progress) -> None:
        """A transaction is open on the connection, in which the tables were made, or found empty."""
        self._database = database
        self._connection = connection
        self._progress = progress
        self._numbers: dict[str, int] = {}

    def take(self, source: Whole) -> None:
        """Everything of the source stands in the tables."""
        try:
            self._take(source)
        except psycopg.Error as error:
            raise explained(error, self._database.where) from error

    def _take(self, source: Whole) -> None:
        ts = source.time
        put = self._put
        for into, kinds, rows in (
            (_USER, "itiiiibiifiiii", map(_user, source.parts(UserPart))),
            (_DIRECT, "iiiiiiiiiib", (_direct(part, ts) for part in source.parts(DirectPart))),
            (_GROUP, "itiiitiit", (_group(part.conv, ts) for part in source.parts(GroupPart))),
            (_MEMBER, "iiitfiiib", map(_member, source.parts(MemberPart))),
            (_DEVICE, "itiififiii", map(_device, source.parts(DevicePart))),
        ):
            put(into, kinds, rows)
        put("log (lsn, cid, seq, by, idh, rec)", "iiiiub", self._log(source.parts(LogPart)))
        self._put_inboxes(source)
        put("amended (cid, seq, recalled, edits, edited, size, reactions)", "iifiiib", map(_amended, source.parts(AmendedPart)))
        put("change (cid, seq, uid, count)", "iiii", source.parts(ChangePart))
        put("mention (cid, seq, name)", "iit", source.parts(MentionPart))
        put("packet (uid, device, session, packet, lsn)", "ittii", source.parts(PacketPart))
        put("keyed (sender, cid, key, lsn)", "iiti", source.parts(KeyPart))
        self._connection.execute("SELECT setval('lsn', %s, false)", (source.last + 1,))
        for statement in _FINISH:
            self._connection.execute(statement.encode())
        self._connection.execute("UPDATE grp SET large = true WHERE size > %s", (MEMBERS,))

    def _put(self, into: str, kinds: str, rows: Iterable[Sequence[Any]]) -> None:
        for batch in batches(rows):
            self._copy(into, kinds, batch)
            self._progress(len(batch))

    def _copy(self, into: str, kinds: str, rows: list[Any]) -> None:
        with self._connection.cursor().copy(f"COPY {into} FROM STDIN (FORMAT BINARY)".encode()) as copy:
            copy.set_types([_KINDS[kind] for kind in kinds])
            for row in rows:
                copy.write_row(row)

    def _log(self, parts: Iterable[LogPart]) -> Iterator[tuple[Any, ...]]:
        for batch in batches(parts):
            acts = [act_of(decode(part.data)) for part in batch]
            self._learn({act.by for act in acts if act is not None and act.id is not None})
            for part, act in zip(batch, acts, strict=True):
                digest = None
                if act is not None and act.id is not None:
                    digest = UUID(bytes=tables.hash_of(self._numbers[act.by], act.id))
                yield part.lsn, part.cid, part.seq, part.by, digest, part.data

    def _learn(self, names: set[str]) -> None:
        if len(self._numbers) > _MAX_NAMES:
            self._numbers.clear()
        missing = sorted(names - self._numbers.keys())
        if missing:
            self._numbers.update(self._connection.execute(_NUMBERS, (missing,)).fetchall())

    def _put_inboxes(self, source: Whole) -> None:
        for batch in batches(_inboxes(source)):
            tails = [(uid, first, ints(refs)) for uid, first, refs, newest in batch if newest]
            self._copy(
                "chunk (uid, first, refs)", "iib", [(uid, first, ints(refs)) for uid, first, refs, newest in batch if not newest]
            )
            if tails:
                self._connection.execute(_PUT_TAILS, [list(column) for column in zip(*tails, strict=True)])
            self._progress(sum(len(refs) for _, _, refs, _ in batch))


def _inboxes(source: Whole) -> Iterator[tuple[int, int, list[int], bool]]:
    """User, the `pos` of the first item, the items, and whether they are the newest, which stand in the user's row."""
    items = source.parts(ItemPart)
    item: ItemPart | None = next(items, None)
    for (user,) in source.parts(UserPart):
        if not user.head:
            continue
        first, refs = 0, [0]
        while item is not None and item.uid == user.uid:
            begin = _first(item.pos)
            if begin != first:
                if first:
                    yield user.uid, first, refs, False
                first, refs = begin, [0] * CHUNK
            refs[item.pos - first] = item.lsn
            item = next(items, None)
        newest = _first(user.head)
        if first and first != newest:
            yield user.uid, first, refs, False
        kept = refs if first == newest else [0] * CHUNK
        yield user.uid, newest, kept[: user.head - newest + 1], True


def _first(pos: int) -> int:
    return (pos - 1) // CHUNK * CHUNK + 1


def _user(part: UserPart) -> tuple[Any, ...]:
    user = part.user
    return user.uid, user.name, user.head, user.sent, user.sent_bytes, user.acked, *tables.seldom(user)


def _direct(part: DirectPart, ts: int) -> tuple[Any, ...]:
    conv = part.conv
    pairs = sorted(zip((part.first, part.second), conv.members.values(), strict=False), key=lambda pair: pair[0])
    (a, first), (b, second) = pairs[0], pairs[-1]
    parts = tables.parts_of(first, second if a != b else None)
    marks = first.read, first.delivered, second.read, second.delivered
    return a, b, conv.cid, conv.head, conv.lsn, ts, *marks, parts


def _group(conv: Conv, ts: int) -> tuple[Any, ...]:
    return conv.cid, conv.name, conv.head, conv.lsn, ts, conv.title, conv.size, conv.born, conv.maker


def _member(part: MemberPart) -> tuple[Any, ...]:
    member = part.member
    told = member.order, member.role, member.active, member.read, member.delivered, member.last
    return part.cid, part.uid, *told, tables.spans_of(member)


def _device(part: DevicePart) -> tuple[Any, ...]:
    device = part.device
    told = device.app, device.n, device.exposed, 0, device.created, device.seen
    return part.uid, device.device, device.cursor, device.cursor, *told


def _amended(part: AmendedPart) -> tuple[Any, ...]:
    found = part.amended
    return part.cid, part.seq, found.recalled, found.edits, found.edited, found.size, tables.reactions_of(found)
