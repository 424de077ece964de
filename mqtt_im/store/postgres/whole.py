"""The PostgreSQL store as plain rows (`tools.whole`), read within a transaction of the caller's. No node is running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

import psycopg

from mqtt_im.core.gone import without_packet
from mqtt_im.core.records import AnyRecord, Message, decode, encode
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import explained
from mqtt_im.store.tools.whole import (
    AT_ONCE,
    AmendedPart,
    ChangePart,
    DevicePart,
    DirectPart,
    GroupPart,
    ItemPart,
    KeyPart,
    Kind,
    LogPart,
    MemberPart,
    MentionPart,
    PacketPart,
    UserPart,
    act_of,
)

from . import tables
from .inbox import unpack

_QUERIES: Final[dict[Kind, str]] = {
    UserPart: f"""
        SELECT {tables.USER}, coalesce((SELECT max(d.acked) FROM device d WHERE d.uid = u.uid), 0) FROM im_user u
        ORDER BY uid""",  # noqa: S608 - our own names
    DirectPart: f"""
        SELECT {tables.DIRECT}, a.name, b.name FROM direct d JOIN im_user a ON a.uid = d.a JOIN im_user b ON b.uid = d.b
        ORDER BY d.cid""",  # noqa: S608
    GroupPart: f"SELECT {tables.GROUP} FROM grp g WHERE head > 0 ORDER BY g.cid",  # noqa: S608
    MemberPart: f"SELECT m.cid, m.uid, {tables.MEMBER} FROM member m ORDER BY m.cid, m.uid",  # noqa: S608
    DevicePart: f"""
        SELECT d.*, u.name FROM (SELECT {tables.DEVICE} FROM device) d JOIN im_user u USING (uid)
        ORDER BY d.uid, d.device""",  # noqa: S608
    ItemPart: """
        SELECT uid, first, refs FROM
        (SELECT uid, first, refs FROM chunk UNION ALL SELECT uid, first, tail FROM im_user WHERE tail <> '') parts
        ORDER BY uid, first""",
    LogPart: "SELECT lsn, cid, seq, by, rec FROM log ORDER BY lsn",
    AmendedPart: "SELECT cid, seq, recalled, edits, edited, size, reactions FROM amended ORDER BY cid, seq",
    ChangePart: "SELECT cid, seq, uid, count FROM change ORDER BY cid, seq, uid",
    MentionPart: "SELECT cid, seq, name FROM mention ORDER BY cid, seq, name",
    PacketPart: "SELECT uid, device, session, packet, lsn FROM packet ORDER BY uid, device, session, packet",
    KeyPart: "SELECT sender, cid, key, lsn FROM keyed ORDER BY sender, cid, key",
}
_LAST: Final = """
    SELECT greatest((SELECT max(lsn) FROM log), (SELECT max(lsn) FROM direct), (SELECT max(lsn) FROM grp),
    (SELECT max(last) FROM member), 0), greatest((SELECT max(ts) FROM direct), (SELECT max(ts) FROM grp), 0)"""
_COUNTED: Final = tuple("log" if table == "chunk" else table for table in tables.TABLES)
"""The log twice: there are about as many items."""
_PACKETS_GONE: Final = """
    SELECT v.lsn FROM unnest(%s::int8[], %s::text[], %s::text[], %s::text[], %s::int8[]) v (lsn, name, device, session, packet)
    WHERE NOT EXISTS (SELECT FROM packet p JOIN im_user u USING (uid)
    WHERE u.name = v.name AND p.device = v.device AND p.session = v.session AND p.packet = v.packet)"""


class PostgresWhole:
    """Implements `Whole`."""

    def __init__(self, database: Database, connection: Connection) -> None:
        """A transaction is open on the connection, as long as anything is read."""
        self._database = database
        self._connection = connection
        self._names = count(1)
        ((self.last, self.time),) = self._rows(_LAST)

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query.encode(), values, binary=True).fetchall()
        except psycopg.Error as error:
            raise explained(error, self._database.where) from error

    def count(self) -> int:
        """See `Whole`."""
        return sum(int(self._rows(f"SELECT count(*) FROM {table}")[0][0]) for table in _COUNTED)  # noqa: S608 - our own names

    def parts(self, kind: Kind) -> Iterator[Any]:
        """See `Whole`."""
        if kind is LogPart:
            for batch in self._batches(_QUERIES[kind]):
                yield from self._log_parts(batch)
            return
        made = _MADE.get(kind)
        for batch in self._batches(_QUERIES[kind]):
            for row in batch:
                if kind is ItemPart:
                    uid, first, refs = row
                    yield from (ItemPart(uid, first + index, ref) for index, ref in enumerate(unpack(refs)) if ref)
                else:
                    yield kind(*row) if made is None else made(row)

    def _batches(self, query: str) -> Iterator[list[tuple[Any, ...]]]:
        try:
            with self._connection.cursor(f"whole{next(self._names)}", binary=True) as cursor:
                cursor.execute(query.encode())
                while batch := cursor.fetchmany(AT_ONCE):
                    yield batch
        except psycopg.Error as error:
            raise explained(error, self._database.where) from error

    def _log_parts(self, batch: list[tuple[Any, ...]]) -> Iterator[LogPart]:
        """Where retention has forgotten a packet identifier, the record does not tell it any more either."""
        packets: list[tuple[Any, ...]] = []
        records: dict[int, AnyRecord] = {}
        for lsn, *_, data in batch:
            if b"packet" not in data:
                continue
            record = decode(data)
            act = act_of(record)
            if type(record) is Message and isinstance(act, Message) and act.extra is not None and "packet" in act.extra:
                records[lsn] = record
                packets.append((lsn, act.by, act.device, *act.extra["packet"]))
        gone = {lsn for (lsn,) in self._rows(_PACKETS_GONE, *map(list, zip(*packets, strict=True)))} if packets else set()
        for lsn, cid, seq, by, data in batch:
            yield LogPart(lsn, cid, seq, by, encode(without_packet(records[lsn])) if lsn in gone else data)


def _direct(row: Any) -> DirectPart:
    *direct, a, b = row
    conv, _ = tables.read_direct(direct, a, b)
    assert conv.users is not None
    first, second = direct[:2] if conv.users[0] == a else direct[1::-1]
    return DirectPart(conv, first, second)


def _user(row: Any) -> UserPart:
    user, _ = tables.read_user(row)
    user.acked = max(user.acked, row[-1])
    return UserPart(user)


_MADE: Final[dict[Kind, Callable[[Any], Any]]] = {
    UserPart: _user,
    DirectPart: _direct,
    GroupPart: lambda row: GroupPart(tables.read_group(row, lambda _: {}, lambda *_: None)[0]),
    MemberPart: lambda row: MemberPart(row[0], row[1], tables.read_member(row[2:])),
    DevicePart: lambda row: DevicePart(row[0], tables.read_device(row, row[-1])[0]),
    AmendedPart: lambda row: AmendedPart(row[0], row[1], tables.read_amended(row[2:])),
}
