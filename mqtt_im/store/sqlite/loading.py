"""The state while a log is loaded into projections that nobody reads yet: what is only looked up later is gathered to be written.

Users who have a row stay in memory as they are, over many bulk writes, each of which would else read and write nearly all
of them. Of groups whose members have no room there, the names of who is in them stay, which is all that a message to one asks
for. The order of `convs` follows from everything else, so it is made at the end (`set_latest`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from mqtt_im.core.apply import apply
from mqtt_im.core.model import Conv, User
from mqtt_im.core.records import AnyRecord, UserChange

from .state.bulks import Bulk, Row
from .state.entities import NAME_BYTES
from .state.projected import ProjectedState
from .tables.projection import Projection
from .tables.rows import PUT_FIRST_MEMBER, PUT_LATEST

_SEEN: Final = "UPDATE member SET latest = c.lsn FROM conv c WHERE c.cid = member.cid AND active = 1 AND latest <> c.lsn"
_LEFT: Final = "UPDATE member SET latest = last WHERE active = 0 AND latest <> last"
_HIDDEN: Final = """
    SELECT uid, cid, spans, last, head FROM member JOIN conv USING (cid)
    WHERE grp = 0 AND active = 1 AND spans IS NOT NULL"""
_AT_ONCE: Final = 1_000
_NAMES: Final = 1 << 22
"""Names of conversations are told apart as far as their hashes differ by this."""

ROWS: Final = 40_000
BYTES: Final = 64 << 20
"""The more rows of the log are written at once, the fewer pages are written for each."""
USERS: Final = 120_000
"""Users who stay in memory without being written …"""
MEMBERS: Final = 200_000
"""… members of groups …"""
NAMES: Final = 2_000_000
"""… and names of who is in the groups whose members had no room."""
_GROUP: Final = 50
"""A group takes as much as so many names."""
_SLICE_ROWS: Final = 5_000


class LoadingState(ProjectedState):
    """Takes rows of the log, and does not tell what is not written yet of items, requests and the order of conversations."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """See `ProjectedState`."""
        super().__init__(*args, **options)
        self._names = bytearray(_NAMES)
        """Where a conversation's name has its place: 1 where there may be one, which spares most look-ups of new ones."""
        self._rewritten = bytearray()
        """1 by the cid of a conversation of which more was written than a row of it that is new, and of its users."""
        self._late: dict[str, User] = {}
        """Users who have a row, and may have been changed since. `changed` is 0 of all who are neither here nor in `live`."""
        self._first: list[Row] = []
        """For `PUT_FIRST_MEMBER`."""
        self._known: dict[str, Conv] = {}
        """Groups of which the names of the present members are in memory, in place of the members."""
        self._known_names = 0
        for name in self.projection.all_convs():
            self._names[hash(name) % _NAMES] = 1

    # Taking.

    def replay(self, lsn: int, record: AnyRecord, size: int) -> None:
        """See `ProjectedState`; nobody asks for the record again."""
        live = self.live
        live.count += 1
        live.last = lsn
        apply(self, lsn, record)
        if type(record) is UserChange:
            self._beside += NAME_BYTES
        if self._grouped:
            self._unload()

    def _prefetch_convs(self, names: set[str]) -> None:
        known = self._names
        new = {name for name in names if not known[hash(name) % _NAMES]}
        super()._prefetch_convs(names - new)
        self._numbering.expect_convs(new | (names & self._absent))

    def conv_for(self, name: str) -> Conv:
        """See `core.state.State`."""
        conv = self._convs.get(name)
        if conv is None:
            place = hash(name) % _NAMES
            conv = (self.conv(name) if self._names[place] else None) or self._new_conv(name)
            self._names[place] = 1
        return conv

    def _new_conv(self, name: str) -> Conv:
        """See `Entities`; who is in it has a row of its own at once, which what is known later takes the place of."""
        conv = super()._new_conv(name)
        if conv.users is not None:
            for order, member in enumerate(conv.users):
                self._first.append((self._users[member].uid, conv.cid, order, self.live.last))
        return conv

    def touch_user(self, user: User) -> None:
        """See `core.state.State`."""
        if not user.changed:
            self.live.users[user.name] = user
            user.changed = self.live.last

    def touch_users(self, users: Sequence[User]) -> None:
        """See `core.state.State`."""
        for user in users:
            if not user.changed:
                self.touch_user(user)

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `core.state.State`; what is the latest of a conversation follows from what is written (`set_latest`)."""
        if not user.changed:
            self.touch_user(user)
        self.live.scattered.append((user.uid, pos, lsn))

    def put_items(self, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """See `core.state.State`, and `put_item`."""
        self.touch_users(users)
        self.live.scattered += [(user.uid, pos, lsn) for user, pos in zip(users, positions, strict=True)]

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `core.state.State`, and `put_item`."""

    def _most_members(self) -> int:
        """See `Entities`."""
        return MEMBERS

    def _leave(self, conv: Conv) -> None:
        """See `Entities`; a message to the group asks for no more than the names."""
        self._known_names += _GROUP + conv.unload_but_names()
        self._known[conv.name] = conv
        if self._known_names > NAMES:
            for known in self._known.values():
                if not known.loaded:
                    known.unload()
            self._known.clear()
            self._known_names = 0

    def _trim(self) -> None:
        """See `Entities`."""
        groups = {name: conv for name in self._groups if (conv := self._convs.get(name)) is not None}
        super()._trim()
        self._convs.update(groups)
        self._convs.update(self._known)

    # Writing.

    def full(self) -> bool:
        """Whether so much is in memory that it should be written."""
        return self.live.count >= ROWS or self.live.weight >= BYTES

    def write(self, rest: bool = False) -> None:
        """Everything taken stands in the projections, but for users who had a row, unless the `rest` is wanted too."""
        self._choose_users(rest)
        write_all(self, self.projection, "", self.live.last, _SLICE_ROWS)

    def finish(self, connection: sqlite3.Connection, epoch: str) -> None:
        """The projections, on this connection, are those of `epoch` that got as far as this."""
        self.write(rest=True)
        self.projection.begin()
        set_latest(connection, [cid for cid, mark in enumerate(self._rewritten) if mark])
        self.projection.commit(epoch, self.live.last)

    def freeze(self) -> list[Bulk]:
        """See `ProjectedState`."""
        first, self._first, self.live.fresh = self._first, [], []
        self._mark_rewritten({cid: lsn for _, cid, _, lsn in first})
        first.sort()
        return [*super().freeze(), (PUT_FIRST_MEMBER, lambda: first)]

    def thaw(self) -> None:
        """See `ProjectedState`; until now the rows of those who leave the memory were not there."""
        super().thaw()
        if not self._late:
            self._users = {}

    def _mark_rewritten(self, begun: dict[int, int]) -> None:
        """`begun` has the log row with which each new conversation began, which its members have."""
        live, marks = self.live, self._rewritten
        rewritten = {conv.cid for conv in live.convs.values() if begun.get(conv.cid) != conv.lsn}
        rewritten.update(*live.members.values())
        if rewritten:
            marks.extend(bytes(max(0, max(rewritten) + 1 - len(marks))))
        for cid in rewritten:
            marks[cid] = 1

    def _choose_users(self, rest: bool) -> None:
        """Those that are written: who has no row yet, or all where they are too many or too large to stay in memory."""
        live, late = self.live, self._late
        late.update(live.users)
        if rest or len(late) > USERS or self._heavy:
            live.users, self._late = late, {}

    def _held_users(self) -> dict[str, User]:
        """See `Entities`."""
        return self._late | self.live.users

    def _freeze_users(self) -> None:
        """See `Entities`; they are written before anything else is taken."""

    def _written(self, users: Sequence[User]) -> None:
        """See `Entities`."""


def write_all(state: ProjectedState, projection: Projection, epoch: str, lsn: int, slice_rows: int) -> None:
    """The projections have what is in memory, in one transaction, and say that they have everything of `epoch` up to `lsn`."""
    bulks = state.freeze()
    projection.begin()
    for statement, make in bulks:
        rows = filter(None, make())  # nobody waits, so there are no pauses, and larger slices (`bulks.slices`) than with them
        while part := list(islice(rows, slice_rows)):
            projection.write(statement, part)
    projection.commit(epoch, lsn)
    state.thaw()


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
