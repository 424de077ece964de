"""What a job has brought about, for those who are connected: filled in by the store, told on the event loop."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Protocol

from mqtt_im.core.entries import Entry
from mqtt_im.core.records import AnyRecord


class Commit:
    """One committed record, for those who are connected.

    `to` holds `(user, pos)` of each recipient with a connected device, `away` the names of the others. `entry` is None where
    `to` is empty. `former` are connected users who are told nothing of it, but may have what it changes in memory. Of a record
    with many recipients only its author's own number is left once it is committed. `members` is how many a large group has,
    0 elsewhere: all but those of `to` and `away` take it into their inboxes later.
    """

    __slots__ = ("away", "entry", "former", "lsn", "members", "record", "to")

    def __init__(self, lsn: int, record: AnyRecord) -> None:
        self.lsn = lsn
        self.record = record
        self.to: list[tuple[str, int]] = []
        self.away: list[str] = []
        self.former: Sequence[str] = ()
        self.members = 0
        self.entry: Entry | None = None

    def address(self, names: Sequence[str], positions: Sequence[int], online: Container[str]) -> None:
        """Its recipients, and the number of the item in each one's inbox, are known; `online` are connected."""
        for name, pos in zip(names, positions, strict=True):
            if name in online:
                self.to.append((name, pos))
            else:
                self.away.append(name)


class Receipt:
    """A mark that has grown, for the connected users `to`."""

    __slots__ = ("by", "conv", "delivered", "read", "to")

    def __init__(self, conv: str, by: str, delivered: int, read: int, to: list[str]) -> None:
        self.conv = conv
        self.by = by
        self.delivered = delivered
        self.read = read
        self.to = to


class Author(Protocol):
    """Whoever appends records, and is given their commits."""

    commits: list[Commit] | None
