"""Tables of one place copied into another, whatever either is kept in; a part of the rows is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import peewee

from .interface import Tables

Row = dict[str, Any]
AT_ONCE: Final = 500


def copy(source: Tables, target: Tables, of: type[peewee.Model], to: type[peewee.Model], change: Callable[[Row], Row]) -> int:
    """The rows of `of` stand in the empty table `to`, as `change` has made them; how many these are.

    Raises what the tables raise.
    """
    count = 0
    boolean = {field.column_name for field in _fields(to) if isinstance(field, peewee.BooleanField)}
    names = [field.column_name for field in _fields(to)]
    marks = ", ".join("?" * len(names))
    insert = f"INSERT INTO {_quoted([_table(to)])} ({_quoted(names)}) VALUES ({marks})"  # noqa: S608 - our own names
    for batch in _batches(source, of):
        rows = [change(row) for row in batch]
        target.many(insert, [[bool(row[name]) if name in boolean else row[name] for name in names] for row in rows])
        count += len(rows)
    return count


def _batches(source: Tables, model: type[peewee.Model]) -> Iterator[list[Row]]:
    """All rows in the order of the primary key."""
    names = [field.column_name for field in _fields(model)]
    meta: Any = model._meta  # noqa: SLF001 - peewee documents it as public
    keys = [key.column_name for key in meta.get_primary_keys()]
    select = f"SELECT {_quoted(names)} FROM {_quoted([_table(model)])}"  # noqa: S608 - our own names
    order = f" ORDER BY {_quoted(keys)} LIMIT {AT_ONCE}"
    after = f" WHERE ({_quoted(keys)}) > ({', '.join('?' * len(keys))})"
    rows = source.sql(select + order)
    while rows:
        batch = [dict(zip(names, row, strict=True)) for row in rows]
        yield batch
        rows = source.sql(select + after + order, [batch[-1][key] for key in keys])


def _fields(model: type[peewee.Model]) -> list[Any]:
    meta: Any = model._meta  # noqa: SLF001
    return list(meta.sorted_fields)


def _table(model: type[peewee.Model]) -> str:
    meta: Any = model._meta  # noqa: SLF001
    return str(meta.table_name)


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
