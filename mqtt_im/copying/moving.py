"""The copy itself, from either kind of store into either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from mqtt_im.config.checks import DATABASE_URLS
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.sqlite import backup
from mqtt_im.store.sqlite import whole as sqlite
from mqtt_im.store.sqlite.check import check as check_folder
from mqtt_im.store.tools.whole import Progress, Whole, difference

from .folder import Files, held
from .small import HasSmall, copy_small


class Copied(NamedTuple):
    """Where a store was copied from, and where to."""

    source: str
    target: str


class _Source(HasSmall, Protocol):
    where: str

    def whole(self) -> Whole:
        """All that the store holds."""


def copy_store(source: str, target: str, start: Callable[[int], Progress]) -> Copied:
    """`target`, where nothing was, holds what `source` holds, under an epoch of its own. Raises `StoreError`.

    `start` is told about how many rows are to be written and compared; what it returns is told of each part of them.
    """
    if not target.startswith(DATABASE_URLS) and not backup.is_free(Path(target)):
        raise _taken(target)
    with _reading(source) as origin:
        whole = origin.whole()
        progress = start(2 * whole.count())
        into = _into_database if target.startswith(DATABASE_URLS) else _into_folder
        return Copied(origin.where, into(origin, whole, target, progress))


def _into_folder(source: _Source, whole: Whole, target: str, progress: Progress) -> str:
    def make(folder: Path) -> None:
        sqlite.make(folder, whole, progress)
        files = Files(folder)
        try:
            copy_small(source, files)
            _hold(difference(source.whole(), files.whole(), progress))
        finally:
            files.close()
        _hold("\n".join(check_folder(folder).problems))

    try:
        backup.put_in_place(Path(target), make)
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror}") from error
    return str(Path(target).absolute())


def _into_database(source: _Source, whole: Whole, target: str, progress: Progress) -> str:
    from mqtt_im.postgres import meta
    from mqtt_im.store.postgres.check import check_within
    from mqtt_im.store.postgres.schema import DDL
    from mqtt_im.store.postgres.taking import Taking

    from .database import Schemas, alone

    with alone(target) as (database, connection), connection.transaction():
        meta.prepare(database, connection, DDL)
        made = Schemas(database, connection)
        if not made.empty:
            raise _taken(database.where)
        meta.change_epoch(database, connection)
        Taking(database, connection, progress).take(whole)
        copy_small(source, made)
        _hold(difference(source.whole(), made.whole(), progress))
        _hold("\n".join(check_within(connection).problems))
    return database.where


def _taken(target: str) -> StoreError:
    return StoreError(f"{target}: holds a store, or a part of one; a copy goes where none is")


def _hold(problem: str) -> None:
    if problem:
        raise StoreError(f"the copy is not what it should be, and nothing is kept of it: {problem}")


@contextmanager
def _reading(where: str) -> Iterator[_Source]:
    if not where.startswith(DATABASE_URLS):
        with held(Path(where)) as files:
            yield files
        return
    from mqtt_im.postgres import meta

    from .database import Schemas, alone

    with alone(where) as (database, connection):
        if meta.read(database, connection) is None:
            raise StoreError(f"{database.where}: there is no store yet")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        try:
            meta.add_columns(connection)  # where no node of this release has started yet
            yield Schemas(database, connection)
        finally:
            if not connection.closed:
                connection.rollback()  # what was put in order to be read is not to stay
