"""For a copy to another kind of store, what large groups have told is written out for each member, in one transaction.

Elsewhere every inbox is in the order of the log, and a record names the number of its item in each inbox. So everybody takes what
is to be taken; the items of an inbox that is in another order change places, and each record says where its items are then. A
device goes on behind what it surely has: what stands behind that comes again, as it may under a new epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from mqtt_im.core.model import readers
from mqtt_im.core.records import Act, AnyRecord, GroupChange, Message, decode, encode
from mqtt_im.postgres.connecting import Connection

from .inbox import CHUNK, unpack
from .retention import Groups, pair_of
from .wire import ints

AT_ONCE: Final = 500

_THERE: Final = "SELECT to_regclass('told') IS NOT NULL AND EXISTS (SELECT FROM told)"
_MAKE: Final = "CREATE TEMP TABLE place (name text, lsn int8, pos int8, replaced bool) ON COMMIT DROP"
_USERS: Final = """
    SELECT u.uid, u.name, u.head, u.began, u.first, u.tail FROM im_user u
    WHERE u.uid IN (SELECT m.uid FROM member m JOIN grp g USING (cid) WHERE g.large) AND u.uid > %s ORDER BY u.uid LIMIT %s"""
_CHUNKS: Final = "SELECT first, refs FROM chunk WHERE uid = %s ORDER BY first"
_DUE: Final = """
    SELECT t.lsn, t.former FROM member m JOIN grp g USING (cid) JOIN told t USING (cid)
    WHERE m.uid = %s AND m.active AND g.large AND t.act > m.pulled ORDER BY t.lsn"""
_TOLD: Final = "SELECT lsn, former FROM told WHERE lsn = ANY (%s)"
_REPLACED: Final = "SELECT lsn, name, pos FROM place WHERE replaced AND lsn = ANY (%s) ORDER BY lsn, name"
_PLACES: Final = "SELECT lsn, name, pos FROM place WHERE lsn = ANY (%s)"
_LOG: Final = "SELECT lsn, rec FROM log WHERE lsn > %s ORDER BY lsn LIMIT %s"
_PUT_LOG: Final = "UPDATE log SET rec = v.rec FROM unnest(%s::int8[], %s::bytea[]) v (lsn, rec) WHERE log.lsn = v.lsn"


def write_out(connection: Connection) -> None:
    """Nothing is told but what stands in inboxes, in the transaction that is open. Raises `psycopg.Error`."""
    if not _rows(connection, _THERE)[0][0]:
        return
    connection.execute(_MAKE.encode())
    moved = _inboxes(connection)
    connection.execute("CREATE INDEX ON place (lsn)")
    connection.execute("ANALYZE place")
    _records(connection, moved)
    connection.execute("DELETE FROM told")
    connection.execute("UPDATE member m SET pulled = 0 FROM grp g WHERE g.cid = m.cid AND g.large")
    connection.execute("UPDATE grp SET acts = 0 WHERE large")


def _rows(connection: Connection, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), values, binary=True).fetchall()


def _inboxes(connection: Connection) -> set[str]:
    """Every inbox is whole and in order; the users whose items have changed places."""
    moved: set[str] = set()
    at = 0
    while users := _rows(connection, _USERS, at, AT_ONCE):
        at = users[-1][0]
        for uid, name, head, began, first, tail in users:
            parts = [(start, unpack(refs)) for start, refs in _rows(connection, _CHUNKS, uid)] + [(first, unpack(tail))]
            told = _rows(connection, _DUE, uid)
            replaced = {former for _, former in told}
            due = [-lsn if lsn in replaced else lsn for lsn, _ in told]
            parts += [(head + 1 + start, due[start : start + CHUNK]) for start in range(0, len(due), CHUNK)]
            if _in_order(connection, uid, name, began, parts):
                moved.add(name)
            for part, refs in parts:
                if part == first:
                    connection.execute("UPDATE im_user SET tail = %s WHERE uid = %s", (ints(refs), uid))
                else:
                    connection.execute(
                        "INSERT INTO chunk (uid, first, refs) VALUES (%s, %s, %s)"
                        " ON CONFLICT (uid, first) DO UPDATE SET refs = excluded.refs",
                        (uid, part, ints(refs)),
                    )
            connection.execute("UPDATE im_user SET head = %s WHERE uid = %s", (head + len(due), uid))
    return moved


def _in_order(connection: Connection, uid: int, name: str, began: int, parts: list[tuple[int, list[int]]]) -> bool:
    """The items stand in the order of the log, and in table `place`, as far as somebody will ask; whether any has moved."""
    places = [(start + index, refs, index) for start, refs in parts for index, ref in enumerate(refs) if ref]
    # What was a former user's of this name stays so.
    former = [place for place in places if place[0] <= began]
    items: list[tuple[int, int]] = []
    moved = False
    for some in (former, places[len(former) :]):
        before = [(pos, refs[index]) for pos, refs, index in some]
        after = sorted(before, key=lambda item: abs(item[1]))
        moved |= before != after
        for (pos, refs, index), (was, ref) in zip(some, after, strict=True):
            refs[index] = ref
            items.append((pos, was))
    refs_of = {pos: refs[index] for pos, refs, index in places}
    if moved:
        for device, cursor in _rows(connection, "SELECT device, cursor FROM device WHERE uid = %s", uid):
            behind = next((pos for pos, was in items if was > cursor), cursor + 1)
            if behind <= cursor:
                connection.execute("UPDATE device SET cursor = %s WHERE uid = %s AND device = %s", (behind - 1, uid, device))
    told = {lsn for lsn, _ in _rows(connection, _TOLD, [abs(ref) for ref in refs_of.values()])}
    with connection.cursor().copy("COPY place (name, lsn, pos, replaced) FROM STDIN") as copy:
        for pos, ref in refs_of.items():
            if moved or ref < 0 or abs(ref) in told:
                copy.write_row((name, abs(ref), pos, ref < 0))
    return moved


def _records(connection: Connection, moved: set[str]) -> None:
    """Each record names its items' places as they are now."""
    groups = Groups()
    at = 0
    while rows := _rows(connection, _LOG, at, AT_ONCE):
        at = rows[-1][0]
        lsns = [lsn for lsn, _ in rows]
        told = dict(_rows(connection, _TOLD, lsns))
        replaced: dict[int, list[list[Any]]] = {}
        for lsn, name, pos in _rows(connection, _REPLACED, list(told.values())):
            replaced.setdefault(lsn, []).append([name, pos])
        places = {(lsn, name): pos for lsn, name, pos in _rows(connection, _PLACES, lsns)}
        changed = list(_changed(groups, [(lsn, decode(data)) for lsn, data in rows], told, replaced, places, moved))
        if changed:
            connection.execute(_PUT_LOG.encode(), [list(column) for column in zip(*changed, strict=True)])


