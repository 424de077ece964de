"""What older stores lack, made from what they have; each step runs once, inside the transaction of its migration."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Any, Final

import msgspec

from mqtt_im.core.gone import without_content
from mqtt_im.core.records import Edited, decode, encode
from mqtt_im.core.usage import usage_of

_COLUMNS: Final = {
    "user": [f"{name} INTEGER NOT NULL DEFAULT 0" for name in ("sent", "sent_bytes", "gone", "gone_bytes", "joined", "made")],
    "conv": ["size INTEGER NOT NULL DEFAULT 0", "born INTEGER NOT NULL DEFAULT 1", "maker TEXT NOT NULL DEFAULT ''"],
    "member": ["last INTEGER NOT NULL DEFAULT 0", "latest INTEGER NOT NULL DEFAULT 0"],
}
_EDITED: Final = b"\xa1e"
"""Stands behind the first byte of an `Edited`."""
_PLAN_BASE: Final = 3
"""Where a plan has the base's statements."""


def count_usage(connection: sqlite3.Connection) -> None:
    """The base says what users keep and which message each member may read last; edits that were edited again are empty."""
    execute = connection.execute
    present = {row[1] for row in execute("PRAGMA table_info(member)")}
    if "latest" in present:
        return  # made by this version
    _finish_base(connection)
    for table, columns in _COLUMNS.items():
        for column in columns:
            execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    execute("UPDATE user SET joined = (SELECT count(*) FROM member m WHERE m.uid = user.uid AND grp = 1 AND active = 1)")
    execute("UPDATE conv SET size = (SELECT count(*) FROM member m WHERE m.cid = conv.cid AND grp = 1 AND active = 1)")
    _note_last(connection)
    _empty_edits(connection)
    (base,) = execute("SELECT coalesce(max(base), 0) FROM fold").fetchone()
    kept: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (data,) in execute("SELECT rec FROM log WHERE lsn <= ?", (base,)):
        usage = usage_of(decode(data))
        if usage is not None:
            kept[usage.user][0] += usage.messages
            kept[usage.user][1] += usage.size
    connection.executemany(
        "UPDATE user SET sent = ?, sent_bytes = ? WHERE name = ?", [(*figures, name) for name, figures in kept.items()]
    )


def _finish_base(connection: sqlite3.Connection) -> None:
    """A plan of retention that may not be worked off yet speaks of the base's former columns."""
    row = connection.execute("SELECT number, plan FROM fold WHERE plan <> x''").fetchone()
    if row is None:
        return
    plan: list[Any] = msgspec.msgpack.decode(row[1])
    for statement, rows in plan[_PLAN_BASE]:
        connection.executemany(statement, rows)
    plan[_PLAN_BASE] = []
    connection.execute("UPDATE fold SET plan = ? WHERE number = ?", (msgspec.msgpack.encode(plan), row[0]))


def _note_last(connection: sqlite3.Connection) -> None:
    """Who does not see the newest message counts as having seen one of that time last; the right one may be gone."""
    rows = connection.execute(
        "SELECT uid, cid, active, spans, head, lsn FROM member JOIN conv USING (cid) WHERE active = 0 OR spans IS NOT NULL"
    )
    unseen = [
        (lsn, uid, cid)
        for uid, cid, active, spans, head, lsn in rows
        if not active or not any(first <= head <= last for first, last in msgspec.msgpack.decode(spans))
    ]
    connection.executemany("UPDATE member SET last = ? WHERE uid = ? AND cid = ?", unseen)


def _empty_edits(connection: sqlite3.Connection) -> None:
    """Only the newest edit of a message has content, and earlier ones count as nothing."""
    newest: dict[tuple[str, int], int] = {}
    emptied = []
    for lsn, data in connection.execute("SELECT lsn, rec FROM log WHERE substr(rec, 2, 2) = ? ORDER BY lsn", (_EDITED,)):
        record = decode(data)
        if not isinstance(record, Edited):
            continue
        former = newest.get((record.conv, record.seq))
        if former is not None:
            emptied.append(former)
        newest[record.conv, record.seq] = lsn
    for lsn in emptied:
        (data,) = connection.execute("SELECT rec FROM log WHERE lsn = ?", (lsn,)).fetchone()
        edit = decode(data)
        assert isinstance(edit, Edited)
        bare = msgspec.structs.replace(without_content(edit), size=0)
        connection.execute("UPDATE log SET rec = ? WHERE lsn = ?", (encode(bare), lsn))
