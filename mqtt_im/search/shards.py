"""The shards of an index: FTS5 tables of `SHARD_ROWS` log rows each, and the rows of `doc` that their words are of.

Everything is appended, in the order of the log, so that little is written for a message.

FTS5 takes words out by writing that they are void. They are gone from the file when the shard is *purged*, that is merged into
one piece. A shard that is to be purged is marked in the transaction that made it so, and a crash does not lose the
duty. A shard that is complete is purged once too, which keeps reading many of them cheap.

Beside its words a shard knows two things of each message, as words that no text can have: its conversation, and its
conversation with its `seq`.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from . import words as text
from .file import SearchFile

SHARD_ROWS: Final = 25_000
"""So few that purging a shard, which happens when a message in it is recalled, writes few megabytes."""
_INSERT_SIZES: Final = (64, 16, 4, 1)
_INSERT_CHARS: Final = 64 << 10
"""Texts of so many characters are written together, and longer ones alone: SQLite keeps what each statement wrote last."""
_INSERTS: Final = {
    size: "INSERT INTO doc (lsn, cid, seq, ts, text) VALUES " + ",".join(["(?, ?, ?, ?, ?)"] * size) for size in _INSERT_SIZES
}
_SETTINGS: Final = {"automerge": 0, "hashsize": 4 << 20}
"""A shard is merged when it is complete, not little by little, which writes less."""
_MERGE_PAGES: Final = 200
_MAX_CIDS: Final = 10_000
"""With more conversations than that they are told apart by their rows in `doc`, not by words of the index."""
_PAIR: Final = "\ue002"
_INDEXED: Final = f"text || ' {text.MARK}' || cid || ' {text.MARK}' || cid || '{_PAIR}' || seq"
"""What a shard gets of a row of `doc`."""


class Shards:
    """Those of one open file, for one who changes them within its transactions, and has `load` called where one was undone."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        """Number → time of its first message."""
        self.dirty: set[int] = set()
        """The shards that are to be purged."""
        self.key = b""
        """What conversations are numbered with."""
        self._cids: dict[str, int] = {}
        """Numbers of conversations under this key."""
        self.sql: sqlite3.Connection

    def load(self, file: SearchFile) -> None:
        """What is in memory is what is in the file."""
        self.sql = file.sql
        rows = self.sql.execute("SELECT number, ts, dirty FROM shard").fetchall()
        self.numbers = {number: ts for number, ts, _ in rows}
        self.dirty = {number for number, _, dirty in rows if dirty}
        self.key = file.meta("key").encode()
        self._cids.clear()

    def newest_first(self) -> list[int]:
        """Their numbers."""
        return sorted(self.numbers, reverse=True)

    def add(self, docs: Sequence[tuple[int, int, int, int, str]]) -> None:
        """These messages, `(lsn, cid, seq, ts, text)` in the order of the log, are in the index."""
        start, left = 0, len(docs)
        for size in _INSERT_SIZES:
            while left >= size:
                part = docs[start : start + size]
                if size > 1 and sum(len(words) for *_, words in part) > _INSERT_CHARS:
                    break
                self.sql.execute(_INSERTS[size], [value for doc in part for value in doc])
                start, left = start + size, left - size
        first, last = docs[0][0], docs[-1][0]
        for number in range(first // SHARD_ROWS, last // SHARD_ROWS + 1):
            low, high = max(first, first_of(number)), min(last, end_of(number) - 1)
            if number not in self.numbers:
                self._make_shard(number, next((ts for lsn, _, _, ts, _ in docs if lsn >= low), 0))
            self._put(number, low, high)

    def _make_shard(self, number: int, ts: int) -> None:
        self.sql.execute(f"CREATE VIRTUAL TABLE word_{number} USING fts5 (text, content='', columnsize=0, tokenize='ascii')")
        for name, value in _SETTINGS.items():
            self.sql.execute(f"INSERT INTO word_{number} (word_{number}, rank) VALUES (?, ?)", (name, value))
        self.sql.execute("INSERT INTO shard (number, ts, dirty) VALUES (?, ?, 0)", (number, ts))
        self.numbers[number] = ts

    def change(self, changed: dict[tuple[str, int], str | None]) -> None:
        """Messages that are indexed already have another text now; those without one are gone."""
        found = [(lsn, words) for (conv, seq), words in changed.items() if (lsn := self.find(conv, seq))]
        for lsn, words in sorted(found, key=lambda entry: entry[0]):
            number = lsn // SHARD_ROWS
            if words is None:
                self.take_out(number, [lsn])
            else:
                self._void(number, [lsn])
                self.sql.execute("UPDATE doc SET text = ? WHERE lsn = ?", (words, lsn))
                self._put(number, lsn, lsn)

    def _put(self, number: int, first: int, last: int) -> None:
        """The words of these rows of `doc` stand in their shard."""
        self.sql.execute(
            f"INSERT INTO word_{number} (rowid, text) SELECT lsn, {_INDEXED} FROM doc WHERE lsn BETWEEN ? AND ?", (first, last)
        )

    def _void(self, number: int, lsns: Sequence[int]) -> None:
        """The words of these rows of `doc` are void in their shard. FTS5 has to be told which words they were."""
        table, marks = f"word_{number}", ",".join("?" * len(lsns))
        self.sql.execute(
            f"INSERT INTO {table} ({table}, rowid, text) SELECT 'delete', lsn, {_INDEXED} FROM doc WHERE lsn IN ({marks})", lsns
        )

    def mark(self, number: int) -> None:
        """The shard is to be purged."""
        self.sql.execute("UPDATE shard SET dirty = 1 WHERE number = ?", (number,))
        self.dirty.add(number)

    def find(self, conv: str, seq: int) -> int:
        """The log row of an indexed message; 0 where it is not indexed."""
        word = f'"{text.MARK}{self.cid(conv)}{_PAIR}{seq}"'
        for number in self.newest_first():
            row = self.sql.execute(f"SELECT rowid FROM word_{number} WHERE word_{number} MATCH ?", (word,)).fetchone()
            if row is not None:
                return int(row[0])
        return 0

    def cid(self, conv: str) -> int:
        """A conversation's number: 60 bits of a keyed hash, so that nobody can choose names with the same number."""
        cid = self._cids.get(conv)
        if cid is None:
            if len(self._cids) >= _MAX_CIDS:
                self._cids.clear()
            cid = self._cids[conv] = int.from_bytes(hashlib.blake2b(conv.encode(), digest_size=8, key=self.key).digest()) >> 4
        return cid

    def drop(self, number: int) -> None:
        """The shard is gone, with its messages."""
        self.sql.execute(f"DROP TABLE word_{number}")
        self.sql.execute("DELETE FROM shard WHERE number = ?", (number,))
        self.sql.execute("DELETE FROM doc WHERE lsn BETWEEN ? AND ?", (first_of(number), end_of(number) - 1))
        del self.numbers[number]
        self.dirty.discard(number)

    def take_out(self, number: int, lsns: Sequence[int]) -> None:
        """These messages are not in the index any more, once the shard is purged."""
        self._void(number, lsns)
        self.sql.execute(f"DELETE FROM doc WHERE lsn IN ({','.join('?' * len(lsns))})", lsns)
        self.mark(number)

    def purge(self, number: int, breathe: Callable[[], None]) -> None:
        """No word of a message that is gone stands in the shard; `breathe` is called between small parts of the work."""
        merge = f"INSERT INTO word_{number} (word_{number}, rank) VALUES ('merge', {-_MERGE_PAGES})"
        while True:
            before = self.sql.total_changes
            self.sql.execute(merge)
            if self.sql.total_changes - before < 2:  # FTS5's sign that nothing was left to merge
                break
            breathe()
        self.sql.execute("UPDATE shard SET dirty = 0 WHERE number = ?", (number,))
        self.dirty.discard(number)


def end_of(number: int) -> int:
    """The log row after the last one of a shard."""
    return (number + 1) * SHARD_ROWS


def first_of(number: int) -> int:
    """The first log row of a shard."""
    return number * SHARD_ROWS
