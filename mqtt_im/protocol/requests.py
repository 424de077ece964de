"""Uplink requests (PROTOCOL §3): one struct for each `op`, with the checks that need no state.

Unknown fields are ignored; a missing or wrong one is a `Refusal` that names it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct, field

from .errors import Refusal
from .names import is_device, is_group, is_user, members_of_direct

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Pos = Annotated[int, Meta(ge=0, le=2**53)]
Seq = Annotated[int, Meta(ge=1, le=2**53)]
Count = Annotated[int, Meta(ge=1, le=2**31)]
Millis = Annotated[int, Meta(ge=0, le=2**53)]
Text = Annotated[str, Meta(max_length=256)]

ABSENT = Raw(b"")
"""A raw field that was not given."""

MAX_EMOJI_BYTES = 32
MAX_KEY_CHARS = 64
MAX_PUSH_BYTES = 4096
MAX_MENTIONS = 100
MAX_FILES = 10
MAX_BATCH = 2**31


class Named(Struct):
    """What any request may have beside its own fields, as it came."""

    id: Any = None


class Request(Struct, kw_only=True, tag_field="op", gc=False):
    """What every request has; `id` is echoed in every reply to it."""

    id: Id | None = None

    def check(self) -> None:
        """Raise `Refusal` `bad_field` where a field is wrong in a way that its type does not tell."""


class Counted(Request, kw_only=True, gc=False):
    """A request that changes a conversation, and may carry the device's own counter `n`."""

    n: Seq | None = None


def bad_field(field: str, what: str) -> Refusal:
    """The refusal of one field, in one sentence."""
    return Refusal("bad_field", f"{field}: {what}")


def check_user(field: str, value: str) -> None:
    """Raise where `value` is no user id."""
    if not is_user(value):
        raise bad_field(field, "a user id is 1 to 64 of A-Z a-z 0-9 _ . -")


def check_group(field: str, value: str) -> None:
    """Raise where `value` is no group id."""
    if not is_group(value):
        raise bad_field(field, "a group id is '#' and 1 to 64 of A-Z a-z 0-9 _ . -")


def check_conv(field: str, value: str) -> None:
    """Raise where `value` is no conversation id."""
    if not is_group(value) and members_of_direct(value) is None:
        raise bad_field(field, "a conversation is a group id, or two user ids, sorted and joined with ':'")


def check_text(field: str, value: str | None) -> None:
    """Raise where `value` has a NUL, which not every store can keep."""
    if value is not None and "\0" in value:
        raise bad_field(field, "a NUL has no place in it")


class Send(Counted, kw_only=True, tag="send", gc=False):
    """A message to a user or a group."""

    to: str
    body: Raw
    cts: Annotated[int, Meta(ge=-(2**53), le=2**53)] | float | None = None
    reply_to: Seq | None = None
    ttl: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    key: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_CHARS)] | None = None
    mentions: Annotated[list[str], Meta(max_length=MAX_MENTIONS)] | None = None
    files: Annotated[list[str], Meta(max_length=MAX_FILES)] | None = None
    push: dict[str, Any] | None = None

    def check(self) -> None:
        """See `Request.check`."""
        if not is_user(self.to) and not is_group(self.to):
            raise bad_field("to", "expected a user id, or a group id that begins with '#'")
        for name in self.mentions or ():
            if name != "*":
                check_user("mentions", name)
        check_text("key", self.key)
        if self.files and len(set(self.files)) != len(self.files):
            raise bad_field("files", "a file is named twice")


class Report(Counted, kw_only=True, tag="report", gc=False):
    """What became of a device command."""

    id: Id
    conv: str
    seq: Seq
    state: Literal["executed", "failed"]
    result: Raw = field(default_factory=lambda: ABSENT)

    def check(self) -> None:
        """See `Request.check`."""
        check_conv("conv", self.conv)


class Ack(Request, kw_only=True, tag="ack", gc=False):
    """This device has processed every item up to `pos`."""

    pos: Pos


class Hello(Request, kw_only=True, tag="hello", gc=False):
    """What the device has and how it wants to be served."""

    epoch: str | None = None
    after: Pos | None = None
    n: Pos | None = None
    ack: Literal["transport", "app"] | None = None
    codec: Literal["json", "msgpack"] | None = None
    batch: bool | Annotated[int, Meta(ge=512, le=MAX_BATCH)] | None = None
    zip: bool | None = None
    window: Count | None = None

    @property
    def batch_bytes(self) -> int | None:
        """The most bytes of a batch that are asked for: 0 are none, and `true` leaves the number to the server."""
        return MAX_BATCH if self.batch is True else self.batch


class Sync(Request, kw_only=True, tag="sync", gc=False):
    """Items after a position, without moving anything."""

    after: Pos
    limit: Count | None = None


class History(Request, kw_only=True, tag="history", gc=False):
    """Messages of one conversation."""

    conv: str
    before: Pos | None = None
    after: Pos | None = None
    limit: Count | None = None

    def check(self) -> None:
        """See `Request.check`."""
        check_conv("conv", self.conv)


class Convs(Request, kw_only=True, tag="convs", gc=False):
    """One's own conversations."""

    limit: Count | None = None
    after: Annotated[str, Meta(max_length=128)] | None = None
    """The `next` of the page before."""


class Read(Request, kw_only=True, tag="read", gc=False):
    """The user has read the conversation up to `seq`."""

    conv: str
    seq: Seq

    def check(self) -> None:
        """See `Request.check`."""
        check_conv("conv", self.conv)


