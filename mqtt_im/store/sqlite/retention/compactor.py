"""Passes of retention on the ledger's thread: one after the other, in between what else that has to do."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.policy import Ended, Policy, Removed

from .passes import Host, Pass

PAUSE_S: Final = 0.02
"""Between two parts while there is traffic."""


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

    def work(self, engine: Host, busy: bool) -> None:
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
        """The pass that is under way, if one is, is over: the state that it worked on is not there any more."""
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
