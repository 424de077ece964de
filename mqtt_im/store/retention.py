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

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mqtt_im.core.apply import apply, recipients
from mqtt_im.core.gone import remembered
from mqtt_im.core.model import Device
from mqtt_im.core.records import (
    Act,
    AnyRecord,
    Cursors,
    Edited,
    Gone,
    GroupChange,
    Message,
    Reacted,
    Recalled,
    Reported,
    decode,
    encode,
)
from mqtt_im.protocol.errors import StoreError

from .base import Groups
from .folds import Changes, Position
from .generation import slices
from .jobs import Job

if TYPE_CHECKING:
    from .engine import Engine

DAY_MS: Final = 86_400_000
ID_DAYS: Final = 30
"""An `id` is remembered at least so long (PROTOCOL §3)."""
CHUNK_ROWS: Final = 400
CHUNK_WEIGHT: Final = 600
"""One fold looks at so many rows, and changes about so many in all tables; that takes about ten milliseconds."""
_TRIES: Final = 100
"""How often the content of the write-ahead files is tried to be removed, as long as somebody reads them."""
PAUSE_S: Final = 0.05
"""Between two folds while there is traffic."""


Content = Message | Edited | Recalled | Reacted | Reported | GroupChange
"""Records that make items."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept, and how long; the keys of `[store]`."""

    retention_days: int = 0
    """0: age alone removes nothing."""
    retention_messages: int = 0
    """Of each conversation; 0: all."""
    device_expiry_days: int = 90
    """0: every registered device holds back what it has not acknowledged."""

    @property
    def removes(self) -> bool:
        """Whether anything may ever go."""
        return bool(self.retention_days or self.retention_messages)


class Removed(msgspec.Struct):
    """What a pass has taken away."""

    messages: int = 0
    items: int = 0
    rows: int = 0
    """Rows of the log, those of messages included."""
    scoured: bool = True
    """Whether the content is gone from the write-ahead files too; they are written over in time."""


Ended = Callable[[Removed | StoreError], None]


