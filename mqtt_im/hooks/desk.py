"""A desk: what one receiver is to be told. Sans-thread: time comes in, deliveries go to the sender, outcomes come back.

All times here and in the outbox are ms by the steady time (`mqtt_im.clock`).
"""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, Generic, Protocol

from mqtt_im.config import HooksConfig, PushConfig, WebPushConfig
from mqtt_im.core.records import AnyRecord
from mqtt_im.hooks import outbox
from mqtt_im.hooks.outbox import Outbox
from mqtt_im.logs import RateLimited
from mqtt_im.store.interface import Readable

from .retry import Circuit, wait
from .sender import DEPTH, Delivery, Key, Outcome

BATCH: Final = 500
"""Log rows of one step."""
SAVE_MS: Final = 5_000
"""A position that has moved over rows that concern nobody is written so much later."""


class Ask(Protocol):
    """Puts a question to the ledger."""

    def __call__(self, question: Callable[[Readable], Any], whole: Sequence[str] = ()) -> Any:
        """Its answer, once the inboxes of `whole` have what large groups have told. Raises `Refusal` where there is none now."""


log = logging.getLogger(__name__)
_limited = RateLimited(log)


class Counter(Protocol):
    """Adds to a counter of `metrics.COUNTERS`."""

    def __call__(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add `amount`."""


class Sends(Protocol[Key]):
    """What a desk needs of a sender."""

    def send(self, delivery: Delivery[Key]) -> None:
        """The delivery is attempted soon."""


class Rows(Protocol):
    """What a desk needs of the log."""

    more: bool
    """Whether `after` may have left out what was there behind the rows that it gave last."""

    def after(self, lsn: int, limit: int) -> list[tuple[int, AnyRecord]]:
        """The rows after `lsn`, in order, at most `limit`, and fewer where they are large."""

    def get(self, lsn: int) -> AnyRecord | None:
        """One row as it is now; None where it is gone."""


class Desk(ABC, Generic[Key]):
    """The parent of both desks. `position` is the newest log row that was taken in."""

    name: outbox.Desk

    def __init__(
        self,
        rows: Outbox,
        sender: Sends[Key],
        count: Counter,
        *,
        settings: HooksConfig | PushConfig | WebPushConfig,
        log_rows: Rows,
        ask: Ask,
        online: Collection[str],
        epoch: str,
        position: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.outbox = rows
        self.position = position
        self.under_way: set[Key] = set()
        self._sender: Sends[Key] = sender
        self._count = count
        self._max_attempts = settings.max_attempts
        self._include_body = settings.include_body
        self._log = log_rows
        self._ask = ask
        self._online = online
        self._epoch = epoch
        self._chance = chance
        self._circuit = Circuit()
        self._saved = position
        self._saved_at = 0

    @abstractmethod
    def follow(self, now: int) -> bool:
        """More of the log is taken in, where there is any; True where there is more to do at once."""

    def dispatch(self, now: int) -> bool:
        """What is due is on its way, as far as there is room; True where there is more to do at once."""
        under_way = len(self.under_way)
        slots = self._circuit.slots(now, DEPTH - under_way, under_way)
        looked_at = 0
        if slots > 0:
            for delivery in self._due(now, slots):
                looked_at += 1
                if delivery is not None:
                    self.under_way.add(delivery.key)
                    self._sender.send(delivery)
        return looked_at > 0 and len(self.under_way) < under_way + slots

    @abstractmethod
    def _due(self, now: int, limit: int) -> Iterator[Delivery[Key] | None]:
        """At most `limit` deliveries to attempt now; None for each row that turned out to need none."""

    def take(self, outcome: Outcome[Key], now: int) -> None:
        """An attempt is over. Call it within a transaction of the outbox."""
        delivery = outcome.delivery
        self.under_way.discard(delivery.key)
        if outcome.reached:
            if self._circuit.works():
                log.info("webhooks: the receiver works again", extra={"receiver": self.name})
        elif self._circuit.fails(now, self._chance(), outcome.retry_after * 1000):
            log.warning(
                "webhooks: the receiver is out of order; what is for it waits",
                extra={"receiver": self.name, "reason": outcome.reason},
            )
        if outcome.taken:
            self._count("webhooks", event=delivery.event, result="taken")
            self._taken(delivery, now)
            return
        self._count("webhooks", event=delivery.event, result="failed")
        failures = delivery.attempts + 1
        due = None
        if failures < self._max_attempts:
            due = now + max(wait(failures, self._chance()), outcome.retry_after * 1000)
        else:
            self._count("webhooks", event=delivery.event, result="dead")
            _limited.warning("webhooks: put aside after too many attempts", id=delivery.id, reason=outcome.reason)
        self._failed(delivery, due, outcome.reason)

    @abstractmethod
    def _taken(self, delivery: Delivery[Key], now: int) -> None:
        """The receiver has it."""

    @abstractmethod
    def _failed(self, delivery: Delivery[Key], due: int | None, reason: str) -> None:
        """The receiver does not have it; the next attempt is `due`, None where there is none."""

    def _save(self, lsn: int, now: int, lazily: bool) -> None:
        """The position is `lsn`, on disk too unless that can wait."""
        if not lazily or (lsn > self._saved and now - self._saved_at >= SAVE_MS):
            self.outbox.follow(self.name, lsn)
            self._saved, self._saved_at = lsn, now
