"""The two files: how they are opened, with their tables, and brought to the newest schema.

The log's is written with `synchronous=FULL`, but for what a plan of retention lets do again (`retention/folds.py`). The
projections' is written in bulk, with `NORMAL`; where it is damaged or of another version, it is made anew.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peewee

from mqtt_im.disk import reading, reason
from mqtt_im.protocol.errors import StoreError
from mqtt_im.shares import Bounds
from mqtt_im.store.sqlite.errors import is_damage

from .models import (
    ENTITY_MODELS,
    LOG_MODELS,
    PROJECTION_INDEXES,
    PROJECTION_MODELS,
    PROJECTION_VERSION,
    FoldPart,
    FoldRow,
    LogMeta,
)
from .upgrades import count_usage

logger = logging.getLogger(__name__)

LOG_FILE = "mqtt-im.db"
PROJECTION_FILE = "projection.db"
UNFINISHED = "projection.db.new"
"""Projections that are being made anew, since the others are damaged (`mending.py`)."""
_PAGES_KIB = 65_536
"""Pages of the projections that stay in memory."""
_LOG_PAGES_KIB = 8192
"""The same of the log: a page of it is written for the last time soon, so there is nothing to gain from waiting for many."""


def open_log(
    data_dir: Path,
    synchronous: str = "full",
    readonly: bool = False,
    unchanging: bool = False,
    bounds: Bounds | None = None,
) -> peewee.SqliteDatabase:
    """The log's database, with its tables and an epoch. Raises `StoreError`, also where `readonly` and it is an older one.

    `unchanging`: see `unchanging.readable`.
    """
    pages = (bounds or Bounds()).of(_LOG_PAGES_KIB)
    db = _open(data_dir / LOG_FILE, synchronous, readonly, pages, unchanging, checkpoint_pages=1_000)
    _migrate(db, _LOG_STEPS, readonly)
    return db


def open_projection(
    data_dir: Path, readonly: bool = False, bounds: Bounds | None = None, unchanging: bool = False
) -> peewee.SqliteDatabase:
    """The projections' database, with its tables. Raises `StoreError`. `unchanging`: see `unchanging.readable`.

    A damaged file is moved aside, to be made again from the log.
    """
    path = data_dir / PROJECTION_FILE
    if readonly:
        return _open(path, "normal", readonly=True, unchanging=unchanging)
    if (data_dir / UNFINISHED).exists():
        logger.warning("store: %s is damaged, and was being made again from the log; that begins anew", path.name)
        move_aside(path)
        remove(data_dir / UNFINISHED)
    try:
        return _open_projection(path, bounds)
    except StoreError as error:
        if not is_damage(error.__cause__):
            raise
        logger.error("store: %s; it is made again from the log", error.message)
        move_aside(path)
        return _open_projection(path, bounds)


def open_new_projection(path: Path) -> peewee.SqliteDatabase:
    """Empty projections in a file of their own, whatever it held before. Raises `StoreError`."""
    remove(path)
    return _open_projection(path, None)


def move_aside(path: Path) -> None:
    """A damaged database, which nobody has open, is kept under another name, in place of the one that was kept before."""
    aside = path.with_name(f"{path.name}.damaged")
    if path.exists():
        logger.warning("store: the damaged %s is kept as %s", path.name, aside.name)
        path.replace(aside)
    remove(path)


def remove(path: Path) -> None:
    """A database, which nobody has open, is gone with what belongs to it."""
    for end in ("-wal", "-shm", ""):
        path.with_name(path.name + end).unlink(missing_ok=True)


def open_partial(path: Path) -> peewee.SqliteDatabase:
    """A new file with the projections' tables, without their indexes; it is worth nothing until it is whole."""
    pragmas = {"journal_mode": "off", "synchronous": 0, "locking_mode": "exclusive", "cache_size": -65_536}
    db = peewee.SqliteDatabase(str(path), pragmas=pragmas, check_same_thread=False, thread_safe=False)
    db.connect()
    with db.bind_ctx(PROJECTION_MODELS):
        db.create_tables(PROJECTION_MODELS)
    return db


def index_projection(db: peewee.SqliteDatabase) -> None:
    """The projections are whole."""
    for index in PROJECTION_INDEXES:
        db.execute_sql(index)  # type: ignore[no-untyped-call]
    db.pragma("user_version", PROJECTION_VERSION)


