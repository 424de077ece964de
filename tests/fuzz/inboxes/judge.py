"""What a device may be offered, by what it has said and was told (INV-10, INV-11, INV-12, INV-13).

The server takes a device to stand somewhere: it has everything up to there. Where a `hello` that says so has no answer, there are
two places where that may be. What is offered must follow on one of them without a gap, but for what the device has acknowledged.
"""

from __future__ import annotations

from typing import Any

from tests.support.im import Map


class Broken(AssertionError):
    """A promise was broken."""


class Standing:
    """One place where the server may take the device to stand."""

    def __init__(self, base: int, hello: str = "", connection: object = None) -> None:
        """`hello`: the id of the one that says so, which has no answer yet."""
        self.base = base
        self.hello = hello
        self.connection = connection
        """Where that was said, or answered."""
        self.since: int | None = None if hello else 0
        """Packets that had come on this connection when it was answered."""
        self.acked = 0
        """By `ack`."""
        self.single: set[int] = set()
        """By PUBACK."""

    def __repr__(self) -> str:
        return f"{self.base}{'?' if self.hello else ''} ack {self.acked} PUBACK {sorted(self.single)[-5:]}"

    def has(self, pos: int) -> bool:
        """Whether the device has said that it has this item."""
        return pos <= self.base or pos <= self.acked or pos in self.single

    def leads_to(self, pos: int) -> bool:
        """Whether the device has said that it has everything before this item."""
        return all(self.has(each) for each in range(max(self.base, self.acked) + 1, pos))


def first_of(shown: Map) -> int:
    """The first position that an item, or a batch, is for."""
    return int(shown["from"] if shown["op"] in ("void", "batch") else shown["pos"])


def identity(item: Map) -> tuple[Any, ...]:
    """What an item is, whoever sees it and however it has changed."""
    if item["op"] in ("msg", "sent"):
        return "message", item["conv"], item["seq"]
    return item["op"], item["conv"], item["seq"], item.get("by", "")


class Inbox:
    """What the devices of one user were shown."""

    def __init__(self) -> None:
        self.items: dict[int, tuple[Any, ...]] = {}
        """What each item is, that was shown to any of them."""
        self.replaced: set[int] = set()
        """Items that were shown as `void` to any of them, since a later one has replaced them."""
        self.unsure = 0
        """Of items up to it nobody knows whether they were offered."""


class Judge:
    """Of one device."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.standings: list[Standing] = []
        """Nothing before the device knows that it is registered. The first one is certain."""
        self.expected: int | None = None
        """On this connection; None before anything was offered."""
        self.came = 0
        """Packets of items on this connection."""

    @property
    def registered(self) -> bool:
        """Whether the device knows that it is."""
        return bool(self.standings)

    # What the device does.

    def connects(self) -> None:
        """Another connection."""
        self.expected, self.came = None, 0

    def registers(self, cursor: int) -> None:
        """The device learns that it is registered, and where it begins."""
        if not self.standings:
            self.standings.append(Standing(cursor))

    def says(self, after: int, hello: str, connection: object) -> None:
        """A `hello` with `after` leaves."""
        self.standings.append(Standing(after, hello, connection))

    def acks(self, pos: int) -> None:
        """An `ack` leaves."""
        for standing in self.standings:
            standing.acked = max(standing.acked, pos)

    def pubacks(self, first: int, last: int, number: int, connection: object) -> None:
        """PUBACK of a packet leaves, the so-manieth of this connection."""
        for standing in self.standings:
            if standing.connection is connection and (standing.since is None or number <= standing.since):
                continue  # it was offered before the device had said this
            standing.single.update(range(first, last + 1))

    # What it is told.

    def welcomed(self, hello: str, pos: int, after: int | None) -> None:
        """The answer to a `hello` has come."""
        if after is None:
            if self.standings and not any(each.leads_to(pos + 1) for each in self.standings):
                raise Broken(f"welcome says {pos}, and the device has said {self.standings}")
            if not self.standings:
                self.standings.append(Standing(pos))
            return
        if pos != after:
            raise Broken(f"welcome says {pos} to a hello with {after}")
        index = next((index for index, each in enumerate(self.standings) if each.hello == hello), None)
        if index is None:
            self.standings.insert(0, Standing(pos))
        else:
            del self.standings[:index]
        self.standings[0].hello, self.standings[0].since = "", self.came
        self.expected = after + 1

    def refused(self, hello: str) -> None:
        """A `hello` was refused for good: it is as if it had not been said."""
        self.standings = [each for each in self.standings if not each.hello or each.hello != hello]

    def offered(self, packet: Map) -> None:
        """A packet of items has come."""
        items = packet["items"] if packet["op"] == "batch" else [packet]
        first, last = first_of(packet), packet["pos"]
        self.came += 1
        if not self.standings:
            self.standings.append(Standing(first - 1))
        if self.expected is None:
            if not any(each.leads_to(first) for each in self.standings):
                raise Broken(f"the connection begins with {first}, and the device has said {self.standings}")
        elif first < self.expected:
            raise Broken(f"{first} came where {self.expected} was next")
        elif not any(all(each.has(pos) for pos in range(self.expected, first)) for each in self.standings):
            raise Broken(f"{first} came where {self.expected} was next, and the device has said {self.standings}")
        following = first
        for item in items:
            if first_of(item) != following:
                raise Broken(f"a batch has {first_of(item)} where {following} was next")
            following = item["pos"] + 1
            self._show(item)
        if following != last + 1:
            raise Broken(f"a batch says that it ends with {last}, and ends with {following - 1}")
        self.expected = following

    def _show(self, item: Map) -> None:
        inbox, pos = self.inbox, item["pos"]
        if item["op"] == "void":
            if item["why"] == "replaced":
                inbox.replaced.add(pos)
        elif inbox.items.setdefault(pos, identity(item)) != identity(item):
            raise Broken(f"{pos} is {identity(item)}, and was {inbox.items[pos]}")
        if pos in inbox.replaced and pos in inbox.items and pos > inbox.unsure:
            raise Broken(f"{pos} was offered and replaced: {inbox.items[pos]}")

    # The end.

    def ended(self, head: int, inbox: dict[int, tuple[Any, ...]]) -> None:
        """Everything was offered that there is; `inbox` is what it is, without what is void."""
        here = self.expected
        if here is None and self.standings and not any(each.leads_to(head + 1) for each in self.standings):
            raise Broken(f"nothing came, the inbox ends with {head}, and the device has said {self.standings}")
        if here is not None and any(not self.standings[0].has(pos) for pos in range(here, head + 1)):
            raise Broken(f"{here} was next, the inbox ends with {head}, and the device has said {self.standings}")
        for pos, what in self.inbox.items.items():
            if pos > head or inbox.get(pos, what) != what:
                raise Broken(f"{pos} was {what}, and is {inbox.get(pos)}; the inbox ends with {head}")
