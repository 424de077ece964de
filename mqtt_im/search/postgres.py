"""The search index on PostgreSQL: table `word`, made from the log by whichever node comes to it, once for all of them.

A row holds the words of one message in their order, and a word that names its conversation; a GIN index finds them. The nodes
share one position in the log: who moves it holds its row (`meta`, key `searched`), and a batch that takes a message back waits
for that, so that no word of it is written after it was taken out (`store.postgres.engine`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg

from mqtt_im.core.records import Edited, Message, decode
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import explained
from mqtt_im.protocol.names import members_of_direct
from mqtt_im.store.postgres.follow import LogReader
from mqtt_im.store.queries.reach import Part

from . import words as text
from .finding import Found, Query
from .index import Key

VERSION: Final = f"1.{text.VERSION}"
SETTLE_S: Final = 1.0
"""So long a search waits for what is being committed elsewhere."""
_MAX_WORD: Final = 64
"""Characters of a word that count; an index has no room for endless ones."""
_MAX_CONV_WORDS: Final = 300
"""With more conversations than that they are told apart by their rows, not by words."""
_find_words: Final = re.compile("[0-9a-z]+").findall

_FOLLOW: Final = "SELECT lsn, cid, seq, rec FROM log WHERE lsn > %s AND lsn <= %s ORDER BY lsn LIMIT %s"
_PUT: Final = """
    INSERT INTO word (lsn, cid, seq, ts, words)
    SELECT lsn, cid, seq, ts, string_to_array(words, ' ') FROM unnest(%s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::text[])
    v (lsn, cid, seq, ts, words) ON CONFLICT (lsn) DO UPDATE SET words = excluded.words"""
_EDIT: Final = """
    UPDATE word SET words = string_to_array(%s, ' ')
    WHERE lsn = (SELECT lsn FROM log WHERE cid = %s AND seq = %s AND seq > 0)"""
_NUMBERS: Final = """
    SELECT name, cid FROM grp WHERE name = ANY (%(groups)s)
    UNION ALL
    SELECT v.a || ':' || v.b, d.cid FROM unnest(%(a)s::text[], %(b)s::text[]) v (a, b)
    JOIN im_user a ON a.name = v.a JOIN im_user b ON b.name = v.b
    JOIN direct d ON d.a = least(a.uid, b.uid) AND d.b = greatest(a.uid, b.uid)"""
_FIND: Final = """
    WITH hits AS MATERIALIZED (
        SELECT lsn, cid, seq FROM word
        WHERE words @> %(words)s AND (%(convs)s::text[] IS NULL OR words && %(convs)s) AND cid = ANY (%(cids)s)
        AND lsn < %(below)s AND ts < %(before)s
        AND (%(phrases)s::text[] = '{}' OR ' ' || array_to_string(words, ' ') || ' ' LIKE ALL (%(phrases)s)))
    SELECT lsn, cid, seq FROM hits ORDER BY lsn DESC LIMIT %(wanted)s"""


class PostgresIndex:
    """`thread.Index`. Used by one thread. Raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = LogReader(database, "search")
        self.position = 0
        """Log rows up to this one are indexed."""
        self.dirty: set[int] = set()
        """Nothing ever has to be purged: vacuum does."""

    def _connection(self) -> Connection:
        return self._log.connection

    def _rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection().execute(query.encode(), values, binary=True).fetchall()
        except psycopg.Error as error:
            raise explained(error, self._database.where) from error

    def log_end(self) -> int:
        """The newest committed row of the log, unless it takes long until those before it are there too."""
        newest: int = self._rows("SELECT coalesce(max(lsn), 0) FROM log")[0][0]
        return min(newest, self._log.settle(SETTLE_S))

    def follow(self, limit: int, breathe: Callable[[], None] = lambda: None) -> bool:
        """Index at most `limit` further rows of the log as one transaction; False where there were none."""
        settled = self._log.settle()
        if self.position >= settled:
            return False
        try:
            with self._connection().transaction():
                return self._follow(settled, limit)
        except psycopg.Error as error:
            raise explained(error, self._database.where) from error

    def _follow(self, settled: int, limit: int) -> bool:
        connection = self._connection()
        ((noted,),) = connection.execute("SELECT value FROM meta WHERE key = 'searched' FOR UPDATE").fetchall()
        version, _, position = noted.partition(" ")
        if version != VERSION:
            connection.execute("DELETE FROM word")
            position = "0"
        self.position = int(position)
        rows = self._rows(_FOLLOW, (self.position, settled, limit))
        fresh: dict[int, tuple[int, int, int, str]] = {}
        edited: dict[tuple[int, int], str] = {}
        for lsn, cid, seq, data in rows:
            record = decode(data)
            if isinstance(record, Message) and record.body is not None and seq:
                fresh[lsn] = cid, seq, record.ts, _joined(cid, record.body)
            elif isinstance(record, Edited) and record.body is not None:
                edited[cid, record.seq] = _joined(cid, record.body)
        if fresh:
            connection.execute(_PUT, [list(fresh), *map(list, zip(*fresh.values(), strict=True))])
        for (cid, seq), words in edited.items():
            connection.execute(_EDIT, (words, cid, seq))
        self.position = rows[-1][0] if len(rows) == limit else settled
        connection.execute("UPDATE meta SET value = %s WHERE key = 'searched'", (f"{VERSION} {self.position}",))
        return bool(rows)

    def sweep(self) -> bool:
        """What retention takes leaves the index with it."""
        return False

    def take_back(self, messages: Sequence[Key]) -> None:
        """Nothing: the log, which tells of it, is followed within moments, whichever node does it."""

    def purge(self, breathe: Callable[[], None] = lambda: None) -> None:
        """See `dirty`."""

    def find(self, query: Query, below: int, wanted: int, until: float) -> Found:
        """The newest `wanted` messages below log row `below`; a query without a word finds nothing."""
        words = [word[:_MAX_WORD] for phrase in query.phrases for word in phrase.split()]
        parts = self._numbered(query.reach.parts)
        if not words or not parts:
            return Found([], 0)
        rows = self._rows(
            _FIND,
            {
                "words": words,
                "convs": [_conv(cid) for cid in parts] if len(parts) <= _MAX_CONV_WORDS else None,
                "cids": list(parts),
                "below": below,
                "before": query.before,
                "phrases": [f"% {phrase} %" for phrase in query.phrases if " " in phrase],
                "wanted": wanted,
            },
        )
        found = [lsn for lsn, cid, seq in rows if any(first <= seq <= last for first, last in parts[cid].spans)]
        return Found(found, rows[-1][0] if len(rows) == wanted else 0)

    def _numbered(self, named: dict[str, Part]) -> dict[int, Part]:
        """The parts by the numbers of their conversations, as far as these have any message."""
        pairs = [pair for name in named if (pair := members_of_direct(name)) is not None]
        groups = [name for name in named if name[0] == "#"]
        rows = self._rows(_NUMBERS, {"groups": groups, "a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
        return {cid: named[name] for name, cid in rows}

    def close(self) -> None:
        """The connection is closed."""
        self._log.close()


def _conv(cid: int) -> str:
    return f"{text.MARK}{cid}"


def _joined(cid: int, body: bytes) -> str:
    """The words of a body in their order, and the word of its conversation, with spaces between them."""
    found = text.text_of(body)
    words = _find_words(found.lower()) if found.isascii() else found.split()
    return " ".join([_conv(cid), *(word[:_MAX_WORD] for word in words)])
