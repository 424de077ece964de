"""What is committed, as the reader's thread sees it: on connections of its own, beside the ledger's.

A *view* is one moment: the projections as one snapshot, and over it the generations as they are. It begins inside the gate, so
that nothing is missing between the two. What the generations hold is copied as it is looked at, and only where it is committed;
where it is not yet, it is looked at again later (`_NotYetError`). Where generations change places in the middle, a view begins
anew.

What was read is told before anything that was committed later is: else a message that was recalled meanwhile would come back,
and one that was replaced would be offered. So a look that has shown messages begins anew where one of their conversations has
had an edit, a reaction, a recall or a replacement since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, cast

import peewee

from mqtt_im.cache import Cache
from mqtt_im.clock import Times
from mqtt_im.core.model import Amended, Conv, Device, Member, User
from mqtt_im.core.records import Act, AnyRecord
from mqtt_im.core.rules import Limits
from mqtt_im.shares import Bounds
from mqtt_im.store.interface import Readable
from mqtt_im.store.rendering import Rendering, Showing
from mqtt_im.store.uploads import Uploads

from .errors import ERRORS
from .files import open_log, open_projection
from .gate import Gate, Yielding
from .log import Log
from .projection import Projection
from .state import ProjectedState

_TRIES: Final = 3
"""After so many beginnings the gate stays closed until the end: others wait for this one look."""
_CACHE_KIB: Final = 16_384
MAX_NUMBERS: Final = 50_000
_MEMBERS_BYTES: Final = 12 << 20
"""Of members of groups that were read and stay in memory: ten groups of 5,000, each of which takes 20 ms to be read."""
_MEMBER_BYTES: Final = 240


class _MovedError(Exception):
    """The view is over before its end."""


class _NotYetError(Exception):
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
        has_account: Callable[[str], bool],
        uploads: Uploads,
        bounds: Bounds,
    ) -> None:
        super().__init__(log, projection, has_account, lambda _: (), uploads.stored, bounds)
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
            raise _NotYetError(lsn)

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
            self._stored_members.put(conv.name, members, _MEMBER_BYTES * (len(members) + 1))
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

    def __init__(self, state: ReadState, limits: Limits, online: Container[str], bounds: Bounds) -> None:
        self.state = state
        self.rendering = Rendering(state, bounds.of, state.show)
        self.limits = limits
        self.online = online
        self.now = self.behind = self.ahead = 0
        self.last = 0


class Reading:
    """Implements `interface.Reading` beside an engine."""

    gathers = False
    errors = ERRORS

    def __init__(
        self,
        data_dir: Path,
        gate: Gate,
        writer: Callable[[], ProjectedState],
        has_account: Callable[[str], bool],
        uploads: Uploads,
        limits: Limits,
        online: Container[str],
        bounds: Bounds,
    ) -> None:
        """`writer` tells the ledger's state, which is looked at inside the gate. Raises `StoreError`, and one of `errors`."""
        self._gate = gate
        self._writer = writer
        self._log_db = open_log(data_dir, readonly=True)
        self._projection_db = open_projection(data_dir, readonly=True)
        self._projection_db.pragma("cache_size", -bounds.of(_CACHE_KIB))
        self._projection = Yielding(_connection(self._projection_db), gate, self._check, snapshot=True)
        self._log = Yielding(_connection(self._log_db), gate, self._check)
        self._moves = self._changes = 0
        gate.enter()
        try:
            self._moves, self._changes = gate.moves, gate.changes
            self._log.keep = self._projection.keep = True
            state = ReadState(Log(self._log), Projection(self._projection), gate, has_account, uploads, bounds)
        finally:
            self._projection.end()
            gate.leave()
        self.view = View(state, limits, online, bounds)
        self._awaited = 0

    def together(self, fetches: Sequence[tuple[str, int, int]]) -> AbstractContextManager[None]:
        """See `interface.Reading`: one look is as cheap as another."""
        return nullcontext()

    def run(self, look: Callable[[Readable], None], tell: Callable[[], None], now: Times, exact: bool = False) -> bool:
        """See `interface.Reading`."""
        changed = 0
        for attempt in range(_TRIES + 1):
            self._log.keep = self._projection.keep = attempt == _TRIES
            self._gate.enter()
            try:
                self._begin(now)
                look(self.view)
                self._check()
                changed = self.view.state.changed_since(self.view.last, exact)
                if changed > self._gate.committed:
                    raise _NotYetError(changed)
                if not changed:
                    tell()
                    return True
            except _MovedError:
                continue
            except _NotYetError as later:
                self._awaited = later.lsn
                return False
            finally:
                self._projection.end()
                self._gate.leave()
        self._awaited = changed  # what was looked at was committed meanwhile, which needs no gate: soon it is looked at again
        return False

    def wait(self, seconds: float) -> None:
        """See `interface.Reading`."""
        self._gate.enter()
        try:
            self._gate.wait(self._awaited, seconds)
        finally:
            self._gate.leave()

    def close(self) -> None:
        """See `interface.Reading`."""
        self._log_db.close()
        self._projection_db.close()

    def _begin(self, now: Times) -> None:
        view, gate = self.view, self._gate
        self._moves = gate.moves
        view.state.begin(self._writer())
        view.last = gate.committed
        view.now = max(view.now, now.wall)
        view.behind, view.ahead = view.now - now.steady, now.ahead
        if gate.changes != self._changes:
            changed = gate.changed_since(self._changes)
            self._changes = gate.changes
            if changed is None:  # too many to tell
                view.state.forget_all_records()
                view.rendering.kept.clear()
                return
            for lsns, messages in changed:
                view.state.forget_records(lsns)
                view.rendering.kept.forget(lsns, messages)

    def _check(self) -> None:
        if self._gate.moves != self._moves:
            raise _MovedError


def _connection(db: peewee.SqliteDatabase) -> sqlite3.Connection:
    return cast(sqlite3.Connection, db.connection())  # type: ignore[no-untyped-call]
