"""Retention: a pass over the log that takes out what may go, some rows in one transaction, between the batches of the ledger.

A record goes when it is old, by `Policy`, and every device that counts has acknowledged its item. With it go its items, its place
in the conversation, and what became of it. Two things stay behind, for good or for a while: a change to a group, without its
items, since later messages are addressed by it; and what an `id` had done, without content, as long as the `id` is remembered
(`core.gone`). Each transaction locks whom its rows concern, as a batch does, and looks at the rows once it has; so a pass can
end at any point. One node at a time makes a pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec
import psycopg

from mqtt_im.core.apply import recipients
from mqtt_im.core.gone import remembered
from mqtt_im.core.members import change_members
from mqtt_im.core.model import FOREVER, Conv
from mqtt_im.core.records import (
    MESSAGES,
    Act,
    AnyRecord,
    Gone,
    GroupChange,
    Message,
    Reported,
    decode,
    encode,
)
from mqtt_im.core.state import OneByOne
from mqtt_im.core.usage import usage_of
from mqtt_im.postgres.meta import UPKEEP
from mqtt_im.store.common.retaining import DAY_MS, ID_DAYS, Content, key_of
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.wanted import Wanted

from .large import TAKEN, TOLD_IN, UNTELL
from .state import Work
from .wire import Link, Statement, Step
from .writes import forgotten

ROWS: Final = 50
"""Rows of the log that one transaction looks at."""
SEARCHED: Final = 256
"""Items of an inbox that are looked through at once."""
ELSEWHERE_S: Final = 0.5
"""Between two looks whether another node's pass is over."""

_PART: Final = Statement("SELECT lsn, rec FROM log WHERE lsn > $1 ORDER BY lsn LIMIT $2", "ii")
_ROWS: Final = Statement("SELECT lsn, rec FROM log WHERE lsn = ANY ($1) ORDER BY lsn", "I")
_TAKE_LOCK: Final = Statement("SELECT pg_try_advisory_lock($1)", "i")
_LET_GO: Final = Statement("SELECT pg_advisory_unlock($1)", "i")
_EMPTY: Final = Statement(
    "UPDATE log SET rec = v.rec, seq = 0, by = 0 FROM unnest($1, $2) v (lsn, rec) WHERE log.lsn = v.lsn", "IB"
)
_DELETE: Final = Statement("DELETE FROM log WHERE lsn = ANY ($1)", "I")
_OF_MESSAGES: Final = tuple(
    Statement(f"DELETE FROM {table} t USING unnest($1, $2) v (cid, seq) WHERE t.cid = v.cid AND t.seq = v.seq", "II")  # noqa: S608
    for table in ("amended", "change", "mention")
)
_UNKEY: Final = Statement(
    "DELETE FROM keyed t USING unnest($1, $2, $3, $4) v (sender, cid, key, lsn)"
    " WHERE t.sender = v.sender AND t.cid = v.cid AND t.key = v.key AND t.lsn = v.lsn",
    "IITI",
)
_UNPACK: Final = Statement("DELETE FROM packet WHERE lsn = ANY ($1)", "I")
_COUNTS: Final = (
    Statement("UPDATE direct t SET gone = gone + v.n FROM unnest($1, $2) v (cid, n) WHERE t.cid = v.cid", "II"),
    Statement("UPDATE grp t SET gone = gone + v.n FROM unnest($1, $2) v (cid, n) WHERE t.cid = v.cid", "II"),
)


