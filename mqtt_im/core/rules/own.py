"""What concerns a user alone: cursors, marks, settings, devices (PROTOCOL §3, §4)."""

from __future__ import annotations

from typing import Any

from mqtt_im.core.records import AnyRecord, Cursors, DeviceChange, ReadMark, UserChange
from mqtt_im.core.view import View
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Quota, Refusal

from .common import check_present, conv_of, possible_conv
from .terms import Decision, Limits, Who


def ack(view: View, limits: Limits, who: Who, request: rq.Ack) -> Decision:
    """The device's cursor moves up to `pos`; never back."""
    head = view.user(who.user).head
    if request.pos > head:
        raise Refusal("bad_field", f"pos: the newest item is {head}")
    device = view.device(who.user, who.device)
    if device is None or request.pos <= device.cursor:
        return Decision([])  # a device that only publishes has no cursor to move
    delivered = grown(view, who.user, view.delivered(who.user, device.cursor, request.pos))
    return Decision([Cursors(who.now, [(who.user, who.device, request.pos, delivered)], who.behind)])


def hello(view: View, limits: Limits, who: Who, request: rq.Hello) -> Decision:
    """What a `hello` changes for good: registration, cursor, `n`, `ack`. The `welcome` is made by who serves it."""
    user = view.user(who.user)
    if request.after is not None and request.after > user.head:
        raise Refusal("bad_field", f"after: the newest item is {user.head}")
    if request.after is not None and request.after < user.lowest:
        raise Refusal("bad_field", f"after: items up to {user.lowest} are gone")
    device = view.device(who.user, who.device)
    records: list[AnyRecord] = []
    if device is None:
        records.append(registration(view, limits, who))
    app = None if request.ack is None else request.ack == "app"
    change = DeviceChange(
        who.now,
        who.user,
        who.device,
        cursor=request.after if device is None or request.after != device.cursor else None,
        app=app if device is None or app != device.app else None,
        n=request.n if device is None or request.n != device.n else None,
        behind=who.behind,
    )
    if device is not None and change.cursor is not None and change.cursor > device.cursor:
        change.delivered = grown(view, who.user, view.delivered(who.user, device.cursor, change.cursor))
    if change.cursor is not None or change.app is not None or change.n is not None:
        records.append(change)
    return Decision(records)


def grown(view: View, user: str, marks: list[Any]) -> list[Any]:
    """Those of `[conv, seq, …]` that are beyond the user's delivered mark of the conversation."""
    found: list[Any] = []
    for name, seq in zip(marks[::2], marks[1::2], strict=True):
        conv = view.conv(name)
        member = conv.part(user) if conv is not None else None
        if member is not None and seq > member.delivered:
            found += (name, seq)
    return found


def registration(view: View, limits: Limits, who: Who) -> DeviceChange:
    """The record that registers a device: the first of a user at 0, every further one at the head (PROTOCOL §4)."""
    bound = limits.quota_devices
    if bound and view.device_count(who.user) >= bound:
        raise Quota("devices", f"{who.user} has {bound} devices, the most there may be; forget one first")
    user = view.user(who.user)
    cursor = user.head if user.registered else user.begin
    return DeviceChange(who.now, who.user, who.device, created=True, cursor=cursor, behind=who.behind)


def read(view: View, limits: Limits, who: Who, request: rq.Read) -> Decision:
    """The user's read mark of a conversation, which only grows."""
    conv, member = conv_of(view, who, request.conv)
    newest = member.newest(conv.head)
    if request.seq > newest:
        raise Refusal("bad_field", f"seq: the newest message of {conv.name} that you can see is {newest}")
    if request.seq <= member.read:
        return Decision([])
    return Decision([ReadMark(who.now, who.user, conv.name, request.seq)])


def mute(view: View, limits: Limits, who: Who, request: rq.Mute) -> Decision:
    """No push for one conversation. Who has left a group may still end what was asked for it."""
    muted = view.user(who.user).mutes
    if request.until or request.conv not in muted:
        check_present(request.conv, possible_conv(view, who, request.conv)[1])
    if request.until and request.conv not in muted and limits.quota_blocks and len(muted) >= limits.quota_blocks:
        raise Quota("blocks", f"conv: {who.user} has muted {len(muted)} conversations, the most there may be; end one first")
    return Decision([UserChange(who.now, who.user, "mute", request.conv, request.until)], _ok(request))


def settings(view: View, limits: Limits, who: Who, request: rq.Settings) -> Decision:
    """What others get to know; answered with all settings as they are now."""
    user = view.user(who.user)
    records: list[AnyRecord] = []
    reply = _ok(request)
    for name in ("read_receipts", "presence"):
        wanted = getattr(request, name)
        if wanted is not None and wanted != getattr(user, name):
            records.append(UserChange(who.now, who.user, name, "", int(wanted)))
        reply[name] = getattr(user, name) if wanted is None else wanted
    return Decision(records, reply)


def block(view: View, limits: Limits, who: Who, request: rq.Block) -> Decision:
    """A user whose direct messages are refused from now on."""
    if request.user == who.user:
        raise Refusal("bad_field", "user: you can't block yourself")
    if not view.has_account(request.user):
        raise Refusal("not_found", f"user: there is no user {request.user}")
    blocks = view.user(who.user).blocks
    if request.user in blocks:
        return Decision([], _ok(request))
    if limits.quota_blocks and len(blocks) >= limits.quota_blocks:
        raise Quota("blocks", f"user: {who.user} has blocked {len(blocks)} users, the most there may be; unblock one first")
    return Decision([UserChange(who.now, who.user, "block", request.user)], _ok(request))


def unblock(view: View, limits: Limits, who: Who, request: rq.Unblock) -> Decision:
    """The end of a block."""
    if request.user not in view.user(who.user).blocks:
        return Decision([], _ok(request))
    return Decision([UserChange(who.now, who.user, "unblock", request.user)], _ok(request))


def forget(view: View, limits: Limits, who: Who, request: rq.DeviceForget) -> Decision:
    """A device's cursor, session and counter are gone."""
    if view.device(who.user, request.device) is None:
        return Decision([], _ok(request))
    return Decision([DeviceChange(who.now, who.user, request.device, forgotten=True)], _ok(request))


def _ok(request: rq.Request) -> dict[str, Any]:
    return {"op": "ok", "id": request.id}
