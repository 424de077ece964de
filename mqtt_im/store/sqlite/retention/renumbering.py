"""Entities that were copied from the base under other internal numbers, such as those of projections to compare them with."""

from __future__ import annotations

import sqlite3
from typing import Final

from mqtt_im.store.sqlite.state.numbering import Numbering
from mqtt_im.store.sqlite.tables.models import ENTITY_MODELS

_AT_ONCE: Final = 1_000
"""Entities that are looked up together."""
_COLUMNS: Final = {
    model._meta.table_name: [field.column_name for field in model._meta.sorted_fields]  # noqa: SLF001
    for model in ENTITY_MODELS
}


def renumber(made: sqlite3.Connection, numbering: Numbering) -> None:
    """The entities in projections that have nothing else have the numbers that `numbering` gives."""
    made.execute("BEGIN")
    for table, key, expect, number in (
        ("user", "uid", numbering.expect_users, numbering.user),
        ("conv", "cid", numbering.expect_convs, numbering.conv),
    ):
        made.execute(f"CREATE TABLE renumbered_{table} (old INTEGER PRIMARY KEY, new INTEGER)")
        rows = made.execute(f"SELECT {key}, name FROM {table}")  # noqa: S608 - our own names
        while part := rows.fetchmany(_AT_ONCE):
            expect([name for _, name in part])
            made.executemany(f"INSERT INTO renumbered_{table} VALUES (?, ?)", [(old, number(name)) for old, name in part])  # noqa: S608
    new_user = "(SELECT new FROM renumbered_user WHERE old = uid)"
    new_conv = "(SELECT new FROM renumbered_conv WHERE old = cid)"
    for table, columns in (("user", {"uid": new_user}), ("conv", {"cid": new_conv}), ("device", {"uid": new_user})):
        _rewrite(made, table, columns)
    _rewrite(made, "member", {"uid": new_user, "cid": new_conv})
    made.execute("DROP TABLE renumbered_user")
    made.execute("DROP TABLE renumbered_conv")
    made.execute("COMMIT")


def _rewrite(made: sqlite3.Connection, table: str, changed: dict[str, str]) -> None:
    """At once, since on the way two rows could have the same number."""
    names = _COLUMNS[table]
    columns = ", ".join(changed.get(name, name) for name in names)
    made.execute(f"CREATE TABLE rewritten AS SELECT {columns} FROM {table}")  # noqa: S608 - our own names
    made.execute(f"DELETE FROM {table}")  # noqa: S608
    made.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT * FROM rewritten")  # noqa: S608
    made.execute("DROP TABLE rewritten")
