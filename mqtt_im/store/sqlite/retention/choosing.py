"""Which records go, and what goes with them.

A record goes when it is old, by `Policy`, and every device that counts has acknowledged its item. With it go its items, its
place in the conversation, and what became of it; what it had done to users, conversations and devices stays in the base
(`base.py`). What only changed those goes as soon as the base has it. Three things stay behind, for good or for a while:

- a change to a group, without its items: later messages are addressed by it;
- what an `id` had done, without content, as long as the `id` is remembered (`core.gone`);
- the newest row of the log, so that nobody takes a shorter log for another one (`passes.py`).

Items that are gone are told to who asks as a `void` (PROTOCOL §3), whichever way they are read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mqtt_im.core.apply import apply, recipients
from mqtt_im.core.gone import remembered
from mqtt_im.core.model import Device
from mqtt_im.core.records import MESSAGES, Act, AnyRecord, Cursors, Gone, GroupChange, Message, encode
from mqtt_im.core.usage import usage_of
from mqtt_im.shares import Bounds
from mqtt_im.store.common.retaining import DAY_MS, ID_DAYS, Content, key_of
from mqtt_im.store.policy import Policy
from mqtt_im.store.sqlite.state.projected import ProjectedState

from .base import BaseState
from .folds import AMENDED, GONE, INDEXES, Plan
from .groups import Groups


class Fold:
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


class Choice:
    """Looks at the log from its beginning, row by row, and moves the base along."""

    def __init__(self, state: ProjectedState, base: BaseState, policy: Policy, now: int, bounds: Bounds) -> None:
        """`now` is ms since 1970."""
        self._state = state
        self._base = base
        self._policy = policy
        self.before = now - policy.retention_days * DAY_MS if policy.retention_days else 0
        """What is older than this time is old; 0: nothing is."""
        self._forgotten = now - ID_DAYS * DAY_MS
        self._unseen = now - policy.device_expiry_days * DAY_MS if policy.device_expiry_days else 0
        self._groups = Groups(bounds)
        self._held: set[tuple[str, str, str]] = set()
        """Keys (see `key_of`) of old messages that are held back. Later ones with the same key are too: else nothing would say
        that these were replaced, or that they are not the newest."""

    def look_at(self, fold: Fold, lsn: int, record: AnyRecord) -> None:
        """The next row of the log is part of the fold: the base has it, and if it goes, the plan says all that goes with it."""
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

    def _may_go(self, fold: Fold, record: Content) -> bool:
        policy, state = self._policy, self._state
        conv = state.conv_for(record.conv)
        aged = record.ts < self.before
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
        state = self._state
        for name, pos in zip(self._recipients(record), record.pos, strict=True):
            for device in state.devices(name).values():
                if device.cursor < pos and not self._expired(device):
                    return False
        return True

    def _recipients(self, record: Act) -> list[str]:
        group = record.conv[0] == "#"
        return recipients(self._groups.conv(record.conv) if group else self._state.conv_for(record.conv), record)

    def _expired(self, device: Device) -> bool:
        return device.seen < self._unseen

    # What goes with them.

    def _take(self, fold: Fold, lsn: int, record: Content) -> None:
        state = self._state
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

    def _count(self, fold: Fold, record: Content) -> None:
        """What it was of what its user keeps is kept no more."""
        usage = usage_of(record)
        if usage is not None:
            user = self._base.user(usage.user)
            user.gone += usage.messages
            user.gone_bytes += usage.size
            self._base.touch_user(user)
            uid = fold.freed[usage.user] = self._state.user(usage.user).uid
            fold.names[uid] = usage.user

    def _take_message(self, fold: Fold, lsn: int, record: Message | GroupChange) -> None:
        state, changes = self._state, fold.plan.changes
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

    def _forget(self, fold: Fold, lsn: int, act: Act) -> None:
        """Nobody asks for its `id` any more."""
        if act.id is not None:
            fold.plan.changes["request"].append((self._state.user(act.by).uid, act.id, lsn))
        if isinstance(act, Message):
            self._forget_packet(fold, lsn, act)

    def _forget_packet(self, fold: Fold, lsn: int, message: Message) -> None:
        packet = _packet(message)
        if packet:
            fold.plan.changes["packet"].append((message.by, message.device, *packet, lsn))


def _packet(message: Message) -> list[Any] | None:
    """Session and packet identifier of a message that was published without an `id`."""
    return None if message.extra is None else message.extra.get("packet")