def _open_projection(path: Path, bounds: Bounds | None) -> peewee.SqliteDatabase:
    """Tables of another version are not changed but made anew: that takes no longer, and is the same for all versions."""
    db = _open(path, "normal", False, (bounds or Bounds()).of(_PAGES_KIB))
    try:
        version = db.pragma("user_version")
        if version not in (0, PROJECTION_VERSION):
            logger.info("store: the projections are of another version, and are made again from the log")
            db.close()
            remove(path)
            db = _open(path, "normal", False, (bounds or Bounds()).of(_PAGES_KIB))
            version = 0
        if version == 0:
            with db.atomic("IMMEDIATE"):
                _create_projection(db)
    except peewee.DatabaseError as error:
        raise StoreError(reason(path, error)) from error
    return db


def _open(
    path: Path,
    synchronous: str,
    readonly: bool,
    cache_kib: int = _PAGES_KIB,
    unchanging: bool = False,
    checkpoint_pages: int = 4_000,
) -> peewee.SqliteDatabase:
    # The log is written at its end and read by row number; the projections are written all over.
    pragmas: dict[str, Any] = {
        "journal_mode": "wal",
        "synchronous": synchronous,
        "cache_size": -cache_kib,
        "busy_timeout": 5000,
        "wal_autocheckpoint": checkpoint_pages,
        "journal_size_limit": 64 << 20,
        "secure_delete": 1,
    }
    if readonly:
        pragmas = {"busy_timeout": 5000, "query_only": 1}
    name = reading(path, unchanging) if unchanging else str(path)
    db = peewee.SqliteDatabase(name, uri=unchanging, pragmas=pragmas, check_same_thread=False, thread_safe=False)
    try:
        if readonly and not path.exists():
            raise StoreError(f"{path}: there is no such file; has a server run on this data_dir?")
        db.connect()
    except peewee.DatabaseError as error:
        raise StoreError(reason(path, error)) from error
    return db


def _migrate(db: peewee.SqliteDatabase, steps: list[Callable[[peewee.SqliteDatabase], None]], readonly: bool = False) -> None:
    """Bring a database to the newest schema; `user_version` counts the steps that were taken."""
    try:
        done = db.pragma("user_version")
        if done > len(steps):
            raise StoreError(f"{db.database}: written by a newer version of the server (schema {done})")
        if readonly and done < len(steps):
            raise StoreError(f"{db.database}: written by an older version of the server; start the server on it once")
        for number, step in enumerate(steps[done:], done + 1):
            with db.atomic("IMMEDIATE"):
                step(db)
                db.pragma("user_version", number)
    except peewee.DatabaseError as error:
        raise StoreError(reason(Path(db.database), error)) from error


def _create_log(db: peewee.SqliteDatabase) -> None:
    with db.bind_ctx(LOG_MODELS):
        db.create_tables(LOG_MODELS)
        LogMeta.insert(key="epoch", value=new_epoch()).on_conflict_ignore().execute()


def _create_projection(db: peewee.SqliteDatabase) -> None:
    with db.bind_ctx(PROJECTION_MODELS):
        db.create_tables(PROJECTION_MODELS)
    index_projection(db)


def _create_base(db: peewee.SqliteDatabase) -> None:
    models = [FoldRow, *ENTITY_MODELS]
    with db.bind_ctx(models):
        db.create_tables(models)


def _plan_folds(db: peewee.SqliteDatabase) -> None:
    """Folds that were done at once, and not planned, are over; projections that lack one are made anew."""
    with db.bind_ctx([FoldRow]):
        last = FoldRow.select(FoldRow.number, FoldRow.base).order_by(FoldRow.number.desc()).dicts().first()
        db.drop_tables([FoldRow])
        db.create_tables([FoldRow])
        if last is not None:
            FoldRow.insert(**last, plan=b"").execute()


def _count_usage(db: peewee.SqliteDatabase) -> None:
    count_usage(db.connection())  # type: ignore[no-untyped-call]


def _plan_in_parts(db: peewee.SqliteDatabase) -> None:
    with db.bind_ctx([FoldPart]):
        db.create_tables([FoldPart])


_LOG_STEPS: list[Callable[[peewee.SqliteDatabase], None]] = [_create_log, _create_base, _plan_folds, _count_usage, _plan_in_parts]


def new_epoch() -> str:
    """A word that names a store, and no other."""
    return secrets.token_hex(8)
