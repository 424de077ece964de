"""What was rendered lately, by log row, so that who comes back or catches up does not have it rendered again.

An entry leaves when its row or the message that it is about is no longer how it was; and where there is no room, the older half
of all does, at once: a page of a long catch-up is to cost no more than one that is kept for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mqtt_im.core.entries import Entry
from mqtt_im.core.records import Act, AnyRecord

MAX_BYTES: Final = 12 << 20
_FIXED: Final = 700
"""Bytes that an entry takes beside its two texts: itself, its names, its place here."""
_LARGE: Final = 2048
"""Bytes of an entry that is not kept."""

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


class Rendered:
    """Entries of about `max_bytes` at most."""

    def __init__(self, max_bytes: int) -> None:
        self._most = max_bytes // 2
        self._newer, self._older = _Half(), _Half()

    def __len__(self) -> int:
        return len(self._newer.entries.keys() | self._older.entries.keys())

    @property
    def bytes(self) -> int:
        """Rather too many than too few."""
        return self._newer.bytes + self._older.bytes

    def get(self, lsn: int) -> Entry | None:
        """The entry of a log row, as it is now; None where it is not kept."""
        return self._newer.entries.get(lsn) or self._older.entries.get(lsn)

    def put(self, lsn: int, record: AnyRecord, entry: Entry) -> None:
        """The record of this row was rendered."""
        size = entry.size
        if size >= _LARGE or not isinstance(record, Act):
            return
        half = self._newer
        if half.bytes + _FIXED + 2 * size > self._most:
            self._older, self._newer = half, _Half()
            half = self._newer
        half.entries[lsn] = entry
        half.bytes += _FIXED + 2 * size
        if entry.seq:
            half.messages[record.conv, record.seq] = lsn
        else:
            half.acts.setdefault((record.conv, record.seq), []).append(lsn)

    def forget(self, lsns: Sequence[int], messages: Sequence[About]) -> None:
        """These rows, and what became of these messages, are no longer how they were."""
        for half in (self._newer, self._older):
            for about in messages:
                half.forget(about)
            for lsn in lsns:
                half.entries.pop(lsn, None)

    def clear(self) -> None:
        """Nothing is kept."""
        self._newer, self._older = _Half(), _Half()
