"""`store check` on PostgreSQL: the promises, verified on what the tables hold, as of one moment, beside running servers.

Every conversation's messages must be as many as its head says, but for what retention took, in one order with the log; every
inbox must be whole, and each of its items in the log; and each row of the log must stand in the inboxes that it says it stands
in, and in the tables of what it has made (`references`). What is kept in memory grows with groups and their members alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, LiteralString

import msgspec
import psycopg

from mqtt_im.core.records import Act, Gone, GroupChange, decode
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import explained
from mqtt_im.postgres.meta import read
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.tools.report import Report

from .check_large import LARGE_WRONG, Large
from .inbox import CHUNK, unpack
from .references import WRONG, References, Row, check_contents
from .retention import Groups, pair_of

PATIENCE_S: Final = 3600.0
_PART: Final = 2000

_HEADS: Final = """
    SELECT c.name, c.head, c.gone, coalesce(l.n, 0), coalesce(l.seq, 0) FROM (
        SELECT cid, name, head, gone FROM grp
        UNION ALL
        SELECT d.cid, least(a.name, b.name) || ':' || greatest(a.name, b.name), d.head, d.gone
        FROM direct d JOIN im_user a ON a.uid = d.a JOIN im_user b ON b.uid = d.b) c
    LEFT JOIN (SELECT cid, count(*) n, max(seq) seq FROM log WHERE seq > 0 GROUP BY 1) l USING (cid)
    WHERE c.head - c.gone <> coalesce(l.n, 0) OR c.head < coalesce(l.seq, 0)"""
_ORDER: Final = """
    SELECT cid, seq, lsn, before
    FROM (SELECT cid, seq, lsn, lag(lsn) OVER (PARTITION BY cid ORDER BY seq) before FROM log WHERE seq > 0) l
    WHERE before > lsn"""
_WRONG: Final[tuple[tuple[LiteralString, str], ...]] = (
    (_HEADS, "conversation {}: its head is {} and {} are gone, but there are {} messages, up to {}"),
    (_ORDER, "conversation {}: message {} is log row {}, before that of the message before it, {}"),
    *WRONG,
    *LARGE_WRONG,
)
"""What must find nothing, and what is said of each row that it does find."""


def check(database: Database) -> Report:
    """Read everything. Raises `StoreError` where that is not possible."""
    with database.connect("check", patience_s=PATIENCE_S) as connection:
        if read(database, connection) is None:
            raise StoreError(f"{database.where}: there is no store yet")
        try:
            connection.execute("SET idle_in_transaction_session_timeout = 0")
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return check_within(connection)
        except psycopg.Error as error:
            raise explained(error, database.where) from error


def check_within(connection: Connection) -> Report:
    """The same, as the transaction sees it that is open on this connection. Raises what psycopg raises."""
    report = Report()
    for query, text in _WRONG:
        for row in connection.execute(query):
            report.add(text.format(*row))
    for query, name in (
        ("SELECT (SELECT count(*) FROM direct) + (SELECT count(*) FROM grp WHERE head > 0)", "conversations"),
        ("SELECT count(*) FROM im_user WHERE head > 0", "inboxes"),
        ("SELECT count(*) FROM log WHERE seq > 0", "messages"),
    ):
        setattr(report, name, _rows(connection, query)[0][0])
    large = Large(connection, report)
    for part in _parts(connection, "SELECT uid, name, head, floor, first, tail FROM im_user WHERE head > 0 ORDER BY uid"):
        _check_inboxes(connection, report, large, part)
    check_contents(connection, report)
    groups, references = Groups(), References(connection, report)
    for part in _parts(connection, "SELECT lsn, cid, seq, by, idh, rec FROM log ORDER BY lsn"):
        rows = list(_decoded(report, part))
        references.check(rows)
        _check_items(connection, report, groups, large, rows)
    large.end()
    references.check_groups(groups)
    return report


def _rows(connection: Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), values, binary=True).fetchall()


def _parts(connection: Connection, query: LiteralString) -> Iterator[list[tuple[Any, ...]]]:
    with connection.cursor("parts", binary=True) as cursor:
        cursor.execute(query)
        while part := cursor.fetchmany(_PART):
            yield part


def _decoded(report: Report, part: list[tuple[Any, ...]]) -> Iterator[Row]:
    for lsn, cid, seq, by, idh, data in part:
        try:
            record = decode(data)
        except msgspec.MsgspecError as error:
            report.add(f"log row {lsn}: can't be read: {error}")
        else:
            yield lsn, cid, seq, by, None if idh is None else idh.bytes, record


def _check_inboxes(connection: Connection, report: Report, large: Large, users: list[tuple[Any, ...]]) -> None:
    """Each inbox of these users goes on without a gap, in the order of the log or of who told it, and what it holds is there."""
    chunks: dict[int, list[tuple[int, bytes]]] = {}
    uids = [user[0] for user in users]
    stored = _rows(connection, "SELECT uid, first, refs FROM chunk WHERE uid = ANY (%s) ORDER BY uid, first", uids)
    for uid, first, refs in stored:
        chunks.setdefault(uid, []).append((first, refs))
    wanted: dict[int, str] = {}
    inboxes: list[tuple[str, list[tuple[int, int]]]] = []
    for uid, name, head, floor, first, tail in users:
        before = floor
        held: list[tuple[int, int]] = []
        parts = [
            (start, refs)
            for start, data in (*chunks.get(uid, ()), (first, tail))
            if (refs := _refs(report, name, start, data)) is not None
        ]
        for start, refs in parts:
            kept = [(start + index, ref) for index, ref in enumerate(refs) if ref]
            if kept and kept[0][0] <= floor:
                report.add(f"inbox of {name}: item {kept[0][0]} is there, though items up to {floor} are gone")
            if start <= before - CHUNK or len(refs) > CHUNK:
                report.add(f"inbox of {name}: items from {start} on stand in the wrong place")
            before = max(before, start + len(refs) - 1)
            for pos, ref in kept:
                report.items += 1
                held.append((pos, abs(ref)))
                wanted[abs(ref)] = f"inbox of {name}: item {pos}"
        inboxes.append((name, held))
        if before != head:
            report.add(f"inbox of {name}: its head is {head}, but its items end at {before}")
    told = large.told(list(wanted))
    for name, held in inboxes:
        large.inbox(name, held, told)
    found = _rows(connection, "SELECT v FROM unnest(%s::int8[]) v WHERE NOT EXISTS (SELECT FROM log WHERE lsn = v)", list(wanted))
    for (lsn,) in found:
        report.add(f"{wanted[lsn]} is log row {lsn}, which is not there")


def _refs(report: Report, name: str, start: int, data: bytes) -> list[int] | None:
    if len(data) % 8:
        report.add(f"inbox of {name}: can't be read: {len(data)} bytes from item {start} on")
        return None
    return unpack(data)


def _check_items(connection: Connection, report: Report, groups: Groups, large: Large, rows: list[Row]) -> None:
    """Each of these rows stands in the inboxes of all whom it concerned, at the place that it names."""
    expected: list[tuple[str, int, int]] = []
    told = large.told([row[0] for row in rows])
    for lsn, *_, record in rows:
        report.rows += 1
        if isinstance(record, GroupChange):
            groups.take(record)
        act = record.act if isinstance(record, Gone) else record
        if not isinstance(act, Act):
            report.add(f"log row {lsn}: is no record that makes items")
            continue
        if record is act and lsn in told:
            names = large.members(groups, act, *told[lsn])
        elif record is not act or not act.pos:
            continue
        else:
            names = groups.recipients(act) if act.conv[0] == "#" else pair_of(act)
        if len(names) != len(act.pos):
            report.add(f"log row {lsn}: {len(act.pos)} items for {len(names)} recipients")
        expected += [(name, pos, lsn) for name, pos in zip(names, act.pos, strict=False)]
    names_, positions, lsns = zip(*expected, strict=True) if expected else ((), (), ())
    query = (
        "SELECT v.name, v.pos, v.lsn, CASE WHEN v.pos >= u.first THEN substr(u.tail, ((v.pos - u.first) * 8 + 1)::int, 8)"
        " ELSE (SELECT substr(c.refs, ((v.pos - c.first) * 8 + 1)::int, 8) FROM chunk c"
        " WHERE c.uid = u.uid AND c.first <= v.pos ORDER BY c.first DESC LIMIT 1) END"
        " FROM unnest(%s::text[], %s::int8[], %s::int8[]) v (name, pos, lsn) LEFT JOIN im_user u ON u.name = v.name"
    )
    for name, pos, lsn, ref in _rows(connection, query, list(names_), list(positions), list(lsns)):
        if ref is None or len(ref) != 8 or abs(unpack(ref)[0]) != lsn:
            report.add(f"log row {lsn}: is not item {pos} in the inbox of {name}")
