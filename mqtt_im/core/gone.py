"""What is left of a record whose content is gone: enough to tell a repeat of its request, and to answer it."""

from __future__ import annotations

from typing import Final, overload

import msgspec

from mqtt_im.core.rules.common import canonical, digest_of, own_pos

from .records import AnyRecord, Edited, Gone, Message, Reacted, Recalled, Reported
from .usage import size_of

_COMPARED: Final = ("reply_to", "key", "mentions", "packet", "dropped", "digest", "push_digest", "file_ids")
"""What of a message's `extra` tells a repeat from another request."""


@overload
def without_content(record: Message) -> Message: ...
@overload
def without_content(record: Edited) -> Edited: ...


def without_content(record: Message | Edited) -> Message | Edited:
    """The record without its body and its `push`, with digests of both by which a repeat is still recognised."""
    if record.body is None:
        return record
    digest = digest_of(record.body)
    if isinstance(record, Edited):
        return msgspec.structs.replace(record, body=None, digest=digest, size=size_of(record))
    extra = {**(record.extra or {}), "digest": digest, "size": size_of(record)}
    if "files" in extra:
        extra["file_ids"] = [file[0] for file in extra.pop("files")]
    if "push" in extra:
        extra["push_digest"] = digest_of(canonical(extra.pop("push")))
    return msgspec.structs.replace(record, body=None, extra=extra)


def remembered(record: Message | Edited | Recalled | Reacted | Reported) -> Gone:
    """What stands in the log in place of a record that retention has taken, as long as its `id` is remembered."""
    if isinstance(record, Message):
        bare = without_content(record)
        extra = {name: value for name, value in (bare.extra or {}).items() if name in _COMPARED}
        pos = [own_pos(record, record.by)]
        return Gone(record.ts, msgspec.structs.replace(bare, n=0, pos=pos, extra=extra))
    if isinstance(record, Edited):
        record = without_content(record)
    elif isinstance(record, Reported) and record.result is not None:
        record = msgspec.structs.replace(record, result=None, digest=digest_of(record.result))
    return Gone(record.ts, msgspec.structs.replace(record, n=0, pos=[]))


def without_packet(record: AnyRecord) -> AnyRecord:
    """A message without its `packet`: what is repeated with DUP after so long is new."""
    if not isinstance(record, Message) or record.extra is None:
        return record
    extra = {name: value for name, value in record.extra.items() if name != "packet"}
    return msgspec.structs.replace(record, extra=extra or None)
