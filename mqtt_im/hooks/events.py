"""The desk of `[hooks]`: bots and other programs are told of messages, groups and presence (docs/webhooks.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import msgspec

from mqtt_im.config import HooksConfig
from mqtt_im.core.records import AnyRecord, GroupChange, Message
from mqtt_im.hooks.outbox import MAX_EVENTS, Event, Outbox
from mqtt_im.store.interface import Readable
from mqtt_im.store.queries import belongings

from . import payloads
from .comings import Comings, Word
from .desk import BATCH, Counter, Desk, Sends
from .sender import Delivery

RETURN_MS: Final = 15_000
"""So long after a start of the server, or of its turn among several nodes, what was told of who is online is put right."""
_ASK: Final = 200
"""Users of one question to the ledger."""


class EventDesk(Desk[int]):
    """Follows the log at its end, as long as the outbox has room."""

    name = "hooks"

    def __init__(
        self,
        rows: Outbox,
        sender: Sends[int],
        count: Counter,
        *,
        settings: HooksConfig,
        now: int,
        **common: Any,
    ) -> None:
        super().__init__(rows, sender, count, settings=settings, **common)
        self._events = frozenset(settings.events)
        self._told_online = rows.online()
        self._return_at: int | None = now + RETURN_MS
        self._comings = Comings()

    def follow(self, now: int) -> bool:
        """See `Desk`."""
        self._follow_presence(now)
        if not self._events & {"message", "group"}:
            return False
        rows = self._log.after(self.position, BATCH)
        if not rows:
            return False
        found: list[tuple[str, int]] = []
        last = self.position
        room = MAX_EVENTS - self.outbox.waiting("hooks")
        for lsn, record in rows:
            event = _event_of(record)
            if event in self._events:
                if len(found) >= room:
                    break
                found.append((event, lsn))
            last = lsn
        with self.outbox.transaction():
            self.outbox.add_events(found, now)
            self._save(last, now, lazily=not found)
        self.position = last
        return last == rows[-1][0] and self._log.more

    # Presence.

    def presence(self, user: str, online: bool, seen: int) -> bool:
        """A user has come, or has gone at `seen` (ms since 1970). It is taken in with the next `follow`. For any thread.

        Whether nothing else was to be.
        """
        return "presence" in self._events and self._comings.add(user, online, seen)

    def _follow_presence(self, now: int) -> None:
        if self._return_at is not None and now >= self._return_at:
            self._return_at = None
            self._comings.compare()
        compare, news = self._comings.take_compare(), dict[str, Word]()
        try:
            if compare:
                news.update(self._compared())
            words = self._comings.words()
            news.update(words)
            with self.outbox.transaction() if news else nullcontext():
                for user, (online, seen_at) in news.items():
                    if online != (user in self._told_online):
                        shown = {"state": "online"} if online else {"state": "offline", "last_seen": seen_at}
                        self.outbox.add_presence(user, online, msgspec.json.encode(shown).decode(), now)
        except BaseException:
            if compare:
                self._comings.compare()
            raise
        self._comings.done(words)
        for user, (online, _) in news.items():
            (self._told_online.add if online else self._told_online.discard)(user)

    def _compared(self) -> Iterator[tuple[str, Word]]:
        """Who was told to be online and is not, and who is and was not told to be."""
        lost = [user for user in sorted(self._told_online) if user not in self._online]
        for start in range(0, len(lost), _ASK):
            part = lost[start : start + _ASK]
            seen: list[int] = self._ask(partial(_last_seen, part))
            yield from ((user, (False, when)) for user, when in zip(part, seen, strict=True))
        yield from ((user, (True, 0)) for user in self._online if user not in self._told_online)

    # Sending.

    def _due(self, now: int, limit: int) -> Iterator[Delivery[int] | None]:
        for event in self.outbox.due_events(now, limit, self.under_way):
            delivery = self._delivery(event)
            if delivery is None:
                self.outbox.event_done(event.id)
                self._count("webhooks", event=event.event, result="gone")
            yield delivery

    def _delivery(self, event: Event) -> Delivery[int] | None:
        """The event as it is to be told; None where the log does not hold it any more."""
        if event.user is not None:
            delivery_id = f"{self._epoch}-presence-{event.id}-{event.user}"
            body = payloads.presence(delivery_id, event.user, event.data or "{}")
            return Delivery(event.id, event.event, delivery_id, body, event.user, event.attempts)
        delivery_id = f"{self._epoch}-{event.lsn}"
        record = self._log.get(event.lsn)
        if isinstance(record, Message):
            body = payloads.message(delivery_id, record, self._include_body)
        elif isinstance(record, GroupChange):
            body = payloads.group(delivery_id, record)
        else:
            return None
        return Delivery(event.id, event.event, delivery_id, body, record.conv, event.attempts)

    def _taken(self, delivery: Delivery[int], now: int) -> None:
        self.outbox.event_done(delivery.key)

    def _failed(self, delivery: Delivery[int], due: int | None, reason: str) -> None:
        self.outbox.event_failed(delivery.key, due, reason)


def _last_seen(users: Sequence[str], engine: Readable) -> list[int]:
    return [belongings.last_seen(engine, user) for user in users]


def _event_of(record: AnyRecord) -> str:
    """The event that a log row is; empty for none."""
    if isinstance(record, Message):
        return "" if record.dropped else "message"
    return "group" if isinstance(record, GroupChange) else ""
