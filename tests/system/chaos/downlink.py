"""A device's stream: what comes is held against the promises, acknowledged late, or asked for again with a `hello`."""

from __future__ import annotations

import asyncio
from random import Random

from tests.support import packets, packets5
from tests.support.im import ITEMS, REPLIES, Map, decode, encode
from tests.support.packets import Publish

from .trail import Trail
from .wire import Wire
from .workload import Workload
from .world import Stream, World, content_of


class Downlink:
    """The parent of a device. What a device publishes, and what is answered, is in `device`."""

    def __init__(self, world: World, workload: Workload, seed: str) -> None:
        self.world = world
        self.workload = workload
        self.profile = workload.profile
        self.dice = Random(seed)
        self.stream = Stream()
        self.trail = Trail()
        self.registered = asyncio.Event()
        self.connection = 0
        self.said: int | None = None
        """`after` of a `hello` on this connection that has no answer yet; nothing is processed meanwhile."""
        self.in_flight: dict[int, int] = {}
        """`pos` → packet identifier of what came in this MQTT session and was not acknowledged."""
        self._hellos = 0
        self._way = ""
        self._begin_stream()

    def _publish(self, payload: bytes, packet_id: int, dup: bool = False, qos: int = 1) -> bytes:
        raise NotImplementedError

    def _packet_id(self) -> int:
        raise NotImplementedError

    def _answered(self, wire: Wire, answer: Map) -> None:
        raise NotImplementedError

    def _note(self, what: str) -> None:
        self.trail.note(self.connection, what)

    def _fault(self, what: str) -> None:
        self.world.fault(self.profile.name, what, self.trail)

    def _begin_stream(self) -> None:
        self._next_pos = 0
        """The `pos` that must come next on this connection; 0 before the first item."""
        self._last_pos = self.stream.kept
        self.said = None
        self._said: int | None = None
        """After the answer: the next item is the one behind this."""
        self._unprocessed: list[tuple[Publish | packets5.Publish, int]] = []
        """Packets that hold items and are not acknowledged yet, each with its last `pos`."""
        self._late: list[int] | None = None
        """Packets from before the answer to a `hello`, and replies since, whose PUBACKs are sent a moment later, and in order."""
        self._reads = False
        """A reply was acknowledged on this connection."""

    def _arrived(self, wire: Wire, publish: Publish | packets5.Publish) -> None:
        data = decode(publish.payload)
        items = data["items"] if data["op"] == "batch" else [data]
        last = 0
        for item in items:
            if item["op"] in REPLIES:
                self._answered(wire, item)
            if item["op"] in ITEMS and not item.get("dup"):
                self._item(item, publish)
                last = item["pos"]
        if last and publish.qos:
            self._unprocessed.append((publish, last))
        elif publish.qos and self._late is not None:
            self._late.append(publish.packet_id)
        elif publish.qos:
            self._acknowledge(wire, publish.packet_id)
            self._reads = True

    def _acknowledge(self, wire: Wire, packet_id: int) -> None:
        self._note(f"PUBACK of packet {packet_id}")
        wire.send(packets.acknowledge(packets.PUBACK, packet_id))

    def _item(self, item: Map, publish: Publish | packets5.Publish) -> None:
        """Hold the item against the promises about one device's stream."""
        stream = self.stream
        pos: int = item["pos"]
        first: int = item["from"] if item["op"] == "void" else pos
        self._note(f"{item['op']} {first}…{pos} in packet {publish.packet_id}{', DUP' if publish.dup else ''}")
        if self._said is not None:
            if first != self._said + 1:
                self._fault(f"everything up to {self._said} was said in a hello, and then came {first}")
            self._said = None
        elif self._next_pos and first != self._next_pos:
            self._fault(f"after pos {self._next_pos - 1} came {first} on the same connection")
        elif not self._next_pos and first > stream.kept + 1:
            self._fault(f"gap: everything up to {stream.kept} was acknowledged, but the next connection began at {first}")
        self._next_pos = pos + 1
        self._last_pos = pos
        content = content_of(item)
        stream.received += 1
        for covered in range(first, pos + 1):
            versions = stream.seen.setdefault(covered, [])
            stream.repeated += bool(versions)
            if content not in versions:
                versions.append(content)
        if not self.profile.clean and not self.profile.batch:
            before = self.in_flight.get(pos)
            if before is not None and (before != publish.packet_id or not publish.dup) and not self.profile.app:
                self._fault(
                    f"pos {pos} was in flight as packet {before} and came again as {publish.packet_id}, DUP {publish.dup}"
                )
            self.in_flight[pos] = publish.packet_id
        self.workload.learned(content)

    async def _process(self, wire: Wire) -> None:
        """Acknowledge late and in bursts: by PUBACK, or with `ack` where only that counts."""
        while True:
            await asyncio.sleep(0.002 if self.world.calm else self.dice.choice((0.0, 0.005, 0.02, 0.1)))
            if self._late is not None:
                if self.world.calm or self.dice.random() < 0.5:
                    self.world.counts["PUBACKs that came late"] += len(self._late)
                    for packet_id in self._late:
                        self._acknowledge(wire, packet_id)
                    self._late = None
                continue
            if self.said is not None:
                self._throw_away(wire, self.dice.randint(0, len(self._unprocessed)))
                continue
            if not self.world.calm and self.dice.random() < self.world.hellos:
                self._say(wire)
                continue
            count = len(self._unprocessed) if self.world.calm else self.dice.randint(0, len(self._unprocessed))
            if self.profile.app:
                if not self.world.calm:
                    self.dice.shuffle(self._unprocessed)  # a PUBACK says nothing of what it has, in whatever order they come
                for publish, _ in self._unprocessed[:count]:
                    self._acknowledge(wire, publish.packet_id)
                del self._unprocessed[:count]
                if self._last_pos > self.stream.kept and (self.world.calm or self.dice.random() < 0.3):
                    self.stream.kept = self.dice.randint(self.stream.kept + 1, self._last_pos)
                    self._note(f"ack {self.stream.kept}")
                    wire.send(self._publish(encode({"op": "ack", "pos": self.stream.kept}), self._packet_id()))
                continue
            for publish, pos in self._unprocessed[:count]:
                self.stream.kept = max(self.stream.kept, pos)
                self.in_flight.pop(pos, None)
                self._acknowledge(wire, publish.packet_id)
            del self._unprocessed[:count]

    def _throw_away(self, wire: Wire, count: int) -> None:
        """So many packets are acknowledged and not processed, as by a MQTT library whose client has asked for something else.

        Only where a reply was acknowledged before: of who does not do that the server can't tell what a PUBACK is for.
        """
        if self._reads:
            self.world.counts["PUBACKs while that was under way"] += len(self._unprocessed[:count])
            for publish, pos in self._unprocessed[:count]:
                self.stream.kept = max(self.stream.kept, pos)  # it counts where the `hello` is refused, as by a store in trouble
                self.in_flight.pop(pos, None)
                self._acknowledge(wire, publish.packet_id)
            del self._unprocessed[:count]

    def _say(self, wire: Wire) -> None:
        """Where this device stands, as one says that has lost, or got elsewhere, a part of what came; forward or back."""
        self._hellos += 1
        kept = self.stream.kept
        self.said = self.dice.randint(max(self.stream.start, self.stream.kept - 40), max(self._last_pos, self.stream.kept))
        self._way = "back" if self.said < kept else "forward"
        self.stream.kept = max(kept, self.said)  # it may be heard, though the answer never comes
        self._note(f"hello {self._hellos}, after {self.said}; the last item was {self._last_pos}")
        hello = {"op": "hello", "id": f"hello {self._hellos}", "after": self.said}
        wire.send(self._publish(encode(hello), self._packet_id()))

    def _welcomed(self, wire: Wire, welcome: Map) -> None:
        self._note(f"welcome to {welcome.get('id')}, pos {welcome['pos']}, head {welcome['head']}")
        if self.said is not None and welcome.get("id") == f"hello {self._hellos}":
            self._heard(wire, self.said, welcome["pos"])
            return
        if self.world.epoch and welcome["epoch"] != self.world.epoch:
            self._fault("another epoch, though no backup was restored")
        self.world.epoch = welcome["epoch"]
        if not self.registered.is_set():
            self.registered.set()
            self.stream.start = self.stream.kept = welcome["pos"]
        if welcome["pos"] > self.stream.kept:
            self._fault(f"the cursor stands at {welcome['pos']}, acknowledged is {self.stream.kept}")

    def _heard(self, wire: Wire, said: int, pos: int) -> None:
        if pos != said:
            self._fault(f"said {said} in a hello, was welcomed at {pos}")
        self.world.counts[f"hello with after, {self._way}"] += 1
        if self._reads and self.dice.random() < 0.5:
            self._late = [publish.packet_id for publish, _ in self._unprocessed]
            for _, position in self._unprocessed:
                self.in_flight.pop(position, None)
        self._unprocessed.clear()
        self.stream.kept = self._last_pos = self._said = said
        self._next_pos, self.said = 0, None
        if not self.world.calm and self.dice.random() < 0.3:
            asyncio.get_running_loop().call_later(self.dice.uniform(0.0, 0.2), wire.abort)
