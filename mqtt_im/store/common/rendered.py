"""What was rendered lately, by log row, so that who comes back or catches up does not have it rendered again.

An entry leaves when its row or the message that it is about is no longer how it was; and where there is no room, the older half
of all does, at once: a page of a long catch-up is to cost no more than one that is kept for nobody. Large ones have a room of
their own, so that a few of them do not put out thousands: what thousands of members of a group fetch is rendered once, and is
once in memory while it is on its way to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mqtt_im.core.entries import Entry
from mqtt_im.core.records import Act, AnyRecord

MAX_BYTES: Final = 12 << 20
MAX_LARGE_BYTES: Final = 8 << 20
_FIXED: Final = 700
"""Bytes that an entry takes beside its two texts: itself, its names, its place here."""
_LARGE: Final = 2048
"""Bytes of an entry that is a large one."""

About = tuple[str, int]
"""A message: its conversation and `seq`."""


class _Half:
    """Those that came after each other."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.messages: dict[About, int] = {}
        """The rows of messages."""
        self.acts: dict[About, list[int]] = {}
        """The rows of what became of messages."""
        self.bytes = 0

    def forget(self, about: About) -> None:
        rows = self.acts.pop(about, [])
        if (message := self.messages.pop(about, None)) is not None:
            rows.append(message)
        for lsn in rows:
            self.entries.pop(lsn, None)


class _Shelf:
    """Entries of about `max_bytes` at most."""

    def __init__(self, max_bytes: int) -> None:
        self._most = max_bytes // 2
        self.newer, self.older = _Half(), _Half()

    def half(self, size: int) -> _Half:
        """Where an entry of that many bytes has room; what that takes is counted."""
        half = self.newer
        if half.bytes + size > self._most:
            self.older, self.newer = half, _Half()
            half = self.newer
        half.bytes += size
        return half


class Rendered:
    """Entries of about `max_bytes` at most, and large ones of `max_large`."""

    def __init__(self, max_bytes: int, max_large: int = MAX_LARGE_BYTES) -> None:
        self._sizes = max_bytes, max_large
        self.clear()

    def _halves(self) -> Sequence[_Half]:
        return self._small.newer, self._small.older, self._large.newer, self._large.older

    def __len__(self) -> int:
        return len(set[int]().union(*(half.entries for half in self._halves())))

    @property
    def bytes(self) -> int:
        """Rather too many than too few."""
        return sum(half.bytes for half in self._halves())

    def get(self, lsn: int) -> Entry | None:
        """The entry of a log row, as it is now; None where it is not kept."""
        small, large = self._small, self._large
        return (
            small.newer.entries.get(lsn)
            or small.older.entries.get(lsn)
            or large.newer.entries.get(lsn)
            or large.older.entries.get(lsn)
        )

    def put(self, lsn: int, record: AnyRecord, entry: Entry) -> None:
        """The record of this row was rendered."""
        if not isinstance(record, Act):
            return
        if entry.size < _LARGE:
            half = self._small.half(_FIXED + 2 * entry.size)
        else:
            half = self._large.half(_FIXED + entry.size + len(entry.sent or b""))
        half.entries[lsn] = entry
        if entry.seq:
            half.messages[record.conv, record.seq] = lsn
        else:
            half.acts.setdefault((record.conv, record.seq), []).append(lsn)

    def forget(self, lsns: Sequence[int], messages: Sequence[About]) -> None:
        """These rows, and what became of these messages, are no longer how they were."""
        for half in self._halves():
            for about in messages:
                half.forget(about)
            for lsn in lsns:
                half.entries.pop(lsn, None)

    def clear(self) -> None:
        """Nothing is kept."""
        self._small, self._large = map(_Shelf, self._sizes)
