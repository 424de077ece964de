"""Pages of messages: of an inbox, of a conversation, of what a search has found.

They hold ready JSON (`msgspec.Raw`), in lists of at most `limit` items and about `max_bytes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mqtt_im.core.entries import Lookup, fields
from mqtt_im.core.model import Amended, Conv
from mqtt_im.core.records import MESSAGES, AnyRecord, Message
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.common import possible_conv
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal

if TYPE_CHECKING:
    from mqtt_im.store.interface import Readable

FIRST_CHUNK = 8
CHUNK = 256
"""Messages of a page that are read at once, to begin with and at most: few may be large enough to fill it."""


def sync(engine: Readable, who: Who, request: rq.Sync, limit: int, max_bytes: int) -> dict[str, Any]:
    """The items after a position, as the asking device sees them."""
    owner = engine.state.user(who.user)
    if request.after > owner.head:
        raise Refusal("bad_field", f"after: the newest item is {owner.head}")
    found = engine.entries(owner, request.after, limit, max_bytes)
    items = [msgspec.Raw(entry.item(pos, who.user, who.device, engine.now - engine.behind)) for pos, entry in found]
    last = found[-1][0] if found else request.after
    return {"op": "page", "items": items, "more": last < owner.head}


def history(engine: Readable, who: Who, request: rq.History, limit: int, max_bytes: int) -> dict[str, Any]:
    """Messages of one conversation, ascending, as far as the asking user may read them."""
    conv, member = possible_conv(engine.state, who, request.conv)
    lowest = (request.after or 0) + 1
    highest = conv.head if request.before is None else min(conv.head, request.before - 1)
    forward = request.after is not None
    spans = [[max(first, lowest), min(last, highest)] for first, last in member.spans]
    spans = sorted(span for span in spans if span[0] <= span[1])
    if not forward:
        spans.reverse()
    found: list[bytes] = []
    more = False
    for first, last in spans:
        seqs = _Walk(first, last, forward)
        while (part := seqs.next()) is not None:
            messages = _messages(engine, conv, *part)
            if not messages:
                seqs.skip(engine.state.nearest_message(conv, *seqs.rest, forward))
            for message in messages if forward else reversed(messages):
                if len(found) >= limit or (found and max_bytes < len(message)):
                    more = True
                    break
                found.append(message)
                max_bytes -= len(message)
            if more:
                break
        if more:
            break
    if not forward:
        found.reverse()
    return {"op": "page", "conv": conv.name, "items": [msgspec.Raw(item) for item in found], "more": more}


class _Walk:
    """The seqs from `first` to `last` in ranges of `FIRST_CHUNK` and more, up to `CHUNK`, upward or downward."""

    def __init__(self, first: int, last: int, forward: bool) -> None:
        self._first, self._last, self._forward = first, last, forward
        self._size = min(FIRST_CHUNK, CHUNK)

    @property
    def rest(self) -> tuple[int, int]:
        """What was not walked yet, as first and last."""
        return self._first, self._last

    def skip(self, seq: int | None) -> None:
        """Go on at this one; None ends the walk."""
        if seq is None:
            self._first = self._last + 1
        elif self._forward:
            self._first = seq
        else:
            self._last = seq

    def next(self) -> tuple[int, int] | None:
        if self._first > self._last:
            return None
        size, self._size = self._size, min(CHUNK, 4 * self._size)
        if self._forward:
            part = self._first, min(self._last, self._first + size - 1)
            self._first = part[1] + 1
        else:
            part = max(self._first, self._last - size + 1), self._last
            self._last = part[0] - 1
        return part


def _messages(engine: Readable, conv: Conv, first: int, last: int) -> list[bytes]:
    rows = engine.state.messages(conv, first, last)
    records = engine.state.records([lsn for _, lsn in rows])
    amended = engine.state.amended_of(records)
    found = []
    for _, lsn in rows:
        message = message_json(engine, records.get(lsn), amended.get(lsn))
        if message is not None:
            found.append(message)
    return found


def message_json(engine: Readable, record: AnyRecord | None, amended: Amended | None) -> bytes | None:
    """A message as history shows it: a `msg` without `pos`; None where its content was trimmed."""
    if not isinstance(record, MESSAGES):
        return None
    if isinstance(record, Message) and record.body is None and not (amended is not None and amended.recalled):
        return None
    lookup: Lookup = engine.state.record
    return b'{"op":"msg",%b}' % fields(record, amended, lookup)


def found(engine: Readable, who: Who, lsns: list[int]) -> list[bytes]:
    """Those of these messages that the user may read now, as history shows them."""
    records = engine.state.records(lsns)
    amended_of = engine.state.amended_of(records)
    messages = []
    for lsn in lsns:
        record = records.get(lsn)
        conv = engine.state.conv(record.conv) if isinstance(record, Message) else None
        if not isinstance(record, Message) or conv is None:
            continue
        member = conv.part(who.user)
        amended = amended_of.get(lsn)
        if member is None or not member.sees(record.seq) or (amended is not None and amended.recalled):
            continue
        message = message_json(engine, record, amended)
        if message is not None:
            messages.append(message)
    return messages
