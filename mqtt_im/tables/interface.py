"""What tables are to those who keep something in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import peewee

Models = Sequence[type[peewee.Model]]


class Tables(Protocol):
    """One set of tables. Failures are raised as `peewee` has them, also those of raw SQL."""

    where: str
    """Names them in messages."""
    is_new: bool
    """Whether they were not there before."""

    @property
    def changes(self) -> int | None:
        """Another number after each change that another connection has made; None where that can't be told without asking."""

    def transaction(self) -> AbstractContextManager[object]:
        """What is done within is kept together or not at all, and nobody else writes meanwhile."""

    def run(self, query: Any) -> Any:
        """What executing a query returns: rows changed, or the number of the row that it has made."""

    def rows(self, query: Any) -> list[Any]:
        """The rows of a query as tuples."""

    def count(self, query: Any) -> int:
        """How many rows a query has."""

    def sql(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; its rows, where it has some."""

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of these."""

    def close(self) -> None:
        """Nothing is asked of them any more."""


class Place(Protocol):
    """Where a server keeps its small tables."""

    shared: bool
    """Other servers have the same ones, and what is asked of them goes over the network: never on an event loop."""

    def open(self, name: str, models: Models, *, synchronous: str = "full", readonly: bool = False) -> Tables:
        """The tables of this name, made where they are missing. Raises `StoreError`.

        `synchronous`: `normal` where a power cut may take back the last transactions.
        """

    def has(self, name: str) -> bool:
        """Whether there are such tables."""

    def close(self) -> None:
        """What its tables shared is closed."""


def put(model: type[peewee.Model], rows: Sequence[dict[str, Any]]) -> Any:
    """A query that inserts these rows, in place of those with the same primary key."""
    meta: Any = model._meta  # noqa: SLF001 - peewee documents it as public
    keys = meta.get_primary_keys()
    fields = [getattr(model, name) for name in rows[0]]
    names = {key.name for key in keys}
    others = [field for field in fields if field.name not in names]
    query = model.insert_many([tuple(row.values()) for row in rows], fields=fields)
    return query.on_conflict(conflict_target=keys, preserve=others) if others else query.on_conflict_ignore()
