"""One device of one user: connects, is cut off, repeats, acknowledges late, and writes down all that it sees.

Whatever was received but neither acknowledged nor told with `ack` is thrown away at each reconnect, as a client does that
crashes before it has processed it. So an item that the server believes delivered too early is missing at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

from tests.support import packets, packets5
from tests.support.im import ITEMS, PREFIX, REPLIES, Map, decode, encode
from tests.support.packets import Packet, Publish

from .older import Older
from .wire import Wire
from .workload import Workload, may_be_blocked
from .world import COUNTED_OPS, SILENT_OPS, Request, Stream, World, content_of

IN_FLIGHT = 20
RETRY = frozenset((0x80, 0x97))
"""Reason codes of MQTT 5 that ask for another try."""
SILENCE_S = 2.0
"""A connection on which nothing has come for so long, in spite of a PINGREQ, is given up."""


class Device:
    """Runs until `stop`; `settled` says whether everything it has made is answered."""

    def __init__(self, world: World, workload: Workload, seed: str) -> None:
        self.world = world
        self.workload = workload
        self.profile = workload.profile
        self.dice = Random(seed)
        self.stream = Stream()
        self.requests: list[Request] = []
        self.open: list[Request] = []
        """Made and not done, in order."""
        self.session = 0
        """Counts MQTT sessions, for DUP."""
        self.has_session = False
        self.connection = 0
        self.five = False
        """This connection speaks MQTT 5; the next one may not."""
        self.wire: Wire | None = None
        self.stopped = False
        self.said: int | None = None
        """`after` of a `hello` on this connection that has no answer yet; nothing is acknowledged meanwhile."""
        self._hellos = 0
        self.in_flight: dict[int, int] = {}
        """`pos` → packet identifier of what came in this MQTT session and was not acknowledged."""
        self._by_id: dict[str, Request] = {}
        self.registered = asyncio.Event()
        self._next_packet_id = 0
        self._count = 0
        self._older: Older | None = None
        world.requests[self.profile.name] = self.requests
        world.streams[self.profile.name] = self.stream
        world.profiles[self.profile.name] = self.profile

    @property
    def settled(self) -> bool:
        return not self.open

    def make(self, op: str, fields: Map) -> Request:
        """A new request stands in line."""
        key = f"{self.profile.user}.{self.profile.device}.{len(self.requests)}"
        if op not in SILENT_OPS and not (self.profile.without_ids and op == "send"):
            fields["id"] = key
        if self.profile.counts and op in COUNTED_OPS:
            self._count += 1
            fields["n"] = self._count
        if op == "send":
            fields["body"] = {"k": key, "v": 0, "pad": "x" * self.dice.choice((0, 10, 200, 2_000))}
        request = Request(key, op, fields)
        if "id" in fields:
            self._by_id[key] = request
        self.requests.append(request)
        self.open.append(request)
        self.workload.made(request)
        return request

    async def live(self) -> None:
        """Connect again and again until stopped."""
        while not self.stopped:
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                await self._connection()
            self.wire = None
            if not self.stopped:
                await asyncio.sleep(self.dice.uniform(0.01, 0.05 if self.world.calm else 0.4))
        self._end_older()

    async def stop(self) -> None:
        """End the connection; `live` returns."""
        self.stopped = True
        if self.wire is not None:
            self.wire.abort()

    # One connection

    async def _connection(self) -> None:
        world = self.world
        through_proxy = not world.calm and self.dice.random() < 0.7
        wire = self.wire = await Wire.open(self.dice.choice(world.proxy_ports if through_proxy else world.ports))
        world.connections += 1
        self.connection += 1
        self.five = self.dice.random() < 0.5
        entered = False
        try:
            await self._enter(wire)
            entered = True
            if self._older is not None:
                self._older.speak()
                if self.dice.random() < 0.3:  # where that counted, the next connection shows it: nothing of this one is kept
                    await asyncio.sleep(0.5)
                    return
            await self._stay(wire)
        finally:
            self._end_older()
            if entered and not world.calm and not self.stopped and self.dice.random() < 0.25:
                # The next connection takes over from this one. One that never began might do the same to that, later.
                ids = [publish.packet_id for publish, _ in self._unprocessed]
                self._older = Older(wire, self.profile, five=self.five, unacknowledged=ids, last=self._last_pos)
            else:
                wire.abort()

    def _end_older(self) -> None:
        if self._older is not None:
            self._older.wire.abort()
            self._older = None

    async def _enter(self, wire: Wire) -> None:
        """CONNECT, and whatever this device needs before its stream may begin."""
        profile = self.profile
        wire.send(self._connect())
        connack = await wire.next(3.0)
        if connack.kind != packets.CONNACK or connack.body[1] != 0:
            raise EOFError
        present = bool(connack.body[0] & 1)
        if self.has_session and not present and not profile.clean:
            self.world.fault(profile.name, "the kept session is gone")
        if present and profile.clean:
            self.world.fault(profile.name, "session present with a clean session")
        if not present:
            self.session += 1
            self.in_flight.clear()
        self._begin_stream()
        hello = {"ack": "app" if profile.app else "transport", "codec": profile.codec, "batch": profile.batch,
                 "zip": profile.zipped, "window": profile.window, "id": "hello"}  # fmt: skip
        if not present and self.registered.is_set() and self.dice.random() < 0.3:
            hello["after"] = self.stream.kept
        wire.send(self._publish(encode({"op": "hello", **hello}), self._packet_id()))
        if not present:
            await self._until(wire, packets.PUBACK)
            down = f"{PREFIX}/{profile.user}/down", f"{PREFIX}/{profile.user}/{profile.device}/down"
            # Without a subscription that hello had no answer. This one comes before anything can be acknowledged.
            again = self._publish(encode({"op": "hello", "id": "hello"}), self._packet_id())
            subscribe = packets5.subscribe if self.five else packets.subscribe
            wire.send(subscribe(self._packet_id(), *((topic, 1) for topic in down)) + again)
            await self._until(wire, packets.SUBACK)
        while not self.registered.is_set():
            self._take(wire, await wire.next(3.0))
        self.has_session = True

    def _connect(self) -> bytes:
        """Either version, from one connection to the next: a kept session goes on all the same."""
        profile = self.profile
        if not self.five:
            return packets.connect(profile.device, username=profile.user, clean=profile.clean, keepalive=30)
        given: dict[int, int] = {packets5.RECEIVE_MAX: self.dice.choice((2, 10, 1000))}
        if not profile.clean:
            given[packets5.SESSION_EXPIRY] = 100_000
        return packets5.connect(profile.device, username=profile.user, clean=profile.clean, keepalive=30, given=given)

    async def _until(self, wire: Wire, kind: int) -> None:
        """Take in what comes until a packet of this kind has come."""
        while True:
            packet = await wire.next(3.0)
            self._take(wire, packet)
            if packet.kind == kind:
                return

    async def _stay(self, wire: Wire) -> None:
        """Receive, send and acknowledge until the connection ends or this device has had enough of it."""
        self._unsend()
        tasks = [
            asyncio.ensure_future(coroutine)
            for coroutine in (self._receive(wire), self._send(wire), self._process(wire), self._leave(wire))
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, OSError | EOFError | TimeoutError):
                raise result

    async def _receive(self, wire: Wire) -> None:
        while True:
            try:
                packet = await wire.next(SILENCE_S)
            except TimeoutError:
                wire.send(packets.packet(packets.PINGREQ))
                packet = await wire.next(SILENCE_S)
            self._take(wire, packet)

    async def _leave(self, wire: Wire) -> None:
        """Wait out the life of this connection, then end it in one of the ways in which connections end."""
        await asyncio.sleep(self.dice.expovariate(1 / 4.0) + 0.1)
        if self.world.calm:
            await asyncio.Event().wait()
        if self.dice.random() < 0.3:
            wire.send(packets.packet(packets.DISCONNECT))
            await wire.drain()

    # Uplink

    def _unsend(self) -> None:
        """What has no answer yet is sent again, from the oldest on. In a kept session a repeat is the same packet, with DUP."""
        for request in self.open:
            if self.profile.clean or request.session != self.session or request.acknowledged:
                request.packet_id, request.session = 0, -1

    async def _send(self, wire: Wire) -> None:
        pause = 0.0
        while True:
            waiting = [request for request in self.open if request.connection != self.connection]
            unacknowledged = sum(1 for r in self.open if r.connection == self.connection and not r.acknowledged)
            for request in waiting[: max(0, IN_FLIGHT - unacknowledged)]:
                dup = request.session == self.session
                if not dup:
                    request.packet_id, request.session = self._packet_id(), self.session
                request.connection = self.connection
                qos = 0 if request.op == "typing" else self.profile.qos
                if not qos:
                    self._finished(request)
                wire.send(
                    self._publish(encode({"op": request.op, **request.fields}, self._form(request)), request.packet_id, dup, qos)
                )
            await wire.drain()
            await asyncio.sleep(0.01)
            pause -= 0.01
            if pause < 0 and not self.world.quiet and len(self.open) < 2 * IN_FLIGHT:
                pause = self.workload.pause()
                made = self.workload.next()
                if made is not None:
                    self.make(*made)

    def _form(self, request: Request) -> str:
        """The same for every repeat of a request: without an id it is recognised by its bytes."""
        return ("json", "msgpack", "json+zip")[len(request.key) % 3]

    def _publish(self, payload: bytes, packet_id: int, dup: bool = False, qos: int = 1) -> bytes:
        topic = f"{PREFIX}/{self.profile.user}/{self.profile.device}/up"
        publish = packets5.publish if self.five else packets.publish
        return publish(topic, payload, qos=qos, packet_id=packet_id, dup=dup)

    def _packet_id(self) -> int:
        used = {request.packet_id for request in self.open}
        while True:
            self._next_packet_id = self._next_packet_id % 65_535 + 1
            if self._next_packet_id not in used:
                return self._next_packet_id

    def _finished(self, request: Request) -> None:
        if not request.done:
            request.done = True
            self.open.remove(request)

    # Downlink

    def _begin_stream(self) -> None:
        self._next_pos = 0
        """The `pos` that must come next on this connection; 0 before the first item."""
        self._last_pos = self.stream.kept
        self.said = None
        self._said: int | None = None
        """After the answer: the next item is the one behind this."""
        self._unprocessed: list[tuple[Publish | packets5.Publish, int]] = []
        """Packets that hold items and are not acknowledged yet, each with its last `pos`."""

    def _take(self, wire: Wire, packet: Packet) -> None:
        if packet.kind == packets.PUBLISH:
            self._arrived(wire, packets5.Publish.of(packet) if self.five else Publish.of(packet))
        elif packet.kind in (packets.PUBACK, packets.PUBREC):
            code = packets5.code_of(packet)[0] if self.five else 0
            if code in RETRY:
                self._again(packet.packet_id)
                return
            if packet.kind == packets.PUBREC and code < 0x80:
                wire.send(packets.acknowledge(packets.PUBREL, packet.packet_id))
            for request in self.open:
                if request.packet_id == packet.packet_id and request.connection == self.connection:
                    request.acknowledged = True
                    if self.profile.forgets or request.op in SILENT_OPS or (self.profile.without_ids and request.op == "send"):
                        self._finished(request)
                    break

    def _again(self, packet_id: int) -> None:
        """A request was refused for now: it is sent again on this connection, as a new packet."""
        for request in self.open:
            if request.packet_id == packet_id and request.connection == self.connection:
                request.packet_id, request.session, request.connection = 0, -1, 0
                request.deferred = True
                break

    def _arrived(self, wire: Wire, publish: Publish | packets5.Publish) -> None:
        data = decode(publish.payload)
        items = data["items"] if data["op"] == "batch" else [data]
        last = 0
        for item in items:
            if item["op"] in REPLIES:
                self._answered(item)
            if item["op"] in ITEMS and not item.get("dup"):
                self._item(item, publish)
                last = item["pos"]
        if not last or self.profile.app or not publish.qos:
            if publish.qos:
                wire.send(packets.acknowledge(packets.PUBACK, publish.packet_id))
        else:
            self._unprocessed.append((publish, last))

    def _item(self, item: Map, publish: Publish | packets5.Publish) -> None:
        """Hold the item against the promises about one device's stream."""
        name, stream = self.profile.name, self.stream
        pos: int = item["pos"]
        first: int = item["from"] if item["op"] == "void" else pos
        if self._said is not None:
            if first != self._said + 1:
                self.world.fault(name, f"everything up to {self._said} was said in a hello, and then came {first}")
            self._said = None
        elif self._next_pos and first != self._next_pos:
            self.world.fault(name, f"after pos {self._next_pos - 1} came {first} on the same connection")
        elif not self._next_pos and first > stream.kept + 1:
            self.world.fault(
                name, f"gap: everything up to {stream.kept} was acknowledged, but the next connection began at {first}"
            )
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
                self.world.fault(
                    name, f"pos {pos} was in flight as packet {before} and came again as {publish.packet_id}, DUP {publish.dup}"
                )
            self.in_flight[pos] = publish.packet_id
        self.workload.learned(content)

    async def _process(self, wire: Wire) -> None:
        """Acknowledge late and in bursts: by PUBACK, or with `ack` where only that counts."""
        while True:
            await asyncio.sleep(0.002 if self.world.calm else self.dice.choice((0.0, 0.005, 0.02, 0.1)))
            if self.said is not None:
                continue
            if not self.world.calm and self.dice.random() < 0.01:
                self._say(wire)
                continue
            if self.profile.app:
                if self._last_pos > self.stream.kept:
                    self.stream.kept = self.dice.randint(self.stream.kept + 1, self._last_pos)
                    wire.send(self._publish(encode({"op": "ack", "pos": self.stream.kept}), self._packet_id()))
                continue
            count = len(self._unprocessed) if self.world.calm else self.dice.randint(0, len(self._unprocessed))
            for publish, pos in self._unprocessed[:count]:
                self.stream.kept = max(self.stream.kept, pos)
                self.in_flight.pop(pos, None)
                wire.send(packets.acknowledge(packets.PUBACK, publish.packet_id))
            del self._unprocessed[:count]

    def _say(self, wire: Wire) -> None:
        """Where this device stands, as one says that has lost, or got elsewhere, a part of what came; forward or back."""
        self._hellos += 1
        self.said = self.dice.randint(max(self.stream.start, self.stream.kept - 40), max(self._last_pos, self.stream.kept))
        self.stream.kept = max(self.stream.kept, self.said)  # it may be heard, though the answer never comes
        hello = {"op": "hello", "id": f"hello {self._hellos}", "after": self.said}
        wire.send(self._publish(encode(hello), self._packet_id()))

    def _answered(self, answer: Map) -> None:
        if answer["op"] == "welcome" and self.said is not None and answer.get("id") == f"hello {self._hellos}":
            if answer["pos"] != self.said:
                self.world.fault(self.profile.name, f"said {self.said} in a hello, was welcomed at {answer['pos']}")
            self.stream.kept = self._last_pos = self._said = self.said
            self._next_pos, self.said = 0, None
            self._unprocessed.clear()
            return
        if answer["op"] == "welcome":
            self._welcomed(answer)
            return
        request = self._by_id.get(answer.get("id", ""))
        if request is None:
            if answer["op"] == "error" and not answer["retry"]:
                self.world.fault(self.profile.name, f"an error without a request: {answer}")
            return
        if answer["op"] == "error":
            if not answer["retry"]:
                if request.op not in ("react", "report") and not may_be_blocked(self.profile.user, request):
                    self.world.fault(self.profile.name, f"{request.op} {request.key} was refused: {answer}")
                request.refused = True
                self._finished(request)
            return
        request.acknowledged = True
        known = request.answer
        if known is None:
            request.answer = answer
            self.workload.answered(request)
        elif any(known.get(field) != answer.get(field) for field in ("op", "conv", "seq", "ts", "group")):
            self.world.fault(self.profile.name, f"{request.key} was answered with {known} and then with {answer}")
        self._finished(request)

    def _welcomed(self, welcome: Map) -> None:
        if self.world.epoch and welcome["epoch"] != self.world.epoch:
            self.world.fault(self.profile.name, "another epoch, though no backup was restored")
        self.world.epoch = welcome["epoch"]
        if not self.registered.is_set():
            self.registered.set()
            self.stream.start = self.stream.kept = welcome["pos"]
        if welcome["pos"] > self.stream.kept:
            self.world.fault(self.profile.name, f"the cursor stands at {welcome['pos']}, acknowledged is {self.stream.kept}")
