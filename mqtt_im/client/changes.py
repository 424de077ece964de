"""Everything that an app can change, one method for each request of the protocol. All go through the outbox."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Final, Literal

from mqtt_im.protocol.names import direct, is_group, is_user, members_of_direct

from .outgoing import Outgoing

ABSENT: Final = object()
"""A body that was not given; None is a body like any other."""


class Changes(ABC):
    """Each method returns once the change is on disk, online or not.

    They raise `OutboxFull`, `StoreUnusable`, and `ValueError` or `TypeError` for what has no form on the wire; whatever the
    server says is told by the `Outgoing`.

    `timeout` (seconds) gives it up if it has no answer by then; `id` names it, else it gets a random one. A change whose `id`
    waits in the outbox already is that one.
    """

    user: str

    @abstractmethod
    async def _change(self, op: str, fields: dict[str, Any], body: Any = ABSENT, timeout: float | None = None) -> Outgoing: ...

    def conversation_with(self, name: str) -> str:
        """The id of the conversation with a user; of a group, or of a conversation, that itself."""
        return direct(self.user, name) if is_user(name) else name

    async def send(self, /, to: str, body: Any, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """A message to a user, a group or a conversation. `body` is anything that JSON can say, and `bytes`.

        Fields: `reply_to` (a seq), `ttl` (seconds, counted from now), `key`, `mentions`, `files`, `push`, `id`, and `cts`
        (milliseconds since 1970), which is this machine's clock unless it is given.
        """
        return await self._change("send", {"to": self._recipient(to), **fields}, body, timeout)

    def _recipient(self, to: str) -> str:
        if not isinstance(to, str):
            raise TypeError(f"to: a user, a group or a conversation, not {to!r}")
        both = members_of_direct(to) if not is_group(to) else None
        if both is None or self.user not in both:
            return to
        return both[1] if both[0] == self.user else both[0]

    async def edit(self, /, conv: str, seq: int, body: Any, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """A new body for one's own message."""
        return await self._change("edit", {"conv": self.conversation_with(conv), "seq": seq, **fields}, body, timeout)

    async def recall(self, /, conv: str, seq: int, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """Take a message back."""
        return await self._change("recall", {"conv": self.conversation_with(conv), "seq": seq, **fields}, timeout=timeout)

    async def react(self, /, conv: str, seq: int, emoji: str, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """One's own reaction to a message; an empty one takes it away."""
        fields = {"conv": self.conversation_with(conv), "seq": seq, "emoji": emoji, **fields}
        return await self._change("react", fields, timeout=timeout)

    async def report(
        self,
        /,
        conv: str,
        seq: int,
        state: Literal["executed", "failed"],
        result: Any = ABSENT,
        *,
        timeout: float | None = None,
        **fields: Any,
    ) -> Outgoing:
        """What became of a command; its sender gets a `Reported`."""
        fields = {"conv": self.conversation_with(conv), "seq": seq, "state": state, **fields}
        return await self._change("report", fields, result, timeout)

    async def read(self, /, conv: str, seq: int, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """The user has read the conversation up to `seq`. What was not sent yet of the same conversation goes with it."""
        return await self._change("read", {"conv": self.conversation_with(conv), "seq": seq, **fields}, timeout=timeout)

    async def mute(self, /, conv: str, until: int, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """No push for a conversation until then (milliseconds since 1970; 0 ends it)."""
        return await self._change("mute", {"conv": self.conversation_with(conv), "until": until, **fields}, timeout=timeout)

    async def settings(
        self, /, *, read_receipts: bool | None = None, presence: bool | None = None, timeout: float | None = None, **fields: Any
    ) -> Outgoing:
        """Whether others get receipts of what this user reads, and see the user's presence; `reply` has both as they are."""
        given = {"read_receipts": read_receipts, "presence": presence}
        return await self._change("settings", {**_given(given), **fields}, timeout=timeout)

    async def block(self, /, user: str, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """Refuse a user's direct messages."""
        return await self._change("block", {"user": user, **fields}, timeout=timeout)

    async def unblock(self, /, user: str, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """Accept them again."""
        return await self._change("unblock", {"user": user, **fields}, timeout=timeout)

    async def device_forget(self, /, device: str, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """A device of this user that will not come back."""
        return await self._change("device.forget", {"device": device, **fields}, timeout=timeout)

    async def group_create(
        self,
        group_or_members: str | Iterable[str] | None = None,
        /,
        members: Iterable[str] = (),
        *,
        group: str | None = None,
        name: str | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Outgoing:
        """A new group with these members and this user as its owner.

        Without `group` the server makes an id, then in `.group`. What stands first without a name is `group` where it is a
        string, else `members`.
        """
        if isinstance(group_or_members, str):
            group = group_or_members
        elif group_or_members is not None:
            members = group_or_members
        fields = {**_given({"group": group, "name": name}), "members": list(members), **fields}
        return await self._change("group.create", fields, timeout=timeout)

    async def group_add(
        self, /, group: str, members: Iterable[str] | str, *, timeout: float | None = None, **fields: Any
    ) -> Outgoing:
        """New members."""
        return await self._change("group.add", {"group": group, "members": _names(members), **fields}, timeout=timeout)

    async def group_remove(
        self, /, group: str, members: Iterable[str] | str, *, timeout: float | None = None, **fields: Any
    ) -> Outgoing:
        """Members are sent away."""
        return await self._change("group.remove", {"group": group, "members": _names(members), **fields}, timeout=timeout)

    async def group_role(
        self,
        /,
        group: str,
        user: str,
        role: Literal["owner", "admin", "member"],
        *,
        timeout: float | None = None,
        **fields: Any,
    ) -> Outgoing:
        """A member's new role."""
        return await self._change("group.role", {"group": group, "user": user, "role": role, **fields}, timeout=timeout)

    async def group_rename(self, /, group: str, name: str, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """A new name for the group."""
        return await self._change("group.rename", {"group": group, "name": name, **fields}, timeout=timeout)

    async def group_leave(self, /, group: str, *, timeout: float | None = None, **fields: Any) -> Outgoing:
        """Leave the group."""
        return await self._change("group.leave", {"group": group, **fields}, timeout=timeout)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _names(members: Iterable[str] | str) -> list[str]:
    return [members] if isinstance(members, str) else list(members)
