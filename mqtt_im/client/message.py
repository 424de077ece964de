"""What an app gets to see of conversations: messages, pages of them, and conversations themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

Map = dict[str, Any]
Done = Callable[["Message"], Awaitable[None]]
T = TypeVar("T")


class MessageFields:
    """A message as it was when it was shown.

    `pos` is its place in this user's inbox (None in `history` and `search`), `conv` and `seq` its place in the conversation,
    `sender` a user id, `ts` and `cts` milliseconds since 1970 (the server's clock at commit, the sender's when it was
    written), `id` what the sender called it. `body` is None where it was recalled, or is a `system` one: a map that says what
    happened to a group. `again`: it was handed out before and not done. `raw` is the whole item as it came.
    """

    __slots__ = ("again", "epoch", "raw")

    def __init__(self, raw: Map, *, again: bool = False, epoch: str = "") -> None:
        self.raw = raw
        self.again = again
        self.epoch = epoch
        """The store that `pos` belongs to."""

    @property
    def pos(self) -> int | None:
        """Its place in this user's inbox; None in pages."""
        return self.raw.get("pos")

    @property
    def conv(self) -> str:
        """The conversation: two user ids, sorted and joined with `:`, or a group id."""
        return str(self.raw.get("conv", ""))

    @property
    def seq(self) -> int:
        """Its place in the conversation, from 1 on."""
        return int(self.raw.get("seq", 0))

    @property
    def sender(self) -> str:
        """The user who sent it."""
        return str(self.raw.get("from", ""))

    @property
    def body(self) -> Any:
        """What was sent, binary as `bytes`; None where it was recalled or is a system message."""
        return self.raw.get("body")

    @property
    def ts(self) -> int:
        """When the server committed it, milliseconds since 1970."""
        return int(self.raw.get("ts", 0))

    @property
    def cts(self) -> int | None:
        """The sender's clock when it was written, milliseconds since 1970; None where the sender did not say."""
        return self.raw.get("cts")

    @property
    def id(self) -> str | None:
        """What the sender called it."""
        return self.raw.get("id")

    @property
    def reply_to(self) -> int | None:
        """The `seq` of the message that it answers."""
        return self.raw.get("reply_to")

    @property
    def mentions(self) -> list[str]:
        """Users it names, or `"*"`."""
        return list(self.raw.get("mentions") or ())

    @property
    def edited(self) -> bool:
        """Whether its body is not the first one."""
        return bool(self.raw.get("edited"))

    @property
    def recalled(self) -> bool:
        """Whether it was taken back."""
        return bool(self.raw.get("recalled"))

    @property
    def reactions(self) -> dict[str, list[str]]:
        """Emoji → users."""
        return dict(self.raw.get("reactions") or {})

    @property
    def files(self) -> list[Map]:
        """Maps of `id`, `name`, `type` and `size` (bytes), for `download`."""
        return list(self.raw.get("files") or ())

    @property
    def system(self) -> Map | None:
        """What happened to the group, where this is no user's message."""
        return self.raw.get("system")

    def __repr__(self) -> str:
        what = "system" if self.system is not None else "recalled" if self.recalled else type(self.body).__name__
        return f"<Message {self.conv} {self.seq} from {self.sender}: {what}{', again' if self.again else ''}>"


class Message(MessageFields):
    """A message as `messages()` or a page shows it.

    `again`: it was handed out before and not done. `raw` is the whole item as it came.
    """

    __slots__ = ("_done",)

    def __init__(self, raw: Map, *, again: bool = False, epoch: str = "", done: Done | None = None) -> None:
        super().__init__(raw, again=again, epoch=epoch)
        self._done = done

    async def done(self) -> None:
        """This message and all before it are done, on disk when it returns. Raises `StoreUnusable`."""
        if self._done is not None:
            await self._done(self)


class Page(list[T], Generic[T]):
    """A list that knows whether there is more of it on the server."""

    def __init__(self, items: list[T], *, more: bool, following: str | None = None) -> None:
        super().__init__(items)
        self.more = more
        self.next = following
        """What `after` takes to go on, in pages of conversations."""


class Conversation:
    """A conversation as the server lists it: `unread` and `mentions` count what is above one's own read mark."""

    __slots__ = ("raw",)

    def __init__(self, raw: Map) -> None:
        self.raw = raw

    @property
    def conv(self) -> str:
        """Its id."""
        return str(self.raw.get("conv", ""))

    @property
    def seq(self) -> int:
        """The newest message that the user may see."""
        return int(self.raw.get("seq", 0))

    @property
    def name(self) -> str | None:
        """A group's name."""
        return self.raw.get("name")

    @property
    def last(self) -> Message | None:
        """The newest message."""
        last = self.raw.get("last")
        return Message(last) if isinstance(last, dict) else None

    @property
    def unread(self) -> int:
        """Others' messages above the own read mark."""
        return int(self.raw.get("unread", 0))

    @property
    def mentions(self) -> int:
        """The unread ones that mention the user."""
        return int(self.raw.get("mentions", 0))

    @property
    def muted(self) -> int | None:
        """Until when there is no push for it, milliseconds since 1970."""
        return self.raw.get("muted")

    @property
    def receipts(self) -> dict[str, Map]:
        """User → `delivered` and `read`, the highest seqs."""
        return dict(self.raw.get("receipts") or {})

    def __repr__(self) -> str:
        return f"<Conversation {self.conv} at {self.seq}, {self.unread} unread>"
