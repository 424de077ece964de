"""Apply: what a record does to the state. The only code that changes entities.

What hangs on an entity (a member, a set, a list) is replaced, not changed: whoever looks at it on another thread keeps what was.
Everything here follows from the record and the state before it, so the projections are a pure function of the log
(INV-5): applying the same records to the same state gives the same state, at start, at a rebuild and in `store check`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import intern
from typing import Any, Protocol

from mqtt_im.compiling import mypyc_attr

from .model import FOREVER, Amended, Conv, Device, Member, User, readers
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
from .usage import size_of

_FEW = 8
"""Who get an item are told of it one by one, which is quicker for so many."""


class State(Protocol):
    """What applying needs of a state: entities to change, and rows to add.

    Entities handed out may be changed; `touch_…` says that one was. `lsn` is the log row that a thing came with.
    """

    def user(self, name: str) -> User:
        """The user of this name, made where there was none."""

    def users(self, names: Sequence[str]) -> list[User]:
        """The users of these names, in their order."""

    def touch_user(self, user: User) -> None:
        """The user was changed."""

    def touch_users(self, users: Sequence[User]) -> None:
        """The same of each of these."""

    def conv_for(self, name: str) -> Conv:
        """The conversation of this name, made where there was none; a direct one with its two members."""

    def touch_conv(self, conv: Conv) -> None:
        """The conversation was changed, its members aside."""

    def touch_member(self, conv: Conv, name: str) -> None:
        """A member was added or changed."""

    def touch_members(self, conv: Conv, names: Sequence[str]) -> None:
        """The same of each of these."""

    def device_for(self, user: str, device: str, now: int) -> Device:
        """The device, made where there was none."""

    def touch_device(self, device: Device) -> None:
        """The device was changed."""

    def drop_device(self, user: str, device: str) -> None:
        """The device is gone."""

    def amended_for(self, conv: Conv, seq: int) -> Amended:
        """What became of a message, made where nothing had; counts as changed."""

    def put_item(self, user: User, pos: int, lsn: int, conv: Conv | None) -> None:
        """The user was changed, whose inbox has a new item: a message of `conv`, or something else where that is None."""

    def put_items(self, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """The same of each of these, with the position of each."""

    def put_latest(self, user: User, conv: Conv, lsn: int) -> None:
        """The newest message of the conversation that the user may read has this log row; `put_item` says so too."""

    def void_item(self, user: User, pos: int, conv: Conv) -> None:
        """An item was replaced, a message of this conversation; a look that has shown it is over."""

    def void_items(self, users: Sequence[User], positions: Sequence[int], conv: Conv) -> None:
        """The same of one item of each of these."""

    def put_message(self, conv: Conv, seq: int, lsn: int, by: User | None) -> None:
        """The conversation has a new message; `by` is None for one that counts as unread for nobody, such as the system's."""

    def message_lsn(self, conv: Conv, seq: int) -> int | None:
        """The log row of a message; None where it is gone, or never was."""

    def hide_message(self, conv: Conv, seq: int) -> None:
        """A message was recalled, and counts as unread for nobody from now on."""

    def put_change(self, conv: Conv, seq: int, user: User) -> None:
        """The user has made one more edit, reaction or report of a message."""

    def put_mention(self, conv: Conv, seq: int, user: str) -> None:
        """A message mentions a user, or everybody (`*`)."""

    def put_request(self, user: User, request_id: str, lsn: int) -> None:
        """An id was used."""

    def put_packet(self, user: str, device: str, session: str, packet_id: int, lsn: int) -> None:
        """A PUBLISH without id made something."""

    def put_keyed(self, sender: str, conv: str, key: str, lsn: int) -> None:
        """A message with a key was sent."""


@mypyc_attr(allow_interpreted_subclasses=True)
class OneByOne:
    """What `State` and `core.model.View` are asked for many at once, for one that does it one after the other."""

    def users(self: Any, names: Sequence[str]) -> list[User]:
        """See `State`."""
        return [self.user(name) for name in names]

    def touch_users(self: Any, users: Sequence[User]) -> None:
        """See `State`."""
        for user in users:
            self.touch_user(user)

    def touch_members(self: Any, conv: Conv, names: Sequence[str]) -> None:
        """See `State`."""
        for name in names:
            self.touch_member(conv, name)

    def put_items(self: Any, users: Sequence[User], positions: Sequence[int], lsn: int, conv: Conv | None) -> None:
        """See `State`."""
        for user, pos in zip(users, positions, strict=True):
            self.put_item(user, pos, lsn, conv)

    def void_items(self: Any, users: Sequence[User], positions: Sequence[int], conv: Conv) -> None:
        """See `State`."""
        for user, pos in zip(users, positions, strict=True):
            self.void_item(user, pos, conv)

    def claim_all(self: Any, items: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        """See `core.model.View`."""
        return [item for item in items if self.claim(*item)]


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
        return conv.users or [name for name, member in conv.members.items() if member.active]
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
        names, step = _leaving(record), -1
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


def _leaving(record: GroupChange) -> list[str]:
    return record.members or [record.user or record.by]


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
        leaving = _leaving(record)
        for name in leaving:
            member = members[name] = members[name].copied()  # as `own`
            member.active = False
            member.role = "member"
            member.spans = [*member.spans[:-1], [member.spans[-1][0], seq]]
        state.touch_members(conv, leaving)
    elif record.event == "group.role" and record.user is not None:
        conv.own(record.user).role = record.role or "member"
        state.touch_member(conv, record.user)


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
