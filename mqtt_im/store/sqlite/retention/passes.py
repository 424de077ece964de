"""Retention: a pass over the log that takes out what may go, a fold at a time, between the batches of the ledger.

A record goes when it is old, by `Policy`, and every device that counts has acknowledged its item. With it go its items, its
place in the conversation, and what became of it; what it had done to users, conversations and devices stays in the base
(`base.py`). What only changed those goes as soon as the base has it. Three things stay behind, for good or for a while:

- a change to a group, without its items: later messages are addressed by it;
- what an `id` had done, without content, as long as the `id` is remembered (`core.gone`);
- the newest row of the log, so that nobody takes a shorter log for another one.

Items that are gone are told to who asks as a `void` (PROTOCOL §3), whichever way they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

import msgspec

from mqtt_im.core.apply import apply, recipients
from mqtt_im.core.gone import remembered
from mqtt_im.core.model import Device
from mqtt_im.core.records import (
    MESSAGES,
    Act,
    AnyRecord,
    Cursors,
    Gone,
    GroupChange,
    Message,
    decode,
    encode,
)
from mqtt_im.core.usage import usage_of
from mqtt_im.protocol.names import members_of_direct
from mqtt_im.store.commits import Author
from mqtt_im.store.jobs import Job
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.retaining import DAY_MS, ID_DAYS, Content, key_of
from mqtt_im.store.sqlite.checkpoints import Checkpoints
from mqtt_im.store.sqlite.flusher import Flusher
from mqtt_im.store.sqlite.log import Log
from mqtt_im.store.sqlite.projection import Projection
from mqtt_im.store.sqlite.state import ProjectedState
from mqtt_im.store.wanted import Asked

from .base import BaseState, Groups
from .folds import AMENDED, GONE, INDEXES, Folds, Plan, Position

FOLD_WEIGHT: Final = 400_000
"""One fold changes about so many rows in all tables. The more there are, the fewer pages are written for each."""
SLICE_ROWS: Final = 50
"""Rows of the log that are read in one part …"""
SLICE_WEIGHT: Final = 1_000
"""… and how much of a fold one part makes; a message to a large group may be a part of its own."""
_TRIES: Final = 100
"""How often the content of the write-ahead files is tried to be removed, as long as somebody reads them."""


class Host(Protocol):
    """The engine that a pass works on."""

    log: Log
    projection: Projection
    folds: Folds
    flusher: Flusher
    checkpoints: Checkpoints
    state: ProjectedState
    now: int
    last: int

    def append(self, author: Author, record: AnyRecord) -> None:
        """See `interface.Engine`."""

    @property
    def changing(self) -> AbstractContextManager[object]:
        """See `interface.Store`."""

    def commit(self) -> None:
        """See `interface.Store`."""

    def count_gone(self, name: str, gone: int, size: int) -> None:
        """So many of the user's messages, and of their bytes, are kept no more."""

    def raise_floor(self, name: str, floor: int) -> None:
        """A user's items up to this one are gone."""

    def base(self) -> BaseState:
        """The base, to be moved on."""

    def forget(self, lsns: Sequence[int], messages: Sequence[tuple[int, int]], names: Mapping[int, str]) -> None:
        """Log rows were taken away or emptied, and the messages with these `(cid, seq)` are gone; `names` are conversations'."""


