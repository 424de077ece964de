"""Retention, run by hand on a store without its thread."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mqtt_im.store.common.retaining import DAY_MS
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.retention.passes import Pass
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE
from mqtt_im.store.sqlite.tables.rows import AMENDED, CONV, USER

DAY = DAY_MS

_TABLES = {
    "user": f"SELECT name, {USER} FROM user ORDER BY 1",
    "conv": f"SELECT name, {CONV} FROM conv ORDER BY 1",
    "member": """
        SELECT u.name, c.name, grp, ord, role, active, read, delivered, spans, last, latest
        FROM user u CROSS JOIN member m ON m.uid = u.uid CROSS JOIN conv c ON c.cid = m.cid ORDER BY 1, 2""",
    "device": """
        SELECT name, device, cursor, app, n, created, seen FROM device JOIN user USING (uid) ORDER BY 1, 2""",
    "item": "SELECT name, pos, lsn FROM item JOIN user USING (uid) ORDER BY 1, 2",
    "message": """
        SELECT c.name, m.seq, m.lsn, u.name
        FROM message m JOIN conv c USING (cid) LEFT JOIN user u ON u.uid = m.by ORDER BY 1, 2""",
    "mention": """
        SELECT c.name, m.seq, u.name
        FROM mention m JOIN conv c USING (cid) LEFT JOIN user u USING (uid) ORDER BY 1, 2, 3""",
    "amended": f"SELECT name, seq, {AMENDED} FROM amended JOIN conv USING (cid) ORDER BY 1, 2",
    "change": """
        SELECT c.name, seq, u.name, count FROM change JOIN conv c USING (cid) JOIN user u USING (uid) ORDER BY 1, 2, 3""",
    "request": "SELECT name, id, lsn FROM request JOIN user USING (uid) ORDER BY 1, 2",
    "packet": "SELECT user, device, session, packet, lsn FROM packet ORDER BY 1, 2, 3, 4",
    "keyed": "SELECT sender, conv, key, lsn FROM keyed ORDER BY 1, 2, 3",
}
"""Each table with its rows in one order, by names, since internal numbers may differ between two rebuilds."""


def compact(engine: Engine, policy: Policy, now: int) -> Removed:
    """One pass from its beginning to its end."""
    work = Pass(engine, policy, now)
    while work.step():
        while engine.flusher.writing:
            engine.flusher.step()
    return work.removed


def projections(data_dir: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every table of the projections, by names instead of internal numbers."""
    with closing(sqlite3.connect(data_dir / PROJECTION_FILE)) as connection:
        return {table: connection.execute(query).fetchall() for table, query in _TABLES.items()}
