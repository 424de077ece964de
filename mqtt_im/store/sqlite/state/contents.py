"""What conversations and inboxes hold: items, messages, what became of them, and who has not read them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core.model import Amended, Conv, User
from mqtt_im.core.records import Act, AnyRecord
from mqtt_im.shares import Bounds
from mqtt_im.store.common.delivered import delivered
from mqtt_im.store.sqlite.tables.log import Log
from mqtt_im.store.sqlite.tables.projection import Projection

from .entities import Entities
from .numbering import Numbering

MAX_AMENDED: Final = 50_000
"""Messages of which it stays in memory what became of them, when nobody needs that …"""
MAX_REACTIONS: Final = 200_000
"""… with so many reactions together."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Contents(Entities):
    """Finds what was written, and takes what is."""

    def __init__(self, log: Log, projection: Projection, bounds: Bounds, numbering: Numbering | None) -> None:
        super().__init__(log, projection, bounds, numbering)
        self._amended: dict[tuple[int, int], Amended | None] = {}
        self._reacted = 0
        """Reactions in there, and some that are not any more."""

    def _trim(self) -> None:
        super()._trim()
        self._trim_amended()

    def scatter_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """The inbox has an item, and lacks some before it; for writing alone, and not for being read from memory."""
        self.live.scattered.append((user.uid, pos, lsn))

    def void_item(self, user: User, pos: int, conv: Conv) -> None:
        """See `State`."""
        self.live.voids.add((user.uid, pos))
        self.live.amends[conv.name] = self.live.last

    def void_items(self, users: Sequence[User], positions: Sequence[int], conv: Conv) -> None:
        """See `State`."""
        self.live.voids.update(zip([user.uid for user in users], positions, strict=True))
        self.live.amends[conv.name] = self.live.last

    def items(self, user: User, after: int, limit: int) -> list[tuple[int, int]]:
        """`(pos, lsn)` of the items after `after`, at most `limit`; `lsn` is negative where an item was replaced."""
        uid, after = user.uid, max(after, user.begin)
        oldest = next((first[0] for one in reversed(self._generations()) if (first := one.items.get(uid)) is not None), 0)
        found = [] if oldest and oldest <= after + 1 else self.projection.items(uid, after, limit)
        for generation in reversed(self._generations()):
            if len(found) < limit:
                found += generation.items_of(uid, found[-1][0] if found else after, limit - len(found))
        if any(generation.voids for generation in self._generations()):
            found = [(pos, -abs(lsn) if self._voided(uid, pos) else lsn) for pos, lsn in found]
        return found

    def delivered(self, user: str, after: int, upto: int) -> list[str | int]:
        """See `View`; the conversations are in memory, all of which are asked for next."""
        marks = delivered(self, user, after, upto)
        self._prefetch_convs({str(name) for name in marks[::2]})
        known = [conv for name in marks[::2] if (conv := self._convs.get(str(name))) is not None]
        self._prefetch_members([conv for conv in known if conv.users is not None and not conv.loaded])
        return marks

    def _voided(self, uid: int, pos: int) -> bool:
        return any((uid, pos) in generation.voids for generation in self._generations())

    def put_message(self, conv: Conv, seq: int, lsn: int, by: User | None) -> None:
        """See `State`."""
        row = (seq, lsn, by.uid if by is not None else 0)
        messages = self.live.messages.get(conv.cid)
        if messages is None:
            self.live.messages[conv.cid] = [row]
        else:
            messages.append(row)

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """The log row of a message."""
        for generation in self._generations():
            rows = generation.messages.get(conv.cid)
            if rows and rows[0][0] <= seq <= rows[-1][0]:
                row = rows[bisect_left(rows, (seq, 0, 0))]
                return row[1] if row[0] == seq else None
        return self.projection.message(conv.cid, seq)

    def hide_message(self, conv: Conv, seq: int) -> None:
        """See `State`."""
        if not self.live.hide(conv.cid, seq):
            self.live.hidden.setdefault(conv.cid, set()).add(seq)

    def message(self, conv: Conv, seq: int) -> AnyRecord | None:
        """See `View`."""
        lsn = self.message_lsn(conv, seq)
        return None if lsn is None else self.record(lsn)

    def messages(self, conv: Conv, first: int, last: int) -> list[tuple[int, int]]:
        """`(seq, lsn)` of the messages from `first` to `last`, both included, as far as they are kept."""
        found = dict(self.projection.messages(conv.cid, first, last))
        for generation in self._generations():
            found.update((seq, lsn) for seq, lsn, _ in generation.messages_of(conv.cid, first, last))
        return sorted(found.items())

    def nearest_message(self, conv: Conv, first: int, last: int, upward: bool) -> int | None:
        """See `interface.State`."""
        seqs = [generation.nearest_message(conv.cid, first, last, upward) for generation in self._generations()]
        found = [seq for seq in seqs if seq is not None]
        stored = self.projection.nearest_message(conv.cid, first, last, upward)
        if stored is not None:
            found.append(stored)
        return (min if upward else max)(found, default=None)

    def unread(self, parts: Sequence[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
        """See `interface.State`."""
        names: dict[int, str] = {}
        counts: dict[int, list[int]] = {}
        stored: list[tuple[int, int, int]] = []
        hidden: list[tuple[int, int, int]] = []
        for conv, first, last in parts:
            names[conv.cid] = conv.name
            count = counts.setdefault(conv.cid, [0, 0])
            end = last
            gone = {seq for generation in self._generations() for seq in generation.hidden.get(conv.cid, ())}
            for generation in self._generations():
                unread, mentions = generation.unread(conv.cid, first, last, user.uid, gone)
                count[0] += unread
                count[1] += mentions
                end = min(end, generation.first_message(conv.cid, end + 1) - 1)
            if first <= end:
                stored.append((conv.cid, first, end))
                hidden += [(conv.cid, seq, seq) for seq in gone if first <= seq <= end]
        for number, look_up in enumerate((self.projection.unread, self.projection.mentions)):
            for cid, some in look_up(stored, user.uid).items():
                counts[cid][number] += some
            for cid, some in look_up(hidden, user.uid).items():  # recalled, and still counted where that was not written yet
                counts[cid][number] -= some
        return {names[cid]: (unread, mentions) for cid, (unread, mentions) in counts.items()}

    def put_mention(self, conv: Conv, seq: int, user: str) -> None:
        """See `State`."""
        mentioned = 0
        if user != "*":
            mentioned = self.user(user).uid
            self.touch_user(self.user(user))
        self.live.mentions.setdefault(conv.cid, []).append((mentioned, seq))
        self.live.mentioned += 1

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """See `View`."""
        key = (conv.cid, seq)
        try:
            return self._amended[key]
        except KeyError:
            self._trim_amended()
            found = self._amended[key] = self.projection.amended(conv.cid, seq)
            self._reacted += 0 if found is None else len(found.reactions)
            return found

    def amended_of(self, records: Mapping[int, AnyRecord]) -> dict[int, Amended]:
        """What became of the messages that these records, by log row, are or are about, where anything did."""
        self._trim_amended()
        known, found = self._amended, dict[int, Amended]()
        acts = {lsn: record for lsn, record in records.items() if isinstance(record, Act)}
        self._prefetch_convs({act.conv for act in acts.values()})
        asked: dict[tuple[int, int], list[int]] = {}
        for lsn, act in acts.items():
            key = (self.conv_for(act.conv).cid, act.seq)
            if key not in known:
                asked.setdefault(key, []).append(lsn)
            elif (amended := known[key]) is not None:
                found[lsn] = amended
        if asked:
            for key, amended in self.projection.amended_of(list(asked)).items():
                known[key] = amended
                self._reacted += len(amended.reactions)
                found.update(dict.fromkeys(asked[key], amended))
        return found

    def _trim_amended(self) -> None:
        if len(self._amended) > self._bounds.of(MAX_AMENDED) or self._reacted > self._bounds.of(MAX_REACTIONS):
            self._amended.clear()
            self._reacted = 0
            for generation in reversed(self._generations()):
                self._amended.update(generation.amended)

    def amended_in_memory(self, conv: str, seq: int) -> Amended | None:
        """What became of a message since it was last read from disk."""
        found = self._convs.get(conv)
        return None if found is None else self._amended.get((found.cid, seq))

    def amended_for(self, conv: Conv, seq: int) -> Amended:
        """See `State`."""
        found = self.amended(conv, seq)
        if found is None:
            found = self._amended[conv.cid, seq] = Amended()
        self._reacted += 1  # at most
        self.live.amended[conv.cid, seq] = found
        self.live.amends[conv.name] = self.live.last
        return found

    def changes(self, conv: Conv, seq: int, user: str) -> int:
        """See `View`."""
        uid = self.user(user).uid
        for generation in self._generations():
            count = generation.changes.get((conv.cid, seq), {}).get(uid)
            if count is not None:
                return count
        return self.projection.changes(conv.cid, seq, uid)

    def put_change(self, conv: Conv, seq: int, user: User) -> None:
        """See `State`."""
        self.live.changes.setdefault((conv.cid, seq), {})[user.uid] = self.changes(conv, seq, user.name) + 1
