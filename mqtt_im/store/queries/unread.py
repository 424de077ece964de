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
        self._kept: dict[str, _Count] = {}
        self._counts: dict[str, _Count] = {}
        """The same, with what the step under way has counted."""

    def begin(self) -> None:
        """A step begins, with what was kept: it may be one that was done before, and is not told, since messages have changed."""
        self._room = self._step
        self._counts = self._kept.copy()

    def keep(self) -> None:
        """What the step has counted is counted."""
        self._kept = self._counts

    def of(self, state: Seen, parts: Sequence[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
        """See `Seen.unread`; the parts of a conversation stand together and ascend. Raises `Unfinished`."""
        counts: dict[str, _Count] = {}
        asked: list[tuple[Conv, int, int]] = []
        finished = True
        for conv, first, last in parts:
            count = counts.get(conv.name)
            if count is None:
                count = counts[conv.name] = self._so_far(conv.name, first)
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
        for conv, _, end in asked:
            counts[conv.name].upto = end
        for name, (unread, mentions) in found.items():
            counts[name].unread += unread
            counts[name].mentions += mentions
        self._counts |= counts
        if not finished:
            raise Unfinished
        return {name: (count.unread, count.mentions) for name, count in counts.items()}

    def _so_far(self, name: str, first: int) -> _Count:
        """What was counted of a conversation from `first` on; nothing where some were read meanwhile."""
        count, before = _Count(first), self._counts.get(name)
        if before is not None and before.first == first:
            count.upto, count.unread, count.mentions = before.upto, before.unread, before.mentions
        return count
