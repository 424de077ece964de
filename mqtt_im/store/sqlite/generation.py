"""What was committed to the log and is not in the projections yet, kept in memory and ready to be written in bulk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mqtt_im.core.model import Amended, Conv, Device, User
from mqtt_im.core.records import AnyRecord

from . import hot

Bulk = tuple[str, Callable[[], list[tuple[Any, ...]]]]
"""A statement, and what makes its rows, sorted as the table is."""


class Generation:
    """The changes of some consecutive log rows, `first` … `last`."""

    def __init__(self) -> None:
        self.last = 0
        self.records: dict[int, AnyRecord] = {}
        self.size = 0
        """Bytes of the records in the log."""
        self.users: dict[str, User] = {}
        self.convs: dict[str, Conv] = {}
        self.members: dict[tuple[int, str], Conv] = {}
        self.devices: dict[str, dict[str, Device | None]] = {}
        """User → name → device; None: dropped."""
        self.amended: dict[tuple[int, int], Amended] = {}
        self.amends: dict[str, int] = {}
        """Conversation → the log row of the last change to one of its messages."""
        self.items: dict[int, list[tuple[int, int]]] = {}
        """uid → `(pos, lsn)`, consecutive."""
        self.voids: set[tuple[int, int]] = set()
        self.messages: dict[int, list[tuple[int, int, int]]] = {}
        """cid → `(seq, lsn, uid of the sender)`, consecutive."""
        self.mentions: list[tuple[int, int, int]] = []
        """`(cid, uid, seq)`."""
        self.requests: dict[tuple[int, str], int] = {}
        self.packets: dict[tuple[str, str, str, int], int] = {}
        self.keyed: dict[tuple[str, str, str], int] = {}

    def bulks(self, user: Callable[[str], User]) -> list[Bulk]:
        """Everything as rows, as the entities stand now; `user` finds a member's or device's user.

        Only what may still change is copied at once. The rest is sorted when its turn comes, so that no step takes long.
        """
        users = [hot.user_row(row) for row in self.users.values()]
        convs = [hot.conv_row(row) for row in self.convs.values()]
        members = [hot.member_row(user(name).uid, conv, conv.members[name]) for (_, name), conv in self.members.items()]
        owned = [(user(name).uid, device, row) for name, rows in self.devices.items() for device, row in rows.items()]
        dropped = [(uid, device) for uid, device, row in owned if row is None]
        devices = [hot.device_row(uid, row) for uid, _, row in owned if row is not None]
        amended = [hot.amended_row(cid, seq, row) for (cid, seq), row in self.amended.items()]
        items, messages = self.items, self.messages
        return [
            (hot.PUT_USER, lambda: sorted(users, key=_first)),
            (hot.PUT_CONV, lambda: sorted(convs, key=_first)),
            (hot.PUT_MEMBER, lambda: sorted(members, key=_two)),
            (hot.DROP_DEVICE, lambda: dropped),
            (hot.PUT_DEVICE, lambda: sorted(devices, key=_two)),
            (hot.PUT_AMENDED, lambda: sorted(amended, key=_two)),
            (hot.PUT_ITEM, lambda: [(uid, pos, lsn) for uid in sorted(items) for pos, lsn in items[uid]]),
            (hot.VOID_ITEM, lambda: sorted(self.voids)),
            (hot.PUT_MESSAGE, lambda: [(cid, seq, lsn, by) for cid in sorted(messages) for seq, lsn, by in messages[cid]]),
            (hot.PUT_MENTION, lambda: sorted(self.mentions)),
            (hot.PUT_REQUEST, lambda: sorted((uid, name, lsn) for (uid, name), lsn in self.requests.items())),
            (hot.PUT_PACKET, lambda: [(*key, lsn) for key, lsn in self.packets.items()]),
            (hot.PUT_KEYED, lambda: [(*key, lsn) for key, lsn in self.keyed.items()]),
        ]

    @property
    def rows(self) -> int:
        """About how many rows `bulks` makes."""
        entities = len(self.users) + len(self.convs) + len(self.members) + len(self.devices)
        return entities + len(self.requests) + 3 * len(self.records)


def slices(bulks: Sequence[Bulk], size: int) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """The rows of each statement in their order, at most `size` at a time."""
    for statement, make in bulks:
        rows = make()
        for start in range(0, len(rows), size):
            yield statement, rows[start : start + size]


def _first(row: tuple[Any, ...]) -> Any:
    return row[0]


def _two(row: tuple[Any, ...]) -> Any:
    return row[:2]
