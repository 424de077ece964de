"""Parking: what was in flight to a device when its connection ended, until its MQTT session is resumed (MQTT-4.4.0-1).

Bounded: what no longer fits is sent again from the store, and marked as a repeat all the same.
"""

from __future__ import annotations

from collections import OrderedDict

from mqtt_im.core.flights import FLIGHT_BYTES, Flight
from mqtt_im.shares import Bounds

from .channel import Replies, Reply

MAX_PARKED = 20_000
PARKED_BYTES = 16 << 20
"""Half of what large packets in flight may have (`core.flights`), so that those of who is away leave room for who is here."""
MAX_KNOWN = 100_000
"""Devices of which it is known up to where they were sent something: 250 bytes each."""
_REPLY_BYTES = 400
"""Bytes that a reply takes beside its text."""

Key = tuple[str, str]
"""User and device."""


class Parked:
    """The packets in flight, by packet identifier; the replies without PUBACK, and those that waited to be sent."""

    __slots__ = ("flights", "replies", "size", "waited")

    def __init__(self, flights: dict[int, Flight], replies: Replies, waited: list[Reply]) -> None:
        self.flights = flights
        self.replies = replies
        self.waited = waited
        self.size = sum(FLIGHT_BYTES + sum(entry.size for _, entry in flight.entries) for flight in flights.values())
        self.size += sum(_REPLY_BYTES + reply.weight for reply in (*replies.values(), *waited))


class Parking:
    """What is parked, by device; and up to which item each device may have been sent what nobody remembers."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._parked: OrderedDict[Key, Parked] = OrderedDict()
        self._bytes = 0
        self._sent_upto: OrderedDict[Key, int] = OrderedDict()

    def park(self, key: Key, flights: dict[int, Flight], replies: Replies, waited: list[Reply]) -> None:
        """Keep this for the device's next connection, instead of what was kept before."""
        self.take(key)
        if not flights and not replies and not waited:
            return
        self._parked[key] = parked = Parked(flights, replies, waited)
        self._bytes += parked.size
        while len(self._parked) > MAX_PARKED or self._bytes > self._bounds.of(PARKED_BYTES):
            oldest = next(iter(self._parked))
            dropped = self.take(oldest)
            if dropped is not None and dropped.flights:
                self.remember(oldest, max(flight.last for flight in dropped.flights.values()))

    def add_replies(self, key: Key, replies: Replies, waited: list[Reply]) -> None:
        """Keep these too, where the connection ended before it took over what is kept."""
        former = self.take(key)
        if former is None:
            self.park(key, {}, replies, waited)
        else:
            self.park(key, former.flights, {**former.replies, **replies}, [*former.waited, *waited])

    def take(self, key: Key) -> Parked | None:
        """What was kept for the device, which is kept no longer."""
        parked = self._parked.pop(key, None)
        if parked is not None:
            self._bytes -= parked.size
        return parked

    def all(self) -> list[Parked]:
        """All that is kept now."""
        return list(self._parked.values())

    def forget(self, key: Key) -> None:
        """Another server serves the device from now on: nothing is known of it."""
        self.take(key)
        self._sent_upto.pop(key, None)

    def knows(self, key: Key) -> bool:
        """Whether this server has served the device, and so knows what was in flight."""
        return key in self._sent_upto

    def sent_upto(self, key: Key) -> int:
        """The last item that may have been sent to the device and is not parked; 0 for none."""
        return self._sent_upto.get(key, 0)

    def remember(self, key: Key, upto: int) -> None:
        """Items up to `upto` may have been sent to the device (0: none)."""
        self._sent_upto.pop(key, None)
        if len(self._sent_upto) >= self._bounds.of(MAX_KNOWN):
            del self._sent_upto[next(iter(self._sent_upto))]
        self._sent_upto[key] = upto
