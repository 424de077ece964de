"""The desk of `[push]`: users without a connected device are told that something has come (docs/webhooks.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Any, Final

from mqtt_im.config import PushConfig, WebPushConfig
from mqtt_im.core.records import MESSAGES, AnyRecord, GroupChange, Message, steady
from mqtt_im.hooks.outbox import Outbox, Push
from mqtt_im.protocol.names import members_of_direct
from mqtt_im.store.interface import Readable

from . import payloads, pending
from .desk import BATCH, Counter, Desk, Sends
from .sender import Delivery

CHECK_MS: Final = 10_000
"""A user who is connected, but without a device that acknowledges, is looked at again so much later: it may be gone."""
SWEEP_MS: Final = 60_000
_ASK: Final = 200
"""Users of one question to the ledger."""


class PushDesk(Desk[str]):
    """Follows the log `delay_s` behind its end, so that a device that comes back at once gets what is there by itself."""

    name = "push"

    def __init__(
        self,
        rows: Outbox,
        sender: Sends[str],
        count: Counter,
        *,
        settings: PushConfig | WebPushConfig,
        now: int,
        **common: Any,
    ) -> None:
        super().__init__(rows, sender, count, settings=settings, **common)
        self._delay = int(settings.delay_s * 1000)
        self._coalesce = int(settings.coalesce_s * 1000)
        self._not_before = now + self._delay
        """Devices that were cut off by a restart of the server have their delay too."""
        self._ripe_at = 0
        """When the first row that is not taken in will be old enough: until then none is read, again and again."""
        self._swept_at = now

    def follow(self, now: int) -> bool:
        """See `Desk`. What is looked at is who should have it and has not acknowledged it by now."""
        if now < max(self._not_before, self._ripe_at):
            return False
        found = self._log.after(self.position, BATCH)
        # A row from the future was written while the wall clock was ahead; it has waited long enough.
        rows = list(takewhile(lambda row: not now - self._delay < steady(row[1]) <= now + 1000, found))
        if len(rows) < len(found):
            self._ripe_at = steady(found[len(rows)][1]) + self._delay
        if not rows:
            return False
        wanted = self._wanted(rows)
        here = {name: newest for name, (_, newest) in wanted.items() if name in self._online}
        behind = self._unacknowledged(here)
        wanted = {name: lsns for name, lsns in wanted.items() if name not in here or name in behind}
        last = rows[-1][0]
        with self.outbox.transaction():
            self.outbox.add_pushes(wanted, now, self._coalesce)
            self._save(last, now, lazily=not wanted)
        self.position = last
        return len(rows) == len(found) and self._log.more

    def _wanted(self, rows: list[tuple[int, AnyRecord]]) -> dict[str, tuple[int, int]]:
        """Each user whom a row may concern, with the first and the last such row."""
        telling = [(lsn, record) for lsn, record in rows if isinstance(record, MESSAGES)]
        groups = {record.conv for _, record in telling if isinstance(record, Message) and record.conv[0] == "#"}
        members: dict[str, list[str]] = self._ask(lambda engine: pending.members(engine, groups)) if groups else {}
        wanted: dict[str, tuple[int, int]] = {}
        for lsn, record in telling:
            for name in _recipients(record, members):
                if name != record.by:
                    first, _ = wanted.get(name, (lsn, lsn))
                    wanted[name] = (first, lsn)
        return wanted

    def _unacknowledged(self, newest: dict[str, int]) -> set[str]:
        found: set[str] = set()
        names = list(newest)
        for start in range(0, len(names), _ASK):
            part = {name: newest[name] for name in names[start : start + _ASK]}
            found |= self._ask(_asked_of(part))
        return found

    def _due(self, now: int, limit: int) -> Iterator[Delivery[str] | None]:
        if now < self._not_before:
            return
        if now - self._swept_at >= SWEEP_MS:
            self._swept_at = now
            self.outbox.sweep_pushes(self.position, now - self._coalesce)
        pushes = self.outbox.due_pushes(now, limit, self.under_way)
        if not pushes:
            return
        settled = self.position
        told: list[pending.Summary] = self._ask(
            lambda engine: [pending.summary(engine, push.user, push.told, self._include_body, settled) for push in pushes],
            [push.user for push in pushes if push.user not in self._online],
        )
        for push, summary in zip(pushes, told, strict=True):
            yield self._delivery(push, summary, now)

    def _delivery(self, push: Push, summary: pending.Summary, now: int) -> Delivery[str] | None:
        if not summary.count:
            self.outbox.push_done(push.user, summary.upto, now)
            return None
        if push.user in self._online:
            self.outbox.push_later(push.user, now + CHECK_MS)
            return None
        # A push that tells more than one before it must not be taken for its repeat.
        delivery_id = f"{self._epoch}-{summary.newest}-{push.user}"
        body = self._body(delivery_id, push.user, summary)
        return Delivery(push.user, "push", delivery_id, body, push.user, push.attempts, summary.upto)

    def _body(self, delivery_id: str, user: str, summary: pending.Summary) -> bytes:
        return payloads.push(delivery_id, user, summary)

    def _taken(self, delivery: Delivery[str], now: int) -> None:
        self.outbox.push_done(delivery.key, delivery.upto, now + self._coalesce, pushed=now)

    def _failed(self, delivery: Delivery[str], due: int | None, reason: str) -> None:
        self.outbox.push_failed(delivery.key, due, reason)


def _asked_of(newest: dict[str, int]) -> Callable[[Readable], set[str]]:
    return lambda engine: pending.unacknowledged(engine, newest)


def _recipients(record: Message | GroupChange, members: dict[str, list[str]]) -> Iterable[str]:
    """Who may have to be woken for a record; the push itself looks into the inbox, and tells only what is there."""
    if isinstance(record, GroupChange):
        return pending.concerned(record)
    if record.dropped:
        return ()
    return members_of_direct(record.conv) or members.get(record.conv) or ()
