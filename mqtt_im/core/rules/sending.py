"""`send` and `report`: what makes new items, and device commands (PROTOCOL §3)."""

from __future__ import annotations

from typing import Any

from mqtt_im.core.model import Conv
from mqtt_im.core.records import Message, Reported
from mqtt_im.core.usage import content_size
from mqtt_im.core.view import View
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.names import direct

from .common import (
    MEMBER,
    answer,
    check_changes,
    check_quota,
    conv_of,
    message_of,
    next_n,
    positions_at_once,
    repeat,
    same_send,
    to_blocker,
    used_up,
)
from .files import attached
from .terms import Decision, Limits, Who


def send(view: View, limits: Limits, who: Who, request: rq.Send) -> Decision:
    """A message to one user or to a group."""
    again = repeat(view, who, request) if request.id is not None else _repeated_packet(view, who, request)
    if again is not None:
        return again
    n = next_n(view, who, request.n) if request.n is not None else 0
    user, to = who.user, request.to
    own = 0
    dropped = False
    if to[0] == "#":
        conv, _ = conv_of(view, who, to)
        name, seq = to, conv.head + 1
        if conv.large:
            pos = positions_at_once(view, conv, [user])
        else:
            present = conv.present_names
            own = present.index(user)
            pos = [member_user.head + 1 for member_user in view.users(present)]
    else:
        recipient = view.user(to)
        if not view.has_account(to):
            raise Refusal("not_found", f"to: there is no user {to}")
        dropped = user in recipient.blocks
        if dropped and not limits.drop_blocked:
            raise Refusal("blocked", f"to: {to} does not take messages from you")
        name = direct(user, to)
        found = view.conv(name)
        seq = found.head + 1 if found is not None else 1
        sender_pos = view.user(user).head + 1
        if to == user or dropped:
            pos = [sender_pos]
        elif user < to:
            pos = [sender_pos, recipient.head + 1]
        else:
            pos = [recipient.head + 1, sender_pos]
        conv = found or Conv(0, name)
    if request.reply_to is not None:
        part = conv.part(user) or MEMBER
        if request.reply_to >= seq or not part.sees(request.reply_to):
            raise Refusal("bad_field", f"reply_to: there is no message {request.reply_to} in {name} that you can see")
    body = bytes(request.body)
    if limits.quota_messages or limits.quota_bytes:
        push = {} if request.push is None else {"push": request.push}
        check_quota(view, limits, user, content_size(body, push), messages=1)
    extra = _extra(view, who, request, conv, own, dropped)
    record = Message(who.now, name, seq, user, who.device, request.id, n, pos, body, extra)
    return Decision([record], None, n)


def _extra(view: View, who: Who, request: rq.Send, conv: Conv, own: int, dropped: bool) -> dict[str, Any] | None:
    extra: dict[str, Any] = {}
    if dropped:
        extra["dropped"] = True
    if own:
        extra["own"] = own
    if request.cts is not None:
        extra["cts"] = request.cts
    if request.reply_to is not None:
        extra["reply_to"] = request.reply_to
    if request.ttl is not None:
        extra["ttl"] = request.ttl
    if who.behind and (request.ttl is not None or abs(who.behind) > 1000):
        extra["behind"] = who.behind
    if request.mentions is not None:
        extra["mentions"] = request.mentions
    if request.files:
        extra["files"] = attached(view, who.user, request.files)
    if request.push is not None:
        extra["push"] = request.push
    if request.key is not None:
        extra["key"] = request.key
        if conv.group and not conv.large:
            extra["users"] = conv.present_names
        replaced = [] if dropped or conv.large else _replace(view, who, conv, request.key)
        if replaced:
            extra["replaced"] = replaced
    if request.id is None and who.packet is not None:
        extra["packet"] = [who.packet[0], who.packet[1]]
    return extra or None


def _replace(view: View, who: Who, conv: Conv, key: str) -> list[list[Any]]:
    """Take back, from each recipient that was not offered it yet, the last message with this key."""
    former = view.keyed(who.user, conv.name, key)
    if not isinstance(former, Message):
        return []
    names = recipients_of_keyed(former)
    found = zip(names, former.pos, view.users(names), strict=True)
    asked = [(name, pos) for name, pos, user in found if user.acked < pos and name != who.user]
    return [[name, pos] for name, pos in view.claim_all(asked)]


def recipients_of_keyed(record: Message) -> list[str]:
    """Who got a message that had a `key`, in the order of its `pos`."""
    if record.conv[0] == "#":
        return list((record.extra or {})["users"])
    first, _, second = record.conv.partition(":")
    return [first] if first == second else [first, second]


def _repeated_packet(view: View, who: Who, request: rq.Send) -> Decision | None:
    """The answer to a QoS 1 PUBLISH that the client repeated with DUP, where it has no id to tell it by."""
    if who.packet is None or not who.packet[2]:
        return None
    record = view.packet(who.user, who.device, who.packet[0], who.packet[1])
    if isinstance(record, Message) and same_send(record, request):
        return Decision([], answer(record, "", who.user, dup=True), used_up(view, who, request))
    return None


def report(view: View, limits: Limits, who: Who, request: rq.Report, n: int) -> Decision:
    """What became of a command: an item for its sender."""
    conv, member = conv_of(view, who, request.conv)
    message = message_of(view, conv, member, request.seq)
    if not isinstance(message, Message):
        raise Refusal("forbidden", f"seq: message {request.seq} of {conv.name} is the system's; nobody waits for a report")
    if message.by != who.user and to_blocker(view, limits, who, conv, request.seq):
        return Decision([], {"op": "ok", "id": request.id}, n)
    check_changes(view, limits, who, conv, request.seq)
    result = bytes(request.result) or None
    check_quota(view, limits, who.user, content_size(result or b""))
    pos = [view.user(message.by).head + 1]
    record = Reported(
        who.now, conv.name, request.seq, who.user, who.device, request.id, n, pos, message.by, request.state, result
    )
    return Decision([record], {"op": "ok", "id": request.id}, n)
