"""The state while a log is loaded into projections that nobody reads yet: what is only looked up later is gathered to be written.

The order of `convs` follows from everything else, so it is made at the end (`set_latest`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import msgspec

from mqtt_im.core.model import Conv, User

from .state.bulks import Bulk
from .state.projected import ProjectedState
from .tables.rows import PUT_LATEST

_SEEN: Final = "UPDATE member SET latest = c.lsn FROM conv c WHERE c.cid = member.cid AND active = 1 AND latest <> c.lsn"
_LEFT: Final = "UPDATE member SET latest = last WHERE active = 0 AND latest <> last"
_HIDDEN: Final = """
    SELECT uid, cid, spans, last, head FROM member JOIN conv USING (cid)
    WHERE grp = 0 AND active = 1 AND spans IS NOT NULL"""
_AT_ONCE: Final = 1_000
_NAMES: Final = 1 << 22
"""Names of conversations are told apart as far as their hashes differ by this."""


class LoadingState(ProjectedState):
    """Takes rows of the log, and does not tell the items and the order of conversations that are not written yet."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """See `ProjectedState`."""
        super().__init__(*args, **options)
        self._names = bytearray(_NAMES)
        """Where a conversation's name has its place: 1 where there may be one, which spares most look-ups of new ones."""
        self._rewritten = bytearray()
        """1 by the cid of a conversation of which more was written than a row of it that is new, and of its users."""
        for name in self.projection.all_convs():
            self._names[hash(name) % _NAMES] = 1

    def _prefetch_convs(self, names: set[str]) -> None:
        known = self._names
        new = {name for name in names if not known[hash(name) % _NAMES]}
        super()._prefetch_convs(names - new)
        self._numbering.expect_convs(new)

    def conv_for(self, name: str) -> Conv:
        """See `core.state.State`."""
        conv = self._convs.get(name)
        if conv is None:
            place = hash(name) % _NAMES
            conv = (self.conv(name) if self._names[place] else None) or self._new_conv(name)
            self._names[place] = 1
        return conv

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `core.state.State`; what is the latest of a conversation follows from what is written (`set_latest`)."""
        self.touch_user(user)
        self.scatter_item(user, pos, lsn, conv)

    def put_items(self, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """See `core.state.State`, and `put_item`."""
        live = self.live
        last, known, scatter = live.last, live.users, live.scattered.append
        for user, pos in zip(users, positions, strict=True):
            user.changed = last
            known[user.name] = user
            scatter((user.uid, pos, lsn))

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `core.state.State`, and `put_item`."""

    def freeze(self, whole: bool = False) -> list[Bulk]:
        """See `ProjectedState`."""
        live = self.live
        rewritten = {conv.cid for conv in live.convs.values()}
        rewritten.difference_update([conv.cid for conv in live.fresh])
        rewritten.update(*live.members.values())
        marks = self._rewritten
        if rewritten:
            marks.extend(bytes(max(0, max(rewritten) + 1 - len(marks))))
        for cid in rewritten:
            marks[cid] = 1
        return super().freeze(whole)

    def rewritten(self) -> list[int]:
        """The conversations of which members may lack what `set_latest` says: all others were written once."""
        return [cid for cid, mark in enumerate(self._rewritten) if mark]


def set_latest(connection: sqlite3.Connection, convs: Collection[int] | None = None) -> None:
    """The order of `convs` is as of everything that is written, where it was right but for these conversations; None: for all."""
    seen = _SEEN
    if convs is not None:
        connection.execute("CREATE TABLE rewritten (cid INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO rewritten VALUES (?)", ((cid,) for cid in convs))
        seen += " AND member.cid IN rewritten"
    connection.execute(seen)
    if convs is not None:
        connection.execute("DROP TABLE rewritten")
    connection.execute(_LEFT)
    hidden = connection.execute(_HIDDEN)
    changed: list[tuple[int, int, int]] = []
    while part := hidden.fetchmany(_AT_ONCE):
        changed += _unseen(part)
    connection.executemany(PUT_LATEST, changed)


def _unseen(rows: list[Any]) -> Iterator[tuple[int, int, int]]:
    for uid, cid, spans, last, head in rows:
        if not any(first <= head <= end for first, end in msgspec.msgpack.decode(spans)):
            yield last, uid, cid
