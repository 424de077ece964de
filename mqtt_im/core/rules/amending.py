"""`edit`, `recall`, `react`: what changes a message that was sent (PROTOCOL §3)."""

from __future__ import annotations

from mqtt_im.core.model import Amended, Conv, Member
from mqtt_im.core.records import AnyRecord, Edited, Message, Reacted, Recalled, steady
from mqtt_im.core.usage import size_of
from mqtt_im.core.view import View
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Quota, Refusal

from .common import check_changes, check_quota, conv_of, message_of, positions, to_blocker
from .terms import Decision, Limits, Who


def edit(view: View, limits: Limits, who: Who, request: rq.Edit, n: int) -> Decision:
    """A new body for one's own message."""
    conv, member = conv_of(view, who, request.conv)
    message = _amendable(view, limits, who, conv, member, request.seq)
    if message.by != who.user:
        raise Refusal("forbidden", f"seq: message {request.seq} of {conv.name} is not yours to edit")
    if to_blocker(view, limits, who, conv, request.seq):
        return Decision([], _ok(request), n)
    check_changes(view, limits, who, conv, request.seq)
    amended = view.amended(conv, request.seq)
    freed = amended.size if amended is not None else 0
    body = bytes(request.body)
    check_quota(view, limits, who.user, len(body) - freed)
    pos = positions(view, conv, request.seq, who.user)
    record = Edited(who.now, conv.name, request.seq, who.user, who.device, request.id, n, pos, body, freed=freed)
    return Decision([record], _ok(request), n)


def recall(view: View, limits: Limits, who: Who, request: rq.Recall, n: int) -> Decision:
    """A message taken back, by its sender or by one who runs the group."""
    conv, member = conv_of(view, who, request.conv)
    message = message_of(view, conv, member, request.seq)
    amended = view.amended(conv, request.seq)
    if isinstance(message, Message) and message.by != who.user and not (conv.group and member.role in ("owner", "admin")):
        raise Refusal("forbidden", f"seq: message {request.seq} of {conv.name} is not yours to recall")
    if amended is not None and amended.recalled:
        return Decision([], _ok(request), n)
    message = _amendable(view, limits, who, conv, member, request.seq)
    pos = positions(view, conv, request.seq, who.user)
    freed = size_of(message) + (amended.size if amended is not None else 0)
    record = Recalled(who.now, conv.name, request.seq, who.user, who.device, request.id, n, pos, of=message.by, freed=freed)
    return Decision([record], _ok(request), n)


def react(view: View, limits: Limits, who: Who, request: rq.React, n: int) -> Decision:
    """One's own reaction, which replaces the former one; the empty emoji takes it away."""
    conv, member = conv_of(view, who, request.conv)
    message_of(view, conv, member, request.seq)
    amended = view.amended(conv, request.seq)
    if amended is not None and amended.recalled:
        raise Refusal("forbidden", f"seq: message {request.seq} of {conv.name} was recalled")
    if to_blocker(view, limits, who, conv, request.seq):
        return Decision([], _ok(request), n)
    _check_reactions(view, limits, who, conv, request, amended)
    pos = positions(view, conv, request.seq, who.user)
    record = Reacted(who.now, conv.name, request.seq, who.user, who.device, request.id, n, pos, request.emoji)
    return Decision([record], _ok(request), n)


def _check_reactions(view: View, limits: Limits, who: Who, conv: Conv, request: rq.React, amended: Amended | None) -> None:
    """The user may react so. Raises `quota`; what takes a reaction away is always allowed."""
    reactions = amended.reactions if amended is not None else {}
    if who.user in reactions and not request.emoji:
        return
    check_changes(view, limits, who, conv, request.seq)
    bound = limits.reactions_per_message
    if bound and request.emoji and who.user not in reactions and len(reactions) >= bound:
        raise Quota("reactions", f"seq: message {request.seq} of {conv.name} has {bound} reactions, and takes no more")


def _amendable(view: View, limits: Limits, who: Who, conv: Conv, member: Member, seq: int) -> Message:
    record: AnyRecord = message_of(view, conv, member, seq)
    if not isinstance(record, Message):
        raise Refusal("forbidden", f"seq: message {seq} of {conv.name} is the system's")
    window = limits.edit_window_s
    if window == 0 or (window > 0 and who.now - who.behind - steady(record) > window * 1000):
        raise Refusal("forbidden", f"seq: message {seq} of {conv.name} can't be changed any more")
    amended = view.amended(conv, seq)
    if amended is not None and amended.recalled:
        raise Refusal("forbidden", f"seq: message {seq} of {conv.name} was recalled")
    return record


def _ok(request: rq.Request) -> dict[str, object]:
    return {"op": "ok", "id": request.id}
