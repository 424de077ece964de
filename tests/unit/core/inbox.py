"""An inbox, and one delivery of it that is served as the bridge serves it."""

from __future__ import annotations

import json
from typing import Any

from mqtt_im.core.delivery import Delivery
from mqtt_im.core.entries import Entry, void_entry
from mqtt_im.core.flights import DeliveryMemory, Flight
from tests.support.delivery import Packet, taken

NOW = 1_000_000


def message(text: str = "x", *, seq: int = 1, by: str = "ann", expires: int = 0, keyed: bool = False) -> Entry:
    entry = Entry(by, "tel", "ann:bob", seq, b'{"op":"msg","pos":', b',"body":"%b"}' % text.encode(), None)
    entry.expires = expires
    entry.keyed = keyed
    return entry


def recalled() -> Entry:
    entry = message("gone")
    entry.recalled = True
    return entry


class Inbox:
    """Items by their `pos`; a new one is told to the delivery, all others it must fetch."""

    def __init__(
        self,
        head: int = 0,
        cursor: int = 0,
        qos: int = 1,
        window: int = 1_000_000,
        app: bool = False,
        memory: DeliveryMemory | None = None,
    ) -> None:
        self.head = head
        self.entries = {pos: message(f"m{pos}", seq=pos) for pos in range(1, head + 1)}
        self.floor = 0
        self.replaced: set[int] = set()
        self.claimed: list[int] = []
        self.now = NOW
        self.fetches = 0
        self.delivery = Delivery("bob", "pc", cursor, head, qos=qos, window=window, app=app, memory=memory)

    def add(self, *entries: Entry, live: bool = True) -> None:
        """New items, of which the delivery is told."""
        for entry in entries or (message(f"m{self.head + 1}", seq=self.head + 1),):
            self.head += 1
            self.entries[self.head] = entry
            self.delivery.live(self.head, entry if live else None)

    def replace(self, pos: int) -> None:
        self.entries[pos] = void_entry("replaced")
        self.replaced.add(pos)

    def claim(self, user: str, pos: int) -> bool:
        assert user == "bob"
        self.claimed.append(pos)
        return pos not in self.replaced

    def page(self, after: int, limit: int) -> list[tuple[int, Entry]]:
        """What the store answers; one `void` stands for everything up to the floor."""
        found = []
        if after < self.floor:
            found.append((self.floor, void_entry("retention", after + 1)))
        first = max(after, self.floor) + 1
        return found + [(pos, self.entries[pos]) for pos in range(first, min(first + limit, self.head + 1))]

    def fetch(self) -> bool:
        wanted = self.delivery.want()
        if wanted is None:
            return False
        self.fetches += 1
        assert self.delivery.want() is None, "nothing is asked for twice"
        self.delivery.fetched(self.page(*wanted), self.head)
        return True

    def take(self) -> Packet | None:
        return taken(self.delivery, self.now, self.claim)

    def pump(self) -> list[Packet]:
        """Everything that there is room for."""
        found: list[Packet] = []
        for _ in range(100_000):
            packet = self.take()
            if packet is not None:
                found.append(packet)
            elif not self.fetch():
                return found
        raise AssertionError("no end")

    def again(self, flights: dict[int, Flight], **options: Any) -> Inbox:
        """The same inbox after a reconnect of a kept session."""
        following = Inbox(0, self.delivery.cursor, **options)
        following.entries, following.head, following.floor = self.entries, self.head, self.floor
        following.replaced = self.replaced
        following.delivery.head = self.head
        following.delivery.resume(flights)
        return following


def items(packets: list[Packet]) -> list[dict[str, Any]]:
    """The items in packets, in order."""
    found: list[dict[str, Any]] = []
    for packet in packets:
        item = json.loads(packet.payload)
        if item["op"] == "batch":
            assert (item["from"], item["pos"]) == (
                item["items"][0].get("from", item["items"][0]["pos"]),
                item["items"][-1]["pos"],
            )
        found += item["items"] if item["op"] == "batch" else [item]
    return found


def positions(packets: list[Packet]) -> list[int]:
    return [item["pos"] for item in items(packets)]


def again(packets: list[Packet]) -> list[tuple[int, bool]]:
    return [(packet.packet_id, packet.dup) for packet in packets]
