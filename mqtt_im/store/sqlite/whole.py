"""The SQLite store as plain rows (`tools.whole`): read from its files, and files made of them. No server runs on the folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, cast

import peewee

from mqtt_im.core.model import Conv, Member
from mqtt_im.core.records import MESSAGES, Cursors, decode, encode
from mqtt_im.protocol.errors import StoreError
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
    Whole,
    act_of,
    direct,
)

from .opening import opener
from .rebuild import rebuild
from .retention.folds import Folds
from .tables import rows
from .tables.files import open_log, open_projection
from .tables.log import Log
from .tables.models import ENTITY_MODELS, FoldRow, LogMeta
from .tables.projection import Projection

_FAILED: Final = (sqlite3.Error, peewee.PeeweeException)
_MEMBER: Final = "{m}.ord, {m}.role, {m}.active, {m}.read, {m}.delivered, {m}.spans, {m}.last"
_COUNTED: Final = ("user", "conv", "member", "device", "item", "amended", "change", "mention", "packet", "keyed")
_QUERIES: Final[dict[Kind, str]] = {
    UserPart: f"SELECT name, uid, {rows.USER} FROM user ORDER BY uid",  # noqa: S608 - our own names
    DirectPart: f"""
        SELECT c.cid, c.name, c.head, c.lsn, a.uid, b.uid, {_MEMBER.format(m="m")}, {_MEMBER.format(m="n")} FROM conv c
        JOIN user a ON a.name = substr(c.name, 1, instr(c.name, ':') - 1) JOIN member m ON m.uid = a.uid AND m.cid = c.cid
        JOIN user b ON b.name = substr(c.name, instr(c.name, ':') + 1) JOIN member n ON n.uid = b.uid AND n.cid = c.cid
        WHERE substr(c.name, 1, 1) <> '#' ORDER BY c.cid""",  # noqa: S608
    GroupPart: f"SELECT cid, name, {rows.CONV} FROM conv WHERE substr(name, 1, 1) = '#' ORDER BY cid",  # noqa: S608
    MemberPart: f"SELECT cid, uid, {rows.MEMBER} FROM member m WHERE grp = 1 ORDER BY cid, uid",  # noqa: S608
    DevicePart: """
        SELECT uid, u.name, d.device, d.cursor, d.app, d.n, d.created, d.seen FROM device d JOIN user u USING (uid)
        ORDER BY uid, d.device""",
    ItemPart: "SELECT uid, pos, lsn FROM item ORDER BY uid, pos",
    AmendedPart: f"SELECT cid, seq, {rows.AMENDED} FROM amended ORDER BY cid, seq",  # noqa: S608
    ChangePart: "SELECT cid, seq, uid, count FROM change ORDER BY cid, seq, uid",
    MentionPart: """
        SELECT m.cid, m.seq, coalesce(u.name, '*') FROM mention m LEFT JOIN user u USING (uid) ORDER BY m.cid, m.seq, 3""",
    PacketPart: """
        SELECT u.uid, p.device, p.session, p.packet, p.lsn FROM packet p JOIN user u ON u.name = p.user
        ORDER BY u.uid, p.device, p.session, p.packet""",
    KeyPart: """
        SELECT u.uid, c.cid, k.key, k.lsn FROM keyed k JOIN user u ON u.name = k.sender JOIN conv c ON c.name = k.conv
        ORDER BY u.uid, c.cid, k.key""",
}


class SqliteWhole:
    """Implements `Whole`."""

    def __init__(self, folder: Path, unchanging: bool = False) -> None:
        """The projections have all that is in the log (`settle`). `unchanging`: see `unchanging.readable`."""
        self._folder = folder
        self._dbs = [opens(folder, readonly=True, unchanging=unchanging) for opens in (open_log, open_projection)]
        self._log, self._projection = (cast(sqlite3.Connection, db.connection()) for db in self._dbs)  # type: ignore[no-untyped-call]
        found = self._log.execute("SELECT lsn, rec FROM log ORDER BY lsn DESC LIMIT 1").fetchall()
        self.last: int = found[0][0] if found else 0
        self.time: int = decode(found[0][1]).ts if found else 0

    def count(self) -> int:
        """See `Whole`."""
        with _told(self._folder):
            counts = [self._projection.execute(f"SELECT count(*) FROM {table}") for table in _COUNTED]  # noqa: S608
            counts.append(self._log.execute("SELECT count(*) FROM log"))
            return sum(count.fetchone()[0] for count in counts)

    def parts(self, kind: Kind) -> Iterator[Any]:
        """See `Whole`."""
        with _told(self._folder):
            if kind is LogPart:
                yield from self._log_parts()
                return
            made = _MADE.get(kind)
            for row in self._projection.execute(_QUERIES[kind]):
                yield kind(*row) if made is None else made(row)

    def _log_parts(self) -> Iterator[LogPart]:
        found = self._log.execute("SELECT lsn, rec FROM log ORDER BY lsn")
        while part := found.fetchmany(AT_ONCE):
            acts = [(lsn, data, record, act) for lsn, data in part if (act := act_of(record := decode(data))) is not None]
            cids = self._numbers({act.conv for _, _, _, act in acts})
            for lsn, data, record, act in acts:
                cid, seq, by = cids[act.conv], 0, 0
                if isinstance(record, MESSAGES):
                    query = "SELECT by FROM message WHERE cid = ? AND seq = ? AND lsn = ?"
                    for (by,) in self._projection.execute(query, (cid, act.seq, lsn)):  # noqa: B007 - of one row
                        seq = act.seq
                yield LogPart(lsn, cid, seq, by, data)

    def _numbers(self, names: set[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        wanted = sorted(names)
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            marks = ", ".join("?" * len(some))
            found.update(self._projection.execute(f"SELECT name, cid FROM conv WHERE name IN ({marks})", some))  # noqa: S608
        return found

    def close(self) -> None:
        """The files are closed."""
        for db in self._dbs:
            db.close()


def _read_member(row: Any) -> Member:
    return rows.read_member(row)


def _direct(row: Any) -> DirectPart:
    cid, name, head, lsn, first, second = row[:6]
    parts = [_read_member(row[6:13])] + ([_read_member(row[13:])] if first != second else [])
    return DirectPart(direct(cid, name, head, lsn, parts), first, second)


def _group(row: Any) -> GroupPart:
    return GroupPart(rows.read_conv(row, lambda _: {}, lambda *_: None))


_MADE: Final[dict[Kind, Callable[[Any], Any]]] = {
    UserPart: lambda row: UserPart(rows.read_user(row[0], row[1:])),
    DirectPart: _direct,
    GroupPart: _group,
    MemberPart: lambda row: MemberPart(row[0], row[1], _read_member(row[2:])),
    DevicePart: lambda row: DevicePart(row[0], rows.read_device(row[1], row[2:])),
    AmendedPart: lambda row: AmendedPart(row[0], row[1], rows.read_amended(row[2:])),
}


def settle(folder: Path) -> None:
    """The projections of a folder, which holds a store, have all that is in its log. Raises `StoreError`."""
    opener(folder)().close()


def is_settled(folder: Path) -> bool:
    """Whether `settle` has nothing to do, where nothing can be written (`unchanging.readable`). Raises `StoreError`."""
    with ExitStack() as stack, _told(folder):
        projection = open_projection(folder, readonly=True, unchanging=True)
        stack.callback(projection.close)
        log = open_log(folder, readonly=True, unchanging=True)
        stack.callback(log.close)
        with log.bind_ctx([LogMeta]):
            epoch = LogMeta.get_by_id("epoch").value
        folds = Folds(log, projection)
        known = Projection(projection).position() == (epoch, Log(log).last()) and folds.projected() == folds.position().number
        return known and folds.plan() is None


def make(folder: Path, source: Whole, progress: Callable[[int], None]) -> None:
    """An empty folder holds what the source has, under an epoch of its own. Raises `StoreError`.

    The entities are the base of a log whose rows have all been folded into it (`retention.base`).
    """
    db = open_log(folder, synchronous="normal")
    try:
        with _told(folder), db.bind_ctx([LogMeta, FoldRow, *ENTITY_MODELS]):
            connection = cast(sqlite3.Connection, db.connection())  # type: ignore[no-untyped-call]
            for statement, found in _base(source):
                _put(connection, statement, found, progress)
            # Says nothing, and keeps the numbers of rows that are gone from being given out again.
            last = source.last + 1
            nothing = Cursors(source.time, [])
            _put(connection, "INSERT INTO log (lsn, rec) VALUES (?, ?)", [(last, encode(nothing))], progress)
            FoldRow.insert(number=1, base=last, plan=b"").execute()
            rebuild(folder, Log(db), db, LogMeta.get_by_id("epoch").value)
    finally:
        db.close()


def _base(source: Whole) -> Iterator[tuple[str, Iterable[tuple[Any, ...]]]]:
    yield rows.PUT_USER, (rows.user_row(part.user) for part in source.parts(UserPart))
    yield rows.PUT_CONV, (rows.conv_row(part.conv) for part in source.parts(DirectPart))
    yield rows.PUT_MEMBER, (row for part in source.parts(DirectPart) for row in _members(part))
    yield rows.PUT_CONV, (rows.conv_row(part.conv) for part in source.parts(GroupPart))
    group = Conv(0, "#")

    def of_group(part: MemberPart) -> tuple[Any, ...]:
        group.cid = part.cid
        return rows.member_row(part.uid, group, part.member)

    yield rows.PUT_MEMBER, map(of_group, source.parts(MemberPart))
    yield rows.PUT_DEVICE, (rows.device_row(part.uid, part.device) for part in source.parts(DevicePart))
    yield "INSERT INTO log (lsn, rec) VALUES (?, ?)", ((part.lsn, part.data) for part in source.parts(LogPart))


def _members(part: DirectPart) -> Iterator[tuple[Any, ...]]:
    for member, uid in zip(part.conv.members.values(), (part.first, part.second), strict=False):
        yield rows.member_row(uid, part.conv, member)


def _put(
    connection: sqlite3.Connection, statement: str, found: Iterable[tuple[Any, ...]], progress: Callable[[int], None]
) -> None:
    count = 0

    def counted() -> Iterator[tuple[Any, ...]]:
        nonlocal count
        for row in found:
            count += 1
            yield row
            if count % AT_ONCE == 0:
                progress(AT_ONCE)

    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(statement, counted())
    connection.execute("COMMIT")
    progress(count % AT_ONCE)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except _FAILED as error:
        raise StoreError(f"{folder}: {error}") from error
