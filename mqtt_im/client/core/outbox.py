"""The outbox: changes in the order in which the app made them, until the server has answered each.

Everything that affects their order lives in this file; it does no I/O.

    waiting ──take──▶ under way ──answered──▶ gone
       ▲                  │
       └──put back────────┘  lost connection, refusal of an earlier one (`out_of_order`), "send it again"

Counted changes carry `n`, so the server carries out none before the one that stands before it. After a refusal all that is
behind it comes back as `out_of_order`; nothing more is sent until everything under way has its answer, and then the rest is
numbered anew. An uncounted change is sent alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from .entries import Entry

WINDOW: Final = 64
"""Changes under way at most; the server reads no further anyway."""
WINDOW_BYTES: Final = 256 * 1024
_AGAIN_S: Final = (0.0, 0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a change is sent again on the same connection, by how often it was refused as out of order."""


class Outbox:
    """What is not answered yet. `last_n` is the newest number that is used up, as far as is known."""

    def __init__(self, entries: Iterable[Entry] = (), last_n: int = 0, last_key: int = 0) -> None:
        self.open: dict[str, Entry] = {}
        """By id, in the order of the app: what has no answer and was not given up."""
        self.under_way: dict[str, Entry] = {}
        """By id, in the order in which they were sent on this connection; what was given up meanwhile among them."""
        self.timed: dict[str, Entry] = {}
        """Of the open ones, those that fail by themselves some day."""
        self.window = WINDOW
        """Changes under way at most."""
        self.last_n = last_n
        self.last_key = last_key
        self._newest_n = last_n
        self._next_n = last_n + 1
        self._waiting: deque[Entry] = deque()
        self._returned: list[Entry] = []
        """Came back from under way; joins the waiting ones, in front, when nothing is under way."""
        self._reads: dict[str, Entry] = {}
        """The `read` of each conversation that was not tried yet."""
        self._settling = False
        """Something under way was refused, so nothing is sent until all of it has its answer."""
        self._bytes = 0
        self._open_reads = 0
        for entry in entries:
            self.add(entry)

    def __len__(self) -> int:
        """How many count for `outbox_limit`: all but `read`."""
        return len(self.open) - self._open_reads

    def reserve(self, *, counted: bool) -> tuple[int, int | None]:
        """Key and probable number of the next change."""
        self.last_key += 1
        if not counted:
            return self.last_key, None
        self._newest_n += 1
        return self.last_key, self._newest_n

    def add(self, entry: Entry) -> None:
        """It is on disk, and may be sent."""
        self.open[entry.id] = entry
        self._waiting.append(entry)
        self.last_key = max(self.last_key, entry.key)
        if entry.n is not None:
            self._newest_n = max(self._newest_n, entry.n)
        if entry.given_up_at < math.inf:
            self.timed[entry.id] = entry
        if entry.op == "read":
            self._open_reads += 1
            if not entry.tried:
                self._reads[entry.fields["conv"]] = entry

    def read_of(self, conv: str) -> Entry | None:
        """The `read` of a conversation that was not tried yet, and so may still be changed."""
        return self._reads.get(conv)

    def over_limit(self, largest: float) -> list[Entry]:
        """The waiting ones with a payload of more bytes."""
        return [entry for entry in (*self._returned, *self._waiting) if self._is_open(entry) and entry.size > largest]

    # Sending

    def connected(self) -> int:
        """A connection begins: the `n` for its `hello`, the one before that of the oldest unanswered change."""
        tried = (entry.n for entry in self._waiting if self._is_open(entry) and entry.tried and entry.n is not None)
        self._next_n = next(tried, self.last_n + 1)
        self._settling = False
        return self._next_n - 1

    def lost(self) -> None:
        """The connection is gone: what was under way waits again, but for what was given up."""
        self._returned += self.under_way.values()
        self.under_way.clear()
        self._settle()

    def would_go(self, *, counted: bool) -> bool:
        """Whether a change that is added now could be sent at once."""
        return not self._waiting and not self._settling and self._admits(counted, 0)

    def take(self, now: float, largest: int) -> list[Entry]:
        """The changes to send now, with their numbers; they are under way afterwards. One of more bytes than `largest` waits."""
        taken: list[Entry] = []
        while not self._settling and (entry := self._front()) is not None:
            if entry.not_before > now or entry.size > largest or not self._admits(entry.counted, entry.size):
                break
            self._waiting.popleft()
            if entry.counted:
                entry.n = self._next_n
                self._next_n += 1
                self._newest_n = max(self._newest_n, entry.n)
            elif entry.op == "read" and self._reads.get(entry.fields["conv"]) is entry:
                del self._reads[entry.fields["conv"]]
            self.under_way[entry.id] = entry
            self._bytes += entry.size
            taken.append(entry)
        return taken

    def _front(self) -> Entry | None:
        while self._waiting and not self._is_open(self._waiting[0]):
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def _is_open(self, entry: Entry) -> bool:
        return self.open.get(entry.id) is entry

    def _admits(self, counted: bool, size: int) -> bool:
        if not self.under_way:
            return True
        if not counted or not next(iter(self.under_way.values())).counted:
            return False
        return len(self.under_way) < self.window and self._bytes + size <= WINDOW_BYTES

    def due(self, now: float) -> float:
        """When the front one may be sent that waits for its time; infinity where time changes nothing."""
        entry = None if self._settling else self._front()
        return entry.not_before if entry is not None and entry.not_before > now else math.inf

    # Answers

    def answered(self, request_id: str) -> Entry | None:
        """The server has done it: it is gone from here. None where nothing of that id is open or under way."""
        entry = self._gone(request_id)
        if entry is not None and entry.n is not None:
            self.last_n = max(self.last_n, entry.n)
            for other in self.under_way.values():
                other.refused = 0
        return entry

    def refused(self, request_id: str) -> Entry | None:
        """The server has refused it for good: it is gone, and its number is free. None where nothing of that id is there."""
        entry = self.under_way.get(request_id)
        if entry is not None and entry.n is not None:
            self._settling = True
            self._next_n = min(self._next_n, entry.n)
        return self._gone(request_id)

    def put_back(self, request_id: str, now: float, *, expected: int | None = None, after: float | None = None) -> bool:
        """It was refused for now: `out_of_order` (then the next number is `expected`), or to be sent again `after` seconds."""
        entry = self.under_way.get(request_id)
        if entry is None:
            return False
        self._settling = True
        if expected is not None:
            self._next_n = expected
        elif entry.n is not None:
            self._next_n = min(self._next_n, entry.n)
        if after is None:
            after = _AGAIN_S[min(entry.refused, len(_AGAIN_S) - 1)]
        entry.refused += 1
        entry.not_before = now + after
        self._returned.append(entry)
        self._leave(request_id)
        return True

    def give_up(self, entry: Entry) -> bool:
        """The app waits for it no more: it is never sent again. False where it has its answer, or was given up before."""
        if not self._is_open(entry):
            return False
        self._close(entry)
        return True

    def _gone(self, request_id: str) -> Entry | None:
        entry = self.under_way.get(request_id)
        if entry is not None:
            self._leave(request_id)
        else:
            entry = self.open.get(request_id)
        if entry is not None and self._is_open(entry):
            self._close(entry)
        return entry

    def _close(self, entry: Entry) -> None:
        del self.open[entry.id]
        self.timed.pop(entry.id, None)
        if entry.op == "read":
            self._open_reads -= 1
            if self._reads.get(entry.fields["conv"]) is entry:
                del self._reads[entry.fields["conv"]]

    def _leave(self, request_id: str) -> None:
        self._bytes -= self.under_way.pop(request_id).size
        if not self.under_way:
            self._settle()

    def _settle(self) -> None:
        """Nothing is under way: what came back waits in its old place, before all that was never sent."""
        self._settling = False
        self._bytes = 0
        self._returned.sort(key=lambda entry: entry.key, reverse=True)
        self._waiting.extendleft(entry for entry in self._returned if self._is_open(entry))
        self._returned.clear()
