"""How far a user's devices have got, as marks of conversations."""

from __future__ import annotations

from typing import Final, Protocol

from mqtt_im.core.model import User
from mqtt_im.core.records import MESSAGES, AnyRecord

MAX_DELIVERED: Final = 1000
"""Items that are looked through for what a cursor has delivered: as many as a device is offered ahead of it (`APP_AHEAD`). Who
has fetched more of them by `sync` before it acknowledges has told of the last ones."""


class Inboxes(Protocol):
    """The part of `interface.State` that knows what users were sent."""

    def user(self, name: str) -> User:
        """See `interface.State`."""

    def items(self, user: User, after: int, limit: int) -> list[tuple[int, int]]:
        """See `interface.State`."""

    def records(self, lsns: list[int]) -> dict[int, AnyRecord]:
        """See `interface.State`."""


def delivered(state: Inboxes, user: str, after: int, upto: int) -> list[str | int]:
    """See `core.view.View`. Of a long way the last `MAX_DELIVERED` items tell."""
    after = max(after, upto - MAX_DELIVERED)
    marks: dict[str, int] = {}
    items = [item for item in state.items(state.user(user), after, upto - after) if item[0] <= upto]
    records = state.records([abs(lsn) for _, lsn in items])
    for _, lsn in items:
        record = records.get(abs(lsn))
        if isinstance(record, MESSAGES) and record.by != user:
            marks[record.conv] = max(record.seq, marks.get(record.conv, 0))
    return [part for mark in marks.items() for part in mark]
