"""Two projections side by side: those on disk, and those made anew from the log.

Both have the same internal numbers, which are borrowed from the former (`Borrowed`). So each table is read once in the order of
its key on either side, and neither is sorted nor kept in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any, Final

from mqtt_im.store.sqlite.state.numbering import Numbering
from mqtt_im.store.sqlite.tables.files import PROJECTION_FILE
from mqtt_im.store.sqlite.tables.models import PROJECTION_MODELS, ProjectionMeta
from mqtt_im.store.sqlite.tables.projection import Projection
from mqtt_im.store.tools.report import Report

_AT_ONCE: Final = 1_000
"""Rows that are compared together."""
_NAMES: Final = {"uid": "SELECT name FROM user WHERE uid = ?", "cid": "SELECT name FROM conv WHERE cid = ?"}
_NAMES["by"] = _NAMES["uid"]

Row = tuple[Any, ...]


class Borrowed(Numbering):
    """Users and conversations have the numbers that they have in projections on disk; those that these lack have others."""

    def __init__(self, stored: Projection) -> None:
        super().__init__(stored)
        self._stored = stored
        self._users: dict[str, int] = {}
        self._convs: dict[str, int] = {}

    def expect_users(self, names: Collection[str]) -> None:
        """See `Numbering`."""
        self._users = self._stored.user_numbers(list(names))

    def expect_convs(self, names: Collection[str]) -> None:
        """See `Numbering`."""
        self._convs = self._stored.conv_numbers(list(names))

    def user(self, name: str) -> int:
        """See `Numbering`."""
        found = self._users.get(name) or self._stored.user_numbers([name]).get(name)
        return found or super().user(name)

    def conv(self, name: str) -> int:
        """See `Numbering`."""
        found = self._convs.get(name) or self._stored.conv_numbers([name]).get(name)
        return found or super().conv(name)


def compare(made: sqlite3.Connection, stored: sqlite3.Connection, report: Report) -> None:
    """Tell the first difference of each table."""
    selects = queries()
    for table, columns, keys in _TABLES:
        query = selects[table]
        rights, founds = made.execute(query), stored.execute(query)
        while True:
            right, found = rights.fetchmany(_AT_ONCE), founds.fetchmany(_AT_ONCE)
            if right != found:
                ours, theirs = _difference(right, found, keys)
                report.add(
                    f"{PROJECTION_FILE}: table {table} has {_named(stored, columns, theirs)},"
                    f" the log says {_named(made, columns, ours)}"
                )
            elif right:
                continue
            break


def queries() -> dict[str, str]:
    """What reads each table in the order of its key."""
    return {
        table: f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(columns[:keys])}"  # noqa: S608 - our own names
        for table, columns, keys in _TABLES
    }


def _difference(right: list[Row], found: list[Row], keys: int) -> tuple[Row | None, Row | None]:
    """The first rows of both that are not the same; None where one lacks what the other has."""
    index = next((number for number, both in enumerate(zip(right, found, strict=False)) if both[0] != both[1]), None)
    if index is None:
        index = min(len(right), len(found))
    ours = right[index] if index < len(right) else None
    theirs = found[index] if index < len(found) else None
    if ours is None or theirs is None or ours[:keys] == theirs[:keys]:
        return ours, theirs
    return (ours, None) if ours[:keys] < theirs[:keys] else (None, theirs)


def _named(connection: sqlite3.Connection, columns: list[str], row: Row | None) -> Row | None:
    """The row with names instead of internal numbers, as far as these have names."""
    if row is None:
        return None
    values = []
    for column, value in zip(columns, row, strict=True):
        name = connection.execute(_NAMES[column], (value,)).fetchone() if column in _NAMES and "name" not in columns else None
        values.append(name[0] if name else value)
    return tuple(values)


def _described() -> Iterable[tuple[str, list[str], int]]:
    for model in PROJECTION_MODELS:
        if model is ProjectionMeta:
            continue
        meta: Any = model._meta  # noqa: SLF001 - where peewee has it
        key = meta.primary_key
        keys = list(getattr(key, "field_names", None) or [key.column_name])
        others = [field.column_name for field in meta.sorted_fields if field.column_name not in keys]
        yield meta.table_name, list(chain(keys, others)), len(keys)


_TABLES: Final = list(_described())
"""Each table with its columns, and how many of them, which come first, are its key."""
