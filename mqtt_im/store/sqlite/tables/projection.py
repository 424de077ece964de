"""The projections' statements, as SQL on peewee's connection; used by one thread alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from sys import intern
from typing import Any, Final, cast

from mqtt_im.core.model import Amended, Conv, Device, Member, User

from .rows import AMENDED, CONV, MEMBER, USER, read_amended, read_conv, read_device, read_member, read_user
from .sql import CHUNK, Connected, in_parts, of_many, roll_back

_PART: Final = MEMBER.count(",") + 1


class Projection:
    """The projections' statements. Raises what `sqlite3` raises."""

    def __init__(self, db: Connected) -> None:
        self._writing: sqlite3.Connection = db.connection()
        self._conn: sqlite3.Connection = self._writing

    # Transactions of the bulk writer.

    def look_on(self, other: sqlite3.Connection | None) -> None:
        """What is looked up from now on is seen on this connection; None: on the one that is written on."""
        self._conn = self._writing if other is None else other

    def begin(self) -> None:
        """A bulk write begins; reads on this connection see what it has written."""
        self._writing.execute("BEGIN IMMEDIATE")

    def write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Some rows of one bulk write, many in one statement where it says VALUES: that takes half of the time."""
        several, size = of_many(statement)
        whole = len(rows) - len(rows) % size
        if whole and size > 1:
            parts = range(0, whole, size)
            self._writing.executemany(several, (list(chain.from_iterable(rows[start : start + size])) for start in parts))
            rows = rows[whole:]
        self._writing.executemany(statement, rows)

    def commit(self, epoch: str, lsn: int) -> None:
        """The bulk write is kept; the projection says that it has everything up to `lsn`."""
        self._writing.executemany("REPLACE INTO meta (key, value) VALUES (?, ?)", [("epoch", epoch), ("lsn", str(lsn))])
        self._writing.execute("COMMIT")

    def rollback(self) -> None:
        """The bulk write, if one was begun, has left nothing."""
        roll_back(self._writing)

    def position(self) -> tuple[str, int]:
        """Whose projection this is, and how far it got."""
        meta = dict(self._conn.execute("SELECT key, value FROM meta"))
        return meta.get("epoch", ""), int(meta.get("lsn", "0"))

    def empty(self) -> bool:
        """Whether nothing was ever written to it."""
        return not self._conn.execute("SELECT EXISTS (SELECT * FROM meta)").fetchone()[0]

    # Entities.

    def next_ids(self) -> tuple[int, int]:
        """The first free uid and cid."""
        uid = self._conn.execute("SELECT coalesce(max(uid), 0) + 1 FROM user").fetchone()[0]
        cid = self._conn.execute("SELECT coalesce(max(cid), 0) + 1 FROM conv").fetchone()[0]
        return int(uid), int(cid)

    def user(self, name: str) -> User | None:
        """The user of this name."""
        row = self._conn.execute(f"SELECT uid, {USER} FROM user WHERE name = ?", (name,)).fetchone()
        return None if row is None else read_user(name, row)

    def names_after(self, after: str, limit: int) -> list[str]:
        """The names behind `after`, in their order."""
        rows = self._conn.execute("SELECT name FROM user WHERE name > ? ORDER BY name LIMIT ?", (after, limit))
        return [name for (name,) in rows]

    def users(self, names: Sequence[str]) -> list[User]:
        """Those of these users that are stored."""
        found: list[User] = []
        for size, part in in_parts(names):
            marks = ",".join("?" * size)
            rows = self._conn.execute(f"SELECT uid, {USER}, name FROM user WHERE name IN ({marks})", part)
            found += [read_user(row[-1], row) for row in rows]
        return found

    def user_names(self, uids: Sequence[int]) -> dict[int, str]:
        """The names of these users."""
        found: dict[int, str] = {}
        for start in range(0, len(uids), CHUNK):
            part = uids[start : start + CHUNK]
            marks = ",".join("?" * len(part))
            found.update(self._conn.execute(f"SELECT uid, name FROM user WHERE uid IN ({marks})", part))
        return found

    def convs(
        self,
        names: Sequence[str],
        load: Callable[[Conv], dict[str, Member]],
        find: Callable[[Conv, str], Member | None],
    ) -> list[Conv]:
        """Those of these conversations that are stored; `load` reads their members when somebody asks."""
        found: list[Conv] = []
        for size, part in in_parts(names):
            marks = ",".join("?" * size)
            rows = self._conn.execute(f"SELECT cid, name, {CONV} FROM conv WHERE name IN ({marks})", part)
            found += [read_conv(row, load, find) for row in rows]
        return found

    def user_numbers(self, names: Sequence[str]) -> dict[str, int]:
        """The numbers of those of these users that are stored."""
        found: dict[str, int] = {}
        for size, part in in_parts(names):
            marks = ",".join("?" * size)
            found.update(self._conn.execute(f"SELECT name, uid FROM user WHERE name IN ({marks})", part))
        return found

    def conv_numbers(self, names: Sequence[str]) -> dict[str, int]:
        """The numbers of those of these conversations that are stored."""
        found: dict[str, int] = {}
        for size, part in in_parts(names):
            marks = ",".join("?" * size)
            found.update(self._conn.execute(f"SELECT name, cid FROM conv WHERE name IN ({marks})", part))
        return found

    def all_convs(self) -> Iterator[str]:
        """The names of all conversations."""
        return (name for (name,) in self._conn.execute("SELECT name FROM conv"))

    def conv_name(self, cid: int) -> str | None:
        """The name of a conversation."""
        row = self._conn.execute("SELECT name FROM conv WHERE cid = ?", (cid,)).fetchone()
        return row[0] if row else None

    def members_of_group(self, cid: int) -> list[tuple[str, Member]]:
        """The members of a group, present and past, in their order."""
        rows = self._conn.execute(
            f"SELECT u.name, {MEMBER} FROM member m JOIN user u ON u.uid = m.uid WHERE m.cid = ? AND m.grp = 1 ORDER BY m.ord",
            (cid,),
        )
        spans: dict[bytes, list[list[int]]] = {}
        return [(intern(row[0]), read_member(row[1:], spans)) for row in rows]

    def some_members(self, cid: int, after: int, limit: int) -> Iterator[tuple[Sequence[Any], Member]]:
        """Members of a group, present and past, by uid, behind `after`: the row of who it is, as far as `USER`, and the part."""
        rows = self._conn.execute(
            f"SELECT {MEMBER}, m.uid, u.name, {USER} FROM member m CROSS JOIN user u ON u.uid = m.uid"
            " WHERE m.cid = ? AND m.grp = 1 AND m.uid > ? ORDER BY m.uid LIMIT ?",
            (cid, after, limit),
        )
        spans: dict[bytes, list[list[int]]] = {}
        return ((row[_PART:], read_member(row, spans)) for row in rows)

    def marked_members(self, cid: int) -> list[tuple[str, Member]]:
        """The present members of a group who have got, or read, anything of it, in their order."""
        rows = self._conn.execute(
            f"SELECT u.name, {MEMBER} FROM member m CROSS JOIN user u ON u.uid = m.uid WHERE m.cid = ? AND m.grp = 1"
            " AND m.active = 1 AND (m.read > 0 OR m.delivered > 0) ORDER BY m.ord",
            (cid,),
        )
        spans: dict[bytes, list[list[int]]] = {}
        return [(row[0], read_member(row[1:], spans)) for row in rows]

    def member(self, uid: int, cid: int) -> Member | None:
        """One member's part."""
        row = self._conn.execute(f"SELECT {MEMBER} FROM member m WHERE uid = ? AND cid = ?", (uid, cid)).fetchone()
        return read_member(row) if row else None

    def members(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Member]:
        """Those of these members, `(uid, cid)`, that are stored."""
        select = f"SELECT uid, cid, {MEMBER} FROM asked CROSS JOIN member m ON uid = a AND cid = b"
        return {(row[0], row[1]): read_member(row[2:]) for row in self._asked(keys, select)}

    def latest(self, uid: int, below: int) -> Iterator[tuple[int, str]]:
        """The user's conversations by activity, the latest first: `(log row, name)` of those with one below `below`."""
        return self._conn.execute(
            "SELECT latest, name FROM member CROSS JOIN conv USING (cid)"
            " WHERE uid = ? AND latest > 0 AND latest < ? ORDER BY latest DESC",
            (uid, below),
        )

    def conv_names(self, uid: int) -> list[str]:
        """The names of all conversations that a user is or was in."""
        rows = self._conn.execute("SELECT name FROM member CROSS JOIN conv USING (cid) WHERE uid = ?", (uid,))
        return [row[0] for row in rows]

    def count_convs(self, uid: int, most: int) -> int:
        """How many conversations a user is or was in; no more than `most` are counted."""
        found: int = self._conn.execute(
            "SELECT count(*) FROM (SELECT 1 FROM member WHERE uid = ? LIMIT ?)", (uid, most)
        ).fetchone()[0]
        return found

    def later(self, uid: int, above: int) -> list[str]:
        """The names of the user's conversations with an activity after that log row."""
        rows = self._conn.execute(
            "SELECT name FROM member CROSS JOIN conv USING (cid) WHERE uid = ? AND latest > ?", (uid, above)
        )
        return [row[0] for row in rows]

    def groups_with(self, uid: int, other: int) -> Iterator[tuple[int, bool]]:
        """The groups that a user is in now, and whether the other one is too."""
        rows = self._conn.execute(
            "SELECT a.cid, b.active FROM member a INDEXED BY member_in_group LEFT JOIN member b ON b.uid = ? AND b.cid = a.cid"
            " WHERE a.uid = ? AND a.grp = 1 AND a.active = 1",
            (other, uid),
        )
        return ((cid, bool(active)) for cid, active in rows)

    def device(self, uid: int, user: str, device: str) -> Device | None:
        """One registered device."""
        row = self._conn.execute(
            "SELECT device, cursor, app, n, created, seen FROM device WHERE uid = ? AND device = ?", (uid, device)
        ).fetchone()
        return read_device(user, row) if row else None

    def devices(self, uid: int, user: str) -> list[Device]:
        """All registered devices of a user."""
        rows = self._conn.execute(
            "SELECT device, cursor, app, n, created, seen FROM device WHERE uid = ? ORDER BY device", (uid,)
        )
        return [read_device(user, row) for row in rows]

    def devices_of(self, uids: Mapping[int, str]) -> Iterator[tuple[int, Device]]:
        """All registered devices of these users, whose names are given, with each one's uid."""
        for size, part in in_parts(list(uids)):
            marks = ",".join("?" * size)
            rows = self._conn.execute(
                f"SELECT uid, device, cursor, app, n, created, seen FROM device WHERE uid IN ({marks})", part
            )
            for uid, *row in rows:
                yield uid, read_device(uids[uid], row)

    def exposed_devices(self) -> set[tuple[str, str]]:
        """User and device of all that are `exposed`."""
        return set(self._conn.execute("SELECT name, device FROM device JOIN user USING (uid) WHERE seen < 0"))

    def amended(self, cid: int, seq: int) -> Amended | None:
        """What became of one message."""
        row = self._conn.execute(f"SELECT {AMENDED} FROM amended WHERE cid = ? AND seq = ?", (cid, seq)).fetchone()
        return None if row is None else read_amended(row)

    def amended_of(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Amended]:
        """What became of those of these messages, `(cid, seq)`, of which anything did."""
        select = f"SELECT cid, seq, {AMENDED} FROM asked CROSS JOIN amended ON cid = a AND seq = b"
        return {(row[0], row[1]): read_amended(row[2:]) for row in self._asked(keys, select)}

    def changes(self, cid: int, seq: int, uid: int) -> int:
        """How many edits, reactions and reports of a message the user has made."""
        row = self._conn.execute("SELECT count FROM change WHERE cid = ? AND seq = ? AND uid = ?", (cid, seq, uid)).fetchone()
        return int(row[0]) if row else 0

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

    def unread(self, parts: Sequence[tuple[int, int, int]], uid: int) -> dict[int, int]:
        """How many messages of others count as unread in these parts, `(cid, first, last)`, in all of each conversation."""
        found: dict[int, int] = {}
        for size, some in in_parts(parts, repeat=False):
            marks = ",".join(["(?, ?, ?)"] * size)
            rows = self._conn.execute(
                f"WITH asked(a, b, c) AS (VALUES {marks})"
                " SELECT cid, count(*) FROM asked CROSS JOIN message ON cid = a AND seq BETWEEN b AND c AND by NOT IN (0, ?)"
                " GROUP BY cid",
                [*chain.from_iterable(some), uid],
            )
            for cid, count in rows:
                found[cid] = found.get(cid, 0) + count
        return found

    def mentions(self, parts: Sequence[tuple[int, int, int]], uid: int) -> dict[int, int]:
        """How many of the messages that `unread` counts mention the user or everybody."""
        found: dict[int, int] = {}
        for size, some in in_parts(parts, repeat=False):
            marks = ",".join(["(?, ?, ?)"] * size)
            rows = self._conn.execute(
                f"WITH asked(a, b, c) AS (VALUES {marks})"
                " SELECT m.cid, count(DISTINCT m.seq) FROM asked"
                " CROSS JOIN mention m ON m.cid = a AND m.uid IN (0, ?) AND m.seq BETWEEN b AND c"
                " CROSS JOIN message t ON t.cid = m.cid AND t.seq = m.seq AND t.by NOT IN (0, ?)"
                " GROUP BY m.cid",
                [*chain.from_iterable(some), uid, uid],
            )
            for cid, count in rows:
                found[cid] = found.get(cid, 0) + count
        return found

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
        for size, part in in_parts(keys):
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
