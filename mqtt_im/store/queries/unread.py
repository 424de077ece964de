"""How many messages a user has not read, counted in steps: a million of them would hold the reader's thread for a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mqtt_im.core.model import FOREVER, Conv, User

if TYPE_CHECKING:
    from mqtt_im.store.interface import Seen

STEP: Final = 20_000
"""Messages of all conversations together that are counted in one step: some milliseconds."""


class Unfinished(Exception):
    """There is more to count than one step may; the next one goes on where this one stopped."""


class _Count:
    """Of a conversation, from `first` to `upto`."""

    __slots__ = ("first", "mentions", "unread", "upto")

    def __init__(self, first: int) -> None:
        self.first = first
        self.upto = first - 1
        self.unread = self.mentions = 0


class Counts:
    """What one listing counts. What is recalled between two steps, and was counted by the first, stays counted."""

    def __init__(self, step: int = FOREVER) -> None:
        self._step = self._room = step
        self._counts: dict[str, _Count] = {}

    def begin(self) -> None:
        """A step begins; what was counted before stays."""
        self._room = self._step

    def of(self, state: Seen, parts: Sequence[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
        """See `Seen.unread`; the parts of a conversation stand together and ascend. Raises `Unfinished`."""
        counts: dict[str, _Count] = {}
        asked: list[tuple[Conv, int, int]] = []
        finished = True
        for conv, first, last in parts:
            count = counts.get(conv.name) or self._counts.get(conv.name)
            if count is None or (conv.name not in counts and count.first != first):  # some were read meanwhile
                count = _Count(first)
            counts[conv.name] = count
            begin = max(first, count.upto + 1)
            if last - begin >= self._room:  # those that are gone take no step
                begin = state.nearest_message(conv, begin, last, upward=True) or last + 1
            end = min(last, begin + self._room - 1)
            if begin <= end:
                asked.append((conv, begin, end))
                self._room -= end - begin + 1
            if end < last:
                finished = False
                break
        found = state.unread(asked, user)
        self._counts |= counts
        for conv, _, end in asked:
            counts[conv.name].upto = end
        for name, (unread, mentions) in found.items():
            counts[name].unread += unread
            counts[name].mentions += mentions
        if not finished:
            raise Unfinished
        return {name: (count.unread, count.mentions) for name, count in counts.items()}