class Typing(Request, kw_only=True, tag="typing", gc=False):
    """The user has begun or ended typing."""

    to: str
    on: bool

    def check(self) -> None:
        """See `Request.check`."""
        if not is_user(self.to) and not is_group(self.to):
            raise bad_field("to", "expected a user id, or a group id that begins with '#'")


class Edit(Counted, kw_only=True, tag="edit", gc=False):
    """A new body for one's own message."""

    id: Id
    conv: str
    seq: Seq
    body: Raw

    def check(self) -> None:
        """See `Request.check`."""
        check_conv("conv", self.conv)


class Recall(Counted, kw_only=True, tag="recall", gc=False):
    """A message taken back; its content is gone from the store afterwards."""

    id: Id
    conv: str
    seq: Seq

    def check(self) -> None:
        """See `Request.check`."""
        check_conv("conv", self.conv)


class React(Counted, kw_only=True, tag="react", gc=False):
    """One's own reaction to a message; the empty one takes it away."""

    id: Id
    conv: str
    seq: Seq
    emoji: str

    def check(self) -> None:
        """See `Request.check`."""
        check_conv("conv", self.conv)
        if len(self.emoji.encode()) > MAX_EMOJI_BYTES:
            raise bad_field("emoji", f"at most {MAX_EMOJI_BYTES} bytes of UTF-8")


class Search(Request, kw_only=True, tag="search", gc=False):
    """Messages of one's own conversations that hold all words of `query`."""

    query: Annotated[str, Meta(min_length=1, max_length=256)]
    conv: str | None = None
    before: Millis | None = None
    limit: Count | None = None

    def check(self) -> None:
        """See `Request.check`."""
        if self.conv is not None:
            check_conv("conv", self.conv)


class Mute(Request, kw_only=True, tag="mute", gc=False):
    """No push for a conversation until a time (ms since 1970; 0 ends it)."""

    id: Id
    conv: str
    until: Millis

    def check(self) -> None:
        """See `Request.check`."""
        check_conv("conv", self.conv)


class Settings(Request, kw_only=True, tag="settings", gc=False):
    """What others get to know of the user."""

    id: Id
    read_receipts: bool | None = None
    presence: bool | None = None


class GroupRequest(Counted, kw_only=True, gc=False):
    """A request about an existing group."""

    id: Id
    group: str

    def check(self) -> None:
        """See `Request.check`."""
        check_group("group", self.group)


class GroupCreate(Counted, kw_only=True, tag="group.create", gc=False):
    """A new group, with the creator as its owner."""

    id: Id
    group: str | None = None
    name: Text | None = None
    members: list[str]

    def check(self) -> None:
        """See `Request.check`."""
        if self.group is not None:
            check_group("group", self.group)
        check_text("name", self.name)
        for name in self.members:
            check_user("members", name)


class _GroupMembers(GroupRequest, kw_only=True, gc=False):
    members: Annotated[list[str], Meta(min_length=1)]

    def check(self) -> None:
        """See `Request.check`."""
        check_group("group", self.group)
        for name in self.members:
            check_user("members", name)


class GroupAdd(_GroupMembers, kw_only=True, tag="group.add", gc=False):
    """New members."""


class GroupRemove(_GroupMembers, kw_only=True, tag="group.remove", gc=False):
    """Members sent away."""


class GroupRole(GroupRequest, kw_only=True, tag="group.role", gc=False):
    """A member's new role."""

    user: str
    role: Literal["owner", "admin", "member"]

    def check(self) -> None:
        """See `Request.check`."""
        check_group("group", self.group)
        check_user("user", self.user)


class GroupRename(GroupRequest, kw_only=True, tag="group.rename", gc=False):
    """A new name for the group."""

    name: Text

    def check(self) -> None:
        """See `Request.check`."""
        check_group("group", self.group)
        check_text("name", self.name)


class GroupLeave(GroupRequest, kw_only=True, tag="group.leave", gc=False):
    """The user leaves."""


class GroupInfo(Request, kw_only=True, tag="group.info", gc=False):
    """Name, head and members of a group; the members after the user `after`, by name."""

    group: str
    after: str | None = None
    limit: Count | None = None

    def check(self) -> None:
        """See `Request.check`."""
        check_group("group", self.group)
        if self.after is not None:
            check_user("after", self.after)


class _Blocking(Request, kw_only=True, gc=False):
    id: Id
    user: str

    def check(self) -> None:
        """See `Request.check`."""
        check_user("user", self.user)


class Block(_Blocking, kw_only=True, tag="block", gc=False):
    """Refuse a user's direct messages."""


class Unblock(_Blocking, kw_only=True, tag="unblock", gc=False):
    """Accept them again."""


class Devices(Request, kw_only=True, tag="devices", gc=False):
    """The user's devices."""


class DeviceForget(Request, kw_only=True, tag="device.forget", gc=False):
    """A device that will not come back."""

    id: Id
    device: str

    def check(self) -> None:
        """See `Request.check`."""
        if not is_device(self.device):
            raise bad_field("device", "a device id is 1 to 64 of A-Z a-z 0-9 _ . -")


AnyRequest = (
    Send
    | Report
    | Ack
    | Hello
    | Sync
    | History
    | Convs
    | Read
    | Typing
    | Edit
    | Recall
    | React
    | Search
    | Mute
    | Settings
    | GroupCreate
    | GroupAdd
    | GroupRemove
    | GroupRole
    | GroupRename
    | GroupLeave
    | GroupInfo
    | Block
    | Unblock
    | Devices
    | DeviceForget
)
"""Every request that the server knows."""
