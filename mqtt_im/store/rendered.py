"""What was rendered lately, by log row, so that who comes back or catches up does not have it rendered again.

An entry leaves when its row or the message that it is about is no longer how it was; and where there is no room, those that came
first do.
"""

from __future__ import annotations

from collections.abc import Iterable
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


class Rendered:
    """Entries of about `max_bytes` at most."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: dict[int, Entry] = {}
        self._about: dict[About, list[int]] = {}
        """Message → the rows of the entries about it."""
        self._abouts: dict[int, About] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, lsn: int) -> Entry | None:
        """The entry of a log row, as it is now; None where it is not kept."""
        return self._entries.get(lsn)

    def put(self, lsn: int, record: AnyRecord, entry: Entry) -> None:
        """The record of this row was rendered."""
        if entry.size >= _LARGE or not isinstance(record, Act):
            return
        if lsn in self._entries:
            self._drop(lsn)
        self._entries[lsn] = entry
        self._abouts[lsn] = about = record.conv, record.seq
        self._about.setdefault(about, []).append(lsn)
        self.bytes += _weight(entry)
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def forget(self, lsns: Iterable[int], messages: Iterable[About]) -> None:
        """These rows, and what became of these messages, are no longer how they were."""
        for about in messages:
            for lsn in tuple(self._about.get(about, ())):
                self._drop(lsn)
        for lsn in lsns:
            if lsn in self._entries:
                self._drop(lsn)

    def clear(self) -> None:
        """Nothing is kept."""
        self._entries.clear()
        self._about.clear()
        self._abouts.clear()
        self.bytes = 0

    def _drop(self, lsn: int) -> None:
        self.bytes -= _weight(self._entries.pop(lsn))
        about = self._abouts.pop(lsn)
        rows = self._about[about]
        rows.remove(lsn)
        if not rows:
            del self._about[about]


def _weight(entry: Entry) -> int:
    return _FIXED + 2 * entry.size
