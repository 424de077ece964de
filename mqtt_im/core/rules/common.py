"""What all rules share: the checks of `id`, `n` and membership, and what a request did before."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from mqtt_im.core.model import EVERYTHING, Conv, Device, Member, readers
from mqtt_im.core.records import AnyRecord, Edited, GroupChange, Message, Reacted, Recalled, Reported
from mqtt_im.core.view import View
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Quota, Refusal
from mqtt_im.protocol.names import members_of_direct

from .terms import Decision, Limits, Who

MEMBER = Member(0)
MEMBER.spans = EVERYTHING


def next_n(view: View, who: Who, n: int | None) -> int:
    """The counter that a request uses up, 0 where it has none. Raises `out_of_order`."""
    device = view.device(who.user, who.device) if n is not None and who.listening else None
    if n is None or device is None:  # a device that was forgotten a moment ago is not listening any more
        return 0
    expected = device.n + 1
    if n != expected:
        raise Refusal("out_of_order", f"n: this device's next is {expected}; send what came before it first", expected=expected)
    return n


def used_up(view: View, who: Who, request: rq.Request) -> int:
    """The counter of a repeat, where it is the next one: it is used up all the same, so that what follows is not out of order."""
    n = request.n if isinstance(request, rq.Counted) else None
    device = view.device(who.user, who.device) if n is not None and who.listening else None
    return n if n is not None and device is not None and n == device.n + 1 else 0


def conv_of(view: View, who: Who, name: str) -> tuple[Conv, Member]:
    """The conversation and the user's present part in it. Raises `not_member`."""
    conv, member = known_conv(view, who, name)
    check_present(name, member)
    return conv, member


def check_present(name: str, member: Member) -> None:
    """The user's part in the conversation is a present one. Raises `not_member`."""
    if not member.active:
        raise Refusal("not_member", f"you are not in {name} any more")


def known_conv(view: View, who: Who, name: str) -> tuple[Conv, Member]:
    """The conversation and the user's part in it, present or past. Raises `not_member`."""
    conv = view.conv(name)
    if name[0] != "#":
        pair = members_of_direct(name)
        if pair is None or who.user not in pair or conv is None:
            raise Refusal("not_member", f"there is no conversation {name} with you in it")
        part = conv.part(who.user)
        assert part is not None
        return conv, part
    member = conv.part(who.user) if conv is not None else None
    if conv is None or member is None:
        raise Refusal("not_member", f"there is no group {name} with you in it")
    return conv, member


def possible_conv(view: View, who: Who, name: str) -> tuple[Conv, Member]:
    """Like `known_conv`, and also a direct conversation with somebody that has no message yet."""
    pair = members_of_direct(name)
    if pair is None or who.user not in pair or view.conv(name) is not None or not all(map(view.has_account, pair)):
        return known_conv(view, who, name)
    conv = Conv(0, name)
    for order, user in enumerate(pair):
        conv.members[user] = member = Member(order)
        member.spans = EVERYTHING
    return conv, conv.members[who.user]


def message_of(view: View, conv: Conv, member: Member, seq: int) -> AnyRecord:
    """The record of a message that this member may see. Raises `not_found`."""
    record = view.message(conv, seq) if seq <= conv.head and member.sees(seq) else None
    if record is None:
        raise Refusal("not_found", f"seq: there is no message {seq} in {conv.name} that you can see")
    return record


def check_quota(view: View, limits: Limits, user: str, size: int, messages: int = 0) -> None:
    """The user may keep so many messages more, and bytes. Raises `quota`."""
    if not limits.quota_messages and not limits.quota_bytes:
        return
    owner = view.user(user)
    if limits.quota_messages and messages and owner.kept + messages > limits.quota_messages:
        raise Quota("messages", f"{user} has {owner.kept} messages here and may have {limits.quota_messages}")
    if limits.quota_bytes and size > 0 and owner.kept_bytes + size > limits.quota_bytes:
        raise Quota(
            "bytes",
            f"{user} has {owner.kept_bytes} bytes of messages here and may have {limits.quota_bytes}; recall some to make room",
        )


def to_blocker(view: View, limits: Limits, who: Who, conv: Conv, seq: int) -> bool:
    """Whether what is done to the message would reach one who has blocked the user: then nothing may change.

    Raises `blocked` where blocked senders are refused; where they are dropped, they are told nothing.
    """
    pair = members_of_direct(conv.name)
    if pair is None:
        return False
    other = pair[1] if pair[0] == who.user else pair[0]
    if who.user not in view.user(other).blocks or not conv.members[other].sees(seq):
        return False
    if not limits.drop_blocked:
        raise Refusal("blocked", f"conv: {other} does not take messages from you")
    return True


def check_changes(view: View, limits: Limits, who: Who, conv: Conv, seq: int) -> None:
    """The user may change, or report of, this message once more. Raises `quota`."""
    bound = limits.changes_per_message
    if bound and view.changes(conv, seq, who.user) >= bound:
        raise Quota(
            "changes", f"seq: {who.user} has edited, reacted to or reported of message {seq} of {conv.name} {bound} times already"
        )


def positions(view: View, conv: Conv, seq: int, by: str) -> list[int]:
    """The `pos` that an item about the message `seq` gets, in the order of `core.apply.recipients`; `by` has caused it."""
    if conv.large:
        return positions_at_once(view, conv, [by])
    return [user.head + 1 for user in view.users(readers(conv, seq))]


