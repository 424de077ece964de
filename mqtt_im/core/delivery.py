"""Delivery: one device's stream of items. Everything that affects it lives in this file and in `offered`; it does no I/O.

A delivery is a cursor on the inbox's log. It offers items in `pos` order, keeps at most `window` packets unacknowledged, and
moves the cursor as far as acknowledgements are contiguous. What it does not have it asks for (`want`); a live item is taken
straight from memory only where it is the next one, so live is never ahead of backlog (INV-10, INV-11).

    position      1 ……… cursor | in flight … | next …… buffered …… | … head
    known as      acknowledged   offered       in memory             in the store
"""

from __future__ import annotations

from collections.abc import Callable, Container

from .entries import Entry, void, void_entry
from .flights import LARGE, DeliveryMemory, Flight, LargeFlight, Message, take_back, weight_of
from .offered import Offered

ITEM_IDS = 32_767
"""Packet identifiers of items are `(pos - 1) % ITEM_IDS + 1`, so a restarted server uses the same ones again."""
APP_AHEAD = 1000
"""With `ack: "app"`, so many items may be offered beyond the cursor."""
MAX_BUFFERED = 256
MAX_BUFFERED_BYTES = 256 * 1024
BATCH_ITEMS = 200
_BATCH_FRAME = 64
"""Bytes of a batch around its items, at most."""

Claim = Callable[[str, int], bool]
"""Says whether an item that a later one may replace is still there to be offered, and from then on it is."""


def item_packet_id(pos: int) -> int:
    """The packet identifier of the packet whose last item is `pos`."""
    return (pos - 1) % ITEM_IDS + 1


Packet = tuple[int, bytes, bool]
"""One packet to send: its identifier, 0 at QoS 0; its payload, JSON text; whether it is a repeat (DUP)."""


