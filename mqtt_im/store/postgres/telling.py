"""What a batch does with large groups (`large`): what it tells their members, and what its users take of what they were told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from mqtt_im.core.model import Conv, User
from mqtt_im.core.records import Act, GroupChange, Reported
from mqtt_im.store.interface import Later

from .large import FORMER, GROUP_NAMES, NONE, PAGE, PULLED, TOLD, Group, Lag, Told, taken
from .wire import Link


class Batch(Protocol):
    """The state of the batch."""

    link: Link

    def user(self, name: str) -> User:
        """See `View`. Raises `Anew`."""

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `core.state.State`."""

    def touch_conv(self, conv: Conv) -> None:
        """See `core.state.State`."""

    def find_devices(self, users: Iterable[User]) -> None:
        """The devices of these users are at hand."""

    def replace_item(self, user: User, lsn: int, cid: int) -> int:
        """The item of a log row holds nothing any more, where it is in the inbox and nobody was offered it; its `pos`, else 0."""


class Telling:
    """Of one batch after the other."""

    def __init__(self, batch: Batch, most_at_once: Callable[[], int]) -> None:
        """A group with more than `most_at_once` members becomes large, as that is now."""
        self._batch = batch
        self._most_at_once = most_at_once
        self.told: dict[tuple[int, int], Told] = {}
        """cid and act of a large group → what the batch has told its members."""
        self._formers: dict[int, int] = {}
        """Log row of a message to a large group with a `key` → that of the one before it."""
        self.pulled: dict[tuple[int, int], int] = {}
        """cid and uid of a member → up to which act the inbox has what a large group tells."""
        self._pulled_before: dict[tuple[int, int], int] = {}
        """The same as it was stored, as far as it was looked up."""
        self.came: dict[str, list[tuple[int, int]]] = {}
        """User → `(pos, log row)` of what the batch has pulled."""
        self.replaced: list[tuple[str, int]] = []
        """User and `pos` of items that were in inboxes, and are void, since what replaces them has come."""
        self.replaced_in: set[str] = set()
        """The groups of which that was."""
        self.short: set[str] = set()
        """Users who have more to pull."""
        self._room = PAGE
        """So much may still come to inboxes before something else can be done with this batch."""

    def forget(self) -> None:
        """A batch begins."""
        for memory in (self.told, self._formers, self.pulled, self._pulled_before, self.came):
            memory.clear()
        self.short.clear()
        self.replaced.clear()
        self.replaced_in.clear()
        self._room = PAGE

    # What members take.

    def stored(self, cid: int, uid: int, pulled: int) -> None:
        """Up to there the member's inbox had what the group tells, before the batch."""
        self._pulled_before[cid, uid] = pulled

    def pull(self, lags: list[Lag], users: Mapping[int, User]) -> None:
        """The inboxes of these users, who are locked, have what large groups tell, the oldest first, as far as a page goes."""
        room = max(1, self._room)
        rows = self._batch.link.one(TOLD, *zip(*lags, strict=True), room)
        self._room = room - len(rows)
        refs, closed, behind = taken(lags, rows, room)
        self.pulled.update(closed)
        self.short.update(users[uid].name for uid in behind)
        self._come({uid: users[uid] for uid in refs}, refs)

    def _come(self, users: Mapping[int, User], refs: Mapping[int, list[tuple[int, Told]]]) -> None:
        """What each of them is told, with the number of the conversation that tells it."""
        keyed = [users[uid] for uid, items in refs.items() if any(item.former > 0 for _, item in items)]
        if keyed:
            self._batch.find_devices(keyed)
        cids: set[int] = set()
        for uid, items in refs.items():
            if items:
                cids |= self._come_to(users[uid], items)
        if cids:
            self.replaced_in.update(name for _, name in self._batch.link.one(GROUP_NAMES, sorted(cids)))

    def _come_to(self, user: User, items: Sequence[tuple[int, Told]]) -> set[int]:
        """Of which conversations something in the inbox was replaced."""
        cids: set[int] = set()
        came = self.came.setdefault(user.name, [])
        replaced = {item.former for _, item in items}
        now = {item.lsn for _, item in items}
        for cid, item in items:
            if item.former > 0 and item.former not in now and self._replace(user, item.former, cid):
                cids.add(cid)
            user.head += 1
            ref = -item.lsn if item.replaced or item.lsn in replaced else item.lsn
            self._batch.put_item(user, user.head, ref, None)
            came.append((user.head, ref))
        return cids

    def _replace(self, user: User, lsn: int, cid: int) -> bool:
        pos = self._batch.replace_item(user, lsn, cid)
        if not pos:
            return False
        self.replaced.append((user.name, pos))
        came = self.came[user.name]
        came[:] = [(at, -ref if at == pos else ref) for at, ref in came]
        return True

    def pull_all(self, name: str) -> None:
        """The user's inbox has all that large groups have told by now.

        Raises `Anew` where the user is not locked, `Later` where a page of it was not all.
        """
        self._batch.user(name)
        if name in self.short:
            raise Later

    def catch_up(self, conv: Group, users: Sequence[str]) -> None:
        """See `Group`. What the batch itself has told so far is among it.

        Raises `Anew` where a user is not locked, `Later` where there is more to take than one batch should bear.
        """
        members = {owner.uid: owner for owner in map(self._batch.user, users) if conv.member(owner.name) is not None}
        at: dict[int, int] = {}
        for known in (self._pulled_before, self.pulled):
            at.update((uid, known[conv.cid, uid]) for uid in members if (conv.cid, uid) in known)
        if missing := [uid for uid in members if uid not in at]:
            at.update(dict.fromkeys(missing, 0))  # of who has joined with this batch, before the group was large
            at.update(self._batch.link.one(PULLED, conv.cid, missing))
        lags = [Lag(uid, conv.cid, pulled, conv.stored) for uid, pulled in at.items() if pulled < conv.stored]
        if lags and sum(lag.acts - lag.pulled for lag in lags) > self._room:
            if self._room > 0:
                self.pull(lags, members)
            raise Later
        come: dict[int, list[tuple[int, Told]]] = {uid: [] for uid in members}
        if lags:
            rows = self._batch.link.one(TOLD, *zip(*lags, strict=True), self._room)
            self._room -= len(rows)
            for uid, cid, _, *told in rows:
                come[uid].append((cid, Told(*told)))
        for uid, items in come.items():
            items += [(conv.cid, self.told[conv.cid, act]) for act in range(max(at[uid], conv.stored) + 1, conv.acts + 1)]
            self.pulled[conv.cid, uid] = conv.acts
        self._come(members, come)

    # What members are told.

    def replaces(self, lsn: int, sender: int, cid: int, key: str, former: int | None) -> None:
        """A message with a `key` is the one of this log row; the one before it is `former`, where it is of this batch."""
        if former is None:
            rows = self._batch.link.one(FORMER, sender, cid, key)
            former = rows[0][0] if rows else NONE
        self._formers[lsn] = former

    def tell(self, conv: Group, lsn: int, record: Act, names: Sequence[str]) -> None:
        """What was just applied is told to the members of the group, if it is a large one; these have it."""
        if not conv.large:
            conv.large = conv.size > self._most_at_once()
        elif not isinstance(record, Reported):
            conv.acts += 1
            self.told[conv.cid, conv.acts] = Told(lsn, self._formers.get(lsn, 0))
            self._batch.touch_conv(conv)
            joined = (record.members or ()) if isinstance(record, GroupChange) else ()
            for name in (*names, *joined):
                self.pulled[conv.cid, self._batch.user(name).uid] = conv.acts
