"""Retention, run by hand on a store without its thread."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.sqlite.check import _TABLES
from mqtt_im.store.sqlite.engine import Engine
from mqtt_im.store.sqlite.models import PROJECTION_FILE
from mqtt_im.store.sqlite.retention.passes import DAY_MS, Pass

DAY = DAY_MS


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
