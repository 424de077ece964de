"""Packets in flight, and what the large ones weigh, of all devices together.

A device that acknowledges nothing keeps a window of packets in memory. Where large ones are too much of all devices, each device
has one of them in flight at a time: nobody stands still, and what is not in flight is in the store.
"""

from __future__ import annotations

from typing import Final

from .entries import Entry

LARGE: Final = 4096
"""A packet with more bytes is counted: a window of others weighs little."""
USUAL_BYTES: Final = 64 << 20
"""Of all large packets in flight, above which there is one for each device."""


class Flight:
    """One packet that was offered and is not acknowledged, or not contiguously: its items `first` … `last` as they were sent."""

    __slots__ = ("acked", "doubtful", "entries", "first", "following", "last", "packet_id")

    def __init__(self, packet_id: int, first: int, last: int, entries: list[tuple[int, Entry]]) -> None:
        self.packet_id = packet_id
        self.first = first
        self.last = last
        self.entries = entries
        self.acked = False
        self.doubtful = False
        """A PUBACK came that may have been of the same packet as it was offered before a `hello` with `after`."""
        self.following: Flight | None = None
        """The packet that was offered next."""


class Aloft:
    """Counts large packets in flight, those that are parked included: all that are in memory."""

    __slots__ = ("bytes", "most")

    def __init__(self, most: int = USUAL_BYTES) -> None:
        """`most` bytes."""
        self.most = most
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether nobody who has something in flight gets a large packet more."""
        return self.bytes >= self.most


class LargeFlight(Flight):
    """A packet that is counted for as long as it is in memory, whoever lets go of it."""

    __slots__ = ("_aloft", "_size")

    def __init__(self, packet_id: int, first: int, last: int, entries: list[tuple[int, Entry]], size: int, aloft: Aloft) -> None:
        """`size` bytes, as it is sent."""
        super().__init__(packet_id, first, last, entries)
        self._size = size
        self._aloft = aloft
        aloft.bytes += size

    def __del__(self) -> None:
        self._aloft.bytes -= self._size
