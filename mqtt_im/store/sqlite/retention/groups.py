"""Who is in each group as of a row of the log, while that is gone through from its beginning.

No more of it is in memory than there is room for: the others stand aside, in a temporary file that only SQLite knows.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections import OrderedDict
from sys import intern
from typing import Any, Final

import msgspec

from mqtt_im.core.members import change_members
from mqtt_im.core.model import Conv, Member
from mqtt_im.core.records import GroupChange
from mqtt_im.core.state import OneByOne
from mqtt_im.shares import Bounds

MOST_MEMBERS: Final = 100_000
"""Present and past, who are in memory: 0.2 KB each."""
_GROUP: Final = 5
"""A group takes as much as so many."""
_PAGES_KIB: Final = 1_024

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode


class _Untouched(OneByOne):
    def touch_member(self, conv: Conv, name: str) -> None:
        """Nobody keeps count."""


_UNTOUCHED: Any = _Untouched()


class Groups:
    """The changes to groups that were seen so far, and what they have come to. Raises what `sqlite3` raises."""

    def __init__(self, bounds: Bounds) -> None:
        """Those of one group are in memory in any case."""
        self._most = bounds.of(MOST_MEMBERS)
        self._convs: OrderedDict[str, Conv] = OrderedDict()
        """Those in memory; the ones that were used last at the end."""
        self._count = 0
        """What these take."""
        self._used: Conv | None = None
        self._size = 0
        """The one that was asked for last, which may have been changed since, and how many members it had then."""
        self._aside: sqlite3.Connection | None = None

    def conv(self, name: str, cid: int = 0) -> Conv:
        """The group with its members, to be changed until another one is asked for; nothing else of it is as it should be."""
        if self._used is not None:
            self._count += len(self._used.members) - self._size
        conv = self._convs.pop(name, None)
        if conv is None:
            conv = Conv(cid, name)
            if self._aside is not None:
                found = self._aside.execute("SELECT members FROM aside WHERE name = ?", (name,)).fetchone()
                if found is not None:
                    conv.members = _read(found[0])
            self._count += _GROUP + len(conv.members)
            self._make_room()
        self._convs[name] = self._used = conv
        self._size = len(conv.members)
        return conv

    def take(self, record: GroupChange) -> None:
        """The next change to a group."""
        change_members(_UNTOUCHED, self.conv(record.conv), record)

    def _make_room(self) -> None:
        while self._count > self._most and self._convs:
            name = next(iter(self._convs))
            conv = self._convs.pop(name)
            self._count -= _GROUP + len(conv.members)
            self._file().execute("REPLACE INTO aside (name, members) VALUES (?, ?)", (name, _written(conv)))

    def _file(self) -> sqlite3.Connection:
        if self._aside is None:
            # Closed by whichever thread lets go of it.
            self._aside = made = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            weakref.finalize(self, made.close)
            made.execute(f"PRAGMA cache_size = -{_PAGES_KIB}")
            made.execute("PRAGMA journal_mode = off")
            made.execute("CREATE TABLE aside (name TEXT PRIMARY KEY, members BLOB)")
        return self._aside


def _written(conv: Conv) -> bytes:
    """Members in their order; what many of them may read is written once."""
    spans: dict[int, int] = {}
    kinds: list[list[list[int]]] = []
    found = []
    for name, member in conv.members.items():
        kind = spans.get(id(member.spans))
        if kind is None:
            kind = spans[id(member.spans)] = len(kinds)
            kinds.append(member.spans)
        found.append((name, member.order, member.role, member.active, kind))
    return _pack((kinds, found))


def _read(data: bytes) -> dict[str, Member]:
    kinds, found = _unpack(data)
    members: dict[str, Member] = {}
    for name, order, role, active, kind in found:
        members[intern(name)] = member = Member(order, intern(role))
        member.active, member.spans = active, kinds[kind]
    return members
