"""Records as devices see them now, from the state; what was rendered lately stays in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mqtt_im.core.entries import Entry, render, void_entry
from mqtt_im.core.model import Amended, Conv, User
from mqtt_im.core.records import Act, AnyRecord, GroupChange, Message

from .interface import Seen

MAX_ENTRIES = 8192
FIRST_STEP = 8
"""Items of a page that are read at once, to begin with."""
_LARGE = 2048
"""Bytes of an entry that is not kept."""


class Shown(Seen, Protocol):
    """A state that is shown."""

    def amended_in_memory(self, conv: Conv, seq: int) -> Amended | None:
        """What is known to have become of a message, without looking it up."""


class Rendering:
    """The entries of one state. What a change makes of an entry is only seen once `forget` was called."""

    def __init__(self, state: Shown, room: Callable[[int], int] = lambda usual: usual) -> None:
        """`room` tells how many of something may be kept where so many usually may."""
        self._room = room
        self._state = state
        self._entries: dict[int, Entry] = {}

    def forget(self) -> None:
        """What was rendered is no longer how it is."""
        self._entries.clear()

    def fresh_entry(self, record: Message | GroupChange) -> Entry:
        """See `interface.Engine`."""
        # Nothing on disk can be about a message that has only just been numbered.
        amended = self._state.amended_in_memory(self._state.conv_for(record.conv), record.seq)
        return render(record, amended, self._state.record)

    def entry(self, record: AnyRecord) -> Entry:
        """See `interface.Engine`."""
        amended = None
        if isinstance(record, Act):
            amended = self._state.amended(self._state.conv_for(record.conv), record.seq)
        return render(record, amended, self._state.record)

    def entries(self, owner: User, after: int, limit: int, max_bytes: int) -> list[tuple[int, Entry]]:
        """See `interface.Engine`."""
        state, cache = self._state, self._entries
        found = state.items(owner, after, limit)
        if len(cache) + len(found) > self._room(MAX_ENTRIES):
            cache.clear()  # now, since what is looked up below must stay until it is used
        result: list[tuple[int, Entry]] = []
        expected = after + 1
        start, size = 0, FIRST_STEP
        while start < len(found) and max_bytes >= 0:
            part = found[start : start + size]
            room = max_bytes
            missing = [abs(lsn) for _, lsn in part if abs(lsn) not in cache]
            records = state.records(missing) if missing else {}
            amended = state.amended_of(records)
            for pos, lsn in part:
                if pos > expected:
                    result.append((pos - 1, void_entry("retention", expected)))
                expected = pos + 1
                if lsn < 0:
                    entry = void_entry("replaced")
                elif lsn in cache:
                    entry = cache[lsn]
                else:
                    record = records.get(lsn)
                    if record is None:
                        entry = void_entry("retention")
                    else:
                        entry = render(record, amended.get(lsn), state.record)
                        if entry.size < _LARGE:
                            cache[lsn] = entry
                result.append((pos, entry))
                max_bytes -= entry.size
                if max_bytes < 0:
                    break
            start += size
            # As many as there may be room for, by what those before them took.
            size = max(FIRST_STEP, max_bytes * size // max(1, room - max_bytes))
        if max_bytes >= 0 and len(found) < limit and expected <= owner.head:
            result.append((owner.head, void_entry("retention", expected)))
        return result[:limit]
