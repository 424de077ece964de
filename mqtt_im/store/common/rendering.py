"""Records as devices see them now, from the state; what was rendered lately stays in memory."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Protocol

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core.entries import Entry, render, void_entry
from mqtt_im.core.model import Amended, Conv, User
from mqtt_im.core.records import Act, AnyRecord, GroupChange, Message
from mqtt_im.store.interface import RECEIPT_MEMBERS, Seen

from .rendered import MAX_BYTES, MAX_LARGE_BYTES, Rendered

FIRST_STEP = 8
"""Items of a page that are read at once, to begin with."""


class Shown(Seen, Protocol):
    """A state that is shown."""

    def amended_in_memory(self, conv: str, seq: int) -> Amended | None:
        """What is known to have become of a message, without looking it up."""


class Rendering:
    """The entries of one state. What a change makes of an entry is only seen once `kept` was told to forget it."""

    def __init__(
        self,
        state: Shown,
        room: Callable[[int], int] = lambda usual: usual,
        show: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        """`room` tells how much of something may be kept where so much usually may.

        `show` is told of which conversations something is shown without asking the state.
        """
        self._state = state
        self.kept = Rendered(room(MAX_BYTES), room(MAX_LARGE_BYTES))
        self._show = show

    def forget(self) -> None:
        """Nothing that was rendered may be how it is."""
        self.kept.clear()

    def fresh_entry(self, record: Message | GroupChange) -> Entry:
        """See `interface.Engine`."""
        # Nothing on disk can be about a message that has only just been numbered.
        amended = self._state.amended_in_memory(record.conv, record.seq)
        return render(record, amended, self._state.record)

    def entry(self, record: AnyRecord) -> Entry:
        """See `interface.Engine`."""
        amended = None
        if isinstance(record, Act):
            amended = self._state.amended(self._state.conv_for(record.conv), record.seq)
        return render(record, amended, self._state.record)

    def entries(self, owner: User, after: int, limit: int, max_bytes: int) -> list[tuple[int, Entry]]:
        """See `interface.Engine`."""
        state, kept = self._state, self.kept
        found = state.items(owner, after, limit)
        result: list[tuple[int, Entry]] = []
        expected = after + 1
        start, size = 0, FIRST_STEP
        while start < len(found) and max_bytes >= 0:
            part = found[start : start + size]
            before, room = start, max_bytes
            known = {lsn: entry for _, lsn in part if (entry := kept.get(lsn)) is not None}
            self._show([entry.conv for entry in known.values()])
            part = _within(part, known, max_bytes)
            missing = [abs(lsn) for _, lsn in part if abs(lsn) not in known]
            records, left_out = state.first_records(missing, max_bytes) if missing else ({}, 0)
            amended = state.amended_of(records)
            for pos, lsn in part:
                if abs(lsn) == left_out:
                    break
                start += 1
                if pos > expected:
                    result.append((pos - 1, void_entry("retention", expected)))
                expected = pos + 1
                if lsn < 0:
                    entry = void_entry("replaced")
                elif lsn in known:
                    entry = known[lsn]
                else:
                    record = records.get(lsn)
                    if record is None:
                        entry = void_entry("retention")
                    else:
                        entry = render(record, amended.get(lsn), state.record)
                        kept.put(lsn, record, entry)
                result.append((pos, entry))
                max_bytes -= entry.size
                if max_bytes < 0:
                    break
            # As many as there may be room for, by what those before them took.
            size = max(FIRST_STEP, max_bytes * (start - before) // max(1, room - max_bytes))
        if max_bytes >= 0 and len(found) < limit and expected <= owner.head:
            result.append((owner.head, void_entry("retention", expected)))
        return result[:limit]


def _within(part: list[tuple[int, int]], known: dict[int, Entry], max_bytes: int) -> list[tuple[int, int]]:
    """Those of these items for which there is room beside the `known` ones among them, and one more."""
    if sum([entry.size for entry in known.values()]) > max_bytes:
        for index, (_, lsn) in enumerate(part, 1):
            if (entry := known.get(lsn)) is not None:
                max_bytes -= entry.size
                if max_bytes < 0:
                    return part[:index]
    return part


@mypyc_attr(allow_interpreted_subclasses=True)
class AtHand:
    """Whatever an engine or a reader is asked for is at hand, or read when it is; and who of a conversation is connected."""

    online: Container[str]

    def at_hand(self, user: str, group: str, names: Sequence[str] = (), brought: float = 0.0) -> None:
        """See `interface.Engine`; where it takes as little to read them when they are asked for, nothing is done before."""

    def pull_all(self, user: str) -> None:
        """See `interface.Engine`; where every record is written out at once there is nothing to do."""

    def pulled(self, users: Iterable[str]) -> tuple[dict[str, list[tuple[int, int]]], list[str]]:
        """See `interface.Engine`; as above."""
        return {}, []

    def connected(self, conv: Conv) -> list[str]:
        """See `interface.Readable`."""
        if conv.size > RECEIPT_MEMBERS:
            return []
        online = self.online
        return [name for name, member in conv.members.items() if member.active and name in online]


@mypyc_attr(allow_interpreted_subclasses=True)
class Showing(AtHand):
    """What engines and readers show alike: the part of `interface.Readable` and `Engine` that is rendered."""

    rendering: Rendering

    def fresh_entry(self, record: Message | GroupChange) -> Entry:
        """See `interface.Engine`."""
        return self.rendering.fresh_entry(record)

    def entry(self, record: AnyRecord) -> Entry:
        """See `interface.Readable`."""
        return self.rendering.entry(record)

    def entries(self, owner: User, after: int, limit: int, max_bytes: int) -> list[tuple[int, Entry]]:
        """See `interface.Readable`."""
        return self.rendering.entries(owner, after, limit, max_bytes)
