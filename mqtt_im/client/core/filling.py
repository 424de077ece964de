"""Filling gaps of the inbox with `sync`."""

from __future__ import annotations

from typing import Final

from .effects import Effect
from .inbox import Inbox
from .packets import Packets

_LIMIT: Final = 200
_TRIES: Final = 3


class Filling:
    """Asks for what is missing, one page at a time, and gives up what the server does not have."""

    def __init__(self, inbox: Inbox, packets: Packets) -> None:
        self._inbox = inbox
        self._packets = packets
        self._asked = ""
        self._after = 0
        self._in_vain = 0

    def reset(self) -> None:
        """The connection is gone."""
        self._asked = ""

    def is_mine(self, request_id: object) -> bool:
        """Whether a reply belongs to the `sync` under way."""
        return bool(self._asked) and request_id == self._asked

    def ask(self) -> list[Effect]:
        """A `sync`, where something is missing and none is under way."""
        if self._asked or not self._inbox.missing():
            return []
        self._asked, self._after = self._packets.name("s"), self._inbox.received
        return self._packets.request({"op": "sync", "id": self._asked, "after": self._after, "limit": _LIMIT})

    def answered(self) -> tuple[int, int] | None:
        """The page was taken in. Returns the range that is lost, where the server has nothing for the gap again and again."""
        self._asked = ""
        if self._inbox.received > self._after:
            self._in_vain = 0
            return None
        self._in_vain += 1
        return self.refused() if self._in_vain >= _TRIES else None

    def refused(self) -> tuple[int, int] | None:
        """The server can't say. Returns the range that is lost."""
        self._asked = ""
        self._in_vain = 0
        return self._inbox.give_up_gap()
