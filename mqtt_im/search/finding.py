"""Looking for words in the index: backwards, shard by shard, until there is enough."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

import msgspec

from mqtt_im.store.queries.reach import Part, Reach

from . import words as text
from .shards import Shards, end_of, first_of

FOREVER: Final = 2**62

_MAX_CONV_WORDS: Final = 300
_MANY: Final = 1_000
"""With more conversations than that it is not looked first which of them have a message in a shard …"""
_IN_VAIN: Final = 1_000
"""… but after so many messages with these words that are none of theirs."""


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


def find(shards: Shards, query: Query, below: int, wanted: int, until: float) -> Found:
    """The newest `wanted` messages below log row `below`; fewer where `time.monotonic()` has passed `until` meanwhile.

    A query without a word finds nothing.
    """
    if not query.phrases:
        return Found([], 0)
    query.reach.numbered(shards.key, shards.cid)
    older, parts = query.reach.ending(), dict[int, Part]()
    words = " AND ".join(f'"{phrase}"' for phrase in query.phrases)
    found: list[int] = []
    for number in shards.newest_first():
        low, high = first_of(number), min(end_of(number), below)
        while older and older[0][0] >= low:
            parts.update(older.pop(0)[1])  # what ended before the shards so far; who has much may have little of it lately
        if low >= high or not parts or shards.numbers[number] >= query.before:
            continue
        found += islice(_find_in(shards, number, words, parts, high, query.before), wanted - len(found))
        if len(found) >= wanted:
            return Found(found, found[-1])
        if time.monotonic() > until:
            return Found(found, low)
    return Found(found, 0)


def _find_in(shards: Shards, number: int, words: str, parts: Mapping[int, Part], below: int, before: int) -> Iterator[int]:
    """The messages of one shard, the newest first."""
    if len(parts) > _MANY:
        in_vain = 0
        for lsn, cid, seq in _matches(shards, number, words, below, before):
            if _reaches(parts, cid, seq):
                yield lsn
                continue
            in_vain += 1
            if in_vain == _IN_VAIN:
                below = lsn
                break
        else:
            return
    low = first_of(number)
    parts = {cid: part for cid, part in parts.items() if part.first < below and part.last >= low}
    if not parts:
        return
    if len(parts) <= _MAX_CONV_WORDS:
        convs = " OR ".join(f'"{text.MARK}{cid}"' for cid in parts)
        # To learn so that there is nothing to find is far cheaper than to go through frequent words.
        if not shards.sql.execute(f"SELECT 1 FROM word_{number} WHERE word_{number} MATCH ?", (convs,)).fetchone():
            return
        words = f"({convs}) AND {words}"
    for lsn, cid, seq in _matches(shards, number, words, below, before):
        if _reaches(parts, cid, seq):
            yield lsn


def _matches(shards: Shards, number: int, words: str, below: int, before: int) -> Iterator[tuple[int, int, int]]:
    """`(lsn, cid, seq)` of the messages of one shard with these words, the newest first."""
    # CROSS makes SQLite go by the words.
    return shards.sql.execute(
        f"SELECT lsn, cid, seq FROM word_{number} AS w CROSS JOIN doc ON lsn = w.rowid"
        f" WHERE word_{number} MATCH ? AND w.rowid < ? AND ts < ? ORDER BY w.rowid DESC",
        (words, below, before),
    )


def _reaches(parts: Mapping[int, Part], cid: int, seq: int) -> bool:
    part = parts.get(cid)
    return part is not None and any(first <= seq <= last for first, last in part.spans)