class Delivery(Offered):
    """The stream of one connected device. `cursor` and `head` are positions of its user's inbox."""

    __slots__ = ("_buffer", "_buffered", "device", "head", "limit", "moved", "waiting", "window")

    def __init__(
        self,
        user: str,
        device: str,
        cursor: int,
        head: int,
        *,
        qos: int,
        window: int,
        app: bool,
        memory: DeliveryMemory | None = None,
    ) -> None:
        """`memory` counts the large packets in flight of all deliveries that share it."""
        super().__init__(user, cursor, qos, app, memory or DeliveryMemory())
        self.device = device
        self.head = head
        self.window = window
        self.limit = 0
        """The most bytes of a batch, as JSON, where the device takes only so much; 0: as many as it likes."""
        self.waiting = False
        """Items were asked for and have not come yet."""
        self.moved = False
        """Whether the cursor waits to be written; for whoever writes it."""
        self._buffer: list[tuple[int, Entry]] = []
        """Short; and an empty `deque` would be a tenth of what an idle connection takes."""
        self._buffered = 0

    # What comes in.

    def live(self, pos: int, entry: Entry | None) -> None:
        """The inbox has a new item. It is kept where it continues what is in memory, else (or without it) fetched in its turn."""
        self.head = max(self.head, pos)
        if entry is None:
            return
        buffer = self._buffer
        if buffer:
            if buffer[-1][0] + 1 != pos or len(buffer) >= MAX_BUFFERED or self._buffered >= MAX_BUFFERED_BYTES:
                return
        elif self.next != pos:
            return
        if entry.size > LARGE and self._memory.full:
            return
        buffer.append((pos, entry))
        self._buffered += entry.size
        self._memory.came += entry.size

    def fetched(self, entries: list[tuple[int, Entry]], head: int) -> None:
        """The items that were asked for by `want` have come."""
        self.waiting = False
        self.head = max(self.head, head)
        before = self._buffered
        expected = self._buffer[-1][0] + 1 if self._buffer else self.next
        for pos, entry in entries:
            if pos == expected or 0 < entry.first <= expected < pos:
                self._buffer.append((pos, entry))
                self._buffered += entry.size
                expected = pos + 1
        self._memory.came += self._buffered - before

    def want(self) -> tuple[int, int] | None:
        """`(after, limit)` of the items to fetch now; None where none are missing, or enough are in memory."""
        if self.waiting or self.next > self.head:
            return None
        buffer = self._buffer
        after = buffer[-1][0] if buffer else self.next - 1
        if not buffer:
            wanted = self._room() and not self._crowded
        elif after >= self.head or len(buffer) >= MAX_BUFFERED:
            wanted = False
        elif self._crowded:
            wanted = self._incomplete()
        else:
            # Asked for early, so that the next items are there when these have left.
            few = len(buffer) <= MAX_BUFFERED // 2 and self._buffered <= MAX_BUFFERED_BYTES // 2
            wanted = few or self._incomplete()
        if not wanted:
            return None
        self.waiting = True
        return after, MAX_BUFFERED - len(buffer)

    def look_again(self) -> tuple[int, int]:
        """Like `want`, also where nothing is known to be missing."""
        self.amended()
        self.waiting = True
        return self.next - 1, MAX_BUFFERED

    def amended(self) -> None:
        """A message changed: what is in memory and not offered yet is fetched again, as it is now."""
        self._buffer.clear()
        self._buffered = 0

    def holds(self, conv: str, seq: int = 0) -> bool:
        """Whether a message of a conversation, or something about it, waits in memory to be offered; 0: whichever."""
        return bool(self._buffer) and any(entry.conv == conv and seq in (0, entry.about) for _, entry in self._buffer)

    def shows(self, conv: str, seq: int) -> bool:
        """Whether the message itself, as it was, waits in memory to be offered."""
        return bool(self._buffer) and any(entry.seq == seq and entry.conv == conv for _, entry in self._buffer)

    def taken_back(self, gone: Container[Message]) -> int:
        """These messages were recalled: nothing of their content is in memory. Returns about how many items were looked at."""
        return super().taken_back(gone) + take_back(self._buffer, gone)

    # What is in memory.

    @property
    def idle(self) -> bool:
        """Whether nothing is in memory for it."""
        return not (self.flights or self._buffer or self.offered or self._again)

    def weight(self, writable: bool) -> int:
        """About how many bytes are in memory for what has no acknowledgement, and behind it, where that can't leave now."""
        size = self._weight()
        return size if self._leaves(writable) else size + weight_of(self._buffer)

    def _leaves(self, writable: bool) -> bool:
        """Whether what is in memory and was not offered is about to be."""
        return writable and self._room() and not self._again and not (self._crowded and self._buffered > LARGE)

    def lighten(self, writable: bool, made: dict[int, tuple[Entry, Entry]]) -> None:
        """Of what was offered is in memory what its acknowledgement needs; and nothing behind it, where that can't leave now.

        `made` are the light entries of all who are lightened together.
        """
        if not self._leaves(writable):
            self.amended()
        self._lighten(made)

    def confirmed(self, pos: int) -> None:
        """The device itself has said that it has everything up to `pos` (`ack`)."""
        self.cursor = max(self.cursor, pos)
        for first in [first for first in self._again if first <= pos]:
            del self._again[first]
        if self.next <= self.cursor:
            self._jump(self.cursor + 1)

    def restart(self, cursor: int, head: int) -> None:
        """The device has said where it stands (`hello` with `after`): delivery goes on behind it."""
        self._take_down_all()
        self.cursor = cursor
        self.head = max(self.head, head)
        self._jump(cursor + 1)

    def _jump(self, position: int) -> None:
        self.next = position
        self.amended()

    # What goes out.

    def _room(self) -> bool:
        if self.qos:
            # Not from the cursor: what a device confirms may still be without PUBACK, and its packet identifier in use.
            oldest = self._oldest
            if len(self.flights) >= self.window or (oldest is not None and self.next - oldest.first >= ITEM_IDS - BATCH_ITEMS):
                return False
        return not self.app or self.next <= self.cursor + APP_AHEAD

    @property
    def _crowded(self) -> bool:
        """Whether large packets in flight are too much of all deliveries, and one of this one has to be acknowledged first."""
        return self._memory.full and bool(self.flights)

    def take(self, now: int, claim: Claim) -> Packet | None:
        """The next packet to send, which counts as offered from now on; None where there is none, or no room."""
        buffer = self._buffer
        if not buffer:
            return None
        item = buffer[0]
        pos, entry = item
        flights, oldest = self.flights, self._oldest
        if (
            pos != self.next
            or self._batch
            or self._again
            or self.app
            or not self.qos
            or len(flights) >= self.window
            or (oldest is not None and pos - oldest.first >= ITEM_IDS - BATCH_ITEMS)
            or entry.keyed
            or entry.first
            or entry.expires
            or entry.void
            or entry.size > LARGE
        ):
            return self._choose(now, claim)
        # The usual one, as `_choose` and `_offer` would have it.
        del buffer[0]
        self._buffered -= entry.size
        self.next = pos + 1
        self.offered = taken = [item]
        packet_id = (pos - 1) % ITEM_IDS + 1
        flights[packet_id] = flight = Flight(packet_id, pos, pos, taken)
        if self._newest is None:
            self._oldest = flight
        else:
            self._newest.following = flight
        self._newest = flight
        return packet_id, entry.item(pos, self.user, self.device, now), pos <= self._dup_upto

    def _choose(self, now: int, claim: Claim) -> Packet | None:
        """See `take`; with all that may be in the way."""
        buffer = self._buffer
        while True:
            if not buffer or not self._room():
                return None
            pos, entry = buffer[0]
            if entry.first:
                self._cut()
                pos, entry = buffer[0]
            if (entry.first or pos) != self.next:
                self.amended()
                return None
            if not self._again or self.next not in self._again:
                break
            if self.app and self._again[self.next].acked:  # a PUBACK does not say that the device has it
                del self._again[self.next]
                break
            if self._incomplete():
                return None
            repeated = self._repeat(self._again.pop(self.next), now)
            if repeated is not None:
                return repeated
        if entry.first and self._oldest is not None and pos - self._oldest.last >= ITEM_IDS:
            return None  # its packet identifier may be in use yet
        if entry.size > LARGE and self._crowded:
            return None
        if self.batch and len(buffer) > 1:
            taken, payload = self._gather(now, claim)
            if not taken:
                return None
        else:
            if entry.keyed and not claim(self.user, pos):
                self.amended()
                return None
            buffer.pop(0)
            self._buffered -= entry.size
            taken = [(pos, entry.offered(self.user, now))]
            payload = entry.item(pos, self.user, self.device, now)
        return self._offer(entry.first or pos, taken[-1][0], taken, payload)

    def _offer(self, first: int, last: int, taken: list[tuple[int, Entry]], payload: bytes) -> Packet:
        self.next = last + 1
        self.offered = taken
        if self.qos:
            packet_id = item_packet_id(last)
            size = len(payload)
            if size > LARGE:
                self._fly(LargeFlight(packet_id, first, last, taken, size, self._memory))
            else:
                self._fly(Flight(packet_id, first, last, taken))
            return packet_id, payload, taken[0][0] <= self._dup_upto
        if not self.app:
            self.cursor = last
            self._deliver(taken)
        return 0, payload, False

    def too_large(self, packet_id: int) -> bytes:
        """What was taken last, one item, is more than the device takes: the `void` that stands for it, for this device alone."""
        pos, entry = self.offered[0]
        nothing = void_entry("too_large", entry.first)
        flight = self.flights.get(packet_id)
        if flight is not None:
            flight.lighten({})  # the item was not sent, and is neither counted nor kept for it
            flight.entries = [(pos, nothing)]
        return void(entry.first or pos, pos, "too_large")

    def put_back(self, packet_id: int) -> None:
        """What was taken last, several items, is more than the device takes at once: offered anew, in smaller packets."""
        first, last = self.offered[0][1].first or self.offered[0][0], self.offered[-1][0]
        self._buffer[:0] = self.offered
        self._buffered += sum(entry.size for _, entry in self.offered)
        self.next = first
        self._dup_upto = max(self._dup_upto, last if packet_id in self.flights and self._dup_upto >= first else 0)
        if not self._take_down(packet_id) and not self.app:
            self.cursor = first - 1

    def _cut(self) -> None:
        """The `void` in front begins at `next`, and ends where a packet that is to be sent again begins, or ends."""
        pos, entry = self._buffer[0]
        if not entry.first <= self.next <= pos:
            return
        if self.next in self._again:
            end = self._again[self.next].last
        else:
            end = min((first for first in self._again if first > self.next), default=pos + 1) - 1
        self._buffer[0] = min(pos, end), void_entry(entry.void, self.next)
        if end < pos:
            rest = void_entry(entry.void, end + 1)
            self._buffer.insert(1, (pos, rest))
            self._buffered += rest.size

    def _gather(self, now: int, claim: Claim) -> tuple[list[tuple[int, Entry]], bytes]:
        taken: list[tuple[int, Entry]] = []
        items: list[bytes] = []
        size = 0
        limit = min(BATCH_ITEMS, self.cursor + APP_AHEAD - self.next + 1) if self.app else BATCH_ITEMS
        oldest = self._oldest
        end = min(((self.next if oldest is None else oldest.first) - 1 + ITEM_IDS, *self._again))
        most = min(self._batch_bytes, self.limit) if self.limit else self._batch_bytes
        if self._crowded:
            most = min(most, LARGE)
        while self._buffer and len(taken) < limit:
            pos, entry = self._buffer[0]
            if taken and pos >= end:
                break
            item = entry.item(pos, self.user, self.device, now)
            if taken and size + len(item) + len(taken) + _BATCH_FRAME > most:
                break
            if entry.keyed and not claim(self.user, pos):
                self.amended()
                break
            self._buffer.pop(0)
            self._buffered -= entry.size
            size += len(item)
            taken.append((pos, entry.offered(self.user, now)))
            items.append(item)
        return taken, _joined(taken, items) if taken else b""

    # Resuming a kept session (MQTT-4.4.0-1).

    def resume(self, flights: dict[int, Flight]) -> None:
        """What was in flight when the connection broke is offered again in its turn, with DUP and its packet identifiers.

        It is fetched with everything else behind the cursor, since what was recalled or has expired meanwhile is sent as it
        is now; the rest is sent as it was.
        """
        self._again = {
            flight.first: flight for flight in flights.values() if self.cursor < flight.first and flight.last <= self.head
        }

    def _incomplete(self) -> bool:
        """Whether the next packet is one that is to be sent again, and not all of it is in memory as it is now."""
        again = self._again.get(self.next)
        return again is not None and self._buffer[-1][0] < again.last

    def _repeat(self, flight: Flight, now: int) -> Packet | None:
        """Send a former packet again; None where it was acknowledged, and only waits for those before it."""
        now_is: list[tuple[int, Entry]] = []
        while self._buffer and self._buffer[0][0] <= flight.last:
            pos, entry = self._buffer.pop(0)
            self._buffered -= entry.size
            now_is.append((pos, entry))
        flight.renew(now_is + self._buffer[:1])
        self._fly(flight)
        self.next = flight.last + 1
        if flight.acked:
            self._settle()  # those before it may be over by now: then no PUBACK would come that it could wait for
            return None
        self.offered = flight.entries
        items = [entry.item(pos, self.user, self.device, now) for pos, entry in flight.entries]
        return flight.packet_id, _joined(flight.entries, items), True


def _joined(entries: list[tuple[int, Entry]], items: list[bytes]) -> bytes:
    if len(items) == 1:
        return items[0]
    first, last = entries[0][1].first or entries[0][0], entries[-1][0]
    return b'{"op":"batch","from":%d,"pos":%d,"items":[%b]}' % (first, last, b",".join(items))
