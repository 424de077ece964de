"""The bridge: what a transport hands in becomes jobs of the ledger, what the ledger has committed becomes packets.

Everything here runs on the event loop. Uplinks are in `uplink.py`, what is told of commits is in `telling.py`, what deliveries
send is in `pump.py`; how those begin and end is in `attaching.py`, this file has the life of a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from mqtt_im.core.delivery import Delivery
from mqtt_im.core.flights import USUAL_BYTES, DeliveryMemory
from mqtt_im.protocol.errors import Quota, Refusal
from mqtt_im.protocol.topics import Topics
from mqtt_im.shares import Bounds
from mqtt_im.store.jobs.delivering import CursorsJob
from mqtt_im.store.jobs.reads import CallJob
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.threads.turns import SERVER
from mqtt_im.transport.api import FIRST_REPLY_PACKET_ID, Extra, Identity, Link, Login, Transport

from . import erasing
from .attaching import Attaching
from .audience import Audience
from .calls import Calls
from .channel import Channel
from .claims import Claims
from .cursors import AT_ONCE, Cursors
from .lightening import USUAL_FETCH_BYTES, Lightening
from .neighbourhood import Neighbourhood
from .parking import Parking
from .presence import Presence
from .pulling import Pulling
from .pump import Pump
from .searching import Searching
from .settings import BridgeSettings, Counters
from .slices import Slices
from .taking_back import TakingBack
from .telling import Telling
from .uplink import Uplink
from .watching import Start, Watching

log = logging.getLogger(__name__)


class Logins(Protocol):
    """Says who a client is."""

    async def login(self, login: Login) -> Identity:
        """See `transport.api.Handler.login`."""


class Bridge:
    """Implements `transport.api.Handler`."""

    def __init__(
        self,
        ledger: Ledger,
        topics: Topics,
        settings: BridgeSettings,
        logins: Logins,
        claims: Claims,
        metrics: Counters,
        audience: Audience,
    ) -> None:
        """`audience` is what the ledger asks for who is there."""
        self.ledger = ledger
        self.topics = topics
        self.settings = settings
        self.transport: Transport | None = None
        """Set before the transport starts."""
        self.metrics = metrics
        self._acknowledged = metrics.observer("delivery_seconds")
        self.audience = audience
        self.online = self.audience.online
        """The channels of devices that are subscribed, by user."""
        self.watching = Watching(self)
        self.claims = claims
        bounds = Bounds(settings.memory_mb)
        self._parking = Parking(bounds)
        self.delivery_memory = DeliveryMemory(bounds.of(USUAL_BYTES))
        self._channels: dict[Link, Channel] = {}
        self._slices = slices = Slices(give_way=lambda: ledger.writer.holds_up and ledger.queued > 0)
        taking_back = TakingBack(self._channels.values, self._parking, self._forget_reads, slices.line())
        window, fetch = settings.max_inflight, bounds.of(USUAL_FETCH_BYTES)
        lightening = Lightening(self._channels.values, self.delivery_memory, window, fetch, self._pump_later, slices.line())
        self.telling = Telling(self, claims, taking_back, slices)
        self._logins = logins
        self.cursors = Cursors(ledger, self.telling.tell, audience.has)
        self.pump = Pump(ledger, claims, self.cursors, audience, lightening, slices.line(), metrics.cell("items"))
        self.uplinks = Uplink(self)
        self.calls = Calls(self)
        self.searching: Searching | None = None
        """Set before the transport starts; None where search is switched off."""
        self.presence = Presence(self)
        self.pulling = Pulling(self)
        self._attaching = Attaching(self, self._parking)
        self.neighbourhood: Neighbourhood | None = None
        """Set before the transport starts; None where this node is the only one."""
        ledger.writer.on_recovered = self.pump.look_again
        ledger.on_reported = self._reported
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def alone(self) -> bool:
        """Whether no other node may work on the store, so that everything is written out at once."""
        return self.neighbourhood is None

    async def stop(self) -> None:
        """What acknowledgements have moved is handed to the ledger; the transport has drained before."""
        self.presence.stop()
        self.cursors.write()
        for task in list(self._tasks):
            task.cancel()

    # The life of a connection (transport.api.Handler).

    async def login(self, login: Login) -> Identity:
        """See `Handler`."""
        return await self._logins.login(login)

    async def quiesced(self, user: str, device: str) -> None:
        """See `Handler`."""
        await self.uplinks.leaving.quiesced(user, device)

    def moved(self, user: str, device: str) -> None:
        """See `Handler`."""
        self._parking.forget((user, device))

    async def released(self, user: str, device: str) -> None:
        """See `Handler`."""
        await self.uplinks.leaving.quiesced(user, device)
        self.cursors.write_of([(user, device)])
        with contextlib.suppress(Refusal):  # then the store has lost a moved cursor, and items come again
            await self.ledger.call(lambda _: None)
        self._parking.forget((user, device))

    async def lost(self) -> None:
        """Other nodes have all devices, which have left: of what they had handed in nothing is under way any more."""
        self.cursors.forget_all()
        await self.ledger.over()

    def attached(self, link: Link) -> None:
        """See `Handler`."""
        channel = Channel(
            link,
            self.topics.user_down(link.user).encode(),
            self.topics.device_down(link.user, link.device).encode(),
        )
        self._channels[link] = channel
        if channel.listening:
            self._attaching.open(channel)

    async def register(self, link: Link) -> bool:
        """See `Handler`."""
        channel = self._channels.get(link)
        if channel is None or not channel.listening or channel.delivery is not None:
            return True
        channel.began = asyncio.get_running_loop().create_future()
        channel.greeting += 1
        self._attaching.open(channel)
        refusal = await channel.began
        channel.greeting -= 1
        self._pump_later(channel)
        return not isinstance(refusal, Quota)

    def subscribe(self, link: Link, topic_filter: str) -> None:
        """See `Handler`."""
        channel = self._channels.get(link)
        if channel is None or not channel.listening:
            return
        if channel.delivery is not None:
            channel.delivery.qos = channel.item_qos
            self._pump_later(channel)
        else:
            self._attaching.open(channel)

    def unsubscribed(self, link: Link) -> None:
        """See `Handler`."""
        channel = self._channels.get(link)
        if channel is None:
            return
        if channel.listening:
            if channel.delivery is not None:
                channel.delivery.qos = channel.item_qos
            return
        self._attaching.close(channel)
        channel.delivery = None

    def detached(self, link: Link) -> None:
        """See `Handler`."""
        channel = self._channels.pop(link, None)
        if channel is None:
            return
        self._attaching.close(channel)
        self.pump.end(channel)
        if not channel.device:
            self.watching.end(link, channel)
        self.presence.left(link)
        self.uplinks.leaving.left(channel)
        if not link.clean:
            key = (link.user, link.device)
            if channel.delivery is not None:
                if channel.delivery.sent_before:
                    self._parking.remember(key, channel.delivery.sent_before)
                self._parking.park(key, channel.delivery.in_flight(), channel.replies, channel.waited())
            elif channel.unread:
                self._parking.add_replies(key, channel.replies, channel.waited())
        channel.let_go()

    def session_ended(self, user: str, device: str) -> None:
        """See `Handler`."""
        self._parking.take((user, device))
        self._parking.remember((user, device), 0)

    def watch(self, link: Link, other: str, qos: int, tell: bool = True) -> None:
        """See `Handler`."""
        self.presence.watch(link, other, qos, tell)

    def unwatch(self, link: Link, other: str) -> None:
        """See `Handler`."""
        self.presence.unwatch(link, other)

    async def may_watch(self, user: str, other: str) -> bool:
        """See `Handler`."""
        return await self.presence.may_watch(user, other)

    def uplink(self, link: Link, payload: bytes, token: int, packet_id: int, dup: bool, extra: Extra | None = None) -> None:
        """See `Handler`."""
        self.uplinks.take(self._channels[link], payload, token, packet_id, dup, extra)

    def rate_limited(
        self, link: Link, payload: bytes, token: int, retry_after: float, dup: bool, extra: Extra | None = None
    ) -> None:
        """See `Handler`."""
        self.uplinks.rate_limited(self._channels[link], payload, token, retry_after, dup, extra)

    def will(self, user: str, device: str, payload: bytes, expiry: int | None = None) -> None:
        """See `Handler`."""
        self.uplinks.will(user, device, payload, expiry)

    def acked(self, link: Link, packet_ids: Sequence[int]) -> int:
        """See `Handler`."""
        channel = self._channels.get(link)
        if channel is None:
            return 0
        delivery, waited, now = channel.delivery, 0, self.ledger.clock.told()
        moved = False
        for packet_id in packet_ids:
            if packet_id >= FIRST_REPLY_PACKET_ID:
                waited += channel.read(packet_id)
            elif delivery is not None:
                flight = delivery.flights.get(packet_id)
                if flight is not None and not flight.acked:
                    waited += 1
                    pos, entry = flight.entries[-1]
                    if entry.at and pos > channel.missed:
                        self._acknowledged((now - entry.at) / 1000 if now > entry.at else 0.0)
                # Without a flight it may be of what was offered before a `hello`.
                moved = delivery.acked(packet_id, twice=channel.reads) or moved
        if delivery is not None:
            if moved and not delivery.moved:
                self.cursors.moved(delivery)
            if waited and delivery.next <= delivery.head and not channel.ready:
                self.pump.soon(channel)
        return waited

    def confirmed(self, user: str, device: str, pos: int) -> None:
        """A device's cursor was moved for it, to `pos`: its delivery, where it has one, goes on behind that."""
        for channel in self.online.get(user, ()):
            if channel.device == device and channel.delivery is not None:
                channel.delivery.confirmed(pos)
                self.pump.now(channel)

    def writable(self, link: Link) -> None:
        """See `Handler`."""
        channel = self._channels.get(link)
        if channel is not None:
            self.pump.now(channel)

    async def watch_inbox(self, link: Link, after: int | None) -> Start:
        """A link without a device is shown the items behind `after`; `detached` ends it. Raises `Refusal`."""
        channel = self._channels[link] = Channel(link, b"", b"")
        return await self.watching.begin(channel, after)

    def delivery_of(self, link: Link) -> Delivery | None:
        """The delivery of a connection, where it has one."""
        channel = self._channels.get(link)
        return None if channel is None or not channel.device else channel.delivery

    async def hand_on(self, user: str) -> None:
        """Groups that the user owned are others'. Raises `Refusal`."""
        await erasing.hand_on(self, user)

    async def erase(self, user: str) -> None:
        """What the user had is gone. Raises `Refusal`."""
        await erasing.erase(self, user)

    # For its parts, and for others.

    def note_connected(self) -> None:
        """The store is about to learn that whoever is connected has been seen now; retention asks for that."""
        # A cursor never moves back this way, so 0 leaves it where it is.
        moves: list[tuple[str, str, int, list[Any]]] = [
            (channel.user, channel.device, 0, []) for channels in self.online.values() for channel in channels
        ]
        for start in range(0, len(moves), AT_ONCE):
            self.ledger.submit(CursorsJob(moves[start : start + AT_ONCE], self.telling.tell))

    def _forget_reads(self) -> None:
        """Whoever reads the store forgets with its next look what has changed."""
        self.ledger.submit(CallJob(lambda _: None, lambda _: None, SERVER))

    def _pump_later(self, channel: Channel) -> None:
        """In this turn of the loop, and behind what has come in it: as a `hello` that has come with the SUBSCRIBE."""
        if not channel.ready:
            self.pump.soon(channel)

    def _reported(self) -> None:
        """Answers leave at once where many are served: else two more turns of the loop would pass, each of which these fill."""
        if self._slices.busy and self.transport is not None:
            self.pump.all_ready()
            self.transport.flush()

    def forget(self, user: str, device: str, *, told: bool = False) -> None:
        """The device's session and connection are gone, where it has any.

        Other nodes are told, unless one of them has told it (`told`).
        """
        if self.neighbourhood is not None and not told:
            self.neighbourhood.forgotten(user, device)
        self.cursors.forget(user, device)
        self._parking.take((user, device))
        if self.transport is not None:
            self.background(self.transport.forget(user, device))

    def background(self, work: Any) -> None:
        """Run a coroutine; it is cancelled when the bridge stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
