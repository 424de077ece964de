"""Packets in flight, and what deliveries have in memory, of all devices together.

A device that acknowledges nothing keeps a window of packets in memory, and what comes behind them. Where that is too much of all
devices, those that have most of it are lightened: of what they were offered stays what is to be known when it is acknowledged,
and what it shows is in the store, where it is looked for should it be sent again. And as long as large packets are too much, each
device has one of them in flight at a time: nobody stands still.
"""

from __future__ import annotations

from collections.abc import Container
from sys import getrefcount
from typing import Final

from .entries import Entry, void_entry

LARGE: Final = 4096
"""A packet with more bytes is counted: a window of others weighs little."""
COPIES: Final = 8
"""So many packets of one item count as much as the item."""
USUAL_BYTES: Final = 32 << 20
"""Of all that deliveries have in memory; of large packets in flight, above which there is one for each device."""
FLIGHT_BYTES: Final = 400
"""Bytes that a packet in flight takes beside its items, roughly."""
HEAVY: Final = 512
"""Bytes of an item from which it is worth to keep less of it."""


def weight_of(entries: list[tuple[int, Entry]]) -> int:
    """About how many bytes one delivery has in memory of these: what several have is there once, and each has its part of it."""
    return sum([entry.size // max(1, getrefcount(entry) - _ALONE + 1) for _, entry in entries])


def _references(entries: list[tuple[int, object]]) -> int:
    """How many there are to what nobody else has, where it is counted as in `weight_of`."""
    return sum([getrefcount(entry) for _, entry in entries])


_ALONE: Final = _references([(0, object())])


Message = tuple[str, int]
"""A message: its conversation and its `seq`."""


def take_back(entries: list[tuple[int, Entry]], gone: Container[Message]) -> int:
    """What these hold of these messages is gone; how many they are."""
    for _, entry in entries:
        if entry.about and (entry.conv, entry.about) in gone:
            entry.take_back()
    return len(entries)


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

    @property
    def weight(self) -> int:
        """About how many bytes could be given back of it."""
        return weight_of([item for item in self.entries if item[1].size >= HEAVY])

    def lighten(self, made: dict[int, tuple[Entry, Entry]]) -> None:
        """What it shows is not in memory for it any more. Those who share an entry share the light one, by `made`."""
        entries = self.entries
        for index, (pos, entry) in enumerate(entries):
            if entry.size >= HEAVY:
                if id(entry) not in made:
                    made[id(entry)] = entry, entry.light()
                entries[index] = pos, made[id(entry)][1]

    def renew(self, now_is: list[tuple[int, Entry]]) -> None:
        """It is offered again: with what was sent, but for what holds less by now."""
        self.entries = _newer(self.entries, now_is)
        self.following, self.doubtful = None, False


class DeliveryMemory:
    """Counts large packets in flight, those that are parked included: all that are in memory. And what has come into memory."""

    __slots__ = ("bytes", "came", "most")

    def __init__(self, most: int = USUAL_BYTES) -> None:
        """`most` bytes."""
        self.most = most
        self.bytes = 0
        self.came = 0
        """Bytes of items that have come into memory since it was last looked how much that is."""

    @property
    def full(self) -> bool:
        """Whether nobody who has something in flight gets a large packet more."""
        return self.bytes >= self.most


class LargeFlight(Flight):
    """A packet that is counted for as long as it is in memory, whoever lets go of it.

    An item that goes to many is in memory once; each packet of it is a copy only as long as its socket does not take it.
    """

    __slots__ = ("_memory", "_copy", "_rest", "_shared")

    def __init__(
        self, packet_id: int, first: int, last: int, entries: list[tuple[int, Entry]], size: int, memory: DeliveryMemory
    ) -> None:
        """`size` bytes, as it is sent."""
        super().__init__(packet_id, first, last, entries)
        self._memory = memory
        self._shared = entries[0][1] if len(entries) == 1 else None
        if self._shared is not None:
            size = self._shared.size
            self._copy = size // COPIES
            self._rest = size - self._copy
            if not self._shared.flights:
                memory.bytes += self._rest
            self._shared.flights += 1
        else:
            self._copy = size
        memory.bytes += self._copy

    @property
    def weight(self) -> int:
        """See `Flight`. Each packet of an item that is in flight alone has it twice, so its references tell half of it."""
        shared = self._shared
        return super().weight if shared is None else shared.size // shared.flights

    def lighten(self, made: dict[int, tuple[Entry, Entry]]) -> None:
        """See `Flight`."""
        super().lighten(made)
        left = min(self._copy, sum([entry.size for _, entry in self.entries]))
        self._let_go()
        self._memory.bytes += left
        self._copy = left

    def __del__(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        self._memory.bytes -= self._copy
        self._copy = 0
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.flights -= 1
            if not shared.flights:
                self._memory.bytes -= self._rest


def _newer(sent: list[tuple[int, Entry]], now_is: list[tuple[int, Entry]]) -> list[tuple[int, Entry]]:
    """What was sent, except for what holds less by now; and what is not in memory any more as it is now."""
    found_again = dict(now_is)
    less = {pos: entry for pos, entry in now_is if entry.recalled or entry.void}
    gone = [(entry.first, pos) for pos, entry in now_is if entry.first]
    found = []
    for pos, entry in sent:
        if any(first <= pos <= last for first, last in gone):
            found.append((pos, void_entry("retention", entry.first)))
        elif entry.is_light:
            found.append((pos, found_again.get(pos, entry)))
        else:
            found.append((pos, less.get(pos, entry)))
    return found
