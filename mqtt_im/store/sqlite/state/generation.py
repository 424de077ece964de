"""What was committed to the log and is not in the projections yet, kept in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container

from mqtt_im.core.model import Amended, Conv, Device, Member, User
from mqtt_im.core.records import AnyRecord


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
        self.members: dict[str, dict[int, tuple[Conv, Member]]] = {}
        """Name → the conversations in which the user's part was changed, by cid, and the part as it is now."""
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

    def nearest_message(self, cid: int, first: int, last: int, upward: bool) -> int | None:
        """The lowest, or else the highest, `seq` of a conversation's messages from `first` to `last`."""
        rows = self.messages.get(cid)
        if not rows:
            return None
        index = bisect_left(rows, (first, 0, 0)) if upward else bisect_left(rows, (last + 1, 0, 0)) - 1
        return rows[index][0] if 0 <= index < len(rows) and first <= rows[index][0] <= last else None

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

    @property
    def rows(self) -> int:
        """About how many rows `bulks.bulks_of` makes, rather too many than too few."""
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
