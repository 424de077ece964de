"""What can be sent to channels is sent, and what is missing for it is fetched: now, soon, or a few in each turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from mqtt_im.core.delivery import Delivery
from mqtt_im.store.jobs.reads import FetchJob
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.threads.outflow import packets

from .audience import Audience
from .channel import Channel
from .claims import Claims
from .cursors import Cursors
from .lightening import Lightening
from .offering import offer
from .slices import Line, surely

READY = 1_000
"""Packets that one turn of the loop sends, some milliseconds, and whatever one channel has beyond that."""


class Pump:
    """The part of one bridge."""

    def __init__(
        self,
        ledger: Ledger,
        claims: Claims,
        cursors: Cursors,
        audience: Audience,
        lightening: Lightening,
        line: Line,
        items: list[float],
    ) -> None:
        """`items` counts what was sent."""
        self._ledger = ledger
        self._claims = claims
        self._claim = claims.offer
        self._cursors = cursors
        self._lightening = lightening
        self._line = line
        self._outflow = ledger.gathering.outflow
        self._items = items
        self._audience = audience
        self._ready: list[Channel] = []
        """Channels to which something new can be sent in this turn of the loop."""
        self._crowd: deque[Channel] = deque()
        """Channels to which something can be sent that goes to many, so a few of them in each turn."""
        self._crowding = False
        self._woken: set[Channel] = set()
        """Channels whose inbox has grown elsewhere while they were about to learn how far it reaches."""

    def begin(self, channel: Channel) -> None:
        """The channel has its delivery."""
        if channel in self._woken:
            self._woken.discard(channel)
            self.look(channel)
        self.now(channel)

    def end(self, channel: Channel) -> None:
        """The channel is gone."""
        self._woken.discard(channel)

    # Sending.

    def now(self, channel: Channel) -> int:
        """Send what can be sent, and fetch what is missing; returns how many packets that were."""
        return self._pump(channel, self._ledger.clock.steady())

    def _pump(self, channel: Channel, now: int) -> int:
        delivery = channel.delivery
        if delivery is None or channel.greeting:
            return 0
        before = delivery.cursor
        count = offer(channel, now, self._claim if channel.device else self._claims.still_there)
        if count:
            self._items[0] += count
        if delivery.cursor != before and not delivery.moved:
            self._cursors.moved(delivery)
        if delivery.next <= delivery.head and (wanted := delivery.want()) is not None:
            self._fetch(channel, delivery, wanted)
        return count

    def soon(self, channel: Channel) -> None:
        """What can be sent is sent in this turn of the loop."""
        channel.ready = True
        self._ready.append(channel)
        if len(self._ready) == 1:
            # Once for all items of the turn, and before the transport writes.
            asyncio.get_running_loop().call_soon(self.all_ready)

    def all_ready(self) -> None:
        """What was noted for this turn of the loop is sent; where that takes long, the rest in the next turns."""
        ready, self._ready = self._ready, []
        for channel in ready:
            channel.ready = False
        now = self._ledger.clock.steady()
        left, waiting = READY, deque(ready)
        try:
            while waiting and left > 0:
                left -= 1 + self._pump(waiting.popleft(), now)
        finally:  # also where a mistake has met one of them: nobody else serves those behind it
            for channel in waiting:
                if not channel.ready:
                    self.in_turn(channel)
        self._lightening.look()

    def in_turn(self, channel: Channel) -> None:
        """The same when those who were noted before have had theirs, a few in each turn of the loop."""
        channel.ready = True
        self._crowd.append(channel)
        self._outflow.add(1)
        if not self._crowding:
            self._crowding = True
            self._line.start(self._pump_crowd())

    def _pump_crowd(self) -> Iterator[int]:
        while self._crowd:
            channel = self._crowd.popleft()
            channel.ready = False
            self._outflow.done(1)
            yield surely(self._now_in_turn, channel)
        self._crowding = False
        self._lightening.look()

    def _now_in_turn(self, channel: Channel) -> int:
        return 2 + self.now(channel) * (2 + packets(channel.packet_bytes))

    # Fetching.

    def _fetch(self, channel: Channel, delivery: Delivery, wanted: tuple[int, int]) -> None:
        size = self._lightening.fetch_bytes
        job = FetchJob(channel.user, *wanted, size, lambda job: self._fetched(channel, delivery, job))
        self._ledger.submit(job)

    def _fetched(self, channel: Channel, delivery: Delivery, job: FetchJob) -> None:
        if channel.link.closed or channel.delivery is not delivery:
            return
        if job.refusal is not None:
            delivery.waiting = False
            channel.link.close("unavailable")
            return
        delivery.fetched(job.entries, job.head)
        if channel in self._woken:
            self._woken.discard(channel)
            self._fetch(channel, delivery, delivery.look_again())
        self.now(channel)
        self._lightening.look()

    def look(self, channel: Channel) -> None:
        """The channel's inbox may have grown, or what is in it changed, by what another node has committed."""
        delivery = channel.delivery
        if delivery is None or delivery.waiting:
            self._woken.add(channel)
        else:
            self._fetch(channel, delivery, delivery.look_again())

    def look_again(self) -> None:
        """The store was in trouble, and what it has committed may not have been told: every delivery looks at its inbox."""
        for channels in (*self._audience.online.values(), *self._audience.watching.values()):
            for channel in channels:
                if channel.delivery is not None and not channel.delivery.waiting:
                    self._fetch(channel, channel.delivery, channel.delivery.look_again())
