"""Rows of the projections' tables: the statements that write them, and entities as rows and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mqtt_im.core.model import EVERYTHING, Amended, Conv, Device, Member, User
from mqtt_im.store.sqlite.errors import Damage

_pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

USER = "head, floor, acked, registered, settings, sent, sent_bytes, gone, gone_bytes, joined, made"
CONV = "head, lsn, title, size, born, maker"
MEMBER = "m.ord, m.role, m.active, m.read, m.delivered, m.spans, m.last"
AMENDED = "recalled, edits, edited, bytes, reactions"


def _put(table: str, keys: str, columns: str) -> str:
    """The row is there, whether it was before or not. Unlike REPLACE it leaves alone what stays, such as the index of a name."""
    values = ", ".join("?" * (keys.count(",") + columns.count(",") + 2))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns.split(", "))
    key = keys.removesuffix(", name")  # a name stays as it is
    return f"INSERT INTO {table} ({keys}, {columns}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {changes}"


_PART = "grp, ord, role, active, read, delivered, spans, last"

PUT_USER = _put("user", "uid, name", USER)
PUT_CONV = _put("conv", "cid, name", CONV)
PUT_MEMBER = _put("member", "uid, cid", _PART)
PUT_ACTIVE_MEMBER = _put("member", "uid, cid", f"{_PART}, latest")
"""One that has got a message too."""
PUT_NEW_MEMBER = (
    "REPLACE INTO member (uid, cid, grp, ord, role, active, read, delivered, last, latest)"
    " VALUES (?, ?, 0, ?, 'member', 1, 0, 0, 0, ?)"
)
"""One of a direct conversation of which nothing but its messages is known."""
PUT_FIRST_MEMBER = PUT_NEW_MEMBER.replace("REPLACE", "INSERT OR IGNORE")
"""The same, where more may be known meanwhile."""
PUT_LATEST = "UPDATE member SET latest = ? WHERE uid = ? AND cid = ?"
PUT_DEVICE = "REPLACE INTO device (uid, device, cursor, app, n, created, seen) VALUES (?, ?, ?, ?, ?, ?, ?)"
DROP_DEVICE = "DELETE FROM device WHERE uid = ? AND device = ?"
PUT_AMENDED = f"REPLACE INTO amended (cid, seq, {AMENDED}) VALUES (?, ?, ?, ?, ?, ?, ?)"
PUT_CHANGE = "REPLACE INTO change (cid, seq, uid, count) VALUES (?, ?, ?, ?)"
PUT_ITEM = "REPLACE INTO item (uid, pos, lsn) VALUES (?, ?, ?)"
VOID_ITEM = "UPDATE item SET lsn = -abs(lsn) WHERE uid = ? AND pos = ?"
PUT_MESSAGE = "REPLACE INTO message (cid, seq, lsn, by) VALUES (?, ?, ?, ?)"
HIDE_MESSAGE = "UPDATE message SET by = 0 WHERE cid = ? AND seq = ?"
PUT_MENTION = "REPLACE INTO mention (cid, uid, seq) VALUES (?, ?, ?)"
PUT_REQUEST = "REPLACE INTO request (uid, id, lsn) VALUES (?, ?, ?)"
PUT_PACKET = "REPLACE INTO packet (user, device, session, packet, lsn) VALUES (?, ?, ?, ?, ?)"
PUT_KEYED = "REPLACE INTO keyed (sender, conv, key, lsn) VALUES (?, ?, ?, ?)"


def _unpack(data: bytes) -> Any:
    try:
        return _decode(data)
    except (msgspec.DecodeError, TypeError) as error:
        raise Damage(f"a row of the projections is damaged: {error}") from error


def user_row(user: User) -> tuple[Any, ...]:
    """For `PUT_USER`."""
    settings = None
    if user.blocks or user.mutes or user.begin or not (user.read_receipts and user.presence):
        settings = _pack(
            {
                "blocks": sorted(user.blocks),
                "mutes": user.mutes,
                "read_receipts": user.read_receipts,
                "presence": user.presence,
                "begin": user.begin,
            }
        )
    return (
        user.uid,
        user.name,
        user.head,
        user.floor,
        user.acked,
        int(user.registered),
        settings,
        user.sent,
        user.sent_bytes,
        user.gone,
        user.gone_bytes,
        user.joined,
        user.made,
    )


def conv_row(conv: Conv) -> tuple[Any, ...]:
    """For `PUT_CONV`."""
    return conv.cid, conv.name, conv.head, conv.lsn, conv.title, conv.size, conv.born, conv.maker


def member_row(uid: int, conv: Conv, member: Member) -> tuple[Any, ...]:
    """For `PUT_MEMBER`."""
    return (
        uid,
        conv.cid,
        int(conv.group),
        member.order,
        member.role,
        int(member.active),
        member.read,
        member.delivered,
        None if member.spans is EVERYTHING else _pack(member.spans),
        member.last,
    )


def device_row(uid: int, device: Device) -> tuple[Any, ...]:
    """For `PUT_DEVICE`."""
    seen = -device.seen if device.exposed else device.seen
    return uid, device.device, device.cursor, int(device.app), device.n, device.created, seen


def amended_row(cid: int, seq: int, amended: Amended) -> tuple[Any, ...]:
    """For `PUT_AMENDED`."""
    return cid, seq, int(amended.recalled), amended.edits, amended.edited, amended.size, _pack(amended.reactions)


def read_user(name: str, row: Sequence[Any]) -> User:
    """Of its uid and `USER`."""
    user = User(row[0], name)
    user.head, user.floor, user.acked, user.registered = row[1], row[2], row[3], bool(row[4])
    user.sent, user.sent_bytes, user.gone, user.gone_bytes, user.joined, user.made = row[6:12]
    if row[5]:
        settings = _unpack(row[5])
        user.blocks = set(settings["blocks"])
        user.mutes = settings["mutes"]
        user.read_receipts, user.presence = settings["read_receipts"], settings["presence"]
        user.begin = settings.get("begin", 0)
    return user


def read_member(row: Sequence[Any], known: dict[bytes, list[list[int]]] | None = None) -> Member:
    """Of `MEMBER`; `known` keeps spans, which many members have in common."""
    member = Member(row[0], row[1])
    member.active, member.read, member.delivered = bool(row[2]), row[3], row[4]
    packed = row[5]
    if not packed:
        member.spans = EVERYTHING
    elif known is None:
        member.spans = _unpack(packed)
    else:
        member.spans = known.get(packed) or known.setdefault(packed, _unpack(packed))
    member.last = row[6]
    return member


def read_conv(row: Sequence[Any], load: Callable[[Conv], dict[str, Member]], find: Callable[[Conv, str], Member | None]) -> Conv:
    """Of its cid, its name and `CONV`; `load` reads its members when somebody asks, `find` one of a group's."""
    conv = Conv(row[0], row[1], load, find if row[1][0] == "#" else None)
    conv.head, conv.lsn, conv.title, conv.size, conv.born, conv.maker = row[2:8]
    return conv


def read_amended(row: Sequence[Any]) -> Amended:
    """Of `AMENDED`."""
    amended = Amended()
    amended.recalled, amended.edits, amended.edited, amended.size = bool(row[0]), row[1], row[2], row[3]
    amended.reactions = _unpack(row[4])
    return amended


def read_device(user: str, row: Sequence[Any]) -> Device:
    """Of its name, cursor, `app`, `n`, `created` and `seen`."""
    device = Device(user, row[0], row[4])
    device.cursor, device.app, device.n, device.seen = row[1], bool(row[2]), row[3], abs(row[5])
    device.exposed = row[5] < 0
    return device
