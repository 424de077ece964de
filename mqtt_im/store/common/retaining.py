"""What retention is in every store: how long an `id` lives, what makes items, and passes that are done one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from mqtt_im.core.records import Edited, GroupChange, Message, Reacted, Recalled, Reported
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.policy import Ended, Policy, Removed

DAY_MS: Final = 86_400_000
ID_DAYS: Final = 30
"""An `id` is remembered at least so long (PROTOCOL §3)."""
PART_S: Final = 0.002
"""A part of a pass is as many steps as fit in, one at least."""
PAUSE_S: Final = 0.01
"""Between two parts of a pass while there is traffic."""

Content = Message | Edited | Recalled | Reacted | Reported | GroupChange
"""Records that make items."""

H = TypeVar("H")


def key_of(record: Message | GroupChange) -> tuple[str, str, str] | None:
    """Sender, conversation and key of a message that has one and was not dropped."""
    if isinstance(record, Message) and record.extra is not None and "key" in record.extra and not record.dropped:
        return record.by, record.conv, record.extra["key"]
    return None


class Pass(Protocol):
    """One pass over the log."""

    removed: Removed
    waits: bool
    """The next step is for later, however idle the store is."""

    def step(self) -> bool:
        """One more part is done; False where there was none left. Raises one of `Store.errors`; then the pass is over."""

    def end(self) -> None:
        """The pass is given up; what it held is free. Raises nothing."""


class Compactor(Generic[H]):
    """Passes that were asked for, done one after the other, in between what the ledger's thread has to do."""

    def __init__(self, begin: Callable[[H, Policy, int], Pass], wait_s: float | None = None) -> None:
        """`begin` begins a pass on an engine at a time in ms since 1970; one that waits is looked at again after `wait_s`."""
        self._begin = begin
        self._wait_s = wait_s
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

    def work(self, engine: H, busy: bool) -> None:
        """Do a part, where one is due. `busy`: others wait for the thread. Raises what `Pass` raises."""
        if self._pass is None:
            if not self._asked:
                return
            policy, now, self._ended = self._asked.popleft()
            self._pass = self._begin(engine, policy, now)
        if (busy or self._pass.waits) and time.monotonic() < self._due:
            return
        until = time.monotonic() + PART_S
        while self._pass.step():
            done_at, waits = time.monotonic(), self._pass.waits
            if waits or done_at >= until:
                pause = self._wait_s if waits and self._wait_s is not None else PAUSE_S
                self._due = done_at + (pause if busy or waits else 0.0)
                return
        self._end(self._pass.removed)

    def fail(self, reason: str) -> None:
        """The pass that is under way, if one is, is over: the state that it worked on is not there any more."""
        if self._pass is not None:
            self._pass.end()
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
