"""Entries: log records as the items that devices see (PROTOCOL §3, Downlink).

An entry is rendered once and shared by all its recipients: each one's item is the entry with that recipient's `pos` spliced
in. A message is rendered as it is now, with its edits, reactions and recall.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from .model import Amended
from .records import AnyRecord, Edited, GroupChange, Message, Reacted, Recalled, Reported, steady

_encode: Final = msgspec.json.Encoder().encode
_MSG: Final = b'{"op":"msg","pos":'
_SENT: Final = b'{"op":"sent","pos":'

_CONTENT: Final = frozenset(("body", "mentions", "files", "edited", "reactions"))
"""Fields of an item that a recall takes away."""

FILE_FIELDS: Final = ("id", "name", "type", "size")
"""What devices see of a file that a message carries."""

Lookup = Callable[[int], AnyRecord | None]
"""The record of a log row, None where it is gone."""


class Entry:
    """One rendered record.

    `head` + `pos` + `tail` is the JSON item; for the device that sent a message, `_SENT` + `pos` + `sent`. `seq` is 0 where
    the item is no message. `expires` is ms by the steady time (`mqtt_im.clock`), 0 for never; the sender's own devices never see
    it expire.
    `about` is the message that the item is, or tells of, 0 for none.
    `first` is where a `void` begins that stands for several items, 0 in all other entries. `size` is about how many bytes an
    item of it takes. `at` is when the record was committed, in ms since 1970, 0 where nobody knows. `flights` is how many large
    packets of it are in flight.
    """

    __slots__ = (
        "about",
        "flights",
        "at",
        "by",
        "conv",
        "device",
        "expires",
        "first",
        "head",
        "keyed",
        "recalled",
        "sent",
        "seq",
        "size",
        "tail",
        "void",
    )

    def __init__(self, by: str, device: str, conv: str, seq: int, head: bytes, tail: bytes, sent: bytes | None) -> None:
        self.by = by
        self.device = device
        self.conv = conv
        self.seq = seq
        self.head = head
        self.tail = tail
        self.sent = sent
        self.at = 0
        self.about = seq
        self.flights = 0
        self.expires = 0
        self.first = 0
        self.keyed = False
        self.recalled = False
        self.void = ""
        self.size = len(tail) + 32

    def item(self, pos: int, user: str, device: str, now: int) -> bytes:
        """The item that this device sees at `pos`, as JSON; `now` is the steady time."""
        if self.sent is not None and self.by == user and self.device == device:
            return b"%b%d%b" % (_SENT, pos, self.sent)
        if self.void or (self.expires and self.is_void(user, now)):
            return void(self.first or pos, pos, self.void or "expired")
        return b"%b%d%b" % (self.head, pos, self.tail)

    def offered(self, user: str, now: int) -> Entry:
        """The entry as it counts once it was offered: one that was void by then delivers no message."""
        if self.seq and (self.void or self.expires) and self.is_void(user, now):
            return void_entry(self.void or "expired", self.first)
        return self

    def take_back(self) -> None:
        """The message that it is, or tells of, was recalled: nothing of the content is left in it. `size` stays."""
        shown: dict[str, msgspec.Raw] = (
            msgspec.json.decode(b"{%b" % self.tail[1:], type=dict[str, msgspec.Raw]) if self.tail else {}
        )
        if "body" in shown:
            left = {name: value for name, value in shown.items() if name not in _CONTENT}
            self.tail = b",%b" % _encode({**left, "recalled": True})[1:]
            self.recalled = True

    def light(self) -> Entry:
        """What is to be known of it once it was offered, without what it shows, which the store has."""
        made = Entry(self.by, self.device, self.conv, self.seq, b"", b"", None)
        made.at, made.about, made.first = self.at, self.about, self.first
        return made

    @property
    def is_light(self) -> bool:
        """Whether it shows nothing, and is to be found in the store."""
        return not self.head and not self.void

    def is_void(self, user: str, now: int) -> bool:
        """Whether the user's item holds nothing any more."""
        return bool(self.void) or (0 < self.expires <= now and self.by != user)


def void(first: int, last: int, why: str) -> bytes:
    """A `void` item: `first` … `last` hold nothing any more."""
    return b'{"op":"void","pos":%d,"from":%d,"why":"%b"}' % (last, first, why.encode())


def void_entry(why: str, first: int = 0) -> Entry:
    """An entry that holds nothing, for whoever looks; it stands for all items from `first` on, where that is given."""
    entry = Entry("", "", "", 0, b"", b"", None)
    entry.void = why
    entry.first = first
    return entry


def render(record: AnyRecord, amended: Amended | None, lookup: Lookup) -> Entry:
    """The entry of a record, as things are now; it knows when its record was committed.

    `amended` is what became of the message that the record is or is about; `lookup` finds the record of its newest edit.
    """
    entry = _message(record, amended, lookup) if isinstance(record, Message) else _other(record, amended, lookup)
    entry.at = record.ts
    return entry


