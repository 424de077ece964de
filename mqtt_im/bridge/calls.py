"""Calls: requests that come without a connection of their own, such as over HTTP, and are answered to who waits for them.

A call is a channel without a device: it stands in the same line as everything that devices send, obeys the same rules, and
its reply is returned instead of being published.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from mqtt_im.core.rules import CHANGING, Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.transport.api import Transport
from mqtt_im.transport.guest import Guest

from .channel import Channel
from .seam import Bridge

NEEDS_ID = CHANGING - {rq.Hello, rq.Ack, rq.Read}
"""What is given an `id` where it has none."""

Fields = dict[str, Any]


class _Asker(Guest):
    """The link of a call: nothing can be sent on it, and its one uplink's end is the call's."""

    def __init__(self, user: str, transport: Transport | None) -> None:
        super().__init__(user, "")
        self._transport = transport
        self.user_qos = -1
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def charge(self, units: float) -> None:
        """See `Link`."""
        if self._transport is not None:
            self._transport.charge(self.user, units)

    def owes(self) -> float:
        """See `Link`."""
        return 0.0 if self._transport is None else self._transport.owes(self.user)

    def done(self, token: int) -> None:
        """See `Link`."""
        if not self.ended.done():
            self.ended.set_result(None)

    fail = done


class Call(Channel):
    """One call on its way."""

    __slots__ = ("answer",)

    def __init__(self, asker: _Asker) -> None:
        super().__init__(asker, b"", b"")
        self.answer: Fields = {}

    def reply(
        self, fields: Fields, correlation: bytes | None = None, again: rq.Request | None = None, packet_id: int = 0
    ) -> None:
        """See `Channel`: it is kept for who waits."""
        self.answer = fields


class _AckJob(RequestJob):
    """`ack` in the name of a registered device."""

    __slots__ = ()

    def prepare(self, engine: Any) -> None:
        """See `Job`. Raises `not_found`."""
        if engine.state.device(self.who.user, self.who.device) is None:
            raise Refusal("not_found", f"device: {self.who.user} has no device {self.who.device}")
        super().prepare(engine)


class Calls:
    """Makes calls of one bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._open: set[_Asker] = set()
        self._idle: asyncio.Event | None = None

    async def make(self, user: str, request: rq.Request) -> Fields:
        """The fields of the answer to a request of a user, which is final: what it changes is committed. Raises `Refusal`.

        It goes on where its task is cancelled. `request.id` is set where it changes something.
        """
        if isinstance(request, rq.Hello):
            await self._bridge.pulling.whole(user)
            return await self._bridge.ledger.call(lambda engine: self._welcome(engine, user), user)  # type: ignore[no-any-return]
        asker = _Asker(user, self._bridge.transport)
        call = Call(asker)
        self._open.add(asker)
        try:
            self._bridge.uplinks.ask(call, request, 1, 0, False)
            await asker.ended
        finally:
            asker.closed = True
            self._open.discard(asker)
            if not self._open and self._idle is not None:
                self._idle.set()
        fields = call.answer
        if fields.get("op") == "error":
            raise Refusal(
                fields["code"],
                fields["message"],
                retry=fields["retry"],
                retry_after=fields.get("retry_after"),
                expected=fields.get("expected"),
            )
        return fields

    async def ack(self, user: str, device: str, pos: int) -> None:
        """The device has processed everything up to `pos`: its cursor is there, on disk. Raises `Refusal`, also `not_found`."""
        bridge = self._bridge

        def told(job: RequestJob) -> None:
            bridge.telling.tell(job)
            if job.refusal is None:
                bridge.confirmed(user, device, pos)

        def make(notify: Callable[[RequestJob], None]) -> RequestJob:
            return _AckJob(Who(user, device, 0), rq.Ack(pos=pos), notify)

        bridge.metrics.count("uplinks", op="ack")
        await bridge.ledger.ask(make, told)

    async def settled(self) -> None:
        """Returns when every call has its answer."""
        self._idle = asyncio.Event()
        while self._open:
            self._idle.clear()
            await self._idle.wait()

    def _welcome(self, engine: Readable, user: str) -> Fields:
        owner = engine.state.user(user)
        return {
            "op": "welcome",
            "head": owner.head,
            "floor": owner.lowest,
            "epoch": self._bridge.ledger.epoch,
            "limits": self._bridge.uplinks.limits(0),
            "ts": self._bridge.ledger.clock.told(),
        }


def new_id() -> str:
    """An `id` for a request that came without one."""
    return secrets.token_hex(12)
