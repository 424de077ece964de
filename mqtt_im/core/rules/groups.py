"""Groups: who may do what, and what the members are told (PROTOCOL §3).

Owners may do everything; admins add and remove members, rename, and recall any message; members send and leave.
"""

from __future__ import annotations

from typing import Final

from mqtt_im.core.model import Conv, Member, weigh
from mqtt_im.core.records import AnyRecord, GroupChange
from mqtt_im.core.view import View
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Quota, Refusal

from .common import answer, asked, conv_of, positions_at_once
from .terms import Decision, Limits, Who

MAX_FORMER: Final = 25_000
"""Users who have left a group, of whom it knows, since they may read on what came before; beside as many as may be in it …"""
MAX_COMINGS: Final = 250_000
"""… and the times that all of them have come to it."""


def create(view: View, limits: Limits, who: Who, request: rq.GroupCreate, n: int) -> Decision:
    """A new group; its creator is the owner. An id that everybody has left is free: its messages are counted on, unseen."""
    name = request.group or f"#{who.token}"
    former = view.conv(name)
    if former is not None and former.size:
        raise Refusal("conflict", f"group: {name} exists; choose another id, or none and the server makes one")
    _check_accounts(view, request.members)
    invited, left_out = _without_blockers(view, who, [name for name in request.members if name != who.user])
    members = [who.user, *invited]
    _check_size(limits, len(members))
    if limits.quota_groups and view.user(who.user).made >= limits.quota_groups:
        raise Quota("groups", f"{who.user} has made {limits.quota_groups} groups, the most there may be; leave some first")
    _check_joined(view, limits, invited)
    if former is not None:
        _check_known(limits, former, members)
    record = _change(view, who, request, n, former or Conv(0, name), "group.create", members)
    record.members = members
    record.name = request.name
    record.history_from = record.seq
    record.left_out = left_out or None
    return _decided([record], request, who)


def add(view: View, limits: Limits, who: Who, request: rq.GroupAdd, n: int) -> Decision:
    """New members; those who are members already stay as they are."""
    conv, member = conv_of(view, who, request.group)
    _require(member, "owner", "admin", what="add members to", conv=conv)
    _check_accounts(view, request.members)
    present = _at_once(conv, who)
    new, left_out = _without_blockers(view, who, conv.others(request.members))
    if not new:
        return _unchanged(conv, request, n, left_out)
    _check_size(limits, conv.size + len(new))
    _check_joined(view, limits, new)
    _check_known(limits, conv, new)
    record = _change(view, who, request, n, conv, "group.add", present + new)
    record.members = new
    record.history_from = conv.born if limits.new_members_see_history else record.seq
    record.left_out = left_out or None
    return _decided([record], request, who)


def remove(view: View, limits: Limits, who: Who, request: rq.GroupRemove, n: int) -> Decision:
    """Members sent away; this message is the last that they get."""
    conv, member = conv_of(view, who, request.group)
    _require(member, "owner", "admin", what="remove members from", conv=conv)
    _check_accounts(view, request.members)
    present = _at_once(conv, who)
    gone = dict.fromkeys(conv.present(request.members))
    if not gone:
        return _unchanged(conv, request, n)
    for name in gone if member.role == "admin" else ():
        if conv.members[name].role != "member":
            raise Refusal("forbidden", f"members: {name} is {conv.members[name].role}; only an owner may remove that one")
    if all(name in gone for name in _owners(conv)):
        raise Refusal("forbidden", f"members: the last owner of {conv.name} can't be removed; make another one first")
    record = _change(view, who, request, n, conv, "group.remove", list(dict.fromkeys((*present, *gone))))
    record.members = list(gone)
    return _decided([record], request, who)


def role(view: View, limits: Limits, who: Who, request: rq.GroupRole, n: int) -> Decision:
    """A member's new role, given by an owner."""
    conv, member = conv_of(view, who, request.group)
    _require(member, "owner", what="give roles in", conv=conv)
    other = conv.member(request.user)
    if other is None:
        raise Refusal("not_found", f"user: {request.user} is not in {conv.name}")
    if other.role == request.role:
        return _unchanged(conv, request, n)
    if other.role == "owner" and _owners(conv) == [request.user]:
        raise Refusal("forbidden", f"user: {request.user} is the last owner of {conv.name}; make another one first")
    record = _change(view, who, request, n, conv, "group.role", list(dict.fromkeys((*_at_once(conv, who), request.user))))
    record.user = request.user
    record.role = request.role
    return _decided([record], request, who)


