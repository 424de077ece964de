"""What is looked up in the tables, as entities. Raises what `wire.Link` raises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from mqtt_im.core.model import EVERYTHING, Amended, Conv, Device, Member, User

from .inbox import Inbox
from .large import Group
from .wire import Statement

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

TABLES: Final = (
    "im_user",
    "direct",
    "grp",
    "member",
    "told",
    "device",
    "log",
    "chunk",
    "amended",
    "change",
    "mention",
    "packet",
    "keyed",
)
"""All that hold what a user has done or been told."""

USER: Final = (
    "uid, name, head, first, tail, sent, sent_bytes, acked, settings, floor, began, registered, gone, gone_bytes, joined, made"
)
DIRECT: Final = "d.a, d.b, d.cid, d.head, d.lsn, d.ts, d.a_read, d.a_delivered, d.b_read, d.b_delivered, d.parts"
GROUP: Final = "g.cid, g.name, g.head, g.lsn, g.ts, g.title, g.size, g.born, g.maker, g.large, g.acts"
GROUP_COLUMNS: Final = 11
MEMBER: Final = "m.ord, m.role, m.active, m.read, m.delivered, m.last, m.spans"
DEVICE: Final = "uid, device, cursor, acked, app, n, exposed, server, created, seen, left_by, offered"
"""Where `left_by` is `server`, that one has offered it nothing after `offered`, and does not until it comes again."""

LOCK_USERS: Final = Statement(f"SELECT {USER} FROM im_user WHERE uid = ANY ($1) ORDER BY uid FOR NO KEY UPDATE", "I")
USERS: Final = Statement(f"SELECT {USER} FROM im_user WHERE name = ANY ($1)", "T")
HEADS: Final = Statement("SELECT name, head FROM im_user WHERE name = ANY ($1) AND head > 0", "T")
NUMBERS: Final = Statement("SELECT uid, name FROM im_user WHERE name = ANY ($1)", "T")
NAMES: Final = Statement("SELECT uid, name FROM im_user WHERE uid = ANY ($1)", "I")
NAMES_AFTER: Final = Statement(
    "SELECT name FROM im_user WHERE name > $1 AND (head > 0 OR registered) ORDER BY name LIMIT $2", "ti"
)
NEW_USERS: Final = Statement("INSERT INTO im_user (name) SELECT unnest($1) ORDER BY 1 ON CONFLICT DO NOTHING", "T")
CHUNKS: Final = Statement(
    "SELECT first, refs FROM chunk WHERE uid = $1 AND first > $2 AND first <= $3 ORDER BY first LIMIT $4", "iiii"
)

LOCK_GROUPS: Final = Statement(f"SELECT {GROUP} FROM grp g WHERE name = ANY ($1) ORDER BY cid FOR NO KEY UPDATE", "T")
GROUPS: Final = Statement(f"SELECT {GROUP} FROM grp g WHERE name = ANY ($1)", "T")
NEW_GROUPS: Final = Statement(
    "INSERT INTO grp (cid, name) SELECT cid, name FROM unnest($1, $2) v (cid, name) ORDER BY 2 ON CONFLICT DO NOTHING", "IT"
)
MEMBERS: Final = Statement(
    f"SELECT m.cid, u.uid, u.name, {MEMBER} FROM member m JOIN im_user u USING (uid)"
    " WHERE m.cid = ANY ($1) ORDER BY m.cid, m.ord",
    "I",
)
PART: Final = Statement(f"SELECT {MEMBER} FROM member m WHERE cid = $1 AND uid = $2", "ii")
SOME_PARTS: Final = Statement(
    f"SELECT m.cid, m.uid, {MEMBER}, m.pulled FROM member m WHERE m.cid = ANY ($1) AND m.uid = ANY ($2)", "II"
)
PRESENT: Final = Statement(
    "SELECT u.name FROM grp g JOIN member m USING (cid) JOIN im_user u USING (uid)"
    " WHERE g.name = $1 AND u.name = ANY ($2) AND m.active",
    "tT",
)
PARTS: Final = Statement(f"SELECT {GROUP}, {MEMBER} FROM member m JOIN grp g USING (cid) WHERE m.uid = $1", "i")
COMMON: Final = Statement(
    # OFFSET, so that the groups of the second one are never read: each of the first one's is looked up.
    "SELECT 1 FROM member a WHERE a.uid = $1 AND a.active AND EXISTS"
    " (SELECT 1 FROM member b WHERE b.uid = $2 AND b.cid = a.cid AND b.active OFFSET 0) LIMIT 1",
    "ii",
)
DIRECTS: Final = Statement(
    f"SELECT {DIRECT} FROM unnest($1, $2) v (a, b) JOIN direct d USING (a, b)".replace("d.a, d.b", "a, b"), "II"
)
_ACTIVITY: Final = "CASE WHEN m.active THEN g.lsn ELSE m.last END"
ACTIVE_GROUPS: Final = Statement(
    f"SELECT {GROUP}, {MEMBER} FROM member m JOIN grp g USING (cid)"
    f" WHERE m.uid = $1 AND {_ACTIVITY} > $2 AND {_ACTIVITY} < $3 ORDER BY {_ACTIVITY} DESC LIMIT $4",
    "iiii",
)
_NEWEST_DIRECTS: Final = (
    "(SELECT u.name, {columns} FROM (SELECT * FROM direct WHERE {who} AND parts IS NULL AND lsn > $2 AND lsn < $3"
    " ORDER BY lsn DESC LIMIT $4) d JOIN im_user u ON u.uid = d.{other})"
)
_HIDING_DIRECTS: Final = (
    "SELECT u.name, {columns} FROM direct d JOIN im_user u ON u.uid = d.{other} WHERE {who} AND parts IS NOT NULL AND lsn > $2"
)
ACTIVE_DIRECTS: Final = Statement(
    # Where something is hidden from somebody, the activity is another one for each: those, which are few, come as well.
    " UNION ALL ".join(
        part.format(columns=DIRECT, who=who, other=other)
        for part in (_NEWEST_DIRECTS, _HIDING_DIRECTS)
        for who, other in (("a = $1", "b"), ("b = $1 AND a <> $1", "a"))
    ),
    "iiii",
)
DIRECTS_OF: Final = Statement(
    f"SELECT u.name, {DIRECT} FROM direct d JOIN im_user u ON u.uid = d.b WHERE d.a = $1"
    f" UNION ALL SELECT u.name, {DIRECT} FROM direct d JOIN im_user u ON u.uid = d.a WHERE d.b = $1 AND d.a <> $1",
    "i",
)
COUNT_OF: Final = Statement(
    "SELECT count(*) FROM (SELECT 1 FROM direct WHERE a = $1 UNION ALL SELECT 1 FROM direct WHERE b = $1"
    " UNION ALL SELECT 1 FROM member WHERE uid = $1 LIMIT $2) found",
    "ii",
)

DEVICES: Final = Statement(f"SELECT {DEVICE} FROM device WHERE uid = ANY ($1) ORDER BY uid, device", "I")

RECORDS: Final = Statement(
    "SELECT l.lsn, l.rec, l.cid, l.seq, a.recalled, a.edits, a.edited, a.size, a.reactions"
    " FROM log l LEFT JOIN amended a ON a.cid = l.cid AND a.seq = l.seq AND l.seq > 0 WHERE l.lsn = ANY ($1)",
    "I",
)
"""With what became of the messages among them."""
IDS: Final = Statement("SELECT uuid_send(idh), rec FROM log WHERE idh = ANY ($1)", "U")
MESSAGE: Final = Statement("SELECT lsn, rec FROM log WHERE cid = $1 AND seq = $2 AND seq > 0", "ii")
MESSAGES: Final = Statement("SELECT seq, lsn FROM log WHERE cid = $1 AND seq BETWEEN $2 AND $3 AND seq > 0 ORDER BY seq", "iii")
LOWEST: Final = Statement("SELECT min(seq) FROM log WHERE cid = $1 AND seq BETWEEN $2 AND $3 AND seq > 0", "iii")
HIGHEST: Final = Statement("SELECT max(seq) FROM log WHERE cid = $1 AND seq BETWEEN $2 AND $3 AND seq > 0", "iii")
UNREAD: Final = Statement(
    "SELECT v.cid, count(*) FROM unnest($1, $2, $3) v (cid, first, last)"
    " JOIN log l ON l.cid = v.cid AND l.seq BETWEEN v.first AND v.last AND l.seq > 0 AND l.by NOT IN (0, $4) GROUP BY 1",
    "IIIi",
)
MENTIONED: Final = Statement(
    "SELECT v.cid, count(DISTINCT m.seq) FROM unnest($1, $2, $3) v (cid, first, last)"
    " JOIN mention m ON m.cid = v.cid AND m.name IN ('*', $5) AND m.seq BETWEEN v.first AND v.last"
    " JOIN log l ON l.cid = m.cid AND l.seq = m.seq AND l.seq > 0 AND l.by NOT IN (0, $4) GROUP BY 1",
    "IIIit",
)
AMENDED: Final = Statement(
    "SELECT cid, seq, recalled, edits, edited, size, reactions FROM unnest($1, $2) v (cid, seq) JOIN amended USING (cid, seq)",
    "II",
)
CHANGES: Final = Statement("SELECT count FROM change WHERE cid = $1 AND seq = $2 AND uid = $3", "iii")
PACKET: Final = Statement(
    "SELECT rec FROM packet JOIN log USING (lsn) WHERE uid = $1 AND device = $2 AND session = $3 AND packet = $4", "itti"
)
KEYED: Final = Statement("SELECT rec FROM keyed JOIN log USING (lsn) WHERE sender = $1 AND keyed.cid = $2 AND key = $3", "iit")
CLOCK_AND_IDS: Final = Statement(
    "SELECT nextval('lsn'), (extract(epoch FROM clock_timestamp()) * 1000)::int8,"
    " ARRAY(SELECT uuid_send(idh) || rec FROM log WHERE idh = ANY ($1))",
    "U",
)
"""A block of log rows, the time, and what is remembered of some `id`s, each behind its hash."""
NEWEST: Final = Statement("SELECT coalesce(max(lsn), 0) FROM log")
CLOCK: Final = Statement("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8")
ROOM: Final = Statement(
    "INSERT INTO log (lsn, cid, seq, by, rec) SELECT -n, 0, 0, 0,"
    " (SELECT string_agg(decode(md5(random()::text || n || m), 'hex'), '') FROM generate_series(1, 100) m)"
    " FROM generate_series(1, 100) n"
)
"""Takes 160 KB, to be rolled back: where there is no room for that, there is none for what clients send."""
NUMBER_BLOCK: Final = Statement("SELECT nextval('cid')")


@lru_cache(4096)
def hash_of(uid: int, request_id: str) -> bytes:
    """What stands for an `id` of a user in the log; a batch asks three times."""
    return hashlib.blake2b(b"%d %b" % (uid, request_id.encode()), digest_size=16).digest()


# Rows as entities, and back.


def read_user(row: Sequence[Any]) -> tuple[User, Inbox]:
    """Of `USER`."""
    user = User(row[0], row[1])
    user.head = row[2]
    user.sent, user.sent_bytes, user.acked = row[5:8]
    user.floor, user.begin, user.registered, user.gone, user.gone_bytes, user.joined, user.made = row[9:16]
    if row[8] is not None:
        blocks, user.mutes, user.read_receipts, user.presence = _unpack(row[8])
        user.blocks = frozenset(blocks)
    return user, Inbox(row[3], row[4])


def settings_of(user: User) -> bytes | None:
    """The column `settings`."""
    if user.blocks or user.mutes or not (user.read_receipts and user.presence):
        return _pack([sorted(user.blocks), user.mutes, user.read_receipts, user.presence])
    return None


def seldom(user: User) -> tuple[Any, ...]:
    """The columns that a message does not change, but for `acked`, which is in front of them."""
    return (settings_of(user), *_seldom(user))


def _seldom(user: User) -> tuple[Any, ...]:
    return user.floor, user.begin, user.registered, user.gone, user.gone_bytes, user.joined, user.made


def seldom_differs(user: User, row: Sequence[Any]) -> bool:
    """Whether any of these columns is another than in the row of `USER`."""
    return _seldom(user) != row[9:16] or settings_of(user) != row[8]


def read_group(
    row: Sequence[Any], load: Callable[[Conv], MutableMapping[str, Member]], find: Callable[[Conv, str], Member | None]
) -> tuple[Group, int]:
    """Of `GROUP`, with its last time; `load` reads its members when somebody asks, `find` one of them."""
    conv = Group(row[0], row[1], load, find)
    conv.head, conv.lsn, _, conv.title, conv.size, conv.born, conv.maker, conv.large, conv.acts = row[2:GROUP_COLUMNS]
    conv.stored = conv.acts
    return conv, row[4]


def read_member(row: Sequence[Any]) -> Member:
    """Of `MEMBER`."""
    member = Member(row[0], row[1])
    member.active, member.read, member.delivered, member.last = row[2:6]
    member.spans = _unpack(row[6])
    return member


def read_direct(row: Sequence[Any], a: str, b: str) -> tuple[Conv, int]:
    """Of `DIRECT`, with its last time; `a` and `b` are the names of its two users."""
    first, second = sorted((a, b))
    conv = Conv(row[2], f"{first}:{second}")
    conv.head, conv.lsn = row[3], row[4]
    parts = None if row[10] is None else _unpack(row[10])
    for index, name in enumerate((a,) if a == b else (a, b)):
        member = Member(int(name != first))
        member.read, member.delivered = row[6 + 2 * index : 8 + 2 * index]
        member.spans = EVERYTHING
        if parts is not None and parts[index] is not None:
            member.spans, member.last = parts[index]
        conv.members[name] = member
    if first == b and a != b:
        conv.members = {b: conv.members[b], a: conv.members[a]}
    return conv, row[5]


def parts_of(first: Member, second: Member | None) -> bytes | None:
    """The column `parts` of a direct conversation: what is seldom told of its two members, `a` and `b`."""
    if first.spans is EVERYTHING and (second is None or second.spans is EVERYTHING):
        return None
    told = [None if member is None or member.spans is EVERYTHING else [member.spans, member.last] for member in (first, second)]
    return _pack(told)


def spans_of(member: Member) -> bytes:
    """The column `spans`."""
    return _pack(member.spans)


def read_device(row: Sequence[Any], user: str) -> tuple[Device, int, int, int]:
    """Of `DEVICE`, with where acknowledgements have got its cursor, and which server has had its delivery.

    And up to where that one may have offered it something, where it has left; 0 where that is not known.
    """
    device = Device(user, row[1], row[8])
    device.cursor, device.app, device.n, device.exposed, device.seen = row[2], row[4], row[5], row[6], row[9]
    return device, row[3], row[7], row[11] if row[10] == row[7] else 0


def read_amended(row: Sequence[Any]) -> Amended:
    """Of its columns behind `cid` and `seq`."""
    amended = Amended()
    amended.recalled, amended.edits, amended.edited, amended.size = row[:4]
    amended.reactions = _unpack(row[4])
    return amended


def reactions_of(amended: Amended) -> bytes:
    """The column `reactions`."""
    return _pack(amended.reactions)
