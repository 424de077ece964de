"""The state while a log is loaded into projections that nobody reads yet: what is only looked up later is gathered to be written.

The order of `convs` follows from everything else, so it is made at the end, for all members at once (`set_latest`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from mqtt_im.core.model import Conv, User

from .rows import PUT_LATEST
from .state import ProjectedState

_SEEN: Final = "UPDATE member SET latest = c.lsn FROM conv c WHERE c.cid = member.cid AND active = 1 AND latest <> c.lsn"
_LEFT: Final = "UPDATE member SET latest = last WHERE active = 0 AND latest <> last"
_HIDDEN: Final = """
    SELECT uid, cid, spans, last, head FROM member JOIN conv USING (cid)
    WHERE grp = 0 AND active = 1 AND spans IS NOT NULL"""
_AT_ONCE: Final = 1_000


class LoadingState(ProjectedState):
    """Takes rows of the log, and does not tell the items and the order of conversations that are not written yet."""

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `core.apply.State`; what is the latest of a conversation follows from what is written (`set_latest`)."""
        self.touch_user(user)
        self.scatter_item(user, pos, lsn, conv)

    def put_items(self, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """See `put_item`."""
        for user, pos in zip(users, positions, strict=True):
            self.put_item(user, pos, lsn, conv)

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `core.apply.State`, and `put_item`."""


def set_latest(connection: sqlite3.Connection) -> None:
    """The order of `convs` is as of everything that is written."""
    connection.execute(_SEEN)
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
