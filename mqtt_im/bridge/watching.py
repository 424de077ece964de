"""Watching an inbox without a device: what comes is shown, nothing is registered, and nobody is online by it."""

from __future__ import annotations

from typing import NamedTuple

from mqtt_im.core.delivery import Delivery
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs.reads import CallJob
from mqtt_im.transport.api import Link

from .channel import Channel
from .seam import Bridge


class Start(NamedTuple):
    """Where a watch begins, and how far the inbox reaches."""

    pos: int
    head: int
    floor: int


class Watching:
    """The watchers of one bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    async def begin(self, channel: Channel, after: int | None) -> Start:
        """The channel is shown every item behind `after` (None: from now on), as soon as its link is writable.

        Raises `Refusal`: `bad_field` where `after` is beyond the head.
        """
        channels = self._bridge.audience.watching
        first = channel.user not in channels
        channels.setdefault(channel.user, []).append(channel)
        if first and self._bridge.neighbourhood is not None:
            self._bridge.neighbourhood.watches(channel.user, on=True)
        await self._bridge.pulling.whole(channel.user)

        def read(engine: Readable) -> Start:
            owner = engine.state.user(channel.user)
            if after is not None and after > owner.head:
                raise Refusal("bad_field", f"after: the newest item is {owner.head}")
            return Start(owner.head if after is None else after, owner.head, owner.lowest)

        def begun(job: CallJob) -> None:
            if job.refusal is None:
                # Here, in the turn in which the ledger tells it, so that what is committed after it is not missed.
                start: Start = job.result
                channel.delivery = Delivery(
                    channel.user, "", start.pos, start.head, qos=0, window=1, app=False, memory=self._bridge.delivery_memory
                )
                channel.delivery.moved = True  # its cursor is nobody's, and is never written

        job = await self._bridge.ledger.ask(lambda notify: CallJob(read, notify, channel.user), begun)
        start: Start = job.result
        return start

    def end(self, link: Link, channel: Channel) -> None:
        """It watches no more."""
        channels = self._bridge.audience.watching.get(link.user)
        if channels is not None and channel in channels:
            channels.remove(channel)
            if not channels:
                del self._bridge.audience.watching[link.user]
                if self._bridge.neighbourhood is not None:
                    self._bridge.neighbourhood.watches(link.user, on=False)
