"""The base: users, conversations, members and devices as of one log row, in the log's own file.

Retention takes rows out of the log; what these had done to the entities must not go with them. So whatever is taken lies at
or before the base's row, and the base has the entities as they are at that row. It moves on by applying the log to it, as
everything does (`core.apply`). A rebuild then has two parts: up to the base, rows that are left only say where items,
messages and ids are, since what they did to the entities is in the base already (`Index`); after it, the log is whole.

    log row   1 … some are gone … base | base + 1 … none is gone … last
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import peewee

from mqtt_im.core.apply import apply
from mqtt_im.core.model import Conv, Device, Member, User
from mqtt_im.core.records import AnyRecord
from mqtt_im.core.state import OneByOne
from mqtt_im.shares import Bounds
from mqtt_im.store.sqlite.loading import set_latest, write_all
from mqtt_im.store.sqlite.replay import Row, replay
from mqtt_im.store.sqlite.state.bulks import entities_of
from mqtt_im.store.sqlite.state.generation import Generation
from mqtt_im.store.sqlite.state.numbering import Numbering
from mqtt_im.store.sqlite.state.projected import ProjectedState
from mqtt_im.store.sqlite.tables.log import Log
from mqtt_im.store.sqlite.tables.projection import Projection
from mqtt_im.store.sqlite.tables.rows import CONV, USER
from mqtt_im.store.wanted import Asked

from .folds import Folds, Plan
from .groups import Groups
from .renumbering import renumber

Each = Callable[[int, AnyRecord, "Index"], None]
"""Is told of a log row and its record before it is indexed."""

_ENTITY_COLUMNS: Final = {
    "user": f"uid, name, {USER}",
    "conv": f"cid, name, {CONV}",
    "member": "uid, cid, grp, ord, role, active, read, delivered, spans, last",
    "device": "uid, device, cursor, app, n, created, seen",
}
_SET_FLOORS: Final = "UPDATE user SET floor = coalesce((SELECT min(pos) - 1 FROM item i WHERE i.uid = user.uid), head)"
_FLUSH_ROWS: Final = 20_000
_FLUSH_BYTES: Final = 32 << 20
_SLICE_ROWS: Final = 5_000


class BaseState(ProjectedState):
    """The base, to be moved on: `apply` changes its entities, and makes nothing else of a record."""

    def __init__(self, log: Log, log_db: peewee.SqliteDatabase, bounds: Bounds) -> None:
        super().__init__(log, Projection(log_db), lambda _: True, lambda _: (), bounds=bounds)

    def moved(self) -> list[tuple[str, Iterator[tuple[Any, ...] | None]]]:
        """Statements with the rows of what has changed (`Generation.entities`); until `thaw` nothing more changes."""
        self.frozen, self.live = self.live, Generation()
        self.live.last = self.frozen.last
        return entities_of(self.frozen, self.user)

    def prefetch(self, asked: list[Asked]) -> None:
        """See `ProjectedState`; also who is in a group that is written to."""
        super().prefetch(asked)
        for name in {to for _, _, to, _ in asked if to is not None and to[0] == "#"}:
            conv = self.conv(name)
            if conv is not None and conv.loaded:
                self.bring_users(list(conv.members))

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `core.state.State`."""
        self.touch_user(user)

    def put_items(self, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """See `core.state.State`."""
        self.touch_users(users)

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `core.state.State`."""

    def void_item(self, user: User, pos: int, conv: Conv) -> None:
        """See `core.state.State`."""

    def void_items(self, users: Sequence[User], positions: Sequence[int], conv: Conv) -> None:
        """See `core.state.State`."""

    def put_message(self, conv: Conv, seq: int, lsn: int, by: User | None) -> None:
        """See `core.state.State`."""

    def hide_message(self, conv: Conv, seq: int) -> None:
        """See `core.state.State`."""

    def put_change(self, conv: Conv, seq: int, user: User) -> None:
        """See `core.state.State`."""

    def put_mention(self, conv: Conv, seq: int, user: str) -> None:
        """See `core.state.State`."""
        if user != "*":
            self.touch_user(self.user(user))

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """See `core.state.State`; the base knows of no message."""
        return None

    def put_request(self, user: User, request_id: str, lsn: int) -> None:
        """See `core.state.State`."""

    def put_packet(self, user: str, device: str, session: str, packet_id: int, lsn: int) -> None:
        """See `core.state.State`."""

    def put_keyed(self, sender: str, conv: str, key: str, lsn: int) -> None:
        """See `core.state.State`."""


class Index(OneByOne):
    """`core.state.State` that takes of a record what points to it, and nothing of what it does to entities.

    `state` has the entities as of a later row.
    """

    def __init__(self, state: ProjectedState) -> None:
        self._state = state
        self._groups = Groups(Bounds())
        self.put_item = state.scatter_item
        self.void_item = state.void_item
        self.put_message = state.put_message
        self.hide_message = state.hide_message
        self.put_change = state.put_change
        self.message_lsn = state.message_lsn
        self.put_mention = state.put_mention
        self.put_request = state.put_request
        self.put_packet = state.put_packet
        self.put_keyed = state.put_keyed
        self.amended_for = state.amended_for

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """See `core.state.State`; it follows from the base (`loading.set_latest`)."""

    def user(self, name: str) -> User:
        """A stand-in for the user."""
        return User(self._state.user(name).uid, name)

    def touch_user(self, user: User) -> None:
        """See `core.state.State`."""

    def conv_for(self, name: str) -> Conv:
        """A stand-in for the conversation, with the members that a group has at this row."""
        conv = self._state.conv_for(name)
        if conv.group:
            return self._groups.conv(name, conv.cid)
        # What a member may not see of a direct conversation stays so, so it can be asked before its time.
        return Conv(conv.cid, name, lambda _: {user: _copy(member) for user, member in conv.members.items()})

    def touch_conv(self, conv: Conv) -> None:
        """See `core.state.State`."""

    def touch_member(self, conv: Conv, name: str) -> None:
        """See `core.state.State`."""

    def device_for(self, user: str, device: str, now: int) -> Device:
        """A stand-in for the device."""
        return Device(user, device, now)

    def touch_device(self, device: Device) -> None:
        """See `core.state.State`."""

    def drop_device(self, user: str, device: str) -> None:
        """See `core.state.State`."""


def _copy(member: Member) -> Member:
    copied = Member(member.order, member.role)
    copied.active, copied.spans = member.active, member.spans
    return copied


def restore(
    log: Log,
    log_db: peewee.SqliteDatabase,
    projection_db: peewee.SqliteDatabase,
    epoch: str,
    each: Each = lambda *_: None,
    numbering: Numbering | None = None,
) -> int:
    """Empty projections have everything up to the base; they belong to `epoch` only once they do. Returns the base's row.

    Internal numbers are the base's, or `numbering`'s.
    """
    folds = Folds(log_db, projection_db)
    number, base = folds.position()
    if not base:
        return 0
    plan = folds.plan() or Plan()
    projection = Projection(projection_db)
    _copy_entities(log_db, projection_db, plan)
    if numbering is not None:
        renumber(projection_db.connection(), numbering)  # type: ignore[no-untyped-call]
    state = ProjectedState(log, projection, lambda _: True, lambda _: (), numbering=numbering)
    index = Index(state)

    taken = 0

    def rows() -> Iterator[Row]:
        for row in plan.seen(log.after(0)):
            if row[0] > base:
                return
            yield row

    def take(lsn: int, record: AnyRecord, _: int) -> None:
        nonlocal taken
        taken += 1
        each(lsn, record, index)
        apply(index, lsn, record)

    def full() -> bool:
        return taken >= _FLUSH_ROWS or state.live.weight >= _FLUSH_BYTES

    def flush() -> None:
        nonlocal taken
        taken = 0
        write_all(state, projection, "", 0, _SLICE_ROWS)

    replay(rows(), take, full, flush)
    flush()
    projection.begin()
    projection.write(_SET_FLOORS, [()])
    set_latest(projection_db.connection())  # type: ignore[no-untyped-call]
    projection.write("REPLACE INTO meta (key, value) VALUES (?, ?)", [("fold", str(number))])
    projection.commit(epoch, base)
    return base


def _copy_entities(log_db: peewee.SqliteDatabase, projection_db: peewee.SqliteDatabase, plan: Plan) -> None:
    source: sqlite3.Connection = log_db.connection()  # type: ignore[no-untyped-call]
    target = Projection(projection_db)
    target.begin()
    for table, columns in _ENTITY_COLUMNS.items():
        rows = source.execute(f"SELECT {columns} FROM {table}")  # noqa: S608 - our own names
        marks = ", ".join("?" * (columns.count(",") + 1))
        while part := rows.fetchmany(_SLICE_ROWS):
            target.write(f"INSERT INTO {table} ({columns}) VALUES ({marks})", part)  # noqa: S608 - our own names
    for statement, changed in plan.base:
        target.write(statement, changed)
    target.commit("", 0)
