"""Who is in a group after a change of it. A part of applying, so a member is replaced, not changed (see `apply`)."""

from __future__ import annotations

from sys import intern

from .model import FOREVER, Conv, Member
from .records import GroupChange
from .state import State

_Spans = list[list[int]]
_Known = dict[int, tuple[_Spans, _Spans]]
"""By the identity of what members could read, that itself, so that nothing else gets it, and what it has become: one for all who
had the same, since thousands may come and go together, again and again."""


def change_members(state: State, conv: Conv, record: GroupChange) -> None:
    """The group has the members that it has after this change."""
    members, seq = conv.members, record.seq
    if record.event in ("group.create", "group.add"):
        new = [[record.history_from, FOREVER]]  # of most, who share it
        known: _Known = {}
        for index, name in enumerate(map(intern, record.members or ())):
            order = (seq << 20) | index
            former = members.pop(name, None)
            member = Member(order) if former is None else former.copied()
            member.order = order
            member.active = True
            member.role = "owner" if record.event == "group.create" and index == 0 else "member"
            member.spans = new
            if former is not None:
                found = known.get(id(former.spans))
                if found is None:
                    found = known[id(former.spans)] = former.spans, _resumed(former.spans, new)
                member.spans = found[1]
            members[name] = member
        state.touch_members(conv, record.members or ())
    elif record.event in ("group.remove", "group.leave"):
        leaving = leaving_of(record)
        known = {}
        for name in leaving:
            member = members[name] = members[name].copied()  # as `own`
            member.active = False
            member.role = "member"
            found = known.get(id(member.spans))
            if found is None:
                found = known[id(member.spans)] = member.spans, _ended(member.spans, seq)
            member.spans = found[1]
        state.touch_members(conv, leaving)
    elif record.event == "group.role" and record.user is not None:
        conv.own(record.user).role = record.role or "member"
        state.touch_member(conv, record.user)


def _resumed(former: _Spans, new: _Spans) -> _Spans:
    """Of who comes once more."""
    kept = [span for span in former if span[0] < new[0][0]]
    return [*kept, *new] if kept else new


def _ended(former: _Spans, seq: int) -> _Spans:
    """Of who leaves with this message."""
    return [*former[:-1], [former[-1][0], seq]]


def leaving_of(record: GroupChange) -> list[str]:
    """Who leaves by a `group.remove` or `group.leave`."""
    return record.members or [record.user or record.by]