def positions_at_once(view: View, conv: Conv, names: list[str]) -> list[int]:
    """The `pos` that the next item of a large group gets in the inboxes of those who are told at once."""
    conv.catch_up(names)
    return [user.head + 1 for user in view.users(names)]


def repeat(view: View, who: Who, request: rq.Request) -> Decision | None:
    """The answer to a repeat, None to what is new. Raises `conflict` where the id was used for something else."""
    if request.id is None:
        return None
    record = view.request(who.user, request.id)
    if record is None:
        return None
    if not _same(record, request):
        raise Refusal("conflict", f"id: {request.id!r} was already used for another request; make a new id for each")
    return Decision([], answer(record, request.id, who.user, dup=True), used_up(view, who, request))


def answer(record: AnyRecord, request_id: str, user: str, dup: bool = False) -> dict[str, Any]:
    """The fields of the reply that tells what `record` did."""
    if isinstance(record, Message):
        reply: dict[str, Any] = sent(record, own_pos(record, user))
    elif isinstance(record, GroupChange):
        reply = {"op": "ok", "id": request_id}
        if record.event == "group.create":
            reply["group"] = record.conv
        reply["seq"] = record.seq
        if record.left_out:
            reply["left_out"] = record.left_out
    else:
        reply = {"op": "ok", "id": request_id}
    if dup:
        reply["dup"] = True
    return reply


def sent(record: Message, pos: int) -> dict[str, Any]:
    """The fields of `sent` for a message's sender."""
    reply: dict[str, Any] = {"op": "sent", "pos": pos}
    if record.id is not None:
        reply["id"] = record.id
    reply.update(conv=record.conv, seq=record.seq, ts=record.ts)
    return reply


def own_pos(record: Message, user: str) -> int:
    """The number of a message in its sender's inbox.

    A direct conversation's `pos` follow the order of its name, a group's that of its members, where `extra["own"]` tells
    the sender's place.
    """
    if len(record.pos) == 1:
        return record.pos[0]
    if record.conv[0] == "#":
        return record.pos[int((record.extra or {}).get("own", 0))]
    first, _, _ = record.conv.partition(":")
    return record.pos[0] if first == user else record.pos[1]


def _same(record: AnyRecord, request: rq.Request) -> bool:
    """Whether a request asks for just what this record has done, `n`, `cts` and `ttl` aside."""
    match record, request:
        case Message(), rq.Send():
            return same_send(record, request)
        case GroupChange(), rq.GroupCreate() | rq.GroupRequest():
            return record.asked == asked(request)
        case Edited(), rq.Edit():
            return (record.conv, record.seq) == (request.conv, request.seq) and same_content(
                record.body, record.digest, bytes(request.body)
            )
        case Recalled(), rq.Recall():
            return (record.conv, record.seq) == (request.conv, request.seq)
        case Reacted(), rq.React():
            return (record.conv, record.seq, record.emoji) == (request.conv, request.seq, request.emoji)
        case Reported(), rq.Report():
            told = bytes(request.result)
            has_told = record.result is not None or record.digest is not None
            return (
                (record.conv, record.seq, record.state) == (request.conv, request.seq, request.state)
                and bool(told) == has_told
                and (not told or same_content(record.result, record.digest, told))
            )
    return False


def same_send(record: Message, request: rq.Send) -> bool:
    """Whether a `send` asks for just this message, `n`, `cts` and `ttl` aside."""
    extra = record.extra or {}
    pair = members_of_direct(record.conv)
    to = record.conv if pair is None else (pair[1] if pair[0] == record.by else pair[0])
    return (
        request.to == to
        and all(extra.get(name) == getattr(request, name) for name in ("reply_to", "key", "mentions"))
        and (request.files or []) == ([file[0] for file in extra.get("files", ())] or list(extra.get("file_ids", ())))
        and _same_push(extra, request.push)
        and same_content(record.body, extra.get("digest"), bytes(request.body))
    )


def _same_push(extra: dict[str, Any], given: dict[str, Any] | None) -> bool:
    digest = extra.get("push_digest")
    if digest is None:
        return extra.get("push") == given
    return given is not None and digest_of(canonical(given)) == digest


def same_content(stored: bytes | None, digest: bytes | None, given: bytes) -> bool:
    """Whether a body is the stored one, byte for byte; by its digest where the content is gone."""
    if stored is not None:
        return stored == given
    return digest is None or digest_of(given) == digest


def canonical(value: object) -> bytes:
    """One JSON text for all texts of the same value."""
    return msgspec.json.encode(value, order="sorted")


def digest_of(content: bytes) -> bytes:
    """16 bytes that tell one content from another."""
    return hashlib.blake2b(content, digest_size=16).digest()


def asked(request: rq.Request) -> dict[str, Any]:
    """A group request's own fields as data, without what may differ in a repeat."""
    fields: dict[str, Any] = msgspec.to_builtins(request)
    return {name: value for name, value in fields.items() if name not in ("id", "n") and value is not None}


def device_of(view: View, who: Who) -> Device:
    """The asking device as it stands, as new where it is not registered."""
    return view.device(who.user, who.device) or Device(who.user, who.device, who.now)