class Pass:
    """One pass. `step` is called on the ledger's thread, between batches, until it returns False.

    Raises what `sqlite3` raises; then the pass is over, and so is the state of the engine until it is loaded anew.
    """

    def __init__(self, engine: Engine, policy: Policy, now: int) -> None:
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
        self._upto: int | None = None
        """The pass goes up to this log row."""
        self._at = 0
        self._ready = False
        self.waits = False
        """The next step is for later, however idle the store is."""
        self._tries = _TRIES
        self._groups = Groups()
        self._held: set[tuple[str, str, str]] = set()
        """Keys (see `_key`) of old messages that are held back. Later ones with the same key are too: else nothing would say that
        these were replaced, or that they are not the newest."""
        self._base = engine.base()

    def step(self) -> bool:
        """One more part is done; False where there was none left."""
        engine = self._engine
        if self._upto is None:
            self._upto = self._choose_end()
        if engine.writing:
            return True
        if not self._ready:
            if engine.projection.position()[1] < self._upto:
                engine.flush_step(hurry=True)
                return True
            # Even a power cut must not put the projections back to before the base.
            engine.folds.settle()
            self._ready = True
        position = engine.folds.position()
        fold = _Fold(position.base)
        rows = [(lsn, decode(data)) for lsn, data in engine.folds.rows(self._at, self._upto, CHUNK_ROWS)]
        self._base.prefetch([(one.by, None, _to(one)) for lsn, one in rows if lsn > fold.base and isinstance(one, Message)])
        for lsn, record in rows:
            if self._until and record.ts >= self._until:
                self._upto = self._at
                break
            self._look_at(fold, lsn, record)
            self._at = lsn
            if fold.weight >= CHUNK_WEIGHT:
                break
        if not fold.seen:
            return self._finish()
        if fold.gone or fold.rewritten or fold.base != position.base:
            self._write(fold, Position(position.number + 1, fold.base))
        return True

    def _finish(self) -> bool:
        folds = self._engine.folds
        self.removed.scoured = folds.settle() and folds.scour()
        self.waits = not self.removed.scoured
        self._tries -= 1
        return self.waits and self._tries > 0

    def _choose_end(self) -> int:
        """The newest row that may go. A row is put after those that hold something, so that they are not the newest."""
        engine = self._engine
        newest = engine.log.get(engine.last)
        if newest is not None and not isinstance(decode(newest), Cursors):
            engine.append(Job(), Cursors(max(self._now, engine.now), []))
            engine.commit()
        return engine.last - 1

    # Which records go.

    def _look_at(self, fold: _Fold, lsn: int, record: AnyRecord) -> None:
        fold.seen = True
        fold.weight += len(record.moves) if isinstance(record, Cursors) else 1
        if isinstance(record, GroupChange):
            self._groups.take(record)
        if lsn > fold.base:
            apply(self._base, lsn, record)
            fold.base = lsn
        if isinstance(record, Gone):
            if record.ts < self._forgotten:
                fold.gone.append(lsn)
                self._forget(fold, lsn, record.act)
        elif not isinstance(record, Content):
            fold.gone.append(lsn)
        elif record.pos and self._may_go(fold, record):
            self._take(fold, lsn, record)
        elif isinstance(record, Message) and record.ts < self._forgotten and _packet(record):
            # What is repeated with DUP after so long is new; and of two with one packet identifier the older one may outlast the
            # newer.
            self._forget_packet(fold, lsn, record)
            extra = {name: value for name, value in (record.extra or {}).items() if name != "packet"}
            fold.rewritten.append((encode(msgspec.structs.replace(record, extra=extra or None)), lsn))

    def _may_go(self, fold: _Fold, record: Content) -> bool:
        policy, state = self._policy, self._engine.state
        conv = state.conv_for(record.conv)
        aged = record.ts < self._before
        surplus = bool(policy.retention_messages) and record.seq <= conv.head - policy.retention_messages
        if not isinstance(record, Message | GroupChange):
            here = (conv.cid, record.seq) not in fold.messages and state.message_lsn(conv, record.seq) is not None
            return not here and (aged or surplus or not policy.removes) and self._acknowledged(record)
        if not (aged or surplus):
            return False
        key = _key(record)
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
            user = state.user(name)
            fold.items[user.uid, pos] = name
        fold.weight += 2 * len(record.pos)
        self.removed.items += len(record.pos)
        if isinstance(record, Message | GroupChange):
            self._take_message(fold, lsn, record)
        if isinstance(record, GroupChange):
            bare = msgspec.structs.replace(record, pos=[], users=[])
            fold.rewritten.append((encode(bare), lsn))
            return
        known = record.id is not None or (isinstance(record, Message) and _packet(record))
        if known and record.ts >= self._forgotten:
            assert not isinstance(record, GroupChange)
            fold.rewritten.append((encode(remembered(record)), lsn))
        else:
            fold.gone.append(lsn)
            self._forget(fold, lsn, record)

    def _take_message(self, fold: _Fold, lsn: int, record: Message | GroupChange) -> None:
        state, changes = self._engine.state, fold.changes
        conv = state.conv_for(record.conv)
        key = conv.cid, record.seq
        fold.messages.add(key)
        self.removed.messages += 1
        changes["message"].append(key)
        changes["amended"].append(key)
        extra = record.extra if isinstance(record, Message) else None
        if extra is not None:
            for name in extra.get("mentions", ()):
                changes["mention"].append((conv.cid, 0 if name == "*" else state.user(name).uid, record.seq))
            if "key" in extra:
                changes["keyed"].append((record.by, record.conv, extra["key"], lsn))

    def _forget(self, fold: _Fold, lsn: int, act: Act) -> None:
        """Nobody asks for its `id` any more."""
        if act.id is not None:
            fold.changes["request"].append((self._engine.state.user(act.by).uid, act.id, lsn))
        if isinstance(act, Message):
            self._forget_packet(fold, lsn, act)

    def _forget_packet(self, fold: _Fold, lsn: int, message: Message) -> None:
        packet = _packet(message)
        if packet:
            fold.changes["packet"].append((message.by, message.device, *packet, lsn))

    # On disk.

    def _write(self, fold: _Fold, position: Position) -> None:
        engine, folds = self._engine, self._engine.folds
        changes = fold.changes
        changes["item"] = list(fold.items)
        names = {uid: name for (uid, _), name in fold.items.items()}
        folds.begin()
        folds.change(changes)
        floors = folds.risen_floors(names)
        folds.change({"floor": floors})
        for floor, uid in floors:
            user = self._base.user(names[uid])
            user.floor = floor
            self._base.touch_user(user)
        base = slices(self._base.freeze(), CHUNK_WEIGHT)
        folds.fold(position, {**changes, "floor": floors}, fold.gone, fold.rewritten, base)
        folds.commit(position.number)
        self._base.thaw()
        for floor, uid in floors:
            engine.state.user(names[uid]).floor = floor
        engine.forget([*fold.gone, *(lsn for _, lsn in fold.rewritten)], fold.messages)
        self.removed.rows += len(fold.gone)


