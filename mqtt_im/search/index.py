"""The search index: made from the log, following it, and made anew where it is lost.

What one step takes from the log is written in one transaction with the position that was reached. Table `doc` has one row for
each message; its words are in *shards* (`shards.py`), and `finding.py` looks for them.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, cast

from mqtt_im.core.records import AnyRecord, Edited, Gone, Message, Recalled, decode, encode
from mqtt_im.shares import Bounds
from mqtt_im.store.sqlite.tables.files import open_log

from . import finding
from . import words as text
from .file import SearchFile, remove
from .finding import Found, Query
from .shards import Shards, end_of, first_of

VERSION: Final = f"1.{text.VERSION}"

_READ_ROWS: Final = 100
_READ_BYTES: Final = 1 << 20
"""Of rows that are read at once; one more may go beyond it."""
_BATCH_CHARS: Final = 4 << 20
_PURGED_AT_ONCE: Final = 16
"""Shards between two times that the write-ahead file is emptied, which waits for the disk."""
_CHUNK: Final = 500

_GONE: Final = encode(Gone(0, Message(0, "", 0, "", "", None, 0, [], None)))[:3]
"""Begins a row whose message retention took."""

Key = tuple[str, int]
"""A message: its conversation and its `seq`."""


class SearchIndex:
    """The index of the store in one folder, for one thread at a time. Raises what `SearchFile` raises, and `StoreError`."""

    def __init__(self, data_dir: Path, epoch: str, bounds: Bounds | None = None) -> None:
        """The index is open, and empty where it was lost or belongs to another store."""
        self.position = 0
        """Log rows up to this one are indexed."""
        self._swept = 0
        """Retention is followed up to this fold (`folds.py`)."""
        self._unswept: tuple[int, list[int]] | None = None
        """The fold that is being followed, and the shards that do not know of it yet."""
        self._shards = Shards()
        self._bounds = bounds or Bounds()
        self._log_db = open_log(data_dir, readonly=True)
        self._log = cast(sqlite3.Connection, self._log_db.connection())  # type: ignore[no-untyped-call]
        try:
            self._open(data_dir, epoch)
        except BaseException:
            self._log_db.close()
            raise

    def _open(self, data_dir: Path, epoch: str) -> None:
        self._file = SearchFile(data_dir, self._bounds)
        self._load()
        if (self._file.meta("epoch"), self._file.meta("version")) != (epoch, VERSION) or self.position > self.log_end():
            self._file.close()
            remove(data_dir)
            self._file = SearchFile(data_dir, self._bounds)
            with self._file:
                self._file.note("epoch", epoch)
                self._file.note("version", VERSION)
                self._file.note("key", secrets.token_hex(16))
            self._load()
        self._file.scour()  # a process that was killed may have left what it had purged

    def _load(self) -> None:
        """What is in memory is what is in the file."""
        self._shards.load(self._file)
        self.position = int(self._file.meta("lsn") or 0)
        self._swept, self._unswept = int(self._file.meta("swept") or 0), None

    @property
    def dirty(self) -> set[int]:
        """The shards that are to be purged."""
        return self._shards.dirty

    def close(self) -> None:
        """The files are closed."""
        self._file.close()
        self._log_db.close()

    # Following the log.

    def log_end(self) -> int:
        """The newest committed row of the log, also where retention has taken it; 0 where there never was one."""
        row = self._log.execute(
            "SELECT max((SELECT coalesce(max(lsn), 0) FROM log), (SELECT coalesce(max(base), 0) FROM fold))"
        ).fetchone()
        return int(row[0])

    def follow(self, limit: int, breathe: Callable[[], None] = lambda: None) -> bool:
        """Index at most `limit` further rows of the log as one transaction; False where there were none.

        `breathe` is called between small parts of the work, for others to have their turn.
        """
        batch = _Batch(self.position)
        most = self._bounds.of(_BATCH_CHARS)
        while batch.rows < limit and batch.size < most:
            # All of a part at once, so that the log is never held open for reading for long.
            rows, more = self._read(batch.last, min(_READ_ROWS, limit - batch.rows))
            for lsn, data in rows:
                batch.take(lsn, decode(data))
            if not more:
                break
            breathe()
        if not batch.rows:
            return False
        self._write(lambda: self._apply(batch))
        self.position = batch.last
        return True

    def _read(self, after: int, count: int) -> tuple[list[tuple[int, bytes]], bool]:
        """The next rows of the log behind this one, at most `count`, and whether there may be more of them."""
        rows: list[tuple[int, bytes]] = []
        left = _READ_BYTES
        found = self._log.execute("SELECT lsn, rec FROM log WHERE lsn > ? ORDER BY lsn LIMIT ?", (after, count))
        for row in found:
            rows.append(row)
            left -= len(row[1])
            if left <= 0:
                found.close()
                return rows, True
        return rows, len(rows) == count

    def _apply(self, batch: _Batch) -> None:
        self._shards.change(batch.changed)
        if batch.fresh:
            cid = self._shards.cid
            self._shards.add([(lsn, cid(conv), seq, ts, words) for (conv, seq), (lsn, ts, words) in batch.fresh.items()])
        for number in self._shards.numbers:
            if self.position < end_of(number) <= batch.last + 1:  # it has got its last row
                self._shards.mark(number)
        self._file.note("lsn", batch.last)

    def _write(self, change: Callable[[], None]) -> None:
        try:
            with self._file:
                change()
        except BaseException:
            self._load()
            raise

    # Forgetting.

    def sweep(self) -> bool:
        """One shard has forgotten what retention took from the log; False where retention took nothing since all were swept."""
        if self._unswept is None:
            if self._folds() == self._swept:
                return False
            self._unswept = (self._folds(), self._shards.newest_first())
        folds, shards = self._unswept
        if shards:
            self._sweep(shards.pop())
        else:
            self._file.note("swept", folds)
            self._swept, self._unswept = folds, None
        return True

    def _folds(self) -> int:
        """Counts the times that retention took something."""
        return int(self._log.execute("SELECT coalesce(max(number - (plan <> x'')), 0) FROM fold").fetchone()[0])

    def _sweep(self, number: int) -> None:
        lsns = first_of(number), end_of(number) - 1
        known = self._shards.sql.execute("SELECT lsn FROM doc WHERE lsn BETWEEN ? AND ? ORDER BY lsn", lsns).fetchall()
        kept = set(self._log.execute("SELECT lsn FROM log WHERE lsn BETWEEN ? AND ? AND substr(rec, 1, 3) <> ?", (*lsns, _GONE)))
        gone = [lsn for (lsn,) in known if (lsn,) not in kept]
        if len(gone) == len(known) and self.position >= lsns[1]:
            self._write(lambda: self._shards.drop(number))
            self._file.scour()
            return
        for start in range(0, len(gone), _CHUNK):
            self._write(partial(self._shards.take_out, number, gone[start : start + _CHUNK]))

    def take_back(self, messages: Sequence[Key]) -> None:
        """These messages are not in the index any more, though the log was not followed so far; their shards are to be purged."""
        self._write(lambda: self._shards.change(dict.fromkeys(messages)))

    def purge(self, breathe: Callable[[], None] = lambda: None) -> None:
        """No word of a message that is gone stands in any shard, nor in the write-ahead file."""
        if not self.dirty:
            return
        purged = sorted(self.dirty)
        for count, number in enumerate(purged, 1):
            self._shards.purge(number, breathe)
            if count % _PURGED_AT_ONCE == 0 or count == len(purged):
                self._file.scour()

    # Searching.

    def find(self, query: Query, below: int, wanted: int, until: float) -> Found:
        """See `finding.find`."""
        return finding.find(self._shards, query, below, wanted, until)


class _Batch:
    """What some consecutive rows of the log mean to the index."""

    def __init__(self, position: int) -> None:
        self.last = position
        self.rows = 0
        self.size = 0
        self.fresh: dict[Key, tuple[int, int, str]] = {}
        """New messages, in the order of the log: `(log row, ts, text)`."""
        self.changed: dict[Key, str | None] = {}
        """Older messages with another text, None for those that are gone."""

    def take(self, lsn: int, record: AnyRecord) -> None:
        """The next row."""
        self.last = lsn
        self.rows += 1
        if isinstance(record, Message):
            if record.body is not None:  # else it is gone already
                words = text.text_of(record.body)
                self.fresh[record.conv, record.seq] = (lsn, record.ts, words)
                self.size += len(words)
        elif isinstance(record, Edited):
            self._edited((record.conv, record.seq), "" if record.body is None else text.text_of(record.body))
        elif isinstance(record, Recalled):
            key = record.conv, record.seq
            if self.fresh.pop(key, None) is None:
                self.changed[key] = None

    def _edited(self, key: Key, words: str) -> None:
        self.size += len(words)
        if key in self.fresh:
            lsn, ts, _ = self.fresh[key]
            self.fresh[key] = (lsn, ts, words)
        else:
            self.changed[key] = words
