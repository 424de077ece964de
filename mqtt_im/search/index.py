"""The search index: made from the log, following it, and made anew where it is lost.

What one step takes from the log is written in one transaction with the position that was reached. Table `doc` has one row for
each message; its words are in FTS5 tables, *shards*, of `SHARD_ROWS` log rows each. Everything is appended, in the order
of the log, so that little is written for a message; and a search reads backwards, shard by shard, until it has enough.

FTS5 takes words out by writing that they are void. They are gone from the file when the shard is *purged*, that is merged into
one piece. A shard that is to be purged is marked in the transaction that made it so, and a crash does not lose the
duty. A shard that is complete is purged once too, which keeps reading many of them cheap.

Beside its words the index knows two things of each message, as words that no text can have: its conversation, and its
conversation with its `seq`.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, cast

import msgspec

from mqtt_im.core.records import AnyRecord, Edited, Gone, Message, Recalled, decode, encode
from mqtt_im.shares import Bounds
from mqtt_im.store.reach import Part, Reach
from mqtt_im.store.sqlite.files import open_log

from . import words as text
from .file import SearchFile, remove

SHARD_ROWS: Final = 25_000
"""So few that purging a shard, which happens when a message in it is recalled, writes few megabytes."""
VERSION: Final = f"1.{text.VERSION}"
FOREVER: Final = 2**62

_READ_ROWS: Final = 100
_READ_BYTES: Final = 1 << 20
"""Of rows that are read at once; one more may go beyond it."""
_BATCH_CHARS: Final = 4 << 20
_INSERT_SIZES: Final = (64, 16, 4, 1)
_INSERT_CHARS: Final = 64 << 10
"""Texts of so many characters are written together, and longer ones alone: SQLite keeps what each statement wrote last."""
_INSERTS: Final = {
    size: "INSERT INTO doc (lsn, cid, seq, ts, text) VALUES " + ",".join(["(?, ?, ?, ?, ?)"] * size) for size in _INSERT_SIZES
}
_SETTINGS: Final = {"automerge": 0, "hashsize": 4 << 20}
"""A shard is merged when it is complete, not little by little, which writes less."""
_MERGE_PAGES: Final = 200
_PURGED_AT_ONCE: Final = 16
"""Shards between two times that the write-ahead file is emptied, which waits for the disk."""
_MAX_CONV_WORDS: Final = 300
_MANY: Final = 1_000
"""With more conversations than that it is not looked first which of them have a message in a shard …"""
_IN_VAIN: Final = 1_000
"""… but after so many messages with these words that are none of theirs."""
_MAX_CIDS: Final = 10_000
"""With more conversations than that they are told apart by their rows in `doc`, not by words of the index."""
_CHUNK: Final = 500
_PAIR: Final = "\ue002"
_INDEXED: Final = f"text || ' {text.MARK}' || cid || ' {text.MARK}' || cid || '{_PAIR}' || seq"
"""What a shard gets of a row of `doc`."""

_GONE: Final = encode(Gone(0, Message(0, "", 0, "", "", None, 0, [], None)))[:3]
"""Begins a row whose message retention took."""

Key = tuple[str, int]
"""A message: its conversation and its `seq`."""


class Query(msgspec.Struct, frozen=True):
    """What is looked for: messages within `reach` with all `phrases`, from before the time `before` (ms since 1970)."""

    phrases: list[str]
    reach: Reach
    before: int = FOREVER


class Found(msgspec.Struct, frozen=True):
    """Log rows of messages, the newest first, and where to look on: below that row; 0 where nothing is left."""

    lsns: list[int]
    below: int
    seconds: float = 0.0
    """Of the thread's time that it took to find them."""