def _key(record: Message | GroupChange) -> tuple[str, str, str] | None:
    """Sender, conversation and key of a message that has one and was not dropped."""
    if isinstance(record, Message) and record.extra is not None and "key" in record.extra and not record.dropped:
        return record.by, record.conv, record.extra["key"]
    return None


def _packet(message: Message) -> list[Any] | None:
    """Session and packet identifier of a message that was published without an `id`."""
    return None if message.extra is None else message.extra.get("packet")


class Compactor:
    """Passes that were asked for, done one after the other, in between what the ledger's thread has to do."""

    def __init__(self) -> None:
        self._asked: deque[tuple[Policy, int, Ended]] = deque()
        self._pass: Pass | None = None
        self._ended: Ended = _nobody
        self._due = 0.0

    def ask(self, policy: Policy, now: int, ended: Ended) -> None:
        """A pass is wanted; from any thread. `ended` is called on the ledger's, with what was removed, or why it failed."""
        self._asked.append((policy, now, ended))

    def pause(self) -> float | None:
        """Seconds until there is something to do; None where there is nothing."""
        if self._pass is None and not self._asked:
            return None
        return max(0.0, self._due - time.monotonic())

    def work(self, engine: Engine, busy: bool) -> None:
        """Do a part, where one is due. `busy`: others wait for the thread. Raises what `Pass` raises."""
        if self._pass is None:
            if not self._asked:
                return
            policy, now, self._ended = self._asked.popleft()
            self._pass = Pass(engine, policy, now)
        if busy and time.monotonic() < self._due:
            return
        if self._pass.step():
            self._due = time.monotonic() + (PAUSE_S if busy or self._pass.waits else 0.0)
        else:
            self._end(self._pass.removed)

    def fail(self, reason: str) -> None:
        """The pass that is under way is over: the state that it worked on is not there any more."""
        if self._pass is not None:
            self._end(StoreError(reason))

    def stop(self) -> None:
        """Nothing more is done."""
        self.fail("the store is closed")
        while self._asked:
            self._asked.popleft()[2](StoreError("the store is closed"))

    def _end(self, result: Removed | StoreError) -> None:
        ended, self._ended, self._pass = self._ended, _nobody, None
        ended(result)


def _nobody(result: Removed | StoreError) -> None:
    """Nobody waits."""


def _to(record: Message) -> str:
    """The group, or the other user, that a message was written to."""
    if record.conv[0] == "#":
        return record.conv
    first, _, second = record.conv.partition(":")
    return second if first == record.by else first


class _Fold:
    """What one transaction takes away."""

    def __init__(self, base: int) -> None:
        self.seen = False
        self.weight = 0
        self.base = base
        self.gone: list[int] = []
        self.rewritten: list[tuple[bytes, int]] = []
        self.items: dict[tuple[int, int], str] = {}
        """`(uid, pos)` → the user's name."""
        self.messages: set[tuple[int, int]] = set()
        """`(cid, seq)`."""
        self.changes: Changes = {table: [] for table in ("message", "mention", "amended", "request", "packet", "keyed")}
