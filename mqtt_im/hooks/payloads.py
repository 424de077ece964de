"""The bodies of webhooks, as JSON (docs/webhooks.md)."""

from __future__ import annotations

from typing import Any

import msgspec

from mqtt_im.core.entries import fields
from mqtt_im.core.records import GroupChange, Message

from .pending import Summary


def push(delivery_id: str, user: str, told: Summary) -> bytes:
    """A user who is away has something."""
    payload: dict[str, Any] = {
        "event": "push",
        "id": delivery_id,
        "user": user,
        "count": told.count,
        "conversations": told.conversations,
    }
    if told.more:
        payload["more"] = True
    return msgspec.json.encode(payload)


def message(delivery_id: str, record: Message, include_body: bool) -> bytes:
    """A message was sent."""
    shown = record if include_body else msgspec.structs.replace(record, body=None)
    payload: dict[str, Any] = {"event": "message", "id": delivery_id, "msg": _msg(shown)}
    if record.extra is not None and "push" in record.extra:
        payload["push"] = record.extra["push"]
    return msgspec.json.encode(payload)


def group(delivery_id: str, record: GroupChange) -> bytes:
    """A group was changed."""
    return msgspec.json.encode({"event": "group", "id": delivery_id, "msg": _msg(record)})


def presence(delivery_id: str, user: str, data: str) -> bytes:
    """A user has come or gone; `data` is what the presence topic shows."""
    return msgspec.json.encode({"event": "presence", "id": delivery_id, "user": user, **msgspec.json.decode(data)})


def _msg(record: Message | GroupChange) -> msgspec.Raw:
    """The message as `history` shows it, before anything became of it."""
    return msgspec.Raw(b"{%b}" % fields(record, None, lambda _: None))
