"""An inbox as the tables keep it: the newest items in the user's row, those before them in chunks.

An item is the log row that it is of; negative where it was replaced, 0 where retention has taken it.
"""

from __future__ import annotations

import struct
from typing import Final

from .wire import ints

_int = struct.Struct(">q").pack

CHUNK: Final = 32
"""Items in the user's row at most, and in a chunk."""


def unpack(data: bytes) -> list[int]:
    """The items of a tail or a chunk."""
    return list(struct.unpack(f">{len(data) // 8}q", data))


class Inbox:
    """One user's, as far as it is in memory."""

    __slots__ = ("_packed", "_tail", "changed", "first", "full")

    def __init__(self, first: int = 1, tail: bytes = b"") -> None:
        self.first = first
        """`pos` of the first item of the tail."""
        self._packed = tail
        self._tail: list[int] | None = None
        """The same, once somebody has looked at it; most are only added to."""
        self.full: dict[int, list[int]] = {}
        """Chunks that are to be written, by the `pos` of their first item."""
        self.changed: dict[int, list[int]] = {}
        """Chunks that stand in their table and were changed."""

    @property
    def tail(self) -> list[int]:
        """The newest items; may be changed, but for their number."""
        if self._tail is None:
            self._tail = unpack(self._packed)
        return self._tail

    def append(self, pos: int, lsn: int) -> None:
        """The next item."""
        if self._tail is None and 0 < len(self._packed) < 8 * CHUNK:
            self._packed += _int(lsn)
            return
        held = len(self._packed) // 8 if self._tail is None else len(self._tail)
        if held >= CHUNK:
            self.full[self.first] = self.tail
            held = 0
            self._packed, self._tail = b"", None
        if not held:
            self.first = pos
        assert pos == self.first + held
        if self._tail is None:
            self._packed += _int(lsn)
        else:
            self._tail.append(lsn)

    def packed(self) -> bytes:
        """The tail as it is stored."""
        return self._packed if self._tail is None else ints(self._tail)

    def after(self, pos: int, chunks: dict[int, list[int]]) -> list[tuple[int, int]]:
        """`(pos, item)` of those after `pos` that are kept, as far as these chunks and what is in memory have them."""
        if not (chunks or self.changed or self.full):
            begin = max(0, pos + 1 - self.first)
            refs = unpack(self._packed[8 * begin :]) if self._tail is None else self._tail[begin:]
            return [(at, ref) for at, ref in enumerate(refs, self.first + begin) if ref]
        parts = {**chunks, **self.changed, **self.full, self.first: self.tail}
        found = []
        for first in sorted(parts):
            refs = parts[first]
            if first + len(refs) > pos + 1:
                found += [(first + index, ref) for index, ref in enumerate(refs) if ref and first + index > pos]
        return found