def _changed(
    groups: Groups,
    rows: list[tuple[int, AnyRecord]],
    told: dict[int, int],
    replaced: dict[int, list[list[Any]]],
    places: dict[tuple[int, str], int],
    moved: set[str],
) -> Iterator[tuple[int, bytes]]:
    for lsn, record in rows:
        if isinstance(record, GroupChange):
            present = groups.conv(record.conv).present_names
            groups.take(record)
        if not isinstance(record, Act):
            continue
        if lsn in told:
            if isinstance(record, GroupChange):
                new = record.members or () if record.event in ("group.create", "group.add") else ()
                record.users = names = list(dict.fromkeys((*present, *new)))
            else:
                names = readers(groups.conv(record.conv), record.seq)
            record.pos = [places[lsn, name] for name in names]
            if isinstance(record, Message):
                record.extra = _extra(record, names, replaced.get(told[lsn], []))
        elif record.pos:
            names = groups.recipients(record) if record.conv[0] == "#" else pair_of(record)
            if moved.isdisjoint(names):
                continue
            record.pos = [places.get((lsn, name), pos) for name, pos in zip(names, record.pos, strict=True)]
        else:
            continue
        yield lsn, encode(record)


def _extra(record: Message, names: list[str], replaced: list[list[Any]]) -> dict[str, Any] | None:
    """The rarer fields as they are where everything is written out at once."""
    extra = dict(record.extra or {})
    own = names.index(record.by)
    if own:
        extra = {"own": own, **extra}
    if "key" in extra:
        extra["users"] = names
        if replaced:
            extra["replaced"] = replaced
    return extra or None
