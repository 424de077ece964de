"""Looking at events behind messages that nobody has read yet.

The server offers a thousand items beyond what is done, and no more. So that the reader of events does not wait for the reader
of messages, what lies behind is looked at with `sync`, which moves nothing; messages in it are passed over, and come when it is
their turn.
"""

from __future__ import annotations

import math
from typing import Final

from .effects import Effect
from .inbox import Inbox, Map
from .packets import Packets

PAUSE: Final = 1000
"""The server offers so many items beyond what was acknowledged, and no more."""
_LIMIT: Final = 500
_AGAIN_S: Final = 5.0
"""Nothing tells of news behind a pause, so they are asked for."""


class Peeking:
    """Asks for one page at a time, as long as the delivery pauses and somebody reads events."""

    def __init__(self, inbox: Inbox, packets: Packets) -> None:
        self._inbox = inbox
        self._packets = packets
        self._asked = ""
        self._not_before = 0.0

    def reset(self) -> None:
        """The connection is gone."""
        self._asked = ""
        self._not_before = 0.0

    def is_mine(self, request_id: object) -> bool:
        """Whether a reply belongs to the `sync` under way."""
        return bool(self._asked) and request_id == self._asked

    def due(self, acknowledged: int) -> float:
        """When `ask` has something to do; infinity where time changes nothing."""
        return self._not_before if self._wanted(acknowledged) else math.inf

    def ask(self, now: float, acknowledged: int) -> list[Effect]:
        """A `sync`, where it is time for one; `acknowledged` is the cursor as the server has it."""
        if now < self._not_before or not self._wanted(acknowledged):
            return []
        self._asked = self._packets.name("p")
        return self._packets.request({"op": "sync", "id": self._asked, "after": self._inbox.scanned, "limit": _LIMIT})

    def _wanted(self, acknowledged: int) -> bool:
        inbox = self._inbox
        return not self._asked and inbox.received - acknowledged >= PAUSE and inbox.may_peek()

    def answered(self, now: float, page: Map) -> None:
        """The page has come, or an `error` in its place."""
        self._asked = ""
        items = page.get("items")
        for item in items if isinstance(items, list) else ():
            if not self._inbox.peek(item):
                break
        if page.get("more") is not True:
            self._not_before = now + _AGAIN_S