class Groups:
    """Who is in each group, as the changes to it that were seen so far have it."""

    def __init__(self) -> None:
        self._convs: dict[str, Conv] = {}

    def conv(self, name: str) -> Conv:
        """The group with its members; nothing else of it is as it should be."""
        if name not in self._convs:
            self._convs[name] = Conv(0, name)
        return self._convs[name]

    def names(self) -> list[str]:
        """Those that were seen."""
        return list(self._convs)

    def take(self, record: GroupChange) -> None:
        """The next change to a group."""
        change_members(_UNTOUCHED, self.conv(record.conv), record)  # type: ignore[arg-type]

    def told(self, record: Act) -> list[str]:
        """Who has, or is to have, what a large group tells its members with this record, after the change that it is."""
        named: list[str] = []
        if isinstance(record, GroupChange) and record.event in ("group.remove", "group.leave"):
            named = record.members or [record.user or record.by]
        return list(dict.fromkeys((*self.conv(record.conv).present_names, *named)))

    def recipients(self, record: Act) -> list[str]:
        """Who got the items of a record of a group, or of a direct conversation."""
        return recipients(self.conv(record.conv), record)


class _Untouched(OneByOne):
    def touch_member(self, conv: Conv, name: str) -> None:
        """See `core.state.State`."""


_UNTOUCHED: Final = _Untouched()


class Host(Protocol):
    """The engine that a pass works on."""

    state: Work
    now: int

    @property
    def link(self) -> Link:
        """The ledger's connection."""

    def lock(self, wanted: Wanted) -> None:
        """All of this is locked."""

    def write(self, more: list[Step]) -> None:
        """What was changed in the state is committed, and `more` before it."""


class Pass:
    """One pass. `step` is called on the ledger's thread, between batches, until it returns False.

    Raises one of `Store.errors`; then the pass is over.
    """

    def __init__(self, engine: Host, policy: Policy, now: int) -> None:
        """`now` is ms since 1970."""
        self.removed = Removed()
        self.waits = False
        """The next step is for later, however idle the store is."""
        self._engine = engine
        self._policy = policy
        self._before = now - policy.retention_days * DAY_MS if policy.retention_days else 0
        self._until = 0 if policy.retention_messages or not policy.retention_days else self._before
        """Rows from this time on are left alone; 0: none are."""
        self._forgotten = now - ID_DAYS * DAY_MS
        self._unseen = now - policy.device_expiry_days * DAY_MS if policy.device_expiry_days else 0
        self._at = 0
        self._locked = False
        self._groups = Groups()
        self._held: set[tuple[str, str, str]] = set()
        """Keys of old messages that are held back. Later ones with the same key are too: else nothing would say that these were
        replaced, or that they are not the newest."""

    def step(self) -> bool:
        """Some more rows were looked at; False where there were none left."""
        link = self._engine.link
        if not self._locked:
            self.waits = not link.one(_TAKE_LOCK, UPKEEP)[0][0]
            if self.waits:
                return True
            self._locked = True
        rows = [(lsn, decode(data)) for lsn, data in link.one(_PART, self._at, ROWS)]
        if self._until:
            rows = [row for row in rows if row[1].ts < self._until]
        if not rows:
            self.end()
            return False
        _Slice(self, rows).work()
        self._at = rows[-1][0]
        return True

    def end(self) -> None:
        """Another node may make a pass. Raises nothing: with its connection the lock goes too."""
        link = self._engine.link
        if self._locked and not link.lost:
            self._locked = False
            with contextlib.suppress(psycopg.Error):
                link.roll_back()
                link.one(_LET_GO, UPKEEP)


