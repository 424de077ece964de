"""Which rows of the log have the same `id`. Looked for only where there must be some, by a digest, in a table of a file."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from mqtt_im.core.records import Act, Gone, GroupChange, decode
from mqtt_im.store.sqlite.tables.log import Log
from mqtt_im.store.tools.report import Report

_TWICE: Final = "SELECT lsn FROM used WHERE digest IN (SELECT digest FROM used GROUP BY 1 HAVING count(*) > 1) ORDER BY 1"


def find_twice(log: Log, connection: sqlite3.Connection, report: Report) -> None:
    """Tell each `id` that has made more than one thing. A change to a group may take several rows."""
    connection.execute("CREATE TABLE used (digest INTEGER, lsn INTEGER)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO used VALUES (?, ?)", _used(log))
    connection.execute("COMMIT")
    seen: dict[tuple[str, str | None], tuple[int, str]] = {}
    for (lsn,) in connection.execute(_TWICE):
        act = _act(log.get(lsn))
        if act is None:
            continue
        first, kind = seen.setdefault((act.by, act.id), (lsn, f"{type(act).__name__} {act.conv}"))
        if first != lsn and (not isinstance(act, GroupChange) or kind != f"GroupChange {act.conv}"):
            report.add(f"log row {lsn}: id {act.id!r} of {act.by} was used by row {first} already")


def _used(log: Log) -> Iterator[tuple[int, int]]:
    for lsn, data in log.after(0):
        act = _act(data)
        if act is not None and act.id is not None:
            digest = hashlib.blake2b(f"{act.by} {act.id}".encode(), digest_size=8).digest()
            yield int.from_bytes(digest, signed=True), lsn


def _act(data: bytes | None) -> Act | None:
    record = None if data is None else decode(data)
    found = record.act if isinstance(record, Gone) else record
    return found if isinstance(found, Act) else None
