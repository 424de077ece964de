"""Who may read an uploaded file, and so hand it on: its owner until a message carries it, then who may read such a message."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Final

from mqtt_im.core.model import Upload
from mqtt_im.core.records import Message
from mqtt_im.core.view import View
from mqtt_im.protocol.errors import Quota, Refusal

MAX_CARRIERS: Final = 1_000
"""Messages that may carry one file: who may read it is found by looking at them."""
MAX_GROUPS: Final = 100
"""Groups in which they may be: each has to be asked whether somebody is in it."""


def attached(view: View, user: str, files: list[str]) -> list[list[object]]:
    """What a message of this user remembers of the files that it carries: `[id, name, type, size]` each. Raises `not_found`."""
    found: list[list[object]] = []
    for file in files:
        upload = view.upload(file)
        if upload is None or not may_read_file(view, user, upload):
            raise Refusal("not_found", f"files: there is no file {file[:64]!r} that you may send")
        if len(upload.carriers) >= MAX_CARRIERS:
            raise Quota("carriers", f"files: {MAX_CARRIERS} messages carry {file[:64]!r} already; upload it again")
        if len(upload.carriers) >= MAX_GROUPS and len(upload.carriers.groups()) >= MAX_GROUPS:
            raise Quota("carriers", f"files: {file[:64]!r} is in {MAX_GROUPS} groups already; upload it again")
        found.append([upload.id, upload.name, upload.type, upload.size])
    return found


def may_read_file(view: View, user: str, upload: Upload) -> bool:
    """Whether this user may read the file now."""
    if not upload.carriers:
        return upload.owner == user
    return any(
        _reads(view, user, upload.id, conv, map(itemgetter(1), carriers))
        for conv, carriers in groupby(upload.carriers, itemgetter(0))
        if conv[0] == "#" or user in conv.split(":")
    )


def is_carried(view: View, upload: Upload) -> bool:
    """Whether a message carries the file now."""
    return any(_carrier(view, upload.id, conv, seq) is not None for conv, seq in upload.carriers)


def is_over(view: View, file: str, name: str, seq: int) -> bool:
    """Whether a message is there, or was, that does not carry the file, and never will."""
    conv = view.conv(name)
    return conv is not None and seq <= conv.head and _carrier(view, file, name, seq) is None


def files_of(record: Message) -> list[str]:
    """The ids of the files that a message carries, or carried before its content went."""
    extra = record.extra or {}
    return [file[0] for file in extra.get("files", ())] or list(extra.get("file_ids", ()))


def _carrier(view: View, file: str, name: str, seq: int) -> Message | None:
    conv = view.conv(name)
    record = view.message(conv, seq) if conv is not None and seq <= conv.head else None
    if not isinstance(record, Message) or record.extra is None:
        return None
    return record if any(found[0] == file for found in record.extra.get("files", ())) else None


def _reads(view: View, user: str, file: str, name: str, seqs: Iterable[int]) -> bool:
    """Whether the user may read one of these messages of a conversation, and it carries the file now."""
    conv = view.conv(name)
    member = conv.part(user) if conv is not None else None
    if member is None:
        return False
    for seq in seqs:
        record = _carrier(view, file, name, seq) if member.sees(seq) else None
        if record is not None and (not record.dropped or record.by == user):
            return True
    return False
