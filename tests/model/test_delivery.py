"""A device's stream against a naive client that only counts (INV-10, INV-11, INV-13, INV-16).

The inbox is a list; the ledger answers when it gets round to it; the loop learns in the ledger's order. Whatever the client
does (acknowledge in any order, break off, resume, begin anew, say where it stands), every item is offered in its turn and as
it is, nothing is skipped but what was acknowledged, and the cursor stands behind what is acknowledged without a gap.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mqtt_im.bridge.claims import Claims
from mqtt_im.core import delivery as module
from mqtt_im.core import flights, offered
from mqtt_im.core.delivery import Delivery, item_packet_id
from mqtt_im.core.entries import Entry, void_entry
from mqtt_im.protocol.requests import MAX_BATCH
from tests.support.delivery import Packet, taken

USER, DEVICE = "bob", "tel"
SMALL = {"MAX_BUFFERED": 4, "APP_AHEAD": 7, "BATCH_ITEMS": 3, "ITEM_IDS": 23}


class Item:
    """One item of the inbox, as the ledger has it, and what the loop has heard of it."""

    def __init__(self, pos: int, by: str, seq: int, keyed: bool, expires: int) -> None:
        self.pos = pos
        self.by = by
        self.seq = seq
        self.keyed = keyed
        self.expires = expires
        self.version = 0
        self.recalled = False
        self.replaced = False
        self.gone = False
        self.told_version = 0
        self.told_recalled = False
        self.sent_version = -1
        """The version that the device was shown last; -1 where it was shown none."""

    def entry(self) -> Entry:
        if self.replaced:
            return void_entry("replaced")
        tail = b',"v":%d,"recalled":%b}' % (self.version, b"true" if self.recalled else b"false")
        sent = b',"v":%d,"sent":true}' % self.version if self.seq else None
        entry = Entry(self.by, DEVICE, "ann:bob", self.seq, b'{"op":"msg","pos":', tail, sent)
        entry.keyed, entry.expires, entry.recalled = self.keyed, self.expires, self.recalled
        return entry


class Sent:
    """A packet of this connection, in the order of offering."""

    def __init__(self, first: int, last: int, marks: list[int], acked: bool = False) -> None:
        self.first = first
        self.last = last
        self.marks = marks
        self.acked = acked
        self.doubtful = False


class DeliveryMachine(RuleBasedStateMachine):
    """The rules are what can happen; `_receive` is the client that checks."""

    def __init__(self) -> None:
        super().__init__()
        self.undo = ExitStack()
        for name, value in SMALL.items():
            self.undo.enter_context(patch.object(module, name, value))
        self.undo.enter_context(patch.multiple(offered, BATCH_FIRST=150, BATCH_MOST=300))
        self.undo.enter_context(patch.object(flights, "HEAVY", 1))
        self.items: list[Item] = []
        self.asked: list[tuple[int, int]] = []
        self.events: list[Callable[[], None]] = []
        self.claims = Claims()
        self.now = 1
        self.floor_of_claims = 0
        self.cursor = 0
        self.expected = 1
        self.sent: list[Sent] = []
        self.ever_sent: set[int] = set()
        self.blind_upto = 0
        self.waived: dict[int, Sent] = {}
        """Acknowledged on a former connection of the session, but not without a gap: they need not come again."""
        self.former: set[int] = set()
        """Packets that the device had in hand when it said where it stands: their PUBACKs are on their way."""
        self.twice = False
        self.delivered = 0
        self.told_delivered = 0

    @initialize(
        qos=st.sampled_from([1, 1, 1, 0]),
        window=st.integers(1, 6),
        app=st.booleans(),
        batch=st.booleans(),
        head=st.integers(0, 9),
        twice=st.booleans(),
    )
    def start(self, qos: int, window: int, app: bool, batch: bool, head: int, twice: bool) -> None:
        self.qos, self.window, self.app, self.batch, self.twice = qos, window, app, batch, twice
        for _ in range(head):
            self._new()
        self._connect()

    def _connect(self, cursor: int = 0) -> None:
        self.delivery = Delivery(USER, DEVICE, cursor, len(self.items), qos=self.qos, window=self.window, app=self.app)
        self.delivery.batch = MAX_BATCH * self.batch
        self.asked.clear()
        self.sent.clear()
        self.former.clear()
        self.cursor = cursor
        self.expected = cursor + 1

    # The ledger.

    def _new(self, by: str = "ann", message: bool = True, keyed: bool = False, expires: int = 0) -> Item:
        item = Item(len(self.items) + 1, by, len(self.items) + 1 if message else 0, keyed, expires)
        self.items.append(item)
        return item

    def _tell(self, item: Item, entry: Entry | None, change: Callable[[], None] | None = None) -> None:
        """The loop is to hear of a new item, and of what it says about another one."""

        def event() -> None:
            if change is not None:
                change()
                self.delivery.amended()
            self.delivery.live(item.pos, entry)

        self.events.append(event)

    @rule(
        by=st.sampled_from(["ann", "ann", USER]),
        keyed=st.booleans(),
        ttl=st.sampled_from([0, 0, 3]),
        known=st.sampled_from([True, True, True, False]),
    )
    def commit_message(self, by: str, keyed: bool, ttl: int, known: bool) -> None:
        item = self._new(by, True, keyed and by != USER, self.now + ttl if ttl else 0)
        self._tell(item, item.entry() if known else None)

    @rule(distance=st.integers(0, 8), recall=st.booleans())
    def commit_amendment(self, distance: int, recall: bool) -> None:
        if distance >= len(self.items):
            return
        target = self.items[-1 - distance]
        if target.gone or not target.seq:
            return
        target.version += 1
        target.recalled = target.recalled or recall
        version, recalled = target.version, target.recalled

        def heard() -> None:
            target.told_version, target.told_recalled = version, recalled

        item = self._new(message=False)
        self._tell(item, item.entry(), heard)

    @rule(distance=st.integers(0, 8))
    def commit_replacement(self, distance: int) -> None:
        if distance >= len(self.items):
            return
        target = self.items[-1 - distance]
        free = target.keyed and not target.replaced and target.pos > max(self.cursor, self.floor_of_claims)
        if free and self.claims.take_back(USER, target.pos):
            target.replaced = True
        item = self._new(keyed=True)
        self._tell(item, item.entry())

    @rule(late=st.integers(0, 2), size=st.integers(1, 400))
    def answer_fetch(self, late: int, size: int) -> None:
        """The fetch is answered at the end of its batch, in which more was committed that the loop hears of after it."""
        if not self.asked:
            return
        after, limit = self.asked.pop(0)
        new = [self._new() for _ in range(late)]
        found, head, delivery = self._page(after, limit, size), len(self.items), self.delivery
        self.events.append(lambda: delivery.fetched(found, head))
        for item in new:
            self._tell(item, item.entry())

    def _page(self, after: int, limit: int, size: int) -> list[tuple[int, Entry]]:
        found: list[tuple[int, Entry]] = []
        expected = after + 1
        for item in self.items[after:]:
            if item.gone:
                continue
            if item.pos > expected:
                found.append((item.pos - 1, void_entry("retention", expected)))
            found.append((item.pos, item.entry()))
            expected = item.pos + 1
            size -= found[-1][1].size
            if size < 0:
                break
        else:
            if expected <= len(self.items):
                found.append((len(self.items), void_entry("retention", expected)))
        return found[:limit]

    @rule()
    def fetch_fails(self) -> None:
        """The connection is closed then, and the device comes again."""
        if self.asked:
            self.reconnect(True, 0)

    # The loop.

    @rule(count=st.integers(1, 4), pumped=st.sampled_from([True, True, False]))
    def hear(self, count: int, pumped: bool) -> None:
        for _ in range(count):
            if self.events:
                self.events.pop(0)()
        if pumped:
            self.pump(8)

    @rule(room=st.integers(1, 8))
    def pump(self, room: int) -> None:
        """The socket takes some packets, and what is missing is asked for."""
        for _ in range(room):
            outstanding = len(self.delivery.flights)
            packet = taken(self.delivery, self.now, self.claims.offer)
            if packet is None:
                break
            if self.qos:
                assert outstanding < self.window
            self._receive(packet)
        wanted = self.delivery.want()
        if wanted is not None:
            assert not self.asked
            self.asked.append(wanted)

    @rule(passed=st.integers(1, 3))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    # The client.

    def _receive(self, packet: Packet) -> None:
        shown = json.loads(packet.payload)
        first, last = shown.get("from", shown["pos"]), shown["pos"]
        self._skip_waived(first)
        assert first == self.expected, f"{first} came where {self.expected} was next"
        if shown["op"] == "batch":
            assert self.batch or packet.dup
            marks, following = [], first
            for part in shown["items"]:
                assert part.get("from", part["pos"]) == following
                marks += self._check(part, packet.dup)
                following = part["pos"] + 1
            assert following == last + 1
        else:
            marks = self._check(shown, packet.dup)
        self.expected = last + 1
        if self.app:
            assert first <= self.cursor + SMALL["APP_AHEAD"]
        self._numbered(packet, shown["items"][0]["pos"] if shown["op"] == "batch" else last, last)
        if self.qos:
            self.sent.append(Sent(first, last, marks))
        elif not self.app:
            self.cursor = last
            self.delivered = max([self.delivered, *marks])
        self.ever_sent.update(range(first, last + 1))

    def _skip_waived(self, first: int) -> None:
        while self.expected < first and self.expected in self.waived:
            waived = self.waived.pop(self.expected)
            waived.acked = True
            self.sent.append(waived)
            self.expected = waived.last + 1

    def _numbered(self, packet: Packet, first: int, last: int) -> None:
        """`first` is the position of the first item, which is the last one that it stands for, if that is a `void`."""
        if not self.qos:
            assert packet.packet_id == 0 and not packet.dup
            return
        assert packet.packet_id == item_packet_id(last)
        assert packet.packet_id not in [item_packet_id(sent.last) for sent in self.sent], "the identifier is in use"
        if first > self.blind_upto:
            assert packet.dup == (first in self.ever_sent), f"{first}: DUP is {packet.dup}"

    def _check(self, shown: dict[str, Any], dup: bool) -> list[int]:
        """An item is shown as it is; returns its `seq` where it is somebody else's message."""
        item = self.items[shown["pos"] - 1]
        if shown["op"] == "void":
            covered = self.items[shown["from"] - 1 : shown["pos"]]
            match shown["why"]:
                case "retention":
                    assert all(other.gone for other in covered)
                case "replaced":
                    assert covered == [item] and item.replaced
                case "expired":
                    assert covered == [item] and item.by != USER and 0 < item.expires <= self.now
            return []
        assert not (item.by != USER and 0 < item.expires <= self.now), "executed late"
        assert item.told_version <= shown["v"] <= item.version or (dup and shown["v"] == item.sent_version)
        assert shown.get("sent", False) == (item.by == USER and item.seq > 0)
        if "recalled" in shown:
            assert shown["recalled"] or not item.told_recalled
        item.sent_version = shown["v"]
        return [item.seq] if item.seq and item.by != USER else []

    @rule(index=st.integers(0, 5))
    def acknowledge(self, index: int) -> None:
        """A PUBACK, in whatever order."""
        waiting = [sent for sent in self.sent if not sent.acked]
        if index < len(waiting):
            self._acknowledge(waiting[index])

    def _acknowledge(self, sent: Sent) -> None:
        packet_id = item_packet_id(sent.last)
        before = self.cursor
        former = packet_id in self.former
        self.former.discard(packet_id)
        if former and self.twice:
            sent.doubtful = True
        else:
            for earlier in self.sent[: self.sent.index(sent)]:
                earlier.acked = earlier.acked or earlier.doubtful
            sent.acked = True
            self._settle()
        assert self.delivery.acked(packet_id, twice=self.twice) == (self.cursor != before)

    def _settle(self) -> None:
        while self.sent and self.sent[0].acked:
            done = self.sent.pop(0)
            if not self.app and done.last > self.cursor:
                self.cursor = done.last
                self.delivered = max([self.delivered, *done.marks])

    @rule(packet_id=st.integers(0, 40))
    def acknowledge_nothing(self, packet_id: int) -> None:
        if packet_id not in [item_packet_id(sent.last) for sent in self.sent if not sent.acked]:
            assert not self.delivery.acked(packet_id, twice=self.twice)
            self.former.discard(packet_id)

    @rule()
    def read_welcome(self) -> None:
        """What the device acknowledges from now on was offered after it had said where it stands."""
        self.delivery.caught_up()
        self.former.clear()

    @rule(distance=st.integers(-1, 8))
    def confirm(self, distance: int) -> None:
        """`ack`: the device has everything up to a position."""
        pos = self.expected - 1 - distance
        if 0 <= pos <= len(self.items):
            self.delivery.confirmed(pos)
            self.cursor = max(self.cursor, pos)
            for first in [first for first in self.waived if first <= pos]:
                del self.waived[first]
            self.expected = max(self.expected, self.cursor + 1)

    @rule(distance=st.integers(0, 12))
    def say_hello(self, distance: int) -> None:
        """`hello` with `after`. What lies behind the stream was sent before, or the device said that it has it."""
        self.ever_sent.update(range(1, self.expected))
        cursor = max(0, len(self.items) - distance)
        self.delivery.restart(cursor, len(self.items))
        self.former.update(item_packet_id(sent.last) for sent in self.sent if not sent.acked)
        self.cursor = cursor
        self.expected = cursor + 1
        self.sent.clear()
        self.waived.clear()

    @rule(kept=st.booleans(), late=st.integers(0, 2))
    def reconnect(self, kept: bool, late: int) -> None:
        """The connection broke; the session is resumed, or begun anew."""
        parked = self.delivery.in_flight()
        waived = {sent.first: sent for sent in self.sent if sent.acked and not self.app}
        waived |= self.waived
        new = [self._new() for _ in range(late)]
        self.events.clear()
        for item in self.items:
            item.told_version, item.told_recalled = item.version, item.recalled
        dup_upto = self.delivery._dup_upto
        self._connect(self.cursor)
        self.waived = {first: sent for first, sent in waived.items() if kept and self.qos and first > self.cursor}
        if kept:
            self.delivery.resume(parked)
            self.delivery.resume_blind(dup_upto)
            self.blind_upto = max(self.blind_upto, dup_upto)
            offered = [flight for flight in parked.values() if not (self.app and flight.acked)]
            self.ever_sent &= {pos for flight in offered for pos in range(flight.first, flight.last + 1)}
        else:
            self.blind_upto = 0
            self.ever_sent.clear()
        for item in new:
            self._tell(item, item.entry())

    @rule(lost=st.integers(0, 3))
    def server_restarts(self, lost: int) -> None:
        """SIGKILL: what was in flight is forgotten, and the last acknowledgements with it."""
        self.events.clear()
        self.claims = Claims()
        self.floor_of_claims = len(self.items)
        for item in self.items:
            item.told_version, item.told_recalled = item.version, item.recalled
        self._connect(max(0, self.cursor - lost))
        self.waived.clear()
        self.blind_upto = len(self.items)
        self.delivery.resume_blind(self.blind_upto)

    @rule(distance=st.integers(0, 4))
    def retention(self, distance: int) -> None:
        """What the device has acknowledged may go."""
        for item in self.items[: max(0, self.cursor - distance)]:
            item.gone = True

    @rule(window=st.integers(1, 6), batch=st.booleans())
    def choose(self, window: int, batch: bool) -> None:
        self.window = self.delivery.window = window
        self.batch = batch
        self.delivery.batch = MAX_BATCH * self.batch

    @rule(writable=st.booleans())
    def lighten(self, writable: bool) -> None:
        """There is too much in memory."""
        self.delivery.lighten(writable, {})
        assert all(entry.is_light or entry.void for flight in self.delivery.in_flight().values() for _, entry in flight.entries)

    @rule()
    def catch_up(self) -> None:
        """With a client that acknowledges everything, everything comes."""
        for _ in range(10 * len(self.items) + 10):
            while self.events:
                self.events.pop(0)()
            self.pump(1)
            self.answer_fetch(0, 10**6)
            for sent in [sent for sent in self.sent if not sent.acked]:
                self._acknowledge(sent)
            if self.app and self.expected > self.cursor + 1:
                self.confirm(0)
        self._skip_waived(len(self.items) + 1)
        self._settle()
        assert self.expected == len(self.items) + 1
        assert self.delivery.cursor == len(self.items)

    @invariant()
    def cursor_is_what_was_acknowledged_without_a_gap(self) -> None:
        if hasattr(self, "delivery"):
            assert self.delivery.cursor == self.cursor
            assert len(self.delivery._buffer) <= SMALL["MAX_BUFFERED"] + 1

    @invariant()
    def delivered_is_what_the_cursor_has_passed(self) -> None:
        if hasattr(self, "delivery"):
            marks = self.delivery.delivered()
            if marks:
                assert marks[0] == "ann:bob" and isinstance(marks[1], int)
                self.told_delivered = max(self.told_delivered, marks[1])
            assert self.told_delivered == self.delivered

    def teardown(self) -> None:
        try:
            if hasattr(self, "delivery"):
                self.catch_up()
        finally:
            self.undo.close()


TestDelivery = DeliveryMachine.TestCase
if settings.get_current_profile_name() == "default":
    TestDelivery.settings = settings(max_examples=150, stateful_step_count=40)
