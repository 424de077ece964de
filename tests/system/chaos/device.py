"""One device of one user: connects, is cut off, repeats, acknowledges late, and writes down all that it sees.

Whatever was received but neither acknowledged nor told with `ack` is thrown away at each reconnect, as a client does that
crashes before it has processed it. So an item that the server believes delivered too early is missing at the end.
"""

from __future__ import annotations

import asyncio
import contextlib

from tests.support import packets, packets5
from tests.support.im import PREFIX, Map, encode
from tests.support.packets import Packet, Publish

from .downlink import Downlink
from .older import Older
from .wire import Wire
from .workload import Workload, may_be_blocked
from .world import COUNTED_OPS, SILENT_OPS, Request, World

IN_FLIGHT = 20
RETRY = frozenset((0x80, 0x97))
"""Reason codes of MQTT 5 that ask for another try."""
OUT_OF_ORDER = 0x83
"""That of a request whose `n` is not the next: what came before it was refused for now, and is sent first."""
SILENCE_S = 2.0
"""A connection on which nothing has come for so long, in spite of a PINGREQ, is given up."""


class Device(Downlink):
    """Runs until `stop`; `settled` says whether everything it has made is answered."""

    def __init__(self, world: World, workload: Workload, seed: str) -> None:
        super().__init__(world, workload, seed)
        self.requests: list[Request] = []
        self.open: list[Request] = []
        """Made and not done, in order."""
        self.session = 0
        """Counts MQTT sessions, for DUP."""
        self.has_session = False
        self.five = False
        """This connection speaks MQTT 5; the next one may not."""
        self.wire: Wire | None = None
        self.stopped = False
        self._by_id: dict[str, Request] = {}
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
        world.counts[f"connections of MQTT {'5' if self.five else '3.1.1'}"] += 1
        world.counts["take-overs"] += self._older is not None
        entered = False
        try:
            await self._enter(wire)
            entered = True
            if self._older is not None:
                self._note(f"the connection before sends {self._older.speak()}")
                if self.dice.random() < 0.3:  # where that counted, the next connection shows it: nothing of this one is kept
                    await asyncio.sleep(0.5)
                    return
            await self._stay(wire)
        finally:
            world.counts["hello with after, no answer"] += self.said is not None
            self.said = None
            self._note("ends")
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
        self.world.counts["sessions resumed"] += present
        self._note(f"begins, MQTT {5 if self.five else 3}, session present {present}, has everything up to {self.stream.kept}")
        if self.has_session and not present and not profile.clean:
            self._fault("the kept session is gone")
        if present and profile.clean:
            self._fault("session present with a clean session")
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
            request.deferred |= request.may_be_deferred and not request.acknowledged
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
                request.may_be_deferred = self.five and self.world.refuses
                qos = 0 if request.op == "typing" else self.profile.qos
                if not qos:
                    self._finished(request)
                self._note(f"{request.op} {request.key} as packet {request.packet_id}{', DUP' if dup else ''}")
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

    # What comes

    def _take(self, wire: Wire, packet: Packet) -> None:
        if packet.kind == packets.PUBLISH:
            self._arrived(wire, packets5.Publish.of(packet) if self.five else Publish.of(packet))
        elif packet.kind in (packets.PUBACK, packets.PUBREC):
            code = packets5.code_of(packet)[0] if self.five else 0
            self._note(f"packet {packet.packet_id} was acknowledged: {code:#04x}")
            if code in RETRY or (code == OUT_OF_ORDER and self.profile.counts):
                self._again(packet.packet_id, deferred=code in RETRY)
                return
            if packet.kind == packets.PUBREC and code < 0x80:
                wire.send(packets.acknowledge(packets.PUBREL, packet.packet_id))
            for request in self.open:
                if request.packet_id == packet.packet_id and request.connection == self.connection:
                    request.acknowledged = True
                    if self.profile.forgets or request.op in SILENT_OPS or (self.profile.without_ids and request.op == "send"):
                        self._finished(request)
                    break

    def _again(self, packet_id: int, *, deferred: bool) -> None:
        """A request was refused for now, or for what comes before it: it is sent again on this connection, as a new packet."""
        for request in self.open:
            if request.packet_id == packet_id and request.connection == self.connection:
                request.packet_id, request.session, request.connection = 0, -1, 0
                request.deferred |= deferred
                break

    def _answered(self, wire: Wire, answer: Map) -> None:
        if answer["op"] == "welcome":
            self._welcomed(wire, answer)
            return
        request = self._by_id.get(answer.get("id", ""))
        if request is None:
            if answer["op"] == "error" and not answer["retry"]:
                self._fault(f"an error without a request: {answer}")
            return
        if answer["op"] == "error":
            if answer["code"] == "out_of_order" and self.five and self.world.refuses:
                return  # so says the PUBACK, too
            if not answer["retry"]:
                if request.op not in ("react", "report") and not may_be_blocked(self.profile.user, request):
                    self._fault(f"{request.op} {request.key} was refused: {answer}")
                request.refused = True
                self.world.counts["refused as blocked"] += answer["code"] == "blocked"
                self._finished(request)
            return
        request.acknowledged = True
        known = request.answer
        if known is None:
            request.answer = answer
            self.workload.answered(request)
        elif any(known.get(field) != answer.get(field) for field in ("op", "conv", "seq", "ts", "group")):
            self._fault(f"{request.key} was answered with {known} and then with {answer}")
        self._finished(request)
