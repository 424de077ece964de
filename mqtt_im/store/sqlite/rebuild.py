"""The projections made anew from the log, in a file of their own that takes the former one's place when it is whole.

Until then nobody has seen it, so nothing about it needs to be safe: no write-ahead file, no waiting for the disk, and the
indexes come last. Where it is cut short, the next start begins anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import peewee

from mqtt_im.disk import sync

from .loading import LoadingState
from .replay import decoded, replay, without_collecting
from .retention.base import restore
from .tables.files import PROJECTION_FILE, index_projection, open_partial, remove
from .tables.log import Log
from .tables.projection import Projection

_PARTIAL: Final = PROJECTION_FILE + ".partial"


def rebuild(data_dir: Path, log: Log, log_db: peewee.SqliteDatabase, epoch: str) -> int:
    """`projection.db` has everything that is in the log of this epoch; returns how many rows that were.

    No connection to the former one is open. Raises what `sqlite3` raises, and `OSError`.
    """
    path = data_dir / _PARTIAL
    remove(path)
    db = open_partial(path)
    try:
        base = restore(log, log_db, db, "")
        state = LoadingState(log, Projection(db), lambda _: True, lambda _: ())
        state.live.last = base
        with without_collecting():
            rows = replay(decoded(log.after(base)), state.replay, state.full, state.write, state.prefetch_records)
            state.finish(db.connection(), epoch)  # type: ignore[no-untyped-call]
        index_projection(db)
    finally:
        db.close()
    sync(path)
    remove(data_dir / PROJECTION_FILE)
    path.rename(data_dir / PROJECTION_FILE)
    sync(data_dir)
    return rows