class _Slice:
    """What one transaction takes away."""

    def __init__(self, work: Pass, rows: list[tuple[int, AnyRecord]]) -> None:
        self._pass = work
        self._state = work._engine.state  # noqa: SLF001 - of its own kind
        self._rows = rows
        self._to: dict[int, list[str]] = {}
        """Log row → who got its item."""
        self._messages: set[tuple[int, int]] = set()
        self._gone_of: dict[int, int] = {}
        """cid → messages that go."""
        self._deleted: list[int] = []
        self._emptied: dict[int, bytes] = {}
        self._unkeyed: list[tuple[int, int, str, int]] = []
        """`(uid, cid, key, lsn)` of messages that had a key."""
        self._unpacked: list[int] = []
        self._touched: dict[str, None] = {}
        """Users of whom items go."""
        self._told: dict[int, tuple[int, int]] = {}
        """Log row → group and number of what a large group has told its members."""
        self._taken: dict[int, dict[str, int]] = {}
        """cid → up to which number each present member has taken what a large group tells."""
        self._found: dict[int, list[tuple[str, int]]] = {}
        """Log row of such → who has it where, as far as it was looked up."""

    def work(self) -> None:
        engine = self._pass._engine  # noqa: SLF001
        wanted = Wanted()
        self._told = {lsn: (cid, act) for lsn, cid, act in engine.link.one(TOLD_IN, [lsn for lsn, _ in self._rows])}
        for lsn, record in self._rows:
            self._want(wanted, lsn, record)
        engine.lock(wanted)
        # As they are now: what was recalled meanwhile is not brought back.
        rows = [(lsn, decode(data)) for lsn, data in engine.link.one(_ROWS, [lsn for lsn, _ in self._rows])]
        for lsn, record in rows:
            self._look_at(lsn, record)
        self._raise_floors()
        removed = self._pass.removed
        removed.messages += len(self._messages)
        removed.rows += len(self._deleted)
        engine.write(list(self._steps()))

    def _want(self, wanted: Wanted, lsn: int, record: AnyRecord) -> None:
        if isinstance(record, GroupChange):
            self._pass._groups.take(record)  # noqa: SLF001
        act = record.act if isinstance(record, Gone) else record
        if not isinstance(act, Act):
            return
        wanted.actors.add(act.by)
        wanted.conv(act.conv)
        if isinstance(record, Act) and record.pos:
            groups = self._pass._groups  # noqa: SLF001
            if lsn in self._told:
                names = groups.told(record)
            else:
                names = groups.recipients(record) if record.conv[0] == "#" else pair_of(record)
            self._to[lsn] = names
            wanted.actors.update(names)
            wanted.devices.update(names)
        usage = usage_of(act)
        if usage is not None:
            wanted.actors.add(usage.user)

    # Which records go.

    def _look_at(self, lsn: int, record: AnyRecord) -> None:
        work = self._pass
        if isinstance(record, Gone):
            if record.ts < work._forgotten:  # noqa: SLF001
                self._deleted.append(lsn)
                self._unpacked.append(lsn)
        elif isinstance(record, Content) and record.pos and self._may_go(lsn, record):
            self._take(lsn, record)
        elif isinstance(record, Message) and record.ts < work._forgotten and "packet" in (record.extra or {}):  # noqa: SLF001
            # What is repeated with DUP after so long is new; and of two with one packet identifier the older one may outlast the
            # newer.
            self._unpacked.append(lsn)

    def _may_go(self, lsn: int, record: Content) -> bool:
        policy, state = self._pass._policy, self._state  # noqa: SLF001
        conv = state.conv_for(record.conv)
        aged = record.ts < self._pass._before  # noqa: SLF001
        surplus = bool(policy.retention_messages) and record.seq <= conv.head - policy.retention_messages
        if not isinstance(record, MESSAGES):
            here = (conv.cid, record.seq) not in self._messages and state.message_lsn(conv, record.seq) is not None
            return not here and (aged or surplus or not policy.removes) and self._acknowledged(lsn, record)
        if not (aged or surplus):
            return False
        held, key = self._pass._held, key_of(record)  # noqa: SLF001
        if key not in held and self._acknowledged(lsn, record):
            return True
        if key is not None:
            held.add(key)
        return False

    def _acknowledged(self, lsn: int, record: Act) -> bool:
        unseen = self._pass._unseen  # noqa: SLF001
        return all(
            device.cursor >= pos or device.seen < unseen
            for name, pos in self._places(lsn, record)
            for device in self._state.devices(name).values()
        )

    def _places(self, lsn: int, record: Act) -> list[tuple[str, int]]:
        """Who has the item, and at which `pos`: beyond all others where a member has not taken it yet."""
        if lsn not in self._told:
            return list(zip(self._to[lsn], record.pos, strict=True))
        if lsn not in self._found:
            cid, act = self._told[lsn]
            if cid not in self._taken:
                self._taken[cid] = dict(self._pass._engine.link.one(TAKEN, cid))  # noqa: SLF001
            taken = self._taken[cid]
            self._found[lsn] = [
                (name, self._place(name, lsn) if taken.get(name, act) >= act else FOREVER) for name in self._to[lsn]
            ]
        return self._found[lsn]

    def _place(self, name: str, lsn: int) -> int:
        """Where an inbox has the item of a log row; what goes is among the oldest."""
        user, at = self._state.user(name), 0
        at = user.floor
        while items := self._state.stored_items(user, at, SEARCHED):
            for pos, ref in items:
                if abs(ref) == lsn:
                    return pos
            at = items[-1][0]
        raise AssertionError(f"log row {lsn} is nowhere in the inbox of {name}")

    # What goes with them.

    def _take(self, lsn: int, record: Content) -> None:
        state = self._state
        for name, pos in self._places(lsn, record):
            if pos != FOREVER:  # who has not taken it has no device that counts, and never will have it
                state.remove_item(state.user(name), pos)
                self._touched[name] = None
                self._pass.removed.items += 1
        usage = usage_of(record)
        if usage is not None:
            user = state.user(usage.user)
            user.gone += usage.messages
            user.gone_bytes += usage.size
            state.touch_user(user)
        if isinstance(record, MESSAGES):
            conv = state.conv_for(record.conv)
            self._messages.add((conv.cid, record.seq))
            self._gone_of[conv.cid] = self._gone_of.get(conv.cid, 0) + 1
            if (key := key_of(record)) is not None:
                self._unkeyed.append((state.user(record.by).uid, conv.cid, key[2], lsn))
        if isinstance(record, GroupChange):
            self._emptied[lsn] = encode(msgspec.structs.replace(record, pos=[], users=[]))
            return
        known = record.id is not None or (isinstance(record, Message) and "packet" in (record.extra or {}))
        if known and record.ts >= self._pass._forgotten:  # noqa: SLF001
            self._emptied[lsn] = encode(remembered(record))
        else:
            self._deleted.append(lsn)
            self._unpacked.append(lsn)

    def _raise_floors(self) -> None:
        state = self._state
        for name in self._touched:
            user = state.user(name)
            found = state.stored_items(user, user.floor, 1)
            user.floor = found[0][0] - 1 if found else max(user.floor, user.head)
            state.touch_user(user)

    def _steps(self) -> Iterator[Step]:
        if self._emptied:
            yield Step(_EMPTY, tuple(zip(*sorted(self._emptied.items()), strict=True)))
        untold = [lsn for lsn in (*self._emptied, *self._deleted) if lsn in self._told]
        for statement, lsns in ((_DELETE, self._deleted), (_UNPACK, self._unpacked), (UNTELL, untold)):
            if lsns:
                yield Step(statement, (lsns,))
        if self._unkeyed:
            yield Step(_UNKEY, tuple(zip(*sorted(self._unkeyed), strict=True)))
        yield from forgotten([*self._emptied, *self._deleted])
        if self._messages:
            columns = tuple(zip(*sorted(self._messages), strict=True))
            yield from (Step(statement, columns) for statement in _OF_MESSAGES)
            counts = tuple(zip(*sorted(self._gone_of.items()), strict=True))
            yield from (Step(statement, counts) for statement in _COUNTS)


def pair_of(record: Act) -> list[str]:
    """Who got the items of a record of a direct conversation."""
    first, _, second = record.conv.partition(":")
    names = [first] if first == second else [first, second]
    if isinstance(record, Reported):
        return [record.to]
    return names if len(names) == len(record.pos) else [record.by]
