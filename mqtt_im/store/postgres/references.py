"""What `store check` holds against each other: what rows name is there, and what the log says stands in its tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, LiteralString

import msgspec

from mqtt_im.core.records import AMENDMENTS, MESSAGES, Act, AnyRecord, Gone, Message, Recalled, Reported
from mqtt_im.postgres.connecting import Connection
from mqtt_im.store.tools.report import Report

from .retention import Groups
from .tables import hash_of

_GROUPS_AT_ONCE: Final = 200

_NO_USER: Final = """
    SELECT t, uid FROM (
        SELECT 'chunk' t, uid FROM chunk UNION SELECT 'member', uid FROM member UNION SELECT 'device', uid FROM device
        UNION SELECT 'packet', uid FROM packet UNION SELECT 'change', uid FROM change UNION SELECT 'keyed', sender FROM keyed
        UNION SELECT 'direct', a FROM direct UNION SELECT 'direct', b FROM direct UNION SELECT 'log', by FROM log WHERE by <> 0) v
    WHERE NOT EXISTS (SELECT FROM im_user u WHERE u.uid = v.uid)"""
_NO_CONVERSATION: Final = """
    SELECT t, cid FROM (
        SELECT 'log' t, cid FROM log UNION SELECT 'member', cid FROM member UNION SELECT 'keyed', cid FROM keyed) v
    WHERE NOT EXISTS (SELECT FROM grp g WHERE g.cid = v.cid) AND NOT EXISTS (SELECT FROM direct d WHERE d.cid = v.cid)"""
_NO_MESSAGE: Final = """
    SELECT t, cid, seq FROM (
        SELECT 'amended' t, cid, seq FROM amended UNION ALL SELECT 'mention', cid, seq FROM mention
        UNION ALL SELECT 'change', cid, seq FROM change UNION ALL SELECT 'word', cid, seq FROM word) v
    WHERE NOT EXISTS (SELECT FROM log l WHERE l.cid = v.cid AND l.seq = v.seq AND l.seq > 0)"""
_NO_ROW: Final = """
    SELECT t, lsn FROM (SELECT 'packet' t, lsn FROM packet UNION ALL SELECT 'keyed', lsn FROM keyed
        UNION ALL SELECT 'word', lsn FROM word UNION ALL SELECT 'amended', edited FROM amended WHERE edited > 0) v
    WHERE NOT EXISTS (SELECT FROM log l WHERE l.lsn = v.lsn)"""
_NEWEST: Final = """
    SELECT c.t, c.cid, c.lsn, l.lsn FROM (
        SELECT 'grp' t, cid, head, lsn FROM grp UNION ALL SELECT 'direct', cid, head, lsn FROM direct) c
    JOIN log l ON l.cid = c.cid AND l.seq = c.head AND l.seq > 0 WHERE l.lsn <> c.lsn"""
_MARKS: Final = """
    SELECT c.cid, c.head, v.mark FROM (
        SELECT cid, greatest(a_read, a_delivered, b_read, b_delivered) mark FROM direct
        UNION ALL SELECT cid, greatest(read, delivered) FROM member) v
    JOIN (SELECT cid, head FROM grp UNION ALL SELECT cid, head FROM direct) c USING (cid) WHERE v.mark > c.head"""
_SIZES: Final = """
    SELECT g.name, g.size, count(m.cid) FROM grp g LEFT JOIN member m ON m.cid = g.cid AND m.active
    GROUP BY g.cid HAVING g.size <> count(m.cid)"""
_JOINED: Final = """
    SELECT u.name, u.joined, count(m.uid) FROM im_user u LEFT JOIN member m ON m.uid = u.uid AND m.active
    GROUP BY u.uid HAVING u.joined <> count(m.uid)"""
_BEYOND: Final = """
    SELECT u.name, u.head, v.device, v.at FROM im_user u JOIN (
        SELECT uid, device, greatest(cursor, acked) at FROM device UNION ALL
        SELECT uid, '', greatest(acked, floor, began) FROM im_user) v USING (uid) WHERE v.at > u.head"""
WRONG: Final[tuple[tuple[LiteralString, str], ...]] = (
    (_NO_USER, "table {} names user {}, who is not there"),
    (_NO_CONVERSATION, "table {} names conversation {}, which is not there"),
    (_NO_MESSAGE, "table {} is about conversation {}, message {}, which is not there"),
    (_NO_ROW, "table {} names log row {}, which is not there"),
    (_NEWEST, "table {}: the newest message of conversation {} is said to be log row {}, and is {}"),
    (_MARKS, "conversation {}: its head is {}, and somebody has read or got message {}"),
    (_SIZES, "group {}: has {} members by its own row, and {} in table member"),
    (_JOINED, "user {}: is in {} groups by the own row, and in {} in table member"),
    (_BEYOND, "inbox of {}: its head is {}, and a mark of it (device {!r}) is {}"),
)
"""What must find nothing, and what is said of each row that it does find."""

_CONVS: Final = """
    SELECT cid, name FROM grp WHERE cid = ANY (%(cids)s) UNION ALL
    SELECT d.cid, least(a.name, b.name) || ':' || greatest(a.name, b.name)
    FROM direct d JOIN im_user a ON a.uid = d.a JOIN im_user b ON b.uid = d.b WHERE d.cid = ANY (%(cids)s)"""
_USERS: Final = "SELECT name, uid FROM im_user WHERE name = ANY (%s)"
_MENTIONS: Final = """
    SELECT lsn, name FROM unnest(%s::int8[], %s::int8[], %s::int8[], %s::text[]) v (lsn, cid, seq, name)
    WHERE NOT EXISTS (SELECT FROM mention m WHERE m.cid = v.cid AND m.seq = v.seq AND m.name = v.name)"""
_KEYS: Final = """
    SELECT lsn, key FROM unnest(%s::int8[], %s::int8[], %s::int8[], %s::text[]) v (lsn, cid, uid, key)
    WHERE NOT EXISTS (SELECT FROM keyed k WHERE k.cid = v.cid AND k.sender = v.uid AND k.key = v.key AND k.lsn >= v.lsn)"""
_AMENDED: Final = """
    SELECT v.lsn FROM unnest(%s::int8[], %s::int8[], %s::int8[], %s::bool[]) v (lsn, cid, seq, recalls)
    JOIN log l ON l.cid = v.cid AND l.seq = v.seq AND l.seq > 0
    LEFT JOIN amended a ON a.cid = v.cid AND a.seq = v.seq WHERE a.cid IS NULL OR (v.recalls AND NOT a.recalled)"""
_CHANGES: Final = """
    SELECT v.lsn FROM unnest(%s::int8[], %s::int8[], %s::int8[], %s::int8[]) v (lsn, cid, seq, uid)
    JOIN log l ON l.cid = v.cid AND l.seq = v.seq AND l.seq > 0
    LEFT JOIN change c ON c.cid = v.cid AND c.seq = v.seq AND c.uid = v.uid WHERE c.count IS NULL OR c.count < 1"""
_ACTIVE: Final = """
    SELECT g.name, array_agg(u.name) FROM grp g JOIN member m USING (cid) JOIN im_user u USING (uid)
    WHERE m.active AND g.name = ANY (%s) GROUP BY 1"""

_PACKED: Final[tuple[tuple[LiteralString, str, msgspec.msgpack.Decoder[Any]], ...]] = (
    (
        "SELECT name, settings FROM im_user WHERE settings IS NOT NULL",
        "table im_user: settings of",
        msgspec.msgpack.Decoder(tuple[list[str], dict[str, int], bool, bool]),
    ),
    (
        "SELECT 'conversation ' || cid, parts FROM direct WHERE parts IS NOT NULL",
        "table direct: parts of",
        msgspec.msgpack.Decoder(list[tuple[list[list[int]], int] | None]),
    ),
    (
        "SELECT 'user ' || uid || ' in conversation ' || cid, spans FROM member",
        "table member: spans of",
        msgspec.msgpack.Decoder(list[list[int]]),
    ),
    (
        "SELECT 'message ' || seq || ' of conversation ' || cid, reactions FROM amended",
        "table amended: reactions of",
        msgspec.msgpack.Decoder(dict[str, str]),
    ),
)
"""What stands packed in a column, and how it is read."""
_AT_ONCE: Final = 2_000

Row = tuple[int, int, int, int, bytes | None, AnyRecord]
"""A row of the log: lsn, cid, seq, by, hash of the id, record."""


def check_contents(connection: Connection, report: Report) -> None:
    """What stands packed in a column can be read, and `meta` has what a start does not ask for."""
    for query, what, decoder in _PACKED:
        with connection.cursor("packed", binary=True) as cursor:
            cursor.execute(query)
            while part := cursor.fetchmany(_AT_ONCE):
                for name, data in part:
                    try:
                        decoder.decode(data)
                    except msgspec.MsgspecError as error:
                        report.add(f"{what} {name} can't be read: {error}")
    if not connection.execute("SELECT FROM meta WHERE key = 'searched'").fetchall():
        report.add("table meta: searched is missing; searches find nothing new")


class References:
    """Some rows of the log at a time."""

    def __init__(self, connection: Connection, report: Report) -> None:
        self._connection = connection
        self._report = report

    def check(self, rows: list[Row]) -> None:
        """The columns of these rows are what their records say, and so are the rows that these have made in other tables."""
        acts = [(row, act) for row in rows if (act := _act(row[-1])) is not None]
        uids = dict(self._rows(_USERS, [sorted({act.by for _, act in acts})]))
        convs = dict(self._rows(_CONVS, {"cids": sorted({row[1] for row in rows})}))
        for (lsn, cid, seq, by, digest, record), act in acts:
            uid = uids.get(act.by)
            if convs.get(cid, act.conv) != act.conv:
                self._report.add(
                    f"log row {lsn}: is in conversation {convs[cid]} by its columns, and in {act.conv} by its record"
                )
            if seq != (act.seq if _is_shown(record) else 0):
                self._report.add(f"log row {lsn}: is message {seq} by its columns, and {act.seq} by its record")
            if by != (uid if _counts(record) else 0) and not (by == 0 and isinstance(record, Message)):
                self._report.add(f"log row {lsn}: is by user {by} by its columns, and by {act.by} by its record")
            if act.id is not None and (uid is None or hash_of(uid, act.id) != digest):
                self._report.add(f"log row {lsn}: a repeat of id {act.id!r} of {act.by} would not be known")
        self._check_made([(lsn, cid, record, uids.get(record.by, 0)) for (lsn, cid, *_, record), act in acts if record is act])

    def _check_made(self, rows: list[tuple[int, int, Any, int]]) -> None:
        messages = [
            (lsn, cid, m, uid, m.extra) for lsn, cid, m, uid in rows if isinstance(m, Message) and m.extra and not m.dropped
        ]
        for lsn, name in self._find(
            _MENTIONS, [(lsn, cid, m.seq, name) for lsn, cid, m, _, extra in messages for name in extra.get("mentions", ())]
        ):
            self._report.add(f"log row {lsn}: mentions {name}, which table mention does not have")
        for lsn, key in self._find(
            _KEYS, [(lsn, cid, uid, extra["key"]) for lsn, cid, _, uid, extra in messages if "key" in extra]
        ):
            self._report.add(f"log row {lsn}: has the key {key!r}, which table keyed does not have")
        changes = [(lsn, cid, r, uid) for lsn, cid, r, uid in rows if isinstance(r, (*AMENDMENTS, Reported))]
        for (lsn,) in self._find(
            _AMENDED, [(lsn, cid, r.seq, isinstance(r, Recalled)) for lsn, cid, r, _ in changes if not isinstance(r, Reported)]
        ):
            self._report.add(f"log row {lsn}: changes a message of which table amended does not know that")
        for (lsn,) in self._find(
            _CHANGES, [(lsn, cid, r.seq, uid) for lsn, cid, r, uid in changes if not isinstance(r, Recalled)]
        ):
            self._report.add(f"log row {lsn}: changes a message, which table change has not counted")

    def check_groups(self, groups: Groups) -> None:
        """The members of each group are those that the changes to it say."""
        names = groups.names()
        for start in range(0, len(names), _GROUPS_AT_ONCE):
            part = names[start : start + _GROUPS_AT_ONCE]
            found = dict(self._rows(_ACTIVE, [part]))
            for name in part:
                said = set(groups.conv(name).present_names)
                for user in sorted(said.symmetric_difference(found.get(name, ()))):
                    which = "is in it by its log, and not by" if user in said else "is not in it by its log, but by"
                    self._report.add(f"group {name}: {user} {which} table member")

    def _find(self, query: str, rows: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        if rows:
            yield from self._rows(query, [list(column) for column in zip(*rows, strict=True)])

    def _rows(self, query: str, values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), values, binary=True).fetchall()


def _act(record: AnyRecord) -> Act | None:
    act = record.act if isinstance(record, Gone) else record
    return act if isinstance(act, Act) else None


def _is_shown(record: AnyRecord) -> bool:
    return isinstance(record, MESSAGES) and bool(record.pos)


def _counts(record: AnyRecord) -> bool:
    """Whether it counts as unread; of a message that was recalled its row says so, and nothing else here."""
    return isinstance(record, Message) and not record.dropped
