"""The hot path's statements, as SQL on peewee's connections; used by the ledger's thread alone.

Measured: peewee's `Model.create` tops out near 10,000 rows a second, `executemany` near 70,000. Everything else goes through
the models.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar, cast

import msgspec

from mqtt_im.core.model import EVERYTHING, Amended, Conv, Device, Member, User

T = TypeVar("T")

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

_INSERT_ROWS = 64
_INSERTS = ["INSERT INTO log (lsn, rec) VALUES " + ",".join(["(?, ?)"] * size) for size in range(_INSERT_ROWS + 1)]
"""By their number of rows."""
_LOOKUP_SIZES = (256, 64, 16, 4, 1)
_CHUNK = 500
"""Parameters of one `IN (…)`; far below SQLite's own limit."""


class Connected(Protocol):
    """A peewee database, or what stands for one."""

    def connection(self) -> Any:
        """What executes statements, as `sqlite3.Connection` does."""


class Log:
    """The log's statements. Raises what `sqlite3` raises."""

    def __init__(self, db: Connected) -> None:
        self._conn: sqlite3.Connection = db.connection()

    def append(self, rows: Sequence[tuple[int, bytes]], rewrites: Sequence[tuple[bytes, int]]) -> None:
        """Rows are on disk, and rewritten ones have their new content, as one transaction.

        `sqlite3` lets go of the interpreter's lock in each step, and has to wait for it after: few long statements are
        faster beside a busy event loop than many short ones.
        """
        execute = self._conn.execute
        self._check_idle()
        if len(rows) <= _INSERT_ROWS and not rewrites:
            execute(_INSERTS[len(rows)], list(chain.from_iterable(rows)))  # a transaction of its own
            return
        execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(rows), _INSERT_ROWS):
                part = rows[start : start + _INSERT_ROWS]
                execute(_INSERTS[len(part)], list(chain.from_iterable(part)))
            if rewrites:
                self._conn.executemany("UPDATE log SET rec = ? WHERE lsn = ?", rewrites)
            execute("COMMIT")
        except BaseException:
            if self._conn.in_transaction:
                execute("ROLLBACK")
            raise

    def _check_idle(self) -> None:
        if self._conn.in_transaction:  # what is written in it would not be on disk yet
            raise sqlite3.OperationalError("a transaction was left open")

    def probe(self) -> None:
        """A write has reached the disk."""
        self._conn.execute("REPLACE INTO meta (key, value) VALUES ('probe', '')")

    def last(self) -> int:
        """The newest row; 0 in an empty log."""
        return int(self._conn.execute("SELECT coalesce(max(lsn), 0) FROM log").fetchone()[0])

    def get(self, lsn: int) -> bytes | None:
        """The content of one row."""
        row = self._conn.execute("SELECT rec FROM log WHERE lsn = ?", (lsn,)).fetchone()
        return row[0] if row else None

    def get_many(self, lsns: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Those of these rows that exist, with their contents."""
        for start in range(0, len(lsns), _CHUNK):
            part = lsns[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            yield from self._conn.execute(f"SELECT lsn, rec FROM log WHERE lsn IN ({marks})", part)

    def after(self, lsn: int) -> Iterable[tuple[int, bytes]]:
        """Every row after `lsn`, in order."""
        return self._conn.execute("SELECT lsn, rec FROM log WHERE lsn > ? ORDER BY lsn", (lsn,))

    def checkpoint(self) -> bool:
        """Whether what was rewritten or deleted is gone from the write-ahead file too; see `checkpoint`."""
        return checkpoint(self._conn, "TRUNCATE")


class Projection:
    """The projections' statements. Raises what `sqlite3` raises."""

    def __init__(self, db: Connected) -> None:
        self._conn: sqlite3.Connection = db.connection()

    # Transactions of the bulk writer.

    def begin(self) -> None:
        """A bulk write begins; reads on this connection see what it has written."""
        self._conn.execute("BEGIN IMMEDIATE")

    def write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Some rows of one bulk write."""
        self._conn.executemany(statement, rows)

    def commit(self, epoch: str, lsn: int) -> None:
        """The bulk write is kept; the projection says that it has everything up to `lsn`."""
        self._conn.executemany("REPLACE INTO meta (key, value) VALUES (?, ?)", [("epoch", epoch), ("lsn", str(lsn))])
        self._conn.execute("COMMIT")

    def rollback(self) -> None:
        """The bulk write, if one was begun, has left nothing."""
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")

    def position(self) -> tuple[str, int]:
        """Whose projection this is, and how far it got."""
        meta = dict(self._conn.execute("SELECT key, value FROM meta"))
        return meta.get("epoch", ""), int(meta.get("lsn", "0"))

    # Entities.

    def next_ids(self) -> tuple[int, int]:
        """The first free uid and cid."""
        uid = self._conn.execute("SELECT coalesce(max(uid), 0) + 1 FROM user").fetchone()[0]
        cid = self._conn.execute("SELECT coalesce(max(cid), 0) + 1 FROM conv").fetchone()[0]
        return int(uid), int(cid)

    def user(self, name: str) -> User | None:
        """The user of this name."""
        row = self._conn.execute(
            "SELECT uid, head, floor, acked, registered, settings FROM user WHERE name = ?", (name,)
        ).fetchone()
        return None if row is None else _user(name, row)

    def users(self, names: Sequence[str]) -> list[User]:
        """Those of these users that are stored."""
        found: list[User] = []
        for size, part in _parts(names):
            marks = ",".join("?" * size)
            rows = self._conn.execute(
                f"SELECT uid, name, head, floor, acked, registered, settings FROM user WHERE name IN ({marks})", part
            )
            found += [_user(row[1], (row[0], *row[2:])) for row in rows]
        return found

    def user_names(self, uids: Sequence[int]) -> dict[int, str]:
        """The names of these users."""
        found: dict[int, str] = {}
        for start in range(0, len(uids), _CHUNK):
            part = uids[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            found.update(self._conn.execute(f"SELECT uid, name FROM user WHERE uid IN ({marks})", part))
        return found

    def convs(self, names: Sequence[str], load: Callable[[Conv], dict[str, Member]]) -> list[Conv]:
        """Those of these conversations that are stored; `load` reads their members when somebody asks."""
        found: list[Conv] = []
        for size, part in _parts(names):
            marks = ",".join("?" * size)
            rows = self._conn.execute(f"SELECT cid, name, head, lsn, title FROM conv WHERE name IN ({marks})", part)
            for cid, name, head, lsn, title in rows:
                conv = Conv(cid, name, load)
                conv.head, conv.lsn, conv.title = head, lsn, title
                found.append(conv)
        return found

    def conv_name(self, cid: int) -> str | None:
        """The name of a conversation."""
        row = self._conn.execute("SELECT name FROM conv WHERE cid = ?", (cid,)).fetchone()
        return row[0] if row else None

    def members_of_group(self, cid: int) -> list[tuple[str, Member]]:
        """The members of a group, present and past, in their order."""
        rows = self._conn.execute(
            "SELECT u.name, m.ord, m.role, m.active, m.read, m.delivered, m.spans FROM member m"
            " JOIN user u ON u.uid = m.uid WHERE m.cid = ? AND m.grp = 1 ORDER BY m.ord",
            (cid,),
        )
        return [(row[0], _member(row[1:])) for row in rows]

    def member(self, uid: int, cid: int) -> Member | None:
        """One member's part."""
        row = self._conn.execute(
            "SELECT ord, role, active, read, delivered, spans FROM member WHERE uid = ? AND cid = ?", (uid, cid)
        ).fetchone()
        return _member(row) if row else None

    def convs_of(self, uid: int) -> list[int]:
        """The conversations that a user is or was in."""
        return [row[0] for row in self._conn.execute("SELECT cid FROM member WHERE uid = ?", (uid,))]

    def device(self, uid: int, user: str, device: str) -> Device | None:
        """One registered device."""
        row = self._conn.execute(
            "SELECT device, cursor, app, n, created, seen FROM device WHERE uid = ? AND device = ?", (uid, device)
        ).fetchone()
        return _device(user, row) if row else None

    def devices(self, uid: int, user: str) -> list[Device]:
        """All registered devices of a user."""
        rows = self._conn.execute(
            "SELECT device, cursor, app, n, created, seen FROM device WHERE uid = ? ORDER BY device", (uid,)
        )
        return [_device(user, row) for row in rows]

    def exposed_devices(self) -> set[tuple[str, str]]:
        """User and device of all that are `exposed`."""
        return set(self._conn.execute("SELECT name, device FROM device JOIN user USING (uid) WHERE seen < 0"))

    def amended(self, cid: int, seq: int) -> Amended | None:
        """What became of one message."""
        row = self._conn.execute(
            "SELECT recalled, edits, reactions FROM amended WHERE cid = ? AND seq = ?", (cid, seq)
        ).fetchone()
        return None if row is None else _amended(row)

    def amended_of(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Amended]:
        """What became of those of these messages, `(cid, seq)`, of which anything did."""
        select = "SELECT cid, seq, recalled, edits, reactions FROM asked CROSS JOIN amended ON cid = a AND seq = b"
        return {(row[0], row[1]): _amended(row[2:]) for row in self._asked(keys, select)}

    # Indexes into the log.

    def items(self, uid: int, after: int, limit: int) -> list[tuple[int, int]]:
        """`(pos, lsn)` of the items after `after`, at most `limit`."""
        return self._conn.execute(
            "SELECT pos, lsn FROM item WHERE uid = ? AND pos > ? ORDER BY pos LIMIT ?", (uid, after, limit)
        ).fetchall()

    def message(self, cid: int, seq: int) -> int | None:
        """The log row of one message."""
        row = self._conn.execute("SELECT lsn FROM message WHERE cid = ? AND seq = ?", (cid, seq)).fetchone()
        return row[0] if row else None

    def messages(self, cid: int, first: int, last: int) -> list[tuple[int, int]]:
        """`(seq, lsn)` of the messages from `first` to `last`, both included."""
        return self._conn.execute(
            "SELECT seq, lsn FROM message WHERE cid = ? AND seq BETWEEN ? AND ? ORDER BY seq", (cid, first, last)
        ).fetchall()

    def nearest_message(self, cid: int, first: int, last: int, upward: bool) -> int | None:
        """The lowest, or else the highest, `seq` from `first` to `last`."""
        choice = "min" if upward else "max"
        row = self._conn.execute(f"SELECT {choice}(seq) FROM message WHERE cid = ? AND seq BETWEEN ? AND ?", (cid, first, last))
        return cast(int | None, row.fetchone()[0])

    def unread(self, cid: int, after: int, last: int, uid: int) -> int:
        """How many messages of others, the system's aside, stand from after `after` to `last`."""
        row = self._conn.execute(
            "SELECT count(*) FROM message WHERE cid = ? AND seq > ? AND seq <= ? AND by NOT IN (0, ?)",
            (cid, after, last, uid),
        ).fetchone()
        return int(row[0])

    def mentions(self, cid: int, after: int, last: int, uid: int) -> set[int]:
        """The messages from after `after` to `last` that mention the user or everybody."""
        rows = self._conn.execute(
            "SELECT seq FROM mention WHERE cid = ? AND uid IN (0, ?) AND seq > ? AND seq <= ?", (cid, uid, after, last)
        )
        return {row[0] for row in rows}

    def request(self, uid: int, request_id: str) -> int | None:
        """The log row that an id made."""
        row = self._conn.execute("SELECT lsn FROM request WHERE uid = ? AND id = ?", (uid, request_id)).fetchone()
        return row[0] if row else None

    def requests(self, keys: Sequence[tuple[int, str]]) -> dict[tuple[int, str], int]:
        """The log rows that these ids made, as far as they were used."""
        select = "SELECT uid, id, lsn FROM asked CROSS JOIN request ON uid = a AND id = b"
        return {(uid, request_id): lsn for uid, request_id, lsn in self._asked(keys, select)}

    def _asked(self, keys: Sequence[tuple[Any, Any]], select: str) -> Iterator[Any]:
        """The rows of `select`, which joins a table with the keys, as `asked(a, b)`."""
        # A join, since `(uid, id) IN (VALUES …)` makes SQLite read the whole table.
        for size, part in _parts(keys):
            marks = ",".join(["(?, ?)"] * size)
            yield from self._conn.execute(f"WITH asked(a, b) AS (VALUES {marks}) {select}", list(chain.from_iterable(part)))

    def packet(self, key: tuple[str, str, str, int]) -> int | None:
        """The log row that a PUBLISH without id made."""
        row = self._conn.execute(
            "SELECT lsn FROM packet WHERE user = ? AND device = ? AND session = ? AND packet = ?", key
        ).fetchone()
        return row[0] if row else None

    def keyed(self, key: tuple[str, str, str]) -> int | None:
        """The log row of the newest message with this key."""
        row = self._conn.execute("SELECT lsn FROM keyed WHERE sender = ? AND conv = ? AND key = ?", key).fetchone()
        return row[0] if row else None


def checkpoint(connection: sqlite3.Connection, mode: str) -> bool:
    """Whether all of the write-ahead file was copied into the database's own. Waits for nobody: messages would wait too."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        busy, written, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience:d}")
    return not busy and written == copied


# Rows of entities, and the statements that write them.

PUT_USER = "REPLACE INTO user (uid, name, head, floor, acked, registered, settings) VALUES (?, ?, ?, ?, ?, ?, ?)"
PUT_CONV = "REPLACE INTO conv (cid, name, head, lsn, title) VALUES (?, ?, ?, ?, ?)"
PUT_MEMBER = "REPLACE INTO member (uid, cid, grp, ord, role, active, read, delivered, spans) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_DEVICE = "REPLACE INTO device (uid, device, cursor, app, n, created, seen) VALUES (?, ?, ?, ?, ?, ?, ?)"
DROP_DEVICE = "DELETE FROM device WHERE uid = ? AND device = ?"
PUT_AMENDED = "REPLACE INTO amended (cid, seq, recalled, edits, reactions) VALUES (?, ?, ?, ?, ?)"
PUT_ITEM = "REPLACE INTO item (uid, pos, lsn) VALUES (?, ?, ?)"
VOID_ITEM = "UPDATE item SET lsn = -abs(lsn) WHERE uid = ? AND pos = ?"
PUT_MESSAGE = "REPLACE INTO message (cid, seq, lsn, by) VALUES (?, ?, ?, ?)"
PUT_MENTION = "REPLACE INTO mention (cid, uid, seq) VALUES (?, ?, ?)"
PUT_REQUEST = "REPLACE INTO request (uid, id, lsn) VALUES (?, ?, ?)"
PUT_PACKET = "REPLACE INTO packet (user, device, session, packet, lsn) VALUES (?, ?, ?, ?, ?)"
PUT_KEYED = "REPLACE INTO keyed (sender, conv, key, lsn) VALUES (?, ?, ?, ?)"


def user_row(user: User) -> tuple[Any, ...]:
    """For `PUT_USER`."""
    settings = None
    if user.blocks or user.mutes or not (user.read_receipts and user.presence):
        settings = _pack(
            {
                "blocks": sorted(user.blocks),
                "mutes": user.mutes,
                "read_receipts": user.read_receipts,
                "presence": user.presence,
            }
        )
    return user.uid, user.name, user.head, user.floor, user.acked, int(user.registered), settings


def conv_row(conv: Conv) -> tuple[Any, ...]:
    """For `PUT_CONV`."""
    return conv.cid, conv.name, conv.head, conv.lsn, conv.title


def member_row(uid: int, conv: Conv, member: Member) -> tuple[Any, ...]:
    """For `PUT_MEMBER`."""
    return (
        uid,
        conv.cid,
        int(conv.group),
        member.order,
        member.role,
        int(member.active),
        member.read,
        member.delivered,
        None if member.spans is EVERYTHING else _pack(member.spans),
    )


def device_row(uid: int, device: Device) -> tuple[Any, ...]:
    """For `PUT_DEVICE`."""
    seen = -device.seen if device.exposed else device.seen
    return uid, device.device, device.cursor, int(device.app), device.n, device.created, seen


def amended_row(cid: int, seq: int, amended: Amended) -> tuple[Any, ...]:
    """For `PUT_AMENDED`."""
    return cid, seq, int(amended.recalled), _pack(amended.edits), _pack(amended.reactions)


def _parts(keys: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """The keys in parts of few sizes, so that few statements are ever prepared: the size and the part.

    The last part is filled up with its own last key.
    """
    start, left = 0, len(keys)
    while left > 0:
        size = next((size for size in reversed(_LOOKUP_SIZES) if size >= left), _LOOKUP_SIZES[0])
        part = keys[start : start + size]
        if len(part) < size:
            part = [*part, *[part[-1]] * (size - len(part))]
        yield size, part
        start += size
        left -= size


def _user(name: str, row: Sequence[Any]) -> User:
    user = User(row[0], name)
    user.head, user.floor, user.acked, user.registered = row[1], row[2], row[3], bool(row[4])
    if row[5]:
        settings = _unpack(row[5])
        user.blocks = set(settings["blocks"])
        user.mutes = settings["mutes"]
        user.read_receipts, user.presence = settings["read_receipts"], settings["presence"]
    return user


def _member(row: Sequence[Any]) -> Member:
    member = Member(row[0], row[1])
    member.active, member.read, member.delivered = bool(row[2]), row[3], row[4]
    member.spans = _unpack(row[5]) if row[5] else EVERYTHING
    return member


def _amended(row: Sequence[Any]) -> Amended:
    amended = Amended()
    amended.recalled, amended.edits, amended.reactions = bool(row[0]), _unpack(row[1]), _unpack(row[2])
    return amended


def _device(user: str, row: Sequence[Any]) -> Device:
    device = Device(user, row[0], row[4])
    device.cursor, device.app, device.n, device.seen = row[1], bool(row[2]), row[3], abs(row[5])
    device.exposed = row[5] < 0
    return device