def rename(view: View, limits: Limits, who: Who, request: rq.GroupRename, n: int) -> Decision:
    """The group's new name."""
    conv, member = conv_of(view, who, request.group)
    _require(member, "owner", "admin", what="rename", conv=conv)
    record = _change(view, who, request, n, conv, "group.rename", _at_once(conv, who))
    record.name = request.name
    return _decided([record], request, who)


def leave(view: View, limits: Limits, who: Who, request: rq.GroupLeave, n: int) -> Decision:
    """The user leaves; where that was the last owner, the longest-standing admin, else member, becomes owner."""
    conv, member = conv_of(view, who, request.group)
    rest = [name for name in conv.present_names if name != who.user] if member.role == "owner" else []
    heirs: list[str] = []
    if rest and _owners(conv) == [who.user]:
        members = conv.members
        heirs = [name for name in rest if members[name].role == "admin"] or rest
        orders = [members[name].order for name in heirs]
        heirs = [heirs[orders.index(min(orders))]]
    left = _change(view, who, request, n, conv, "group.leave", list(dict.fromkeys((*_at_once(conv, who), *heirs))))
    left.user = who.user
    records: list[AnyRecord] = [left]
    if heirs:
        (heir,) = heirs
        if conv.large:
            rest = [heir]  # the others take it later
        pos = [user.head + 2 for user in view.users(rest)]
        records.append(
            GroupChange(
                who.now,
                conv.name,
                conv.head + 2,
                who.user,
                who.device,
                None,
                0,
                pos,
                "group.role",
                rest,
                user=heir,
                role="owner",
            )
        )
    return _decided(records, request, who)


def _change(view: View, who: Who, request: rq.Request, n: int, conv: Conv, event: str, users: list[str]) -> GroupChange:
    pos = positions_at_once(view, conv, users) if conv.large else [user.head + 1 for user in view.users(users)]
    return GroupChange(
        who.now, conv.name, conv.head + 1, who.user, who.device, request.id, n, pos, event, users, asked=asked(request)
    )


def _decided(records: list[AnyRecord], request: rq.Request, who: Who) -> Decision:
    first = records[0]
    assert isinstance(first, GroupChange)
    return Decision(records, answer(first, request.id or "", who.user), first.n)


def _unchanged(conv: Conv, request: rq.Request, n: int, left_out: list[str] | None = None) -> Decision:
    told = {"left_out": left_out} if left_out else {}
    return Decision([], {"op": "ok", "id": request.id, "seq": conv.head, **told}, n)


def _without_blockers(view: View, who: Who, names: list[str]) -> tuple[list[str], list[str]]:
    """Those who may be brought into a group, and those who have blocked the one who asks; each once, in their order."""
    once = list(dict.fromkeys(names))
    left_out = {name: None for name, user in zip(once, view.users(once), strict=True) if who.user in user.blocks}
    return once if not left_out else [name for name in once if name not in left_out], list(left_out)


def _at_once(conv: Conv, who: Who) -> list[str]:
    """Who gets the item of a change at once, beside those whom it names: all members, or of a large group the one who asks."""
    return [who.user] if conv.large else conv.present_names


def _owners(conv: Conv) -> list[str]:
    return [name for name, member in conv.members.items() if member.active and member.role == "owner"]


def _require(member: Member, *roles: str, what: str, conv: Conv) -> None:
    if member.role not in roles:
        raise Refusal("forbidden", f"only {' or '.join(roles)} may {what} {conv.name}; you are {member.role}")


def _check_accounts(view: View, names: list[str]) -> None:
    for name in names:
        if not view.has_account(name):
            raise Refusal("not_found", f"members: there is no user {name}")


def _check_joined(view: View, limits: Limits, names: list[str]) -> None:
    """Those whom somebody else brings into a group may be in one more.

    The groups that they have made themselves are bounded on their own: nobody can take the room for these from anybody.
    """
    bound = limits.quota_groups
    for user in view.users(names) if bound else ():
        if user.joined - user.made >= bound:
            raise Quota("groups", f"members: others have brought {user.name} into {bound} groups, the most there may be")


def _check_known(limits: Limits, conv: Conv, names: list[str]) -> None:
    """These may come to the group, as far as that hangs on who has come to it before, and how often."""
    known, most = conv.members, limits.group_members + MAX_FORMER
    if len(known) + len([name for name in names if name not in known]) > most:
        raise Quota("members", f"members: {most} users have come to {conv.name}, the most there may be; make another group")
    if weigh(known) + len(names) > MAX_COMINGS:
        raise Quota("members", f"members: users have come to {conv.name} {MAX_COMINGS} times, the most; make another group")


def _check_size(limits: Limits, size: int) -> None:
    if size > limits.group_members:
        raise Refusal("too_large", f"members: a group has at most {limits.group_members}")
