"""What a batch does with large groups (`large`): what it tells their members, and what its users take of what they were told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mqtt_im.core.model import Conv, User
from mqtt_im.core.records import Act, GroupChange, Reported

from .large import FORMER, LAGS, PAGE, PULLED, TOLD, Group, Lag, Told, taken
from .wire import Link


class Batch(Protocol):
    """The state of the batch."""

    link: Link

    def user(self, name: str) -> User:
        """See `View`. Raises `Anew`."""

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """See `core.apply.State`."""

    def touch_conv(self, conv: Conv) -> None:
        """See `core.apply.State`."""


class Telling:
    """Of one batch after the other."""

    def __init__(self, batch: Batch, most_at_once: int) -> None:
        """A group with more than `most_at_once` members becomes large."""
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
        self.short: set[str] = set()
        """Users who have more to pull."""

    def forget(self) -> None:
        """A batch begins."""
        for memory in (self.told, self._formers, self.pulled, self._pulled_before, self.came):
            memory.clear()
        self.short.clear()

    # What members take.

    def stored(self, cid: int, uid: int, pulled: int) -> None:
        """Up to there the member's inbox had what the group tells, before the batch."""
        self._pulled_before[cid, uid] = pulled

    def pull(self, lags: list[Lag], users: Mapping[int, User]) -> None:
        """The inboxes of these users, who are locked, have what large groups tell, the oldest first, as far as a page goes."""
        refs, closed, behind = taken(lags, self._batch.link.one(TOLD, *zip(*lags, strict=True), PAGE), PAGE)
        self.pulled.update(closed)
        self.short.update(users[uid].name for uid in behind)
        for uid, items in refs.items():
            self._come(users[uid], items)

    def _come(self, user: User, items: Sequence[Told]) -> None:
        came = self.came.setdefault(user.name, [])
        replaced = {item.former for item in items}
        for lsn, _ in items:
            user.head += 1
            ref = -lsn if lsn in replaced else lsn
            self._batch.put_item(user, user.head, ref, None)
            came.append((user.head, ref))

    def pull_all(self, name: str) -> None:
        """The user's inbox has all that large groups have told by now. Raises `Anew` where the user is not locked."""
        user = self._batch.user(name)
        while name in self.short:
            self.short.discard(name)
            lags = [Lag(*row) for row in self._batch.link.one(LAGS, [user.uid])]
            lags = [lag._replace(pulled=self.pulled.get((lag.cid, lag.uid), lag.pulled)) for lag in lags]
            self.pull([lag for lag in lags if lag.pulled < lag.acts], {user.uid: user})

    def catch_up(self, conv: Group, users: Sequence[str]) -> None:
        """See `Group`. What the batch itself has told so far is among it. Raises `Anew` where one is not locked."""
        members = {owner.uid: owner for owner in map(self._batch.user, users) if conv.member(owner.name) is not None}
        at: dict[int, int] = {}
        for known in (self._pulled_before, self.pulled):
            at.update((uid, known[conv.cid, uid]) for uid in members if (conv.cid, uid) in known)
        if missing := [uid for uid in members if uid not in at]:
            at.update(dict.fromkeys(missing, 0))  # of who has joined with this batch, before the group was large
            at.update(self._batch.link.one(PULLED, conv.cid, missing))
        lags = [Lag(uid, conv.cid, pulled, conv.stored) for uid, pulled in at.items() if pulled < conv.stored]
        come: dict[int, list[Told]] = {}
        if lags:
            rows = self._batch.link.one(TOLD, *zip(*lags, strict=True), sum(lag.acts - lag.pulled for lag in lags))
            for uid, _, _, *told in rows:
                come.setdefault(uid, []).append(Told(*told))
        for uid, owner in members.items():
            now = [self.told[conv.cid, act] for act in range(max(at[uid], conv.stored) + 1, conv.acts + 1)]
            if items := come.get(uid, []) + now:
                self._come(owner, items)
            self.pulled[conv.cid, uid] = conv.acts

    # What members are told.

    def replaces(self, lsn: int, sender: int, cid: int, key: str, former: int | None) -> None:
        """A message with a `key` is the one of this log row; the one before it is `former`, where it is of this batch."""
        if former is None:
            rows = self._batch.link.one(FORMER, sender, cid, key)
            former = rows[0][0] if rows else 0
        self._formers[lsn] = former

    def tell(self, conv: Group, lsn: int, record: Act, names: Sequence[str]) -> None:
        """What was just applied is told to the members of the group, if it is a large one; these have it."""
        if not conv.large:
            conv.large = conv.size > self._most_at_once
        elif not isinstance(record, Reported):
            conv.acts += 1
            self.told[conv.cid, conv.acts] = Told(lsn, self._formers.get(lsn, 0))
            self._batch.touch_conv(conv)
            joined = (record.members or ()) if isinstance(record, GroupChange) else ()
            for name in (*names, *joined):
                self.pulled[conv.cid, self._batch.user(name).uid] = conv.acts
