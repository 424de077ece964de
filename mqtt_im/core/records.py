"""What the log holds: one record for each thing that happened, with everything that was decided about it.

A record is written once, before its request is acknowledged, and is enough to rebuild every projection: it carries the
numbers that were given out (`seq`, each recipient's `pos`), so that applying it asks nobody anything. Records are
MessagePack arrays; fields are only ever added at the end.

`ts` is milliseconds since 1970, UTC. `body` and `result` are JSON text, None once recalled or trimmed.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct


class Record(Struct, array_like=True, gc=False):
    """The parent of all records."""

    ts: int


class Act(Record, array_like=True, gc=False):
    """Something that a user did in a conversation, and that its members see as an item.

    `pos` holds the number of the item in each recipient's inbox, in the order of the conversation's members at that time
    (`core.apply.recipients`). `id` and `n` are the request's own, 0 and None where it had none.
    """

    conv: str
    seq: int
    by: str
    device: str
    id: str | None
    n: int
    pos: list[int]


class Message(Act, array_like=True, tag="m", gc=False):
    """A message. `extra` holds its rarer fields, as far as it has them.

    `behind`: by how many ms the steady time was behind `ts` (`mqtt_im.clock`), where that is worth telling.
    `cts`, `reply_to`, `ttl`, `key`, `mentions`, `push`: as the sender gave them. `replaced`: `[user, pos]` of each item that
    this message's `key` has made void. `dropped`: the other one has blocked the sender, so only the sender has the message.
    `packet`: `[session, packet id]` of a QoS 1 PUBLISH without an id. `files`: `[id, name, type, size]` of each file, of
    which `file_ids` is left. `digest`: what stands for a body that is gone, so that a repeat is still recognised; `size`: how
    many bytes it had.
    """

    body: bytes | None
    extra: dict[str, Any] | None = None

    @property
    def dropped(self) -> bool:
        """Whether only the sender has it."""
        return self.extra is not None and "dropped" in self.extra


class GroupChange(Act, array_like=True, tag="g", gc=False):
    """A change to a group, which is a message of it too. `users` are the recipients, in the order of `pos`.

    Both are empty once retention has taken the message; the change to the group stands.
    """

    event: str
    users: list[str]
    members: list[str] | None = None
    user: str | None = None
    role: str | None = None
    name: str | None = None
    asked: dict[str, Any] | None = None
    """The request's own fields, which tell a repeat from a mistake; None for what the server did by itself."""
    history_from: int = 0
    """The first `seq` that added members may read."""
    left_out: list[str] | None = None
    """Who was asked for and has blocked the one who asks."""


class Edited(Act, array_like=True, tag="e", gc=False):
    """A message's new body.

    `freed`: bytes of the edit in whose place it stands, whose content goes. `size`: its own, once that is gone itself.
    """

    body: bytes | None
    digest: bytes | None = None
    freed: int = 0
    size: int = 0


class Recalled(Act, array_like=True, tag="r", gc=False):
    """A message taken back. `of`: its sender; `freed`: bytes of its content, which goes."""

    of: str = ""
    freed: int = 0


class Reacted(Act, array_like=True, tag="a", gc=False):
    """A user's reaction to a message; the empty emoji takes it away."""

    emoji: str


class Reported(Act, array_like=True, tag="q", gc=False):
    """What became of a device command; the one recipient is the message's sender, `to`."""

    to: str
    state: str
    result: bytes | None
    digest: bytes | None = None


class DeviceChange(Record, array_like=True, tag="d", gc=False):
    """A device was registered (`created`), forgotten, or its lasting settings were changed; None leaves as it is."""

    user: str
    device: str
    created: bool = False
    forgotten: bool = False
    cursor: int | None = None
    app: bool | None = None
    n: int | None = None
    delivered: list[Any] | None = None
    exposed: bool | None = None
    behind: int = 0
    """See `Message`."""


class Cursors(Record, array_like=True, tag="c", gc=False):
    """Acknowledgements of some devices, gathered: `[user, device, pos, [conv, seq, …]]` each.

    The pairs at the end say up to which message of which conversation the device's cursor has delivered.
    """

    moves: list[tuple[str, str, int, list[Any]]]
    behind: int = 0
    """See `Message`."""


class ReadMark(Record, array_like=True, tag="k", gc=False):
    """A user has read a conversation up to `seq`."""

    user: str
    conv: str
    seq: int


class UserChange(Record, array_like=True, tag="u", gc=False):
    """A user's own settings: `what` is `block`, `unblock`, `mute`, `read_receipts` or `presence`."""

    user: str
    what: str
    subject: str
    value: int = 0


class Gone(Record, array_like=True, tag="x", gc=False):
    """What retention has left of a record, for as long as its `id` is remembered: how a repeat is told, and how it is answered.

    Its numbers and its items are folded away; `act` has no content any more and, in `pos`, its author's own number alone.
    """

    act: Message | Edited | Recalled | Reacted | Reported


class Erased(Record, array_like=True, tag="z", gc=False):
    """A user's inbox, devices and settings are gone; whoever has the name next begins anew.

    `convs` holds `[conv, seq]`: up to where each conversation is hidden from who has the name from now on.
    """

    user: str
    convs: list[list[Any]]


AnyRecord = (
    Erased
    | Message
    | GroupChange
    | Edited
    | Recalled
    | Reacted
    | Reported
    | DeviceChange
    | Cursors
    | ReadMark
    | UserChange
    | Gone
)


MESSAGES: Final = (Message, GroupChange)
"""What is a message of a conversation. Tuples, since `isinstance` takes three times as long where a union is made for it."""
AMENDMENTS: Final = (Edited, Recalled, Reacted)
"""What changes a message that is there."""


def steady(record: AnyRecord) -> int:
    """When it happened by the steady time, in ms, as far as the record tells."""
    if isinstance(record, DeviceChange | Cursors):
        return record.ts - record.behind
    extra = record.extra if isinstance(record, Message) else None
    behind: int = (extra or {}).get("behind", 0)
    return record.ts - behind


encode: Final = msgspec.msgpack.Encoder().encode
decode: Final = msgspec.msgpack.Decoder(AnyRecord).decode
