"""The outbox of the webhooks: what other programs are still to be told, and how far the log was followed for it.

Tables of their own (`hooks.db`). Their rows name log rows and users, and hold no content of messages: what is sent is read from
the log when it is sent, so a message that was recalled meanwhile is not told, and nothing of it stays here. What one step adds is
written in one transaction with the position in the log that it came from: a killed process neither loses nor skips anything,
though the last things may be told twice.

Two kinds of row wait. An *event* is one thing that happened. A *push* is one row for each user, which says from where on the
user has not been told; what has come since is counted when the push is sent. So the outbox is bounded by the number of
users and by `MAX_EVENTS`, however long a receiver is away. What failed too often is *dead*: it stays to be looked at
and sent again, and is not tried by itself.

All times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import peewee

from mqtt_im.tables import Place, place_of, put

from .retry import LONGEST_WAIT_MS

NAME: Final = "hooks"
_FARTHEST_MS: Final = 2 * LONGEST_WAIT_MS
MAX_EVENTS: Final = 10_000
"""Events of the log that wait; the log itself holds the others until there is room."""
MAX_DEAD: Final = 10_000
"""Dead events that are kept; the oldest go first."""
_CHUNK: Final = 500
_ALIKE: Final = 16
"""So many rows that get the same value, as those of a group that talks on, are changed by one statement: half the time."""
_LEADER: Final = "leader"
_LIVES: Final = "SELECT 1 FROM public.node WHERE incarnation = ?"

Desk = Literal["push", "hooks"]
"""Whom rows are for: the receiver of `[push]` or that of `[hooks]`. Each follows the log at its own pace."""


class MetaRow(peewee.Model):
    """`epoch` of the store, the position of each desk in its log, and the node that leads, where there are several."""

    key = peewee.TextField(primary_key=True)
    value = peewee.TextField()

    class Meta:
        """Names the table."""

        table_name = "meta"
        without_rowid = True


class EventRow(peewee.Model):
    """An event: of a log row (`lsn`), or of a user (`data` is JSON), of whom only the newest waits."""

    id = peewee.BigAutoField()
    event = peewee.TextField()
    lsn = peewee.BigIntegerField(default=0)
    user = peewee.TextField(null=True, unique=True)
    data = peewee.TextField(null=True)
    due = peewee.BigIntegerField()
    attempts = peewee.IntegerField(default=0)
    dead = peewee.BooleanField(default=False)
    error = peewee.TextField(default="")

    class Meta:
        """Names the table."""

        table_name = "event"
        indexes = ((("dead", "due"), False),)


class PushRow(peewee.Model):
    """A user who is told everything up to log row `told`, while the newest that concerns the user is `newest`.

    `due` is None where nothing waits. `pushed` is when the last push was taken, 0 for never.
    """

    user = peewee.TextField(primary_key=True)
    told = peewee.BigIntegerField()
    newest = peewee.BigIntegerField()
    due = peewee.BigIntegerField(null=True, index=True)
    attempts = peewee.IntegerField(default=0)
    dead = peewee.BooleanField(default=False)
    error = peewee.TextField(default="")
    pushed = peewee.BigIntegerField(default=0)

    class Meta:
        """Names the table."""

        table_name = "push"
        without_rowid = True


class OnlineRow(peewee.Model):
    """A user whom the receiver of events was told to be online."""

    user = peewee.TextField(primary_key=True)

    class Meta:
        """Names the table."""

        table_name = "online"
        without_rowid = True


_MODELS: Final[list[type[peewee.Model]]] = [MetaRow, EventRow, PushRow, OnlineRow]


class NotLeader(Exception):
    """Another node sends what is in the outbox."""


class Event(NamedTuple):
    """A waiting event, as in `EventRow`."""

    id: int
    event: str
    lsn: int
    user: str | None
    data: str | None
    attempts: int


class Push(NamedTuple):
    """A waiting push, as in `PushRow`."""

    user: str
    told: int
    attempts: int


class Dead(NamedTuple):
    """What failed too often. `subject` is a user, or `row 17` of the log."""

    event: str
    subject: str
    attempts: int
    error: str


def _is_due(model: type[EventRow] | type[PushRow], now: int) -> Any:
    """What is to be sent at `now`; also what waits for a time that no wait reaches, since the clock was set back meanwhile."""
    never = model.due > now + _FARTHEST_MS
    if model is PushRow:
        never &= (PushRow.pushed == 0) | (PushRow.pushed > now)  # else it waits so long after the user's last push
    return (model.due <= now) | never


class Outbox:
    """The outbox in one place, used from one thread at a time. Failures of the database are raised as they come (`peewee`)."""

    def __init__(self, where: Path | Place, name: str = NAME) -> None:
        # A power cut may take back the last transactions, with their positions: what they held is then told again.
        self._tables = place_of(where).open(name, _MODELS, synchronous="normal")
        self.where = self._tables.where
        self._leader = 0
        self._inside = False

    def close(self) -> None:
        """Nothing is asked of it any more."""
        self._tables.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written within is kept together, or nothing of it. Raises `NotLeader` after `lead`, where that is over."""
        if self._inside:
            yield
            return
        with self._tables.transaction():
            if self._leader and self._meta(_LEADER) != str(self._leader):
                raise NotLeader
            self._inside = True
            try:
                yield
            finally:
                self._inside = False

    # Who writes, where several nodes have the same outbox.

    def lead(self, node: int) -> bool:
        """Whether the node of this incarnation leads, which it does from now on where the one that did is no more."""
        self._leader = 0
        with self.transaction():
            leader = self._meta(_LEADER)
            if leader is not None and leader != str(node) and self._tables.sql(_LIVES, (int(leader),)):
                return False
            if not self._tables.sql(_LIVES, (node,)):
                return False  # it was declared dead, and does not know that yet
            if leader != str(node):
                self._run(put(MetaRow, [{"key": _LEADER, "value": str(node)}]))
        self._leader = node
        return True

    def leave(self, node: int) -> None:
        """That node leads no more."""
        self._leader = 0
        self._run(MetaRow.delete().where(MetaRow.key == _LEADER, MetaRow.value == str(node)))

    # How far the log was followed.

    def belongs_to(self, epoch: str, last: int) -> None:
        """The outbox is of this store, whose newest log row is `last`; what it holds of another one is gone."""
        position = max((self.position(desk) or 0 for desk in ("push", "hooks")), default=0)
        with self.transaction():
            if self._meta("epoch") != epoch or position > last:
                for model in _MODELS:
                    self._run(model.delete() if model is not MetaRow else MetaRow.delete().where(MetaRow.key != _LEADER))
                self._run(MetaRow.insert(key="epoch", value=epoch))

    def position(self, desk: Desk) -> int | None:
        """The newest log row that this desk has taken in; None where it has not begun."""
        value = self._meta(desk)
        return None if value is None else int(value)

    def follow(self, desk: Desk, lsn: int) -> None:
        """The desk has taken in everything up to this log row."""
        self._run(put(MetaRow, [{"key": desk, "value": str(lsn)}]))

    def forget(self, desk: Desk) -> None:
        """The desk is switched off: nothing waits for it, and where it begins again it begins with what is new then."""
        with self.transaction():
            for model in (PushRow,) if desk == "push" else (EventRow, OnlineRow):
                self._run(model.delete())
            self._run(MetaRow.delete().where(MetaRow.key == desk))

    def _meta(self, key: str) -> str | None:
        rows = self._rows(MetaRow.select(MetaRow.value).where(MetaRow.key == key))
        return rows[0][0] if rows else None

    # Events.

    def add_events(self, events: list[tuple[str, int]], now: int) -> None:
        """`(event, log row)` each stand in line."""
        rows = [{"event": event, "lsn": lsn, "due": now} for event, lsn in events]
        for start in range(0, len(rows), _CHUNK):
            self._run(EventRow.insert_many(rows[start : start + _CHUNK]))

    def add_presence(self, user: str, online: bool, data: str, now: int) -> None:
        """A user has come or gone; an older word of that which still waits is void."""
        if online:
            self._run(OnlineRow.insert(user=user).on_conflict_ignore())
        else:
            self._run(OnlineRow.delete().where(OnlineRow.user == user))
        # The older word goes after the newer one has its number, which is another one then: it may be under way.
        number = self._run(EventRow.insert(event="presence", data=data, due=now))
        self._run(EventRow.delete().where(EventRow.user == user))
        self._run(EventRow.update(user=user).where(EventRow.id == number))

    def online(self) -> set[str]:
        """The users whom the receiver was told to be online."""
        return {user for (user,) in self._rows(OnlineRow.select(OnlineRow.user))}

    def due_events(self, now: int, limit: int, under_way: Collection[int]) -> list[Event]:
        """At most `limit` events to send now, the oldest first, those under way left out."""
        fields = (EventRow.id, EventRow.event, EventRow.lsn, EventRow.user, EventRow.data, EventRow.attempts)
        query = EventRow.select(*fields).where(~EventRow.dead, _is_due(EventRow, now)).order_by(EventRow.due, EventRow.id)
        found = [Event(*row) for row in self._rows(query.limit(limit + len(under_way)))]
        return [event for event in found if event.id not in under_way][:limit]

    def event_done(self, number: int) -> None:
        """An event was told, or can't be told any more."""
        self._run(EventRow.delete().where(EventRow.id == number))

    def event_failed(self, number: int, due: int | None, error: str) -> None:
        """An attempt has failed; the next one is `due`, None makes the event dead."""
        self._run(self._failed(EventRow, due, error, due or 0).where(EventRow.id == number))
        if due is None:
            old = EventRow.select(EventRow.id).where(EventRow.dead).order_by(EventRow.id.desc()).offset(MAX_DEAD).limit(1)
            for (oldest,) in self._rows(old):
                self._run(EventRow.delete().where(EventRow.dead, EventRow.id <= oldest))

    @staticmethod
    def _failed(model: type[EventRow] | type[PushRow], due: int | None, error: str, shown_due: int | None) -> Any:
        return model.update(attempts=model.attempts + 1, due=shown_due, dead=due is None, error=error)

    # Pushes.

    def add_pushes(self, rows: Mapping[str, tuple[int, int]], now: int, coalesce: int) -> None:
        """Each user has something to be told: from the first to the second log row. A dead push comes to life again.

        It is due at once, but not before `coalesce` ms after the user's last push.
        """
        names = list(rows)
        for start in range(0, len(names), _CHUNK):
            part = names[start : start + _CHUNK]
            known = {row[0]: row for row in self._push_rows(PushRow.user.in_(part))}
            changed = []
            waiting: dict[int, list[tuple[Any, ...]]] = {}
            """Rows that only have more to tell, by the newest of it."""
            for user in part:
                first, newest = rows[user]
                _, told, newest_known, due, attempts, dead, error, pushed = known.get(
                    user, (user, first - 1, 0, None, 0, False, "", 0)
                )
                if newest <= told:
                    continue
                newest, waits = max(newest, newest_known), due is not None and not dead
                if not waits:
                    due, attempts, error = max(now, pushed + coalesce), 0, ""
                row = (user, told, newest, due, attempts, False, error, pushed)
                if waits:
                    waiting.setdefault(newest, []).append(row)
                else:
                    changed.append(row)
            for value, alike in waiting.items():
                if len(alike) >= _ALIKE:
                    self._run(PushRow.update(newest=value).where(PushRow.user.in_([row[0] for row in alike])))
                else:
                    changed += alike
            if changed:
                self._run(put(PushRow, [dict(zip(_PUSH_NAMES, row, strict=True)) for row in changed]))

    def due_pushes(self, now: int, limit: int, under_way: Collection[str]) -> list[Push]:
        """At most `limit` pushes to send now, the oldest first, those under way left out."""
        query = PushRow.select(PushRow.user, PushRow.told, PushRow.attempts).where(_is_due(PushRow, now)).order_by(PushRow.due)
        found = [Push(*row) for row in self._rows(query.limit(limit + len(under_way)))]
        return [push for push in found if push.user not in under_way][:limit]

    def push_done(self, user: str, told: int, due: int, pushed: int | None = None) -> None:
        """The user knows everything up to log row `told`, or needs no telling; what came after that is `due`.

        `pushed`: when the receiver took a push; None where there was nothing to push.
        """
        for _, _, newest, _, _, _, _, before in self._push_rows(PushRow.user == user):
            waits = due if newest > told else None
            values = (user, told, newest, waits, 0, False, "", before if pushed is None else pushed)
            self._run(put(PushRow, [dict(zip(_PUSH_NAMES, values, strict=True))]))

    def push_later(self, user: str, due: int) -> None:
        """The push is looked at again, without having been tried."""
        self._run(PushRow.update(due=due).where(PushRow.user == user))

    def push_failed(self, user: str, due: int | None, error: str) -> None:
        """An attempt has failed; the next one is `due`, None makes the push dead."""
        self._run(self._failed(PushRow, due, error, due).where(PushRow.user == user))

    def sweep_pushes(self, told: int, before: int) -> None:
        """Rows of users who know everything, up to log row `told`, and whose last push was before that time, are gone."""
        idle = (PushRow.due.is_null(), ~PushRow.dead, PushRow.told <= told, PushRow.pushed < before)
        self._run(PushRow.delete().where(*idle))

    def _push_rows(self, condition: Any) -> list[Any]:
        return self._rows(PushRow.select(*_PUSH_FIELDS).where(condition))

    # For people.

    def waiting(self, desk: Desk) -> int:
        """How many pushes or events wait to be sent."""
        if desk == "push":
            return self._count(PushRow.select().where(PushRow.due.is_null(False)))
        return self._count(EventRow.select().where(~EventRow.dead))

    def dead_count(self, desk: Desk) -> int:
        """How many pushes or events are dead."""
        model = PushRow if desk == "push" else EventRow
        return self._count(model.select().where(model.dead))

    def dead(self) -> list[Dead]:
        """Everything that failed too often, pushes first."""
        pushes = PushRow.select(PushRow.user, PushRow.attempts, PushRow.error).where(PushRow.dead).order_by(PushRow.user)
        found = [Dead("push", user, attempts, error) for user, attempts, error in self._rows(pushes)]
        events = EventRow.select(EventRow.event, EventRow.user, EventRow.lsn, EventRow.attempts, EventRow.error)
        for event, user, lsn, attempts, error in self._rows(events.where(EventRow.dead).order_by(EventRow.id)):
            found.append(Dead(event, user or f"row {lsn}", attempts, error))
        return found

    def revive(self) -> int:
        """What was dead is tried again from the start; returns how much that was."""
        with self.transaction():
            return sum(self._run(model.update(dead=False, attempts=0, due=0).where(model.dead)) for model in (PushRow, EventRow))

    def _run(self, query: Any) -> Any:
        if not self._leader:
            return self._tables.run(query)
        with self.transaction():  # which looks whether it may
            return self._tables.run(query)

    def _rows(self, query: Any) -> list[Any]:
        return self._tables.rows(query)

    def _count(self, query: Any) -> int:
        return self._tables.count(query)


_PUSH_NAMES: Final = ("user", "told", "newest", "due", "attempts", "dead", "error", "pushed")
_PUSH_FIELDS: Final = [getattr(PushRow, name) for name in _PUSH_NAMES]
