"""What one device was offered and has not acknowledged; the cursor, which moves as far as acknowledgements are contiguous.

What is offered next, and why, is `delivery`'s.
"""

from __future__ import annotations

from collections.abc import Container

from .entries import Entry
from .flights import FLIGHT_BYTES, DeliveryMemory, Flight, Message, take_back, weight_of

BATCH_FIRST = 2048
"""Bytes of the first batch of a connection, at most: a thin line shows something soon. Each PUBACK doubles that …"""
BATCH_MOST = 16 * 1024
"""… up to so many. One item may be larger."""

_NOTHING: list[tuple[int, Entry]] = []


class Offered:
    """Of one connected device; `cursor` and `next` are positions of its user's inbox."""

    __slots__ = (
        "_again",
        "_memory",
        "_batch",
        "_batch_bytes",
        "_delivered",
        "_dup_upto",
        "_former",
        "_newest",
        "_oldest",
        "app",
        "cursor",
        "flights",
        "next",
        "offered",
        "qos",
        "user",
    )

    def __init__(self, user: str, cursor: int, qos: int, app: bool, memory: DeliveryMemory) -> None:
        self._memory = memory
        self.user = user
        self.cursor = cursor
        self.next = cursor + 1
        """The next position to offer."""
        self.qos = qos
        self.app = app
        self._batch = self._batch_bytes = 0
        self.offered: list[tuple[int, Entry]] = []
        """The items of the packet that was taken last, until all that was taken is acknowledged."""
        self.flights: dict[int, Flight] = {}
        self._oldest: Flight | None = None
        self._newest: Flight | None = None
        self._delivered: dict[str, int] | None = None
        self._dup_upto = 0
        self._former: set[int] | None = None
        """Packets that were offered before the device said where it stands and had no PUBACK then, which may come yet."""
        self._again: dict[int, Flight] = {}
        """Packets of a former connection that are to be sent again, by their first position."""

    @property
    def batch(self) -> int:
        """The most bytes of a batch that the device has asked for; 0: items come alone."""
        return self._batch

    @batch.setter
    def batch(self, most: int) -> None:
        self._batch = min(most, BATCH_MOST)
        self._batch_bytes = min(self._batch, BATCH_FIRST)

    @property
    def unacknowledged(self) -> int:
        """Items that were offered and are not acknowledged."""
        return self.next - 1 - self.cursor

    def in_flight(self) -> dict[int, Flight]:
        """What was offered and is not acknowledged, for the session to be resumed; by packet identifier, in order."""
        return {**self.flights, **{flight.packet_id: flight for flight in self._again.values()}}

    def _flights(self) -> list[Flight]:
        """The same, in no order."""
        return [*self.flights.values(), *self._again.values()]

    def taken_back(self, gone: Container[Message]) -> int:
        """These messages were recalled: nothing of their content is in memory. Returns about how many items were looked at."""
        return 1 + sum([take_back(entries, gone) for entries in (*[flight.entries for flight in self._flights()], self.offered)])

    def _weight(self) -> int:
        """About how many bytes are in memory for what has no acknowledgement."""
        flights = self._flights()
        size = FLIGHT_BYTES * len(flights) + sum([flight.weight for flight in flights])
        return size if self.qos else size + weight_of(self.offered)

    def _lighten(self, made: dict[int, tuple[Entry, Entry]]) -> None:
        """Of what was offered is in memory what its acknowledgement needs."""
        self.offered = _NOTHING
        for flight in self._flights():
            flight.lighten(made)

    # Flights come and go.

    def _fly(self, flight: Flight) -> None:
        self.flights[flight.packet_id] = flight
        # The oldest is asked for at each acknowledgement, and a dictionary that loses its first keys finds the next one slowly.
        if self._newest is None:
            self._oldest = flight
        else:
            self._newest.following = flight
        self._newest = flight

    def _take_down(self, packet_id: int) -> bool:
        """The newest packet is not in flight any more; whether it was."""
        flight = self.flights.pop(packet_id, None)
        if flight is None:
            return False
        before = self._oldest
        if before is flight:
            self._oldest = self._newest = None
            return True
        while before is not None and before.following is not flight:
            before = before.following
        if before is not None:
            before.following = None
        self._newest = before
        return True

    def _take_down_all(self) -> None:
        """Nothing is in flight or sent again any more: the device has said where it stands. PUBACKs of it may come yet."""
        if self.flights:
            former = self._former or set()
            self._former = former.union(packet_id for packet_id, flight in self.flights.items() if not flight.acked)
        sent = max([self.next - 1, *(flight.last for flight in self._again.values())])
        self._dup_upto = max(self._dup_upto, sent)
        self.flights.clear()
        self._oldest = self._newest = None
        self._again.clear()

    # PUBACKs.

    def acked(self, packet_id: int, *, twice: bool = False) -> bool:
        """A PUBACK came; True where the cursor has moved.

        `twice`: what the device had in hand when it said where it stands has two, of which the first counts for nothing.
        """
        flights = self.flights
        flight = flights.get(packet_id)
        if self._former and packet_id in self._former:
            self._former.discard(packet_id)
            if twice:
                if flight is not None:
                    flight.doubtful = True
                return False
        if flight is None or flight.acked:
            return False
        flight.acked = True
        if self._former is not None:
            self._settle_doubts(flight)
        if self._batch_bytes < self._batch:
            self._batch_bytes = min(2 * self._batch_bytes, self._batch)
        before = self.cursor
        self._settle()
        return self.cursor != before

    def _settle(self) -> None:
        """What is acknowledged is over, as far as that is contiguous."""
        oldest = self._oldest
        while oldest is not None and oldest.acked:
            self.flights.pop(oldest.packet_id, None)
            if oldest.last > self.cursor and not self.app:
                self.cursor = oldest.last
                self._deliver(oldest.entries)
            oldest = oldest.following
        self._oldest = oldest
        if oldest is None:
            self._newest = None
            self.offered = _NOTHING  # it would stay as long as the connection

    def _settle_doubts(self, acked: Flight) -> None:
        """PUBACKs come in order (MQTT-4.6.0-2): a device that acknowledged twice would have done so with earlier ones by now."""
        earlier = self._oldest
        while earlier is not None and earlier is not acked:
            earlier.acked = earlier.acked or earlier.doubtful
            earlier = earlier.following

    def caught_up(self) -> None:
        """Every PUBACK that the device has sent before it said where it stands has come."""
        if self._former:
            self._former.clear()

    def _deliver(self, entries: list[tuple[int, Entry]]) -> None:
        for _, entry in entries:
            if entry.by != self.user and entry.seq:
                delivered = self._delivered
                if delivered is None:
                    delivered = self._delivered = {}
                if entry.seq > delivered.get(entry.conv, 0):
                    delivered[entry.conv] = entry.seq

    def delivered(self) -> list[str | int]:
        """`[conv, seq, …]` of the messages that the cursor has delivered since this was last asked."""
        found: list[str | int] = []
        if self._delivered:
            for conv, seq in self._delivered.items():
                found += (conv, seq)
            self._delivered = None
        return found

    # Of a former connection.

    def resume_blind(self, upto: int) -> None:
        """A session is resumed of which only the cursor is known: items up to `upto` may have been sent before."""
        self._dup_upto = upto

    @property
    def sent_before(self) -> int:
        """Items up to this one may have been sent before, also those that were not offered again yet; 0 where none were."""
        return self._dup_upto if self._dup_upto >= self.next else 0
