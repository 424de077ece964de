"""What an operator may look up: a conversation, and the whole story of one message. Without any content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from mqtt_im.core.model import Conv, User
from mqtt_im.core.records import MESSAGES, GroupChange, Message, Reported
from mqtt_im.store.interface import Readable, Seen

PIECE: Final = 500
"""Items that are looked at in one go …"""
MEMBERS: Final = 50
"""… and members of a conversation: in the inbox of each the message is looked for."""

_NEWEST: Final = 256
"""Items of an inbox that are looked through for what a large group has told."""


class Story(NamedTuple):
    """What is told of a message, whose inboxes may have it, and where its reports are to be looked for."""

    told: dict[str, Any]
    members: list[str]
    sender: str


class Recipients(NamedTuple):
    """What is told of some who got a message, and the number that it has in the inbox of each."""

    told: list[dict[str, Any]]
    positions: dict[str, int]


def conversation(engine: Readable, name: str) -> dict[str, Any] | None:
    """Members and head; None where there is none."""
    conv = engine.state.conv(name)
    if conv is None:
        return None
    members = [
        {"user": user, "role": member.role, "delivered": member.delivered, "read": member.read}
        for user, member in conv.members.items()
        if member.active
    ]
    told: dict[str, Any] = {"conv": name, "head": conv.head, "members": members}
    if conv.title:
        told["name"] = conv.title
    return told


def story(engine: Readable, name: str, seq: int) -> Story | None:
    """One message's, without its `recipients` and `reports`; None where there is none."""
    state = engine.state
    conv = state.conv(name)
    record = state.message(conv, seq) if conv is not None and 1 <= seq <= conv.head else None
    if conv is None or not isinstance(record, MESSAGES):
        return None
    amended = state.amended(conv, seq)
    told = {
        "conv": name,
        "seq": seq,
        "ts": record.ts,
        "from": record.by,
        "recipients": [],
        "reports": [],
        "edits": 0 if amended is None else amended.edits,
        "recalled": amended is not None and amended.recalled,
    }
    return Story(told, list(conv.members), record.by)


def recipients(engine: Readable, name: str, seq: int, members: Sequence[str]) -> Recipients:
    """Those of these members who got the message."""
    state = engine.state
    conv = state.conv_for(name)
    record = state.message(conv, seq)
    lsn = next((row for _, row in state.messages(conv, seq, seq)), 0)
    if not isinstance(record, MESSAGES):
        return Recipients([], {})  # retention has taken it meanwhile
    positions = _positions(engine, members, record, lsn, conv.large)
    told: list[dict[str, Any]] = []
    for user, pos in positions.items():
        devices = [
            {"device": device.device, "acknowledged": device.cursor >= pos}
            for device in sorted(state.devices(user).values(), key=lambda device: device.device)
        ]
        told.append({"user": user, "pos": pos, "read": _has_read(conv, user, seq), "devices": devices})
    return Recipients(told, positions)


def waiting(engine: Readable, name: str, seq: int) -> list[dict[str, Any]]:
    """Those who are to get what a large group has told, and have not yet."""
    state = engine.state
    conv = state.conv_for(name)
    lsn = next((row for _, row in state.messages(conv, seq, seq)), 0)
    told: list[dict[str, Any]] = []
    for user in state.not_taken(lsn) if conv.large else ():
        devices = [{"device": device, "acknowledged": False} for device in sorted(state.devices(user))]
        told.append({"user": user, "pos": None, "read": _has_read(conv, user, seq), "devices": devices})
    return told


def _has_read(conv: Conv, user: str, seq: int) -> bool:
    part = conv.part(user)
    return part is not None and part.read >= seq


def _positions(engine: Readable, members: Sequence[str], record: Message | GroupChange, lsn: int, large: bool) -> dict[str, int]:
    """The number that the message has in each inbox that has it, looked up there: who was a member then is not told elsewhere.

    Of a large group, whose members have it at numbers of their own, only in the newest part of each inbox.
    """
    state = engine.state
    found: dict[str, int] = {}
    for user in members:
        owner = state.user(user)
        if large:
            found.update((user, at) for at, row in state.items(owner, max(0, owner.head - _NEWEST), _NEWEST) if abs(row) == lsn)
        elif state.in_log_order(owner):
            if pos := _position(state, owner, lsn):
                found[user] = pos
        else:
            for pos in dict.fromkeys(record.pos):
                if pos <= owner.head and [(pos, lsn)] == [(at, abs(row)) for at, row in state.items(owner, pos - 1, 1)]:
                    found[user] = pos
                    break
    return found


def _position(state: Seen, owner: User, lsn: int) -> int:
    """Where an inbox in the order of the log has this log row; 0 where it does not."""
    low, high = owner.lowest, owner.head
    while low < high:
        middle = (low + high) // 2
        items = state.items(owner, middle, 1)
        if items and abs(items[0][1]) < lsn:
            low = items[0][0]
        else:
            high = middle
    items = state.items(owner, low, 1)
    return items[0][0] if items and abs(items[0][1]) == lsn else 0


def reports(engine: Readable, user: str, after: int, conv: str, seq: int) -> list[Reported] | None:
    """The reports about a message among the next `PIECE` items of its sender's inbox; None where there are no more items."""
    state = engine.state
    rows = state.items(state.user(user), after, PIECE)
    if not rows:
        return None
    records = state.records([abs(lsn) for _, lsn in rows])
    return [record for record in records.values() if isinstance(record, Reported) and (record.conv, record.seq) == (conv, seq)]