class SearchIndex:
    """The index of the store in one folder, for one thread at a time. Raises what `SearchFile` raises, and `StoreError`."""

    def __init__(self, data_dir: Path, epoch: str, bounds: Bounds | None = None) -> None:
        """The index is open, and empty where it was lost or belongs to another store."""
        self.position = 0
        """Log rows up to this one are indexed."""
        self.dirty: set[int] = set()
        """The shards that are to be purged."""
        self._swept = 0
        """Retention is followed up to this fold (`folds.py`)."""
        self._unswept: tuple[int, list[int]] | None = None
        """The fold that is being followed, and the shards that do not know of it yet."""
        self._shards: dict[int, int] = {}
        """Number → time of its first message."""
        self._key = b""
        self._cids: dict[str, int] = {}
        """Numbers of conversations under this key."""
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
        self._sql = self._file.sql
        rows = self._sql.execute("SELECT number, ts, dirty FROM shard").fetchall()
        self._shards = {number: ts for number, ts, _ in rows}
        self.dirty = {number for number, _, dirty in rows if dirty}
        self._key = self._file.meta("key").encode()
        self._cids.clear()
        self.position = int(self._file.meta("lsn") or 0)
        self._swept, self._unswept = int(self._file.meta("swept") or 0), None

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
        self._change(batch.changed)
        if batch.fresh:
            self._add([(lsn, self._cid(conv), seq, ts, words) for (conv, seq), (lsn, ts, words) in batch.fresh.items()])
        for number in self._shards:
            if self.position < _end(number) <= batch.last + 1:  # it has got its last row
                self._mark(number)
        self._file.note("lsn", batch.last)

    def _add(self, docs: Sequence[tuple[int, int, int, int, str]]) -> None:
        start, left = 0, len(docs)
        for size in _INSERT_SIZES:
            while left >= size:
                part = docs[start : start + size]
                if size > 1 and sum(len(words) for *_, words in part) > _INSERT_CHARS:
                    break
                self._sql.execute(_INSERTS[size], [value for doc in part for value in doc])
                start, left = start + size, left - size
        first, last = docs[0][0], docs[-1][0]
        for number in range(first // SHARD_ROWS, last // SHARD_ROWS + 1):
            low, high = max(first, number * SHARD_ROWS), min(last, _end(number) - 1)
            if number not in self._shards:
                self._make_shard(number, next((ts for lsn, _, _, ts, _ in docs if lsn >= low), 0))
            self._put(number, low, high)

    def _make_shard(self, number: int, ts: int) -> None:
        self._sql.execute(f"CREATE VIRTUAL TABLE word_{number} USING fts5 (text, content='', columnsize=0, tokenize='ascii')")
        for name, value in _SETTINGS.items():
            self._sql.execute(f"INSERT INTO word_{number} (word_{number}, rank) VALUES (?, ?)", (name, value))
        self._sql.execute("INSERT INTO shard (number, ts, dirty) VALUES (?, ?, 0)", (number, ts))
        self._shards[number] = ts

    def _change(self, changed: dict[Key, str | None]) -> None:
        """Messages that are indexed already have another text now; those without one are gone."""
        found = [(lsn, words) for (conv, seq), words in changed.items() if (lsn := self._find(conv, seq))]
        for lsn, words in sorted(found, key=lambda entry: entry[0]):
            number = lsn // SHARD_ROWS
            if words is None:
                self._take_out(number, [lsn])
            else:
                self._void(number, [lsn])
                self._sql.execute("UPDATE doc SET text = ? WHERE lsn = ?", (words, lsn))
                self._put(number, lsn, lsn)

    def _put(self, number: int, first: int, last: int) -> None:
        """The words of these rows of `doc` stand in their shard."""
        self._sql.execute(
            f"INSERT INTO word_{number} (rowid, text) SELECT lsn, {_INDEXED} FROM doc WHERE lsn BETWEEN ? AND ?", (first, last)
        )

    def _void(self, number: int, lsns: Sequence[int]) -> None:
        """The words of these rows of `doc` are void in their shard. FTS5 has to be told which words they were."""
        table, marks = f"word_{number}", ",".join("?" * len(lsns))
        self._sql.execute(
            f"INSERT INTO {table} ({table}, rowid, text) SELECT 'delete', lsn, {_INDEXED} FROM doc WHERE lsn IN ({marks})", lsns
        )

    def _mark(self, number: int) -> None:
        self._sql.execute("UPDATE shard SET dirty = 1 WHERE number = ?", (number,))
        self.dirty.add(number)

    def _find(self, conv: str, seq: int) -> int:
        """The log row of an indexed message; 0 where it is not indexed."""
        word = f'"{text.MARK}{self._cid(conv)}{_PAIR}{seq}"'
        for number in sorted(self._shards, reverse=True):
            row = self._sql.execute(f"SELECT rowid FROM word_{number} WHERE word_{number} MATCH ?", (word,)).fetchone()
            if row is not None:
                return int(row[0])
        return 0

    def _cid(self, conv: str) -> int:
        """A conversation's number: 60 bits of a keyed hash, so that nobody can choose names with the same number."""
        cid = self._cids.get(conv)
        if cid is None:
            if len(self._cids) >= _MAX_CIDS:
                self._cids.clear()
            cid = self._cids[conv] = int.from_bytes(hashlib.blake2b(conv.encode(), digest_size=8, key=self._key).digest()) >> 4
        return cid

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
            self._unswept = (self._folds(), sorted(self._shards, reverse=True))
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
        lsns = number * SHARD_ROWS, _end(number) - 1
        known = self._sql.execute("SELECT lsn FROM doc WHERE lsn BETWEEN ? AND ? ORDER BY lsn", lsns).fetchall()
        kept = set(self._log.execute("SELECT lsn FROM log WHERE lsn BETWEEN ? AND ? AND substr(rec, 1, 3) <> ?", (*lsns, _GONE)))
        gone = [lsn for (lsn,) in known if (lsn,) not in kept]
        if len(gone) == len(known) and self.position >= lsns[1]:
            self._write(lambda: self._drop(number))
            self._file.scour()
            return
        for start in range(0, len(gone), _CHUNK):
            self._write(partial(self._take_out, number, gone[start : start + _CHUNK]))

    def _drop(self, number: int) -> None:
        self._sql.execute(f"DROP TABLE word_{number}")
        self._sql.execute("DELETE FROM shard WHERE number = ?", (number,))
        self._sql.execute("DELETE FROM doc WHERE lsn BETWEEN ? AND ?", (number * SHARD_ROWS, _end(number) - 1))
        del self._shards[number]
        self.dirty.discard(number)

    def _take_out(self, number: int, lsns: Sequence[int]) -> None:
        """These messages are not in the index any more, once the shard is purged."""
        self._void(number, lsns)
        self._sql.execute(f"DELETE FROM doc WHERE lsn IN ({','.join('?' * len(lsns))})", lsns)
        self._mark(number)

    def take_back(self, messages: Sequence[Key]) -> None:
        """These messages are not in the index any more, though the log was not followed so far; their shards are to be purged."""
        self._write(lambda: self._change(dict.fromkeys(messages)))

    def purge(self, breathe: Callable[[], None] = lambda: None) -> None:
        """No word of a message that is gone stands in any shard, nor in the write-ahead file."""
        if not self.dirty:
            return
        purged = sorted(self.dirty)
        for count, number in enumerate(purged, 1):
            self._purge(number, breathe)
            if count % _PURGED_AT_ONCE == 0 or count == len(purged):
                self._file.scour()

    def _purge(self, number: int, breathe: Callable[[], None]) -> None:
        merge = f"INSERT INTO word_{number} (word_{number}, rank) VALUES ('merge', {-_MERGE_PAGES})"
        while True:
            before = self._sql.total_changes
            self._sql.execute(merge)
            if self._sql.total_changes - before < 2:  # FTS5's sign that nothing was left to merge
                break
            breathe()
        self._sql.execute("UPDATE shard SET dirty = 0 WHERE number = ?", (number,))
        self.dirty.discard(number)

    # Searching.

    def find(self, query: Query, below: int, wanted: int, until: float) -> Found:
        """The newest `wanted` messages below log row `below`; fewer where `time.monotonic()` has passed `until` meanwhile.

        A query without a word finds nothing.
        """
        if not query.phrases:
            return Found([], 0)
        parts = query.reach.numbered(self._key, self._cid)
        words = " AND ".join(f'"{phrase}"' for phrase in query.phrases)
        found: list[int] = []
        for number in sorted(self._shards, reverse=True):
            low, high = number * SHARD_ROWS, min(_end(number), below)
            if low >= high or not parts or self._shards[number] >= query.before:
                continue
            found += islice(self._find_in(number, words, parts, high, query.before), wanted - len(found))
            if len(found) >= wanted:
                return Found(found, found[-1])
            if time.monotonic() > until:
                return Found(found, low)
        return Found(found, 0)

    def _find_in(self, number: int, words: str, parts: Mapping[int, Part], below: int, before: int) -> Iterator[int]:
        """The messages of one shard, the newest first."""
        if len(parts) > _MANY:
            in_vain = 0
            for lsn, cid, seq in self._matches(number, words, below, before):
                if _reaches(parts, cid, seq):
                    yield lsn
                    continue
                in_vain += 1
                if in_vain == _IN_VAIN:
                    below = lsn
                    break
            else:
                return
        low = number * SHARD_ROWS
        parts = {cid: part for cid, part in parts.items() if part.first < below and part.last >= low}
        if not parts:
            return
        if len(parts) <= _MAX_CONV_WORDS:
            convs = " OR ".join(f'"{text.MARK}{cid}"' for cid in parts)
            # To learn so that there is nothing to find is far cheaper than to go through frequent words.
            if not self._sql.execute(f"SELECT 1 FROM word_{number} WHERE word_{number} MATCH ?", (convs,)).fetchone():
                return
            words = f"({convs}) AND {words}"
        for lsn, cid, seq in self._matches(number, words, below, before):
            if _reaches(parts, cid, seq):
                yield lsn

    def _matches(self, number: int, words: str, below: int, before: int) -> Iterator[tuple[int, int, int]]:
        """`(lsn, cid, seq)` of the messages of one shard with these words, the newest first."""
        # CROSS makes SQLite go by the words.
        return self._sql.execute(
            f"SELECT lsn, cid, seq FROM word_{number} AS w CROSS JOIN doc ON lsn = w.rowid"
            f" WHERE word_{number} MATCH ? AND w.rowid < ? AND ts < ? ORDER BY w.rowid DESC",
            (words, below, before),
        )


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


def _reaches(parts: Mapping[int, Part], cid: int, seq: int) -> bool:
    part = parts.get(cid)
    return part is not None and any(first <= seq <= last for first, last in part.spans)


def _end(number: int) -> int:
    """The log row after the last one of a shard."""
    return (number + 1) * SHARD_ROWS
