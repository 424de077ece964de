"""Who is in a group after a change of it. A part of applying, so a member is replaced, not changed (see `apply`)."""

from __future__ import annotations

from sys import intern

from .model import FOREVER, Conv, Member
from .records import GroupChange
from .state import State


def change_members(state: State, conv: Conv, record: GroupChange) -> None:
    """The group has the members that it has after this change."""
    members, seq = conv.members, record.seq
    if record.event in ("group.create", "group.add"):
        new = [[record.history_from, FOREVER]]  # of most, who share it
        for index, name in enumerate(map(intern, record.members or ())):
            order = (seq << 20) | index
            former = members.pop(name, None)
            member = Member(order) if former is None else former.copied()
            member.order = order
            member.active = True
            member.role = "owner" if record.event == "group.create" and index == 0 else "member"
            first = record.history_from
            kept = [] if former is None else [span for span in former.spans if span[0] < first]
            member.spans = [*kept, *new] if kept else new
            members[name] = member
        state.touch_members(conv, record.members or ())
    elif record.event in ("group.remove", "group.leave"):
        leaving = leaving_of(record)
        for name in leaving:
            member = members[name] = members[name].copied()  # as `own`
            member.active = False
            member.role = "member"
            member.spans = [*member.spans[:-1], [member.spans[-1][0], seq]]
        state.touch_members(conv, leaving)
    elif record.event == "group.role" and record.user is not None:
        conv.own(record.user).role = record.role or "member"
        state.touch_member(conv, record.user)


def leaving_of(record: GroupChange) -> list[str]:
    """Who leaves by a `group.remove` or `group.leave`."""
    return record.members or [record.user or record.by]
