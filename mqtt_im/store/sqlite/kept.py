"""What a user keeps, read beside a running server: the projections, and the rows of the log that came after them."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import msgspec
import peewee

from mqtt_im.core.records import decode
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.tools.kept import Kept, kept

from .retention.folds import Folds
from .state.projected import ProjectedState
from .tables.files import open_log, open_projection
from .tables.log import Log
from .tables.models import LogMeta
from .tables.projection import Projection

_TRIES = 3
"""Between opening both files a fold may be worked off, after which they do not go together."""


def kept_by(data_dir: Path, user: str, unchanging: bool = False) -> Kept | None:
    """What the user keeps now; None where nothing ever was. Raises `StoreError`. `unchanging`: see `unchanging.readable`."""
    try:
        for _ in range(_TRIES):
            with ExitStack() as stack:
                state = _state(data_dir, stack, unchanging)
                if state is not None:
                    return kept(state, user)
    except (sqlite3.Error, peewee.PeeweeException, msgspec.DecodeError) as error:
        raise StoreError(f"{data_dir}: {error}") from error
    raise StoreError(f"{data_dir}: the projections are not those of the log; start the server on it once")


def _state(data_dir: Path, stack: ExitStack, unchanging: bool) -> ProjectedState | None:
    """The state as of the newest row of the log, in memory where it is newer than the projections; None where they differ."""
    stored_db = open_projection(data_dir, readonly=True, unchanging=unchanging)
    stack.callback(stored_db.close)
    _connection(stored_db).execute("BEGIN")  # one snapshot, older than the log's
    projection = Projection(stored_db)
    epoch, position = projection.position()
    log_db = open_log(data_dir, readonly=True, unchanging=unchanging)
    stack.callback(log_db.close)
    _connection(log_db).execute("BEGIN")
    folds = Folds(log_db, stored_db)
    with log_db.bind_ctx([LogMeta]):
        ours = epoch == LogMeta.get_by_id("epoch").value
    if not ours or folds.projected() != folds.position().number:
        return None
    log = Log(log_db)
    state = ProjectedState(log, projection, lambda _: True, lambda _: ())
    for lsn, data in log.after(position):
        state.replay(lsn, decode(data), len(data))
    return state


def _connection(db: peewee.SqliteDatabase) -> sqlite3.Connection:
    return cast(sqlite3.Connection, db.connection())  # type: ignore[no-untyped-call]
