"""The log as it is read beside the ledger, by those who follow it at their own pace on their own thread."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Final

from peewee import fn

from mqtt_im.core.records import AnyRecord, decode

from .tables.files import open_log
from .tables.models import LogRow

MAX_BYTES: Final = 1 << 20
"""Of what is read at one time."""


class LogReader:
    """Reads committed rows over a connection of its own, in short transactions. Used from one thread at a time."""

    def __init__(self, data_dir: Path, unchanging: bool = False) -> None:
        """`unchanging`: see `unchanging.readable`."""
        self._db = open_log(data_dir, readonly=True, unchanging=unchanging)
        self.more = False
        """Whether `after` may have left out what was there behind the rows that it gave last."""

    def after(self, lsn: int, limit: int) -> list[tuple[int, AnyRecord]]:
        """The rows after `lsn`, in order, at most `limit`, and no more behind `MAX_BYTES`."""
        query = LogRow.select(LogRow.lsn, LogRow.rec).where(LogRow.lsn > lsn).order_by(LogRow.lsn).limit(limit)
        found: list[tuple[int, AnyRecord]] = []
        size = 0
        with closing(self._db.execute(query)) as rows:  # type: ignore[no-untyped-call]  # peewee has no types
            for number, data in rows:
                found.append((number, decode(data)))
                size += len(data)
                if size >= MAX_BYTES:
                    break
        self.more = size >= MAX_BYTES or len(found) == limit
        return found

    def get(self, lsn: int) -> AnyRecord | None:
        """One row as it is now; None where it is gone."""
        query = LogRow.select(LogRow.rec).where(LogRow.lsn == lsn)
        for (data,) in query.tuples().execute(self._db):
            record: AnyRecord = decode(data)
            return record
        return None

    def settle(self, patience_s: float = 0.0) -> int:
        """The newest row: none before it is ever missing."""
        newest: int = LogRow.select(fn.MAX(LogRow.lsn)).scalar(self._db) or 0
        return newest

    def close(self) -> None:
        """The connection is closed."""
        self._db.close()
