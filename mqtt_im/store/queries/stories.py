"""What an operator may look up: a conversation, and the whole story of one message. Without any content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mqtt_im.core.records import MESSAGES, GroupChange, Message, Reported
from mqtt_im.store.interface import Readable

PIECE: Final = 500
"""Items that are looked at in one go."""

_NEWEST: Final = 256
"""Items of an inbox that are looked through for what a large group has told."""


class Story(NamedTuple):
    """What is told of a message, and where its reports are to be looked for."""

    told: dict[str, Any]
    sender: str
    own_pos: int


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
    """One message's, without its reports; None where there is none."""
    state = engine.state
    conv = state.conv(name)
    record = state.message(conv, seq) if conv is not None and 1 <= seq <= conv.head else None
    if conv is None or not isinstance(record, MESSAGES):
        return None
    lsn = next((row for _, row in state.messages(conv, seq, seq)), 0)
    positions = _positions(engine, conv.members, record, lsn, conv.large)
    recipients = []
    for user, pos in positions.items():
        member = conv.members[user]
        devices = [
            {"device": device.device, "acknowledged": device.cursor >= pos}
            for device in sorted(state.devices(user).values(), key=lambda device: device.device)
        ]
        recipients.append({"user": user, "pos": pos, "read": member.read >= seq, "devices": devices})
    for user in state.not_taken(lsn) if conv.large else ():
        devices = [{"device": device, "acknowledged": False} for device in sorted(state.devices(user))]
        recipients.append({"user": user, "pos": None, "read": conv.members[user].read >= seq, "devices": devices})
    amended = state.amended(conv, seq)
    told = {
        "conv": name,
        "seq": seq,
        "ts": record.ts,
        "from": record.by,
        "recipients": recipients,
        "reports": [],
        "edits": 0 if amended is None else amended.edits,
        "recalled": amended is not None and amended.recalled,
    }
    return Story(told, record.by, positions.get(record.by, 0))


def _positions(
    engine: Readable, members: Mapping[str, Any], record: Message | GroupChange, lsn: int, large: bool
) -> dict[str, int]:
    """The number that the message has in each inbox that has it, looked up there: who was a member then is not told elsewhere.

    Of a large group, whose members have it at numbers of their own, only in the newest part of each inbox.
    """
    state = engine.state
    found: dict[str, int] = {}
    for user in members:
        owner = state.user(user)
        if large:
            found.update((user, at) for at, row in state.items(owner, max(0, owner.head - _NEWEST), _NEWEST) if abs(row) == lsn)
            continue
        for pos in dict.fromkeys(record.pos):
            if pos <= owner.head and [(pos, lsn)] == [(at, abs(row)) for at, row in state.items(owner, pos - 1, 1)]:
                found[user] = pos
                break
    return found


def reports(engine: Readable, user: str, after: int, conv: str, seq: int) -> list[Reported] | None:
    """The reports about a message among the next `PIECE` items of its sender's inbox; None where there are no more items."""
    state = engine.state
    rows = state.items(state.user(user), after, PIECE)
    if not rows:
        return None
    records = state.records([abs(lsn) for _, lsn in rows])
    return [record for record in records.values() if isinstance(record, Reported) and (record.conv, record.seq) == (conv, seq)]
