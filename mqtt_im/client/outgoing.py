"""What became of something that the app has sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from .core.entries import Entry
from .errors import SendFailed

_ORDER: Final = {"queued": 0, "sent": 1, "delivered": 2, "read": 3}

Cancel = Callable[[Entry], Awaitable[bool]]
Follow = Callable[["Outgoing"], Awaitable[None]]


class Outgoing:
    """A change on its way. `state` goes from `queued` over `sent` to `delivered` and `read`, or is `failed` with an `error`.

    `id` is what the server knows it by; `conv`, `seq` and `ts` are there once it is `sent`, where it is a message; `reply`
    has the fields of the server's `ok`.
    """

    __slots__ = (
        "__weakref__",
        "_abandoned",
        "_cancel",
        "_changed",
        "_follow",
        "conv",
        "entry",
        "error",
        "reply",
        "seq",
        "state",
        "ts",
    )

    def __init__(self, entry: Entry, cancel: Cancel, follow: Follow) -> None:
        self.entry = entry
        self._cancel = cancel
        self._follow = follow
        self._abandoned: Exception | None = None
        self._changed: set[asyncio.Future[None]] = set()
        self.state = "queued"
        self.error: SendFailed | None = None
        self.conv: str | None = None
        self.seq: int | None = None
        self.ts: int | None = None
        self.reply: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        """Its name on the wire: one effect however often it is sent."""
        return self.entry.id

    @property
    def op(self) -> str:
        """What it asks for, as the protocol calls it: `send`, `edit`, `group.create`."""
        return self.entry.op

    @property
    def to(self) -> str | None:
        """To whom or where it goes: the `to`, `conv`, `group` or `user` of the request."""
        fields = self.entry.fields
        return next((fields[name] for name in ("to", "conv", "group", "user") if name in fields), None)

    @property
    def body(self) -> Any:
        """What a message or an edit says; None where this is neither."""
        entry = self.entry
        if entry.raw is None or entry.op == "report":
            return None
        return (msgspec.json.decode if entry.codec == "json" else msgspec.msgpack.decode)(entry.raw)

    @property
    def group(self) -> str | None:
        """The group that `group_create` made."""
        return (self.reply or {}).get("group") or self.entry.fields.get("group")

    async def sent(self, timeout: float | None = None) -> Outgoing:
        """Returns once the server has committed it. Raises `SendFailed`, or `TimeoutError` after `timeout` seconds."""
        return await self._reach("sent", timeout)

    async def delivered(self, timeout: float | None = None) -> Outgoing:
        """Returns once the recipient's device has it (in a group: one of each member's). Raises as `sent`."""
        return await self._reach("delivered", timeout)

    async def read(self, timeout: float | None = None) -> Outgoing:
        """Returns once the recipient has read it (in a group: every member). Raises as `sent`."""
        return await self._reach("read", timeout)

    async def cancel(self) -> bool:
        """True where it is taken back before it was ever on the wire: `failed`, code `cancelled`. Else it takes its course."""
        return await self._cancel(self.entry)

    async def _reach(self, state: str, timeout: float | None) -> Outgoing:
        async with asyncio.timeout(timeout):
            await self._wait(_ORDER[state] if self.op == "send" else 1)
        return self

    async def _wait(self, rank: int) -> None:
        followed = False
        while _ORDER.get(self.state, -1) < rank:
            if self.error is not None:
                raise self.error
            if self._abandoned is not None:
                raise self._abandoned
            if rank > 1 and not followed and self.state != "queued":
                followed = True
                await self._follow(self)
                continue
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.add(changed)
            try:
                await changed
            finally:
                self._changed.discard(changed)

    # What the client tells it

    def become(self, state: str) -> None:
        """Only forwards, but for `failed`, which an answer that comes later still corrects."""
        if state == "failed" or _ORDER.get(state, -1) > _ORDER.get(self.state, -1):
            self.state = state
            if state != "failed":
                self.error = None
        self._wake()

    def _wake(self) -> None:
        for changed in self._changed:
            if not changed.done():
                changed.set_result(None)

    def abandon(self, error: Exception) -> None:
        """The client was closed: who waits is told so."""
        self._abandoned = error
        self._wake()

    def answered(self, answer: dict[str, Any]) -> None:
        """The server has done it, and this is what it said."""
        self.reply = {key: value for key, value in answer.items() if key not in ("op", "id", "pos", "dup")}
        self.conv = answer.get("conv") or self.entry.fields.get("conv") or answer.get("group")
        self.seq = answer.get("seq", self.entry.fields.get("seq"))
        self.ts = answer.get("ts")
        self.become("sent")

    def failed(self, code: str, message: str) -> None:
        """It was refused, or given up."""
        self.error = SendFailed(code, message)
        self.become("failed")

    def __repr__(self) -> str:
        return f"<Outgoing {self.op} {self.id} {self.state}{f' {self.error.code}' if self.error else ''}>"
