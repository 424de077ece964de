"""What was committed to the log and is not in the projections yet, kept in memory and ready to be written in bulk."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from mqtt_im.core.model import Amended, Conv, Device, Member, User
from mqtt_im.core.records import AnyRecord

from . import rows

Row = tuple[Any, ...]
_Part = tuple[int, Conv, Member]
"""The uid of a member, of which conversation, and as it is."""
Bulk = tuple[str, Callable[[], Iterable[tuple[Any, ...]]]]
"""A statement, and what makes its rows, sorted as the table is."""


_PAUSE_ROWS: Final = 1_000
_SORTED_ROWS: Final = 4_000
"""Rows that are sorted at once: a millisecond in which no other thread runs."""


class Generation:
    """The changes of some consecutive log rows, `first` … `last`."""

    def __init__(self) -> None:
        self.last = 0
        self.records: dict[int, AnyRecord] = {}
        self.shortened: set[int] = set()
        """Log rows of which the record in memory lacks the numbers that it has given out."""
        self.count = 0
        """Log rows."""
        self.given = 0
        """Items, and what else each recipient of a record makes."""
        self.size = 0
        """Bytes of the records in memory."""
        self.parts = 0
        """Members that were changed."""
        self.pinned = 0
        """Members of groups that can't be forgotten."""
        self.regrouped: set[str] = set()
        """Groups of which members were changed, so that they are not stored as they are."""
        self.users: dict[str, User] = {}
        self.convs: dict[str, Conv] = {}
        self.members: dict[str, dict[int, Conv]] = {}
        """Name → the conversations in which the user's part was changed, by cid."""
        self.devices: dict[str, dict[str, Device | None]] = {}
        """User → name → device; None: dropped."""
        self.amended: dict[tuple[int, int], Amended] = {}
        self.amends: dict[str, int] = {}
        """Conversation → the log row of the last change to one of its messages, or to who has it."""
        self.items: dict[int, list[int]] = {}
        """uid → the `pos` of the first item, then the log rows of all, which are consecutive."""
        self.scattered: list[tuple[int, int, int]] = []
        """`(uid, pos, lsn)` of items before which some are gone."""
        self.voids: set[tuple[int, int]] = set()
        self.messages: dict[int, list[tuple[int, int, int]]] = {}
        """cid → `(seq, lsn, uid of the sender)`, consecutive."""
        self.hidden: dict[int, set[int]] = {}
        """cid → seqs of older messages that were recalled."""
        self.mentions: dict[int, list[tuple[int, int]]] = {}
        """cid → `(uid, seq)`."""
        self.mentioned = 0
        """Of those together."""
        self.changes: dict[tuple[int, int], dict[int, int]] = {}
        """`(cid, seq)` → uid → how often it has edited, reacted to or reported of the message."""
        self.requests: dict[tuple[int, str], int] = {}
        self.packets: dict[tuple[str, str, str, int], int] = {}
        self.keyed: dict[tuple[str, str, str], int] = {}
        self.latest: dict[int, dict[str, int]] = {}
        """uid → conversation → the log row of the newest message that the user got of it."""
        self.told = 0
        """Conversations of users in `latest`, the first of each aside."""
        self.fresh: list[Conv] = []
        """Direct conversations that did not exist before."""

    def put_latest(self, uid: int, conv: str, lsn: int) -> None:
        """The newest message that the user got of the conversation has this log row."""
        found = self.latest.get(uid)
        if found is None:
            self.latest[uid] = {conv: lsn}
        else:
            self.told += conv not in found
            found[conv] = lsn

    # What is in it.

    def messages_of(self, cid: int, first: int, last: int) -> list[tuple[int, int, int]]:
        """The messages of a conversation from `first` to `last`."""
        rows = self.messages.get(cid)
        if not rows or rows[0][0] > last or rows[-1][0] < first:
            return []
        return rows[bisect_left(rows, (first, 0, 0)) : bisect_left(rows, (last + 1, 0, 0))]

    def first_message(self, cid: int, none: int) -> int:
        """The `seq` of a conversation's oldest message here; `none` where there is none."""
        rows = self.messages.get(cid)
        return rows[0][0] if rows else none

    def hide(self, cid: int, seq: int) -> bool:
        """The message counts as unread for nobody; False where it is not here."""
        rows = self.messages.get(cid)
        if not rows or not rows[0][0] <= seq <= rows[-1][0]:
            return False
        index = bisect_left(rows, (seq, 0, 0))
        if rows[index][0] == seq:
            rows[index] = (seq, rows[index][1], 0)
        return True

    def unread(self, cid: int, first: int, last: int, uid: int, gone: Container[int]) -> tuple[int, int]:
        """How many messages of others stand from `first` to `last`, and how many of them mention the user; `gone` are none."""
        nobody = (0, uid)
        rows = self.messages_of(cid, first, last)
        unread = {seq for seq, _, by in rows if by not in nobody and seq not in gone}
        mentions = {seq for mentioned, seq in self.mentions.get(cid, ()) if mentioned in nobody} if unread else set()
        return len(unread), len(unread & mentions)

    def items_of(self, uid: int, after: int, limit: int) -> list[tuple[int, int]]:
        """`(pos, lsn)` of a user's items after `after`, at most `limit`."""
        items = self.items.get(uid)
        if items is None:
            return []
        skipped = max(0, after + 1 - items[0])
        return list(enumerate(items[1 + skipped : 1 + skipped + limit], items[0] + skipped))

    # How it is written.

    def bulks(self, user: Callable[[str], User]) -> list[Bulk]:
        """Everything as rows, as the entities stand now; `user` finds a member's or device's user.

        Only what may still change is copied at once. The rest is sorted when its turn comes, so that no step takes long.
        """
        users = [rows.user_row(row) for row in self.users.values()]
        convs = [rows.conv_row(row) for row in self.convs.values()]
        active, marked, told = self._members(user)
        owned = [(user(name).uid, device, row) for name, of in self.devices.items() for device, row in of.items()]
        dropped = [(uid, device) for uid, device, row in owned if row is None]
        devices = [rows.device_row(uid, row) for uid, _, row in owned if row is not None]
        amended = [rows.amended_row(cid, seq, row) for (cid, seq), row in self.amended.items()]
        messages, changes = self.messages, self.changes
        return [
            (rows.PUT_USER, lambda: _ordered(users)),
            (rows.PUT_CONV, lambda: _ordered(convs)),
            (rows.PUT_MEMBER, lambda: _ordered(rows.member_row(*part) for part in marked)),
            (rows.PUT_ACTIVE_MEMBER, lambda: _ordered((*rows.member_row(*part), lsn) for part, lsn in active)),
            (rows.PUT_NEW_MEMBER, lambda: _ordered(self._new_members({row[0]: row[3] for row in convs}))),
            (rows.PUT_LATEST, lambda: self._latest_rows(told)),
            (rows.DROP_DEVICE, lambda: dropped),
            (rows.PUT_DEVICE, lambda: _ordered(devices)),
            (rows.PUT_AMENDED, lambda: _ordered(amended)),
            (rows.PUT_CHANGE, lambda: _ordered((*key, uid, count) for key, of in changes.items() for uid, count in of.items())),
            (rows.PUT_ITEM, self._item_rows),
            (rows.VOID_ITEM, lambda: _ordered(self.voids)),
            (rows.PUT_MESSAGE, lambda: ((cid, seq, lsn, by) for cid in sorted(messages) for seq, lsn, by in messages[cid])),
            (rows.HIDE_MESSAGE, lambda: _ordered((cid, seq) for cid, seqs in self.hidden.items() for seq in seqs)),
            (rows.PUT_MENTION, lambda: _ordered((cid, *row) for cid, rows in self.mentions.items() for row in rows)),
            (rows.PUT_REQUEST, lambda: _ordered((uid, name, lsn) for (uid, name), lsn in self.requests.items())),
            (rows.PUT_PACKET, lambda: [(*key, lsn) for key, lsn in self.packets.items()]),
            (rows.PUT_KEYED, lambda: [(*key, lsn) for key, lsn in self.keyed.items()]),
        ]

    def entities(self, user: Callable[[str], User]) -> list[tuple[str, Iterator[Row | None]]]:
        """The users, conversations, members and devices alone, made as they are taken; they must not change meanwhile.

        In between comes None, where something was done for which there is no row yet.
        """
        return [
            (rows.PUT_USER, (rows.user_row(one) for one in sorted(self.users.values(), key=attrgetter("uid")))),
            # By name, since the names' index is what is larger.
            (rows.PUT_CONV, (rows.conv_row(one) for one in sorted(self.convs.values(), key=attrgetter("name")))),
            (rows.PUT_NEW_MEMBER, self._joined_rows()),
            (rows.PUT_MEMBER, self._marked_rows(user)),
            (rows.DROP_DEVICE, ((uid, name) for uid, name, device in self._owned(user) if device is None)),
            (rows.PUT_DEVICE, (rows.device_row(uid, device) for uid, _, device in self._owned(user) if device is not None)),
        ]

    def _joined_rows(self) -> Iterator[Row | None]:
        joined: dict[int, list[Row]] = {}
        for count, row in enumerate(self._new_members({conv.cid: conv.lsn for conv in self.fresh})):
            joined.setdefault(row[0], []).append(row)
            if not count % _PAUSE_ROWS:
                yield None
        for uid in sorted(joined):
            yield from joined[uid]

    def _marked_rows(self, user: Callable[[str], User]) -> Iterator[Row]:
        for uid, name in sorted((user(name).uid, name) for name in self.members):
            for _, conv in sorted(self.members[name].items()):
                yield rows.member_row(uid, conv, conv.members[name])

    def _owned(self, user: Callable[[str], User]) -> Iterator[tuple[int, str, Device | None]]:
        for uid, owner in sorted((user(owner).uid, owner) for owner in self.devices):
            for name, device in sorted(self.devices[owner].items()):
                yield uid, name, device

    def _members(self, user: Callable[[str], User]) -> tuple[list[tuple[_Part, int]], list[_Part], set[tuple[int, int]]]:
        """What rows of members are made of: of who got a message, with its log row, and of the others; uid and cid of the former.

        Who changes a member puts another one in its place, so that these stay as they are until their turn comes.
        """
        active: list[tuple[_Part, int]] = []
        marked: list[_Part] = []
        told = set[tuple[int, int]]()
        nothing: dict[str, int] = {}
        for name, parts in self.members.items():
            uid = user(name).uid
            lsns = self.latest.get(uid, nothing)
            for cid, conv in parts.items():
                if (lsn := lsns.get(conv.name)) is None:
                    marked.append((uid, conv, conv.members[name]))
                else:
                    active.append(((uid, conv, conv.members[name]), lsn))
                    told.add((uid, cid))
        return active, marked, told

    def _new_members(self, lsns: Mapping[int, int]) -> Iterator[Row]:
        """The rows of who is in a new direct conversation, as far as nothing else has changed them: they got all of it.

        `lsns` are the conversations' newest log rows, by cid.
        """
        members, users = self.members, self.users
        for conv in self.fresh:
            cid = conv.cid
            for order, name in enumerate(conv.users or ()):
                if name not in members or cid not in members[name]:
                    yield users[name].uid, cid, order, lsns[cid]

    def _latest_rows(self, told: Container[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
        new = {conv.cid for conv in self.fresh}
        for uid in sorted(self.latest):
            for name, lsn in self.latest[uid].items():
                cid = self.convs[name].cid
                if cid not in new and (uid, cid) not in told:
                    yield lsn, uid, cid

    def _item_rows(self) -> Iterator[tuple[int, int, int]]:
        for uid in sorted(self.items):
            first, *lsns = self.items[uid]
            for pos, lsn in enumerate(lsns, first):
                yield uid, pos, lsn
        self.scattered.sort()
        yield from self.scattered

    @property
    def rows(self) -> int:
        """About how many rows `bulks` makes, rather too many than too few."""
        entities = len(self.users) + len(self.convs) + len(self.devices) + len(self.amended) + len(self.voids) + self.mentioned
        return entities + self.parts + len(self.requests) + 5 * self.count + 2 * self.given

    @property
    def weight(self) -> int:
        """About how many bytes it has in memory."""
        entities = 300 * (len(self.users) + len(self.convs) + len(self.devices) + len(self.amended))
        indexes = 120 * (len(self.items) + len(self.messages) + len(self.requests)) + 200 * (len(self.members) + self.parts)
        indexes += 250 * len(self.latest) + 80 * self.told
        indexes += 100 * (len(self.scattered) + self.mentioned) + 200 * len(self.voids)
        return self.size + 400 * self.count + 10 * self.given + entities + indexes + 200 * self.pinned


def _ordered(found: Iterable[Row]) -> Iterator[Row]:
    """The rows, those that stand together in the table next to each other, as far as they are sorted at once."""
    rows = iter(found)
    while part := list(islice(rows, _SORTED_ROWS)):
        part.sort()
        yield from part


def slices(bulks: Sequence[Bulk], size: int) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """The rows of each statement in their order, at most `size` at a time."""
    for statement, make in bulks:
        rows = iter(make())
        while part := list(islice(rows, size)):
            yield statement, part
