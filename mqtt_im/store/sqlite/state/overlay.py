"""What the log says, from memory where it is new, from the projections where it is old.

Two generations stand between the log and the projections: `live` takes what is committed now, `frozen` is being written in
bulk. Every look-up asks them in this order, then the projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from msgspec import structs

from mqtt_im.cache import Cache
from mqtt_im.compiling import mypyc_attr
from mqtt_im.core.records import AnyRecord, Edited, GroupChange, Message, Reacted, Recalled, Reported, decode
from mqtt_im.shares import Bounds
from mqtt_im.store.sqlite.tables.log import Log
from mqtt_im.store.sqlite.tables.projection import Projection

from .generation import Generation

K = TypeVar("K")
V = TypeVar("V")

RECORD_BYTES: Final = 6 << 20
"""Of records read from the log that stay in memory."""
_FIXED: Final = 300
"""Bytes of a record beside those that it has in the log."""
_LARGE: Final = 4096
"""Bytes of a record that does not stay."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Overlay:
    """The log and its projections, and over them what is not in the projections yet."""

    def __init__(self, log: Log, projection: Projection, bounds: Bounds) -> None:
        self.log = log
        self.projection = projection
        self.live = Generation()
        self.frozen: Generation | None = None
        self._bounds = bounds
        self._read = Cache[int, AnyRecord](bounds.of(RECORD_BYTES))

    def _newest(self, of: Callable[[Generation], Mapping[K, V]], key: K) -> V | None:
        """What the newest generation that knows of it says of a key; None where it is for the projections to say."""
        found = of(self.live).get(key)
        return found if found is not None or self.frozen is None else of(self.frozen).get(key)

    def _generations(self) -> tuple[Generation, ...]:
        return (self.live,) if self.frozen is None else (self.live, self.frozen)

    def record(self, lsn: int) -> AnyRecord | None:
        """The record of a log row; None where it is gone."""
        record = self._newest(_records, lsn) or self._read.get(lsn)
        if record is None:
            data = self.log.get(lsn)
            if data is None:
                return None
            record = decode(data)
            if len(data) < _LARGE:
                self._read.put(lsn, record, _FIXED + len(data))
        return record

    def records(self, lsns: list[int]) -> dict[int, AnyRecord]:
        """The records of those log rows that are not gone."""
        return self.first_records(lsns, -1)[0]

    def first_records(self, lsns: list[int], max_bytes: int) -> tuple[dict[int, AnyRecord], int]:
        """See `interface.State`: what does not fit is not decoded, which takes milliseconds for a list of 5,000 names."""
        found: dict[int, AnyRecord] = {}
        missing: list[int] = []
        for lsn in lsns:
            record = self._newest(_records, lsn) or self._read.get(lsn)
            if record is None:
                missing.append(lsn)
            else:
                found[lsn] = record
        if not missing:
            return found, 0
        if max_bytes < 0:
            found.update((lsn, decode(data)) for lsn, data in self.log.get_many(missing))
            return found, 0
        rows = dict(self.log.get_many(missing))
        for lsn in missing:
            if (data := rows.get(lsn)) is not None:
                if max_bytes < 0:
                    return found, lsn
                found[lsn] = decode(data)
                max_bytes -= len(data)
        return found, 0

    def whole(self, lsn: int) -> AnyRecord | None:
        """The record of a log row with all its numbers."""
        if any(lsn in generation.shortened for generation in self._generations()):
            data = self.log.get(lsn)
            return None if data is None else decode(data)
        return self.record(lsn)

    def replace_record(self, lsn: int, record: AnyRecord) -> None:
        """A log row was rewritten."""
        for generation in self._generations():
            if lsn in generation.records:
                generation.records[lsn] = shown_of(record) if lsn in generation.shortened else record
        self._read.put(lsn, record, _FIXED)  # the row itself is as it was until the commit


def _records(generation: Generation) -> Mapping[int, AnyRecord]:
    return generation.records


def shown_of(record: AnyRecord) -> AnyRecord:
    """The record without the numbers that it has given out, and without their recipients: what is shown of it is the same."""
    if isinstance(record, GroupChange):
        return structs.replace(record, pos=[], users=[], asked=None)
    if isinstance(record, Message) and record.extra is not None and "users" in record.extra:
        extra = {name: value for name, value in record.extra.items() if name != "users"}
        return structs.replace(record, pos=[], extra=extra)
    return structs.replace(record, pos=[]) if isinstance(record, Message | Edited | Recalled | Reacted | Reported) else record
