"""Apply: what a record does to the state. With `members`, the only code that changes entities.

What hangs on an entity (a member, a set, a list) is replaced, not changed: whoever looks at it on another thread keeps what was.
Everything here follows from the record and the state before it, so the projections are a pure function of the log
(INV-5): applying the same records to the same state gives the same state, at start, at a rebuild and in `store check`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .members import change_members, leaving_of
from .model import FOREVER, Amended, Conv, User, readers
from .records import (
    MESSAGES,
    Act,
    AnyRecord,
    Cursors,
    DeviceChange,
    Edited,
    Erased,
    Gone,
    GroupChange,
    Message,
    Reacted,
    ReadMark,
    Recalled,
    Reported,
    UserChange,
    steady,
)
from .state import State
from .usage import size_of

_FEW = 8
"""Who get an item are told of it one by one, which is quicker for so many."""


def apply(state: State, lsn: int, record: AnyRecord) -> list[str] | None:
    """The state is what it is after this record, whose log row is `lsn`; of an `Act`, its `recipients` are returned."""
    return _APPLY[type(record)](state, lsn, record)


def recipients(conv: Conv, record: Act) -> list[str]:
    """Who gets the item of a record, in the order of its `pos`, as the conversation stands when it is applied.

    Of a large group only those who are told at once.
    """
    if isinstance(record, Message):
        if conv.large or (record.extra is not None and record.dropped):
            return [record.by]
        return conv.users or conv.present_names
    if isinstance(record, GroupChange):
        return record.users
    if isinstance(record, Reported):
        return [record.to]
    return _concerned(conv, record)


def _concerned(conv: Conv, record: Act) -> list[str]:
    """Who gets what became of a message. Of a direct conversation it follows from the record, however later the state is.

    That one of the two is erased since does not change who got what before.
    """
    if conv.large:
        return [record.by] if record.pos else []
    if conv.users is None:
        return readers(conv, record.seq)
    if len(record.pos) == len(conv.users):
        return conv.users
    seeing = readers(conv, record.seq)
    return seeing if len(seeing) == len(record.pos) else [record.by]


def _message(state: State, lsn: int, record: Message) -> list[str]:
    extra = record.extra
    if extra is not None and record.dropped:
        return _dropped(state, lsn, record)
    conv = state.conv_for(record.conv)
    sender = state.user(record.by)
    conv.head = record.seq
    conv.lsn = lsn
    sender.sent += 1
    sender.sent_bytes += size_of(record)
    state.touch_conv(conv)
    state.put_message(conv, record.seq, lsn, sender)
    names = _items(state, conv, lsn, record)  # the sender's own is among them
    _request(state, sender, lsn, record)
    if extra is not None:
        for name in extra.get("mentions", ()):
            state.put_mention(conv, record.seq, name)
        if "key" in extra:
            state.put_keyed(record.by, record.conv, extra["key"], lsn)
            if replaced := extra.get("replaced"):
                state.void_items(state.users([name for name, _ in replaced]), [pos for _, pos in replaced], conv)
        _packet(state, lsn, record)
    return names


def _dropped(state: State, lsn: int, record: Message) -> list[str]:
    """A message to one who has blocked its sender: it has its `seq`, which the other one never sees.

    For the other one it makes no item, counts as nothing unread, and takes no part in `mentions` and `key`.
    """
    conv = state.conv_for(record.conv)
    sender = state.user(record.by)
    sender.sent += 1
    sender.sent_bytes += size_of(record)
    for name in list(conv.members):
        if name != record.by:
            member = conv.own(name)
            member.last = member.activity(conv)
            member.hide(record.seq)
            state.touch_member(conv, name)
    conv.head = record.seq
    conv.lsn = lsn
    state.touch_conv(conv)
    state.put_message(conv, record.seq, lsn, None)
    names = _items(state, conv, lsn, record)
    _request(state, sender, lsn, record)
    _packet(state, lsn, record)
    return names


def _packet(state: State, lsn: int, record: Message) -> None:
    if record.extra is not None and "packet" in record.extra:
        session, packet_id = record.extra["packet"]
        state.put_packet(record.by, record.device, session, packet_id, lsn)


def _items(state: State, conv: Conv, lsn: int, record: Act) -> list[str]:
    names = recipients(conv, record)
    message = conv if isinstance(record, MESSAGES) else None
    if len(names) <= _FEW:
        for name, pos in zip(names, record.pos, strict=True):
            user = state.user(name)
            user.head = pos
            state.put_item(user, pos, lsn, message)
        return names
    users = state.users(names)
    for user, pos in zip(users, record.pos, strict=True):
        user.head = pos
    state.put_items(users, record.pos, lsn, message)
    return names


def _request(state: State, user: User, lsn: int, record: Act) -> None:
    if record.id is not None:
        state.put_request(user, record.id, lsn)
    if record.n:
        device = state.device_for(record.by, record.device, record.ts)
        device.n = record.n
        state.touch_device(device)


def _act(state: State, lsn: int, record: Act) -> list[str]:
    names = _items(state, state.conv_for(record.conv), lsn, record)
    _request(state, state.user(record.by), lsn, record)
    return names


def _reported(state: State, lsn: int, record: Reported) -> list[str]:
    names = _act(state, lsn, record)
    by = state.user(record.by)
    by.sent_bytes += size_of(record)
    state.touch_user(by)
    conv = state.conv_for(record.conv)
    if state.message_lsn(conv, record.seq) is not None:
        state.put_change(conv, record.seq, by)
    return names


def _amended(state: State, record: Edited | Recalled | Reacted) -> Amended | None:
    """What became of the message so far; None where retention has taken it meanwhile."""
    conv = state.conv_for(record.conv)
    if state.message_lsn(conv, record.seq) is None:
        return None
    if not isinstance(record, Recalled):
        state.put_change(conv, record.seq, state.user(record.by))
    return state.amended_for(conv, record.seq)


def _edited(state: State, lsn: int, record: Edited) -> list[str]:
    size = size_of(record)
    by = state.user(record.by)
    by.sent_bytes += size - record.freed
    state.touch_user(by)
    names = _act(state, lsn, record)
    amended = _amended(state, record)
    if amended is not None:
        amended.edits += 1
        amended.edited = lsn
        amended.size = size
    return names


def _recalled(state: State, lsn: int, record: Recalled) -> list[str]:
    if record.of:
        owner = state.user(record.of)
        owner.sent_bytes -= record.freed
        state.touch_user(owner)
    names = _act(state, lsn, record)
    amended = _amended(state, record)
    if amended is not None:
        amended.recalled = True
        amended.size = 0
        amended.reactions.clear()
        state.hide_message(state.conv_for(record.conv), record.seq)
    return names


def _reacted(state: State, lsn: int, record: Reacted) -> list[str]:
    names = _act(state, lsn, record)
    amended = _amended(state, record)
    if amended is not None:
        amended.reactions.pop(record.by, None)
        if record.emoji:
            amended.reactions[record.by] = record.emoji
    return names


def _group_change(state: State, lsn: int, record: GroupChange) -> list[str]:
    conv = state.conv_for(record.conv)
    conv.head = record.seq
    conv.lsn = lsn
    change_members(state, conv, record)
    if record.event in ("group.create", "group.rename"):
        conv.title = record.name or ""
    _count_members(state, conv, lsn, record)
    state.touch_conv(conv)
    if record.pos:
        state.put_message(conv, record.seq, lsn, None)
    names = _items(state, conv, lsn, record)
    _request(state, state.user(record.by), lsn, record)
    return names


def _count_members(state: State, conv: Conv, lsn: int, record: GroupChange) -> None:
    """How many are in the group, and in how many each of them is; after the members themselves were changed."""
    if record.event in ("group.create", "group.add"):
        names, step = record.members or (), 1
    elif record.event in ("group.remove", "group.leave"):
        names, step = leaving_of(record), -1
        members = conv.members
        for name in names:
            members[name].last = lsn
    else:
        return
    users = state.users(names)
    for user in users:
        user.joined += step
    state.touch_users(users)
    conv.size += step * len(names)
    if record.event == "group.create":
        conv.maker, conv.born = record.by, record.seq
    elif conv.size or not conv.maker:
        return
    maker = state.user(conv.maker)
    maker.made += 1 if conv.size else -1
    state.touch_user(maker)
    if not conv.size:
        conv.maker = ""


def _device_change(state: State, lsn: int, record: DeviceChange) -> None:
    if record.forgotten:
        state.drop_device(record.user, record.device)
        return
    user = state.user(record.user)
    device = state.device_for(record.user, record.device, steady(record))
    if record.created:
        device.created = steady(record)
        if not user.registered:
            user.registered = True
            state.touch_user(user)
    if record.cursor is not None:
        device.cursor = record.cursor
        if not record.created:  # a further device begins at the head, which says nothing of what was offered
            _acknowledged(state, user, record.cursor)
    if record.app is not None:
        device.app = record.app
    if record.n is not None:
        device.n = record.n
    if record.exposed is not None:
        device.exposed = record.exposed
    device.seen = steady(record)
    state.touch_device(device)
    _delivered(state, record.user, record.delivered or ())


def _cursors(state: State, lsn: int, record: Cursors) -> None:
    for name, device_name, pos, delivered in record.moves:
        device = state.device_for(name, device_name, steady(record))
        if pos > device.cursor:
            device.cursor = pos
            _acknowledged(state, state.user(name), pos)
        device.seen = steady(record)
        state.touch_device(device)
        _delivered(state, name, delivered)


def _acknowledged(state: State, user: User, pos: int) -> None:
    if pos > user.acked:
        user.acked = pos
        state.touch_user(user)


def _delivered(state: State, name: str, pairs: Any) -> None:
    for index in range(0, len(pairs), 2):
        conv = state.conv_for(pairs[index])
        member = conv.members.get(name)
        if member is not None and pairs[index + 1] > member.delivered:
            conv.own(name).delivered = pairs[index + 1]
            state.touch_member(conv, name)


def _read_mark(state: State, lsn: int, record: ReadMark) -> None:
    conv = state.conv_for(record.conv)
    member = conv.own(record.user)
    member.read = max(member.read, record.seq)
    state.touch_member(conv, record.user)


def _user_change(state: State, lsn: int, record: UserChange) -> None:
    user = state.user(record.user)
    match record.what:
        case "block":
            user.blocks = user.blocks | {record.subject}
        case "unblock":
            user.blocks = user.blocks - {record.subject}
        case "mute":
            mutes = {name: until for name, until in user.mutes.items() if name != record.subject}
            if record.value:
                mutes[record.subject] = record.value
            user.mutes = mutes
        case "read_receipts":
            user.read_receipts = bool(record.value)
        case "presence":
            user.presence = bool(record.value)
    state.touch_user(user)


def _erased(state: State, lsn: int, record: Erased) -> None:
    user = state.user(record.user)
    user.begin = user.acked = user.head
    user.registered = False
    user.blocks = set()
    user.mutes = {}
    user.read_receipts = user.presence = True
    state.touch_user(user)
    for name, seq in record.convs:
        conv = state.conv_for(name)
        if record.user not in conv.members:
            continue
        member = conv.own(record.user)
        member.spans = [[seq + 1, FOREVER]] if member.active else []
        member.read = member.delivered = member.last = 0
        state.touch_member(conv, record.user)
        state.touch_conv(conv)
        state.put_latest(user, conv, 0)


def _gone(state: State, lsn: int, record: Gone) -> None:
    act = record.act
    if act.id is not None:
        state.put_request(state.user(act.by), act.id, lsn)
    if isinstance(act, Message):
        _packet(state, lsn, act)


_APPLY: dict[type[Any], Callable[[Any, int, Any], list[str] | None]] = {
    Message: _message,
    GroupChange: _group_change,
    Edited: _edited,
    Recalled: _recalled,
    Reacted: _reacted,
    Reported: _reported,
    DeviceChange: _device_change,
    Cursors: _cursors,
    ReadMark: _read_mark,
    UserChange: _user_change,
    Erased: _erased,
    Gone: _gone,
}
