"""What a user's records take: the figures that quotas bound (`User.sent`, `User.sent_bytes`).

Counted are messages, and the bytes of what they say now: a body with its `push`, or the newest edit beside it, and the results
of reports. A record always counts the same, whether its content is still there or not, so that the sum over the log does not
depend on when it is read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from .records import AnyRecord, Edited, Message, Recalled, Reported


class Usage(NamedTuple):
    """What one record adds to what a user keeps; recalls and edits take away what they replace."""

    user: str
    messages: int
    size: int


def content_size(body: bytes, extra: dict[str, Any] | None = None) -> int:
    """Bytes of a body, and of the `push` beside it."""
    if extra is None or "push" not in extra:
        return len(body)
    return len(body) + len(msgspec.json.encode(extra["push"]))


def size_of(record: Message | Edited | Reported) -> int:
    """Bytes of the record's content, as it came."""
    if isinstance(record, Message):
        extra = record.extra
        if record.body is None:
            return int((extra or {}).get("size", 0))
        return len(record.body) if extra is None else content_size(record.body, extra)
    if isinstance(record, Edited):
        return record.size if record.body is None else len(record.body)
    return content_size(record.result or b"")


def usage_of(record: AnyRecord) -> Usage | None:
    """What the record adds, None where nothing."""
    if isinstance(record, Message):
        return Usage(record.by, 1, size_of(record))
    if isinstance(record, Edited):
        return Usage(record.by, 0, size_of(record) - record.freed)
    if isinstance(record, Recalled):
        return Usage(record.of, 0, -record.freed) if record.of else None
    if isinstance(record, Reported):
        return Usage(record.by, 0, size_of(record))
    return None