class Pass:
    """One pass. `step` is called on the ledger's thread, between batches, until it returns False.

    Raises what `sqlite3` raises; then the pass is over, and so is the state of the engine until it is loaded anew.
    """

    def __init__(self, engine: Host, policy: Policy, now: int) -> None:
        """`now` is ms since 1970."""
        self.removed = Removed()
        self._engine = engine
        self._policy = policy
        self._now = now
        self._before = now - policy.retention_days * DAY_MS if policy.retention_days else 0
        self._until = 0 if policy.retention_messages or not policy.retention_days else self._before
        """Rows from this time on are left alone; 0: none are."""
        self._forgotten = now - ID_DAYS * DAY_MS
        self._unseen = now - policy.device_expiry_days * DAY_MS if policy.device_expiry_days else 0
        self._work: Generator[bool, None, None] | None = None
        self._at = 0
        self.waits = False
        """The next step is for later, however idle the store is."""
        self._groups = Groups()
        self._held: set[tuple[str, str, str]] = set()
        """Keys (see `key_of`) of old messages that are held back. Later ones with the same key are too: else nothing would say
        that these were replaced, or that they are not the newest."""
        self._base = engine.base()

    def end(self) -> None:
        """See `retaining.Pass`."""
        if self._work is not None:
            self._work.close()

    def step(self) -> bool:
        """One more part is done; False where there was none left."""
        self.waits = False
        if self._work is None:
            self._work = self._run()
        return next(self._work, False)

    def _run(self) -> Generator[bool, None, None]:
        """Yields True after each part."""
        flusher = self._engine.flusher
        flusher.patient = True  # else each of its bulk writes touches again many of the pages that the next one and a fold do
        try:
            yield from self._parts()
        finally:
            flusher.patient = False

    def _parts(self) -> Iterator[bool]:
        engine, folds = self._engine, self._engine.folds
        upto = self._choose_end()
        while engine.projection.position()[1] < upto:
            if not engine.flusher.writing:
                engine.flusher.step(hurry=True)
            self.waits = engine.flusher.writing
            yield True
        while self._at < upto:
            yield from self._settle()
            number, base = folds.position()
            fold = _Fold(base)
            while self._at < upto and fold.weight < FOLD_WEIGHT:
                rows = [(lsn, decode(data)) for lsn, data in folds.rows(self._at, upto, SLICE_ROWS)]
                if not rows or (self._until and rows[-1][1].ts >= self._until):
                    rows = [row for row in rows if row[1].ts < self._until]
                    upto = rows[-1][0] if rows else self._at
                self._prefetch(fold, rows)
                enough = fold.weight + SLICE_WEIGHT
                for lsn, record in rows:
                    self._look_at(fold, lsn, record)
                    self._at = lsn
                    if fold.weight >= enough:
                        break
                yield True
            if fold.plan.gone or fold.plan.rewritten or fold.plan.unpacked or fold.base != base:
                yield from self._fold(fold, Position(number + 1, fold.base))
        if (yield from self._try(folds.settle)):
            yield from self._tidy()
        self.removed.scoured = yield from self._try(folds.scour)

    def _settle(self) -> Iterator[bool]:
        """What was done before is there for sure. Even a power cut must not put the projections back to before the base."""
        yield from self._try(self._engine.folds.settle)
        yield from self._tidy()

    def _tidy(self) -> Iterator[bool]:
        for _ in self._engine.folds.tidy():
            yield True

    def _try(self, part: Callable[[], bool]) -> Generator[bool, None, bool]:
        """Until it works, or has been tried often; whether it has worked."""
        checkpoints = self._engine.checkpoints
        checkpoints.look()  # what is done beside need not be done here
        for _ in range(_TRIES):
            yield from self._while_bulk()
            while checkpoints.busy:
                self.waits = True
                yield True
            if part():
                return True
            self.waits = True
            yield True
        return False

    def _prefetch(self, fold: _Fold, rows: list[tuple[int, AnyRecord]]) -> None:
        """Whom these records are about is in memory, in the base as far as it has not got to them."""
        asked: list[Asked] = []
        for lsn, record in rows:
            if isinstance(record, Message) and lsn > fold.base:
                pair = members_of_direct(record.conv)
                to = record.conv if pair is None else pair[1] if pair[0] == record.by else pair[0]
                asked.append((record.by, None, to, ()))
        self._base.prefetch(asked)
        with self._engine.changing:
            self._engine.state.prefetch_records(record for _, record in rows if isinstance(record, Content))

    def _gather(self, fold: _Fold) -> Iterator[bool]:
        """The plan says what becomes of inboxes, of what users keep, and of the base."""
        plan = fold.plan
        items, freed = plan.changes["item"], plan.changes[GONE]
        for count, uid in enumerate(sorted(fold.items)):
            items += [(uid, pos) for pos in fold.items[uid]]
            if not count % SLICE_WEIGHT:
                yield True
        for count, (name, uid) in enumerate(fold.freed.items()):
            user = self._base.user(name)
            freed.append((user.gone, user.gone_bytes, uid))
            if not count % SLICE_WEIGHT:
                yield True
        for statement, made in self._base.moved():
            rows: list[tuple[Any, ...]] = []
            for count, row in enumerate(made):
                if row is not None:
                    rows.append(row)
                if row is None or not count % SLICE_WEIGHT:
                    yield True
            if rows:
                plan.base.append((statement, rows))

    def _fold(self, fold: _Fold, position: Position) -> Iterator[bool]:
        engine, folds, plan = self._engine, self._engine.folds, fold.plan
        yield from self._gather(fold)
        for _ in folds.write_down(position.number, plan):
            yield True
        folds.decide(position)
        self.removed.messages += len(fold.messages)
        self.removed.items += len(plan.changes["item"])
        self.removed.rows += len(plan.gone)
        yield from self._between_bulks()
        for _ in folds.project(plan, INDEXES):  # the rows stay as they are, as long as somebody finds them
            yield from self._between_bulks()
        for lsns in folds.work_off(plan):
            engine.forget(lsns, (), {})
            yield True
        self._base.thaw()
        yield from self._between_bulks()
        for messages in folds.project(plan, AMENDED):
            engine.forget((), messages, fold.convs)
            yield from self._between_bulks()
        for floors in folds.raise_floors(plan):
            for floor, uid in floors:
                engine.raise_floor(fold.names[uid], floor)
            yield from self._between_bulks()
        for rows in folds.count_gone(plan):
            for gone, size, uid in rows:
                engine.count_gone(fold.names[uid], gone, size)
            yield from self._between_bulks()
        folds.projected_now(position.number)

    def _between_bulks(self) -> Iterator[bool]:
        """The projections may be written."""
        yield True
        yield from self._while_bulk()

    def _while_bulk(self) -> Iterator[bool]:
        """Until no bulk write is under way; the ledger goes on with it meanwhile."""
        while self._engine.flusher.writing:
            self.waits = True
            yield True

    def _choose_end(self) -> int:
        """The newest row that may go. A row is put after those that hold something, so that they are not the newest."""
        engine = self._engine
        newest = engine.log.get(engine.last)
        if newest is not None and not isinstance(decode(newest), Cursors):
            with engine.changing:
                engine.append(Job(), Cursors(max(self._now, engine.now), []))
            engine.commit()
        return engine.last - 1

    # Which records go.

    def _look_at(self, fold: _Fold, lsn: int, record: AnyRecord) -> None:
        fold.weight += len(record.moves) if isinstance(record, Cursors) else 1
        if isinstance(record, GroupChange):
            self._groups.take(record)
        if lsn > fold.base:
            apply(self._base, lsn, record)
            fold.base = lsn
            fold.weight += 2 + len(record.pos) if isinstance(record, Content) else 1
        if isinstance(record, Gone):
            if record.ts < self._forgotten:
                fold.plan.gone.append(lsn)
                self._forget(fold, lsn, record.act)
        elif not isinstance(record, Content):
            fold.plan.gone.append(lsn)
        elif record.pos and self._may_go(fold, record):
            self._take(fold, lsn, record)
        elif isinstance(record, Message) and record.ts < self._forgotten and _packet(record):
            # What is repeated with DUP after so long is new; and of two with one packet identifier the older one may outlast the
            # newer.
            self._forget_packet(fold, lsn, record)
            fold.plan.unpacked.append(lsn)

    def _may_go(self, fold: _Fold, record: Content) -> bool:
        policy, state = self._policy, self._engine.state
        conv = state.conv_for(record.conv)
        aged = record.ts < self._before
        surplus = bool(policy.retention_messages) and record.seq <= conv.head - policy.retention_messages
        if not isinstance(record, MESSAGES):
            here = (conv.cid, record.seq) not in fold.messages and state.message_lsn(conv, record.seq) is not None
            return not here and (aged or surplus or not policy.removes) and self._acknowledged(record)
        if not (aged or surplus):
            return False
        key = key_of(record)
        if key not in self._held and self._acknowledged(record):
            return True
        if key is not None:
            self._held.add(key)
        return False

    def _acknowledged(self, record: Act) -> bool:
        state = self._engine.state
        for name, pos in zip(self._recipients(record), record.pos, strict=True):
            for device in state.devices(name).values():
                if device.cursor < pos and not self._expired(device):
                    return False
        return True

    def _recipients(self, record: Act) -> list[str]:
        group = record.conv[0] == "#"
        return recipients(self._groups.conv(record.conv) if group else self._engine.state.conv_for(record.conv), record)

    def _expired(self, device: Device) -> bool:
        return device.seen < self._unseen

    # What goes with them.

    def _take(self, fold: _Fold, lsn: int, record: Content) -> None:
        state = self._engine.state
        for name, pos in zip(self._recipients(record), record.pos, strict=True):
            uid = state.user(name).uid
            fold.items.setdefault(uid, []).append(pos)
            fold.names[uid] = name
        fold.weight += 5 + 3 * len(record.pos)
        self._count(fold, record)
        if isinstance(record, MESSAGES):
            self._take_message(fold, lsn, record)
        if isinstance(record, GroupChange):
            fold.plan.rewritten[lsn] = encode(msgspec.structs.replace(record, pos=[], users=[]))
            return
        known = record.id is not None or (isinstance(record, Message) and _packet(record))
        if known and record.ts >= self._forgotten:
            fold.plan.rewritten[lsn] = encode(remembered(record))
        else:
            fold.plan.gone.append(lsn)
            self._forget(fold, lsn, record)

    def _count(self, fold: _Fold, record: Content) -> None:
        """What it was of what its user keeps is kept no more."""
        usage = usage_of(record)
        if usage is not None:
            user = self._base.user(usage.user)
            user.gone += usage.messages
            user.gone_bytes += usage.size
            self._base.touch_user(user)
            uid = fold.freed[usage.user] = self._engine.state.user(usage.user).uid
            fold.names[uid] = usage.user

    def _take_message(self, fold: _Fold, lsn: int, record: Message | GroupChange) -> None:
        state, changes = self._engine.state, fold.plan.changes
        conv = state.conv_for(record.conv)
        key = conv.cid, record.seq
        fold.messages.add(key)
        fold.convs[conv.cid] = conv.name
        changes["message"].append(key)
        changes["amended"].append(key)
        changes["change"].append(key)
        extra = record.extra if isinstance(record, Message) else None
        if extra is not None:
            for name in extra.get("mentions", ()):
                changes["mention"].append((conv.cid, 0 if name == "*" else state.user(name).uid, record.seq))
            if "key" in extra:
                changes["keyed"].append((record.by, record.conv, extra["key"], lsn))

    def _forget(self, fold: _Fold, lsn: int, act: Act) -> None:
        """Nobody asks for its `id` any more."""
        if act.id is not None:
            fold.plan.changes["request"].append((self._engine.state.user(act.by).uid, act.id, lsn))
        if isinstance(act, Message):
            self._forget_packet(fold, lsn, act)

    def _forget_packet(self, fold: _Fold, lsn: int, message: Message) -> None:
        packet = _packet(message)
        if packet:
            fold.plan.changes["packet"].append((message.by, message.device, *packet, lsn))


def _packet(message: Message) -> list[Any] | None:
    """Session and packet identifier of a message that was published without an `id`."""
    return None if message.extra is None else message.extra.get("packet")


class _Fold:
    """What one fold takes away."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.weight = 0
        self.items: dict[int, list[int]] = {}
        """uid → each `pos`, ascending."""
        self.names: dict[int, str] = {}
        """uid → the user's name."""
        self.messages: set[tuple[int, int]] = set()
        """`(cid, seq)`."""
        self.convs: dict[int, str] = {}
        """cid → the conversation's name."""
        self.freed: dict[str, int] = {}
        """Users of whose messages some go, with their uid."""
        self.plan = Plan(changes={table: [] for table in (*INDEXES, *AMENDED, GONE)})
