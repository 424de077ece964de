"""One moment of what is committed, as the reader's thread sees it: the projections as one snapshot, over it the generations.

What the generations hold is copied as it is looked at, and only where it is committed; where it is not yet, it is looked at
again later (`NotYet`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from mqtt_im.cache import Cache
from mqtt_im.core.model import Amended, Conv, Device, Member, User, weigh
from mqtt_im.core.records import Act, AnyRecord
from mqtt_im.shares import Bounds
from mqtt_im.store.common.rendering import Rendering, Showing
from mqtt_im.store.given import Given

from .gate import Gate
from .state.projected import ProjectedState
from .tables.log import Log
from .tables.projection import Projection

MAX_NUMBERS: Final = 50_000
_MEMBERS_BYTES: Final = 12 << 20
"""Of members of groups that were read and stay in memory: ten groups of 5,000, each of which takes 20 ms to be read."""
_MEMBER_BYTES: Final = 240


class NotYet(Exception):
    """What was looked at is of a batch that is not on disk yet: row `lsn`."""

    def __init__(self, lsn: int) -> None:
        super().__init__(lsn)
        self.lsn = lsn


class ReadState(ProjectedState):
    """The state of a view. What is handed out are copies, and are changed by nobody."""

    def __init__(
        self,
        log: Log,
        projection: Projection,
        gate: Gate,
        given: Given,
        bounds: Bounds,
    ) -> None:
        super().__init__(log, projection, given.has_account, lambda _: (), given.uploads.stored, bounds)
        self._gate = gate
        self._stored_uids = 1 << 62
        self._writer: ProjectedState | None = None
        self._numbers: dict[str, int] = {}
        """By name, the numbers of conversations that are stored. They stay as they are, so these outlive a view."""
        self._stored_members = Cache[str, dict[str, Member]](bounds.of(_MEMBERS_BYTES))
        """By name, the members of groups as they are stored. They outlive a view, as long as none of them is written anew."""
        self.shown: set[str] = set()
        """Conversations of which the view was asked what became of messages."""

    def begin(self, writer: ProjectedState) -> None:
        """The view is of now; inside the gate."""
        if writer is not self._writer:  # the projections may have been made anew
            self._writer = writer
            self._numbers.clear()
            self._stored_members.clear()
        former = self.live
        self.live, self.frozen = writer.live, writer.frozen
        if former is self.frozen:
            for name in former.regrouped:
                self._stored_members.drop(name)
        elif former is not self.live:
            self._stored_members.clear()  # generations came and went, and nobody knows which groups they have changed
        for cache in (self._users, self._convs, self._devices, self._amended):
            cache.clear()
        self._absent.clear()
        self.shown.clear()

    def forget_records(self, lsns: Iterable[int]) -> None:
        """These rows of the log are no longer how they were."""
        for lsn in lsns:
            self._read.drop(lsn)

    def forget_all_records(self) -> None:
        """No row of the log may be how it was."""
        self._read.clear()

    def show(self, convs: Iterable[str]) -> None:
        """Messages of these conversations are shown as they were looked at before."""
        self.shown.update(convs)

    def changed_since(self, lsn: int, exact: bool) -> int:
        """The log row of a later change to a message that was shown, or to a user that was looked at; 0 where there was none."""
        rows = [generation.amends.get(name, 0) for generation in self._generations() for name in self.shown]
        if exact:
            users = self.live.users
            rows += [users[name].changed for name in self._users if name in users]
        newest = max(rows, default=0)
        return newest if newest > lsn else 0

    def _settled(self, lsn: int) -> None:
        if lsn > self._gate.committed:
            raise NotYet(lsn)

    # Entities.

    def user(self, name: str) -> User:
        """See `View`; one that has left no trace has the number 0."""
        user = self._users.get(name)
        if user is None:
            for generation in self._generations():
                found = generation.users.get(name)
                if found is not None:
                    self._settled(found.changed)
                    user = found.copied()
                    break
            else:
                user = self.projection.user(name) or User(0, name)
            self._users[name] = user
        return user

    def conv(self, name: str) -> Conv | None:
        """See `View`."""
        self._prefetch_convs({name})
        return self._convs.get(name)

    def conv_for(self, name: str) -> Conv:
        """The conversation; one that is not there has the number 0."""
        return self.conv(name) or Conv(0, name, lambda _: {})

    def _prefetch_convs(self, names: set[str]) -> None:
        missing = set[str]()
        for name in names:
            if name in self._convs or name in self._absent:
                continue
            found = self._kept(name)
            if found is None:
                missing.add(name)
            else:
                self._convs[name] = found.shown(self._members_of, self._part_of if found.group else None)
        if missing:
            super()._prefetch_convs(missing)

    def _kept(self, name: str) -> Conv | None:
        for generation in self._generations():
            found = generation.convs.get(name)
            if found is not None:
                self._settled(found.changed)
                return found
        return None

    def _members_of(self, conv: Conv) -> dict[str, Member]:
        found = self._kept(conv.name)
        if found is not None and found.loaded:
            return dict(found.members)
        if not conv.group or any(conv.name in generation.regrouped for generation in self._generations()):
            return super()._members_of(conv)
        members = self._stored_members.get(conv.name)
        if members is None:
            members = super()._members_of(conv)
            self._stored_members.put(conv.name, members, _MEMBER_BYTES * (weigh(members) + 1))
        return dict(members)

    def marked(self, conv: Conv) -> list[tuple[str, Member]]:
        """See `interface.State`; of a group that is nowhere in memory no others are read."""
        kept = self._kept(conv.name)
        at_hand = conv.loaded or (kept is not None and kept.loaded) or self._stored_members.get(conv.name) is not None
        if at_hand or not conv.group or any(conv.name in generation.regrouped for generation in self._generations()):
            return super().marked(conv)
        return self.projection.marked_members(conv.cid)

    def _part_of(self, conv: Conv, name: str) -> Member | None:
        found = self._kept(conv.name)
        return found.members.get(name) if found is not None and found.loaded else super()._part_of(conv, name)

    def _loaded(self, name: str, members: Mapping[str, Member]) -> None:
        """They are gone with the view."""

    def _prefetch_members(self, convs: list[Conv]) -> None:
        super()._prefetch_members([conv for conv in convs if (kept := self._kept(conv.name)) is None or not kept.loaded])

    def _prefetch_users(self, names: set[str]) -> None:
        stored = {name for name in names if name not in self._users and not any(name in one.users for one in self._generations())}
        for user in self.projection.users(list(stored)):
            self._users[user.name] = user

    def devices(self, user: str) -> dict[str, Device]:
        """See `interface.State`."""
        found = self._devices.get(user)
        if found is None:
            found = super().devices(user)
            for generation in reversed(self._generations()):
                for name, device in generation.devices.get(user, {}).items():
                    if device is None:
                        found.pop(name, None)
                    else:
                        found[name] = device.copied()
        return found

    # Messages and items.

    def _recent(self, user: User) -> dict[str, int]:
        found = dict(super()._recent(user))
        self._settled(max(found.values(), default=0))
        return found

    def items(self, user: User, after: int, limit: int) -> list[tuple[int, int]]:
        """See `interface.State`; up to the head that the user has in this view."""
        return super().items(user, after, min(limit, max(0, user.head - after)))

    def _trim_amended(self) -> None:
        """They are gone with the view."""

    def amended(self, conv: Conv, seq: int) -> Amended | None:
        """See `View`."""
        self._look_for(conv, seq)
        return super().amended(conv, seq)

    def amended_of(self, records: Mapping[int, AnyRecord]) -> dict[int, Amended]:
        """See `interface.State`."""
        acts = {lsn: record for lsn, record in records.items() if isinstance(record, Act)}
        names = {act.conv for act in acts.values()}
        self.shown |= names
        numbers = self._numbers_of(names)
        changed = [generation.amended for generation in self._generations() if generation.amended]
        known, found = self._amended, dict[int, Amended]()
        asked: dict[tuple[int, int], list[int]] = {}
        for lsn, act in acts.items():
            key = (numbers.get(act.conv, 0), act.seq)
            if key not in known:
                for some in changed:
                    if key in some:
                        known[key] = some[key].copied()
                        break
                else:
                    asked.setdefault(key, []).append(lsn)
                    continue
            if (amended := known[key]) is not None:
                found[lsn] = amended
        if asked:
            for key, amended in self.projection.amended_of(list(asked)).items():
                known[key] = amended
                found.update(dict.fromkeys(asked[key], amended))
        return found

    def _numbers_of(self, names: set[str]) -> dict[str, int]:
        """The numbers of these conversations, as far as they are there."""
        numbers = self._numbers
        missing = names - numbers.keys()
        found = {name: numbers[name] for name in names - missing}
        for generation in self._generations():
            found.update((name, generation.convs[name].cid) for name in missing if name in generation.convs)
        missing -= found.keys()
        if missing:
            stored = self.projection.conv_numbers(list(missing))
            if len(numbers) > self._bounds.of(MAX_NUMBERS):
                numbers.clear()
            numbers.update(stored)
            found.update(stored)
        return found

    def _look_for(self, conv: Conv, seq: int) -> None:
        self.shown.add(conv.name)
        key = (conv.cid, seq)
        if key not in self._amended:
            for generation in self._generations():
                found = generation.amended.get(key)
                if found is not None:
                    self._amended[key] = found.copied()
                    return


class View(Showing):
    """`interface.Readable`."""

    def __init__(self, state: ReadState, given: Given, bounds: Bounds) -> None:
        self.state = state
        self.rendering = Rendering(state, bounds.of, state.show)
        self.limits = given.limits
        self.online = given.online
        self.now = self.behind = self.ahead = 0
        self.last = 0