def _other(record: AnyRecord, amended: Amended | None, lookup: Lookup) -> Entry:
    if isinstance(record, GroupChange):
        tail = b",%b}" % fields(record, amended, lookup)
        return Entry(record.by, record.device, record.conv, record.seq, _MSG, tail, None)
    if isinstance(record, Edited):
        told = _edited_fields(record, amended, lookup)
        entry = _about(record, b"edited", told, bool(amended and amended.recalled))
        if not told:
            entry.void = "retention"
        return entry
    if isinstance(record, Recalled):
        return _about(record, b"recalled", b"")
    if isinstance(record, Reacted):
        return _about(record, b"reacted", b'"emoji":%b,' % _encode(record.emoji))
    if isinstance(record, Reported):
        told = b'"result":%b,' % record.result if record.result is not None else b""
        return _about(record, b"report", b'"state":"%b",%b' % (record.state.encode(), told))
    return void_entry("retention")


def _message(record: Message, amended: Amended | None, lookup: Lookup) -> Entry:
    conv, named = record.conv.encode(), _named(record)
    body = record.body if amended is None and record.extra is None else None
    tail = b",%b}" % (fields(record, amended, lookup) if body is None else _plain(record, conv, named, body))
    # What came without a device, over HTTP, was answered there, and is a `msg` for whoever asks.
    sent = b',%b"conv":"%b","seq":%d,"ts":%d}' % (named, conv, record.seq, record.ts) if record.device else None
    entry = Entry(record.by, record.device, record.conv, record.seq, _MSG, tail, sent)
    if body is not None:
        return entry
    if record.extra is not None:
        ttl = record.extra.get("ttl")
        if ttl:
            entry.expires = steady(record) + ttl * 1000
        entry.keyed = "key" in record.extra
    if amended is not None and amended.recalled:
        entry.recalled = True
    elif record.body is None:
        entry.void = "retention"
    return entry


def fields(record: Message | GroupChange, amended: Amended | None, lookup: Lookup) -> bytes:
    """The fields of a message as JSON, without braces, `op` and `pos`."""
    if amended is None and isinstance(record, Message) and record.extra is None and record.body is not None:
        return _plain(record, record.conv.encode(), _named(record), record.body)
    parts = [b'"conv":"%b","seq":%d,"from":"%b"' % (record.conv.encode(), record.seq, record.by.encode())]
    add = parts.append
    if isinstance(record, GroupChange):
        add(b'"ts":%d,"system":%b' % (record.ts, _encode(_system(record))))
    else:
        if record.id is not None:
            add(b'"id":%b' % _encode(record.id))
        recalled = amended is not None and amended.recalled
        body = None if recalled else _body(record, amended, lookup)
        if body is not None:
            add(b'"body":%b' % body)
        add(b'"ts":%d' % record.ts)
        extra = record.extra or {}
        for name in ("cts", "reply_to", "mentions"):
            if name in extra and not (recalled and name == "mentions"):
                add(b'"%b":%b' % (name.encode(), _encode(extra[name])))
        if "files" in extra and not recalled:
            add(b'"files":%b' % _encode([dict(zip(FILE_FIELDS, file, strict=True)) for file in extra["files"]]))
        if recalled:
            add(b'"recalled":true')
        elif amended is not None and amended.edits:
            add(b'"edited":true')
    if amended is not None and amended.reactions:
        add(b'"reactions":%b' % _encode(reactions(amended)))
    return b",".join(parts)


def _named(record: Message) -> bytes:
    return b"" if record.id is None else b'"id":%b,' % _encode(record.id)


def _plain(record: Message, conv: bytes, named: bytes, body: bytes) -> bytes:
    """The fields of the usual message."""
    return b'"conv":"%b","seq":%d,"from":"%b",%b"body":%b,"ts":%d' % (
        conv,
        record.seq,
        record.by.encode(),
        named,
        body,
        record.ts,
    )


def reactions(amended: Amended) -> dict[str, list[str]]:
    """Emoji → the users whose reaction it is, in the order in which they came."""
    found: dict[str, list[str]] = {}
    for user, emoji in amended.reactions.items():
        found.setdefault(emoji, []).append(user)
    return found


def _body(record: Message, amended: Amended | None, lookup: Lookup) -> bytes | None:
    if amended is not None and amended.edits:
        edit = lookup(amended.edited)
        if isinstance(edit, Edited):
            return edit.body
    return record.body


def _edited_fields(record: Edited, amended: Amended | None, lookup: Lookup) -> bytes:
    if amended is not None and amended.recalled:
        return b'"recalled":true,'
    newest = lookup(amended.edited) if amended is not None and amended.edits else record
    body = newest.body if isinstance(newest, Edited) else record.body
    if body is None:
        return b""
    return b'"body":%b,' % body


def _about(record: Edited | Recalled | Reacted | Reported, op: bytes, middle: bytes, recalled: bool = False) -> Entry:
    tail = b',"conv":"%b","seq":%d,"by":"%b",%b"ts":%d}' % (
        record.conv.encode(),
        record.seq,
        record.by.encode(),
        middle,
        record.ts,
    )
    entry = Entry(record.by, record.device, record.conv, 0, b'{"op":"%b","pos":' % op, tail, None)
    entry.about = record.seq
    entry.recalled = recalled
    return entry


def _system(record: GroupChange) -> dict[str, object]:
    told: dict[str, object] = {"event": record.event}
    for name in ("members", "user", "role", "name"):
        value = getattr(record, name)
        if value is not None:
            told[name] = value
    return told
