"""A device: what it does when it is its turn, and what it makes of what it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from mqtt_im.mqtt import V5, V311
from mqtt_im.transport.api import FIRST_REPLY_PACKET_ID
from tests.support.im import ITEMS, Map, encode

from .judge import Broken, Inbox, Judge, first_of
from .line import UNLIMITED, Down, Line, Up
from .process import Process

OPEN, DONE, REFUSED = "open", "done", "refused"
Trace = Callable[[str], None]


@dataclass(eq=False)
class Request:
    """Something that changes what others see, which is said until it is answered."""

    by: str
    device: str
    fields: Map
    state: str = OPEN
    session: str = ""
    """Where it was published last."""
    published: int = 0
    """How often, as what is no repeat of the same packet: without an `id` each may make a message of its own."""
    packet_id: int = 0
    erred: bool = False
    """An error has come for it."""


class Device:
    """One device, with its connection while it has one."""

    def __init__(self, user: str, name: str, inbox: Inbox, random: Random, trace: Trace) -> None:
        self.user, self.name = user, name
        self._trace = trace
        self.version = random.choice((V311, V311, V5))
        self.app = random.random() < 0.45
        self.room = random.choice((UNLIMITED, UNLIMITED, 1, 2, 5)) if self.version == V5 else UNLIMITED
        self.kept = random.choice((0.0, 1.0, 1.0, 0.6))
        """How often its session is to be kept."""
        self.topics = random.choice(((1, 1), (1, 1), (1, -1), (-1, 1)))
        self.tidy = random.random() < 0.8
        """It acknowledges in the order in which packets came, and so may say where it stands."""
        self.greets = random.choice((0.2, 0.9)) if not self.app else 0.9
        self.judge = Judge(inbox)
        self.line: Line | None = None
        self.have = 0
        """It has everything up to here, as it would say itself."""
        self.rolled = False
        """It has lost what it had, and has to say where it stands before it takes anything."""
        self.is_app = False
        """It knows that the server goes by `ack` alone."""
        self.outbox: list[Request] = []
        self._hellos: dict[str, Map] = {}
        self._to_ack: list[tuple[int, int, int, int]] = []
        """Packets that are to be acknowledged: identifier, first and last item (0: none), which one of the connection."""
        self._subscribed = ""
        """The session in which it has had SUBACK."""
        self._ready = False
        """CONNACK has come."""
        self._reads = False
        """It has acknowledged a reply on this connection."""
        self._ids = 0
        self._packet_ids = 0

    def __str__(self) -> str:
        return f"{self.user}/{self.name}"

    # What it does.

    def connect(self, process: Process, random: Random) -> None:
        """Another connection, whether the former one is over or not."""
        self.lose()
        kept = random.random() < self.kept
        clean = not kept if self.version == V311 else random.random() < 0.3 + 0.7 * (not kept)
        room = self.room
        self.line = line = Line(process, self.user, self.name, self.version, room)
        self._trace(f"{self}: connects, {'clean' if clean else 'not clean'}, {'kept' if kept else 'not kept'}")
        process.admit(line, clean=clean, kept=kept, random=random)

    def lose(self) -> None:
        """The connection is gone; what was sent may arrive yet."""
        if self.line is not None:
            self.line.abandoned = True
            self.line = None
        self._to_ack.clear()
        self._hellos.clear()
        self._ready = self._reads = False
        self.judge.connects()

    def is_owed(self, head: int) -> None:
        """The server has died owing to the disk that this device was there: what it was offered, a later item may replace."""
        self.judge.inbox.unsure = head

    def roll_back(self, random: Random) -> None:
        """It has lost some of what it had."""
        if self.tidy and self.room == UNLIMITED and self.judge.registered:
            self.have = random.randint(0, self.have)
            self.rolled = True
            self._trace(f"{self}: has lost all behind {self.have}")

    def ask(self, request: Request) -> None:
        """Say something, now or when there is a connection."""
        self.outbox.append(request)
        if self._ready:
            self._publish(request)

    def say_ack(self, random: Random, *, everything: bool = False) -> None:
        """`ack`, of all that it has or less."""
        if self.app and self._ready and not self.rolled and self.have:
            pos = self.have if everything else random.choice((self.have, self.have, random.randint(1, self.have)))
            self._trace(f"{self}: ack {pos}")
            self.judge.acks(pos)
            self._up({"op": "ack", "pos": pos}, 0 if random.random() < 0.3 else self._packet_id())

    def say_hello(self, random: Random, *, where: bool = True) -> None:
        """`hello`, with `after` or not; never where it is not to say `where` it stands."""
        if not self._ready or self.line is None:
            return
        self._ids += 1
        hello: Map = {"op": "hello", "id": f"{self.name}-h{self._ids}"}
        if self.rolled:
            hello["after"] = self.have
        elif where and self.tidy and self.judge.registered and random.random() < 0.6:
            further = random.choice((0, 0, 0, random.randint(1, 3), -random.randint(1, 4)))
            hello["after"] = max(0, self.have + further)
        if self.app and (not self.is_app or random.random() < 0.4):
            hello["ack"] = "app"
        for name, values in _CHOICES.items():
            if random.random() < 0.3:
                hello[name] = random.choice(values)
        self._trace(f"{self}: {hello}")
        self._hellos[hello["id"]] = hello
        if "after" in hello:
            self.judge.says(hello["after"], hello["id"], self.line)
        self._up(hello, self._packet_id())

    def look(self, fields: Map) -> None:
        """Ask for what is stored."""
        if self._ready:
            self._ids += 1
            self._up({**fields, "id": f"{self.name}-l{self._ids}"}, self._packet_id())

    def acknowledge(self, random: Random, count: int) -> None:
        """PUBACKs leave."""
        if self.rolled and not self._reads and any("after" in hello for hello in self._hellos.values()):
            return  # they might be taken for those of what it is offered then
        for _ in range(min(count, len(self._to_ack))):
            index = 0 if self.tidy else random.randrange(len(self._to_ack))
            packet_id, first, last, number = self._to_ack.pop(index)
            assert self.line is not None
            if not first:
                self._reads = True
            elif not self.is_app:
                # Where it does not read its replies, nobody can tell of which of two packets with one identifier it is.
                doubtful = not self._reads and not self.rolled
                self.judge.pubacks(first, last, number, None if doubtful else self.line)
            self.line.up.append(Up("puback", packet_id))

    def _publish(self, request: Request) -> None:
        line = self.line
        assert line is not None
        resumed = bool(request.packet_id) and line.session == request.session
        if not resumed:
            request.packet_id, request.session = self._packet_id(), line.session
            request.published += 1
        request.erred = False
        self._trace(f"{self}: {request.fields}{' again' if resumed else ''}")
        line.up.append(Up("publish", request.packet_id, encode(request.fields), resumed))

    def _up(self, fields: Map, packet_id: int) -> None:
        assert self.line is not None
        self.line.up.append(Up("publish", packet_id, encode(fields)))

    def _packet_id(self) -> int:
        used = {request.packet_id for request in self.outbox}
        while True:
            self._packet_ids = self._packet_ids % 60_000 + 1
            if self._packet_ids not in used:
                return self._packet_ids

    # What it is sent.

    def receive(self, random: Random, count: int) -> bool:
        """So many packets come to it at most; whether something has changed."""
        changed = False
        while self.line is not None and count > 0:
            count -= 1
            if not self.line.down:
                if self.line.closed:
                    self._trace(f"{self}: its connection is over")
                    self.lose()
                    return True
                return changed
            changed = True
            try:
                self._take(self.line.down.popleft(), random)
            except Broken as broken:
                raise Broken(f"{self}: {broken}") from None
        return changed

    def _take(self, packet: Down, random: Random) -> None:
        match packet.kind:
            case "connack":
                self._begin(packet.resumed, random)
            case "suback":
                self._trace(f"{self}: SUBACK, it begins behind {packet.cursor}")
                self.judge.registers(packet.cursor)
                self.have = self.have or packet.cursor
                assert self.line is not None
                self._subscribed = self.line.session
            case "puback":
                self._answered(packet)
            case _:
                self._published(packet)

    def _begin(self, resumed: bool, random: Random) -> None:
        self._ready = True
        assert self.line is not None
        self._trace(f"{self}: CONNACK, session {self.line.session}{' resumed' if resumed else ''}")
        steps: list[Callable[[], None]] = []
        if self._subscribed != self.line.session:
            steps.append(lambda: self.line.up.append(Up("subscribe", self._packet_id(), qos=self.topics)))  # type: ignore[union-attr]
        if self.rolled or random.random() < self.greets:
            # Before it listens there is no `welcome`, so that it would not learn where it stands.
            first = not self.rolled and random.random() < 0.5
            steps.insert(0 if first else len(steps), lambda: self.say_hello(random, where=not first))
        for step in steps:
            step()
        for request in self.outbox:
            self._publish(request)

    def _answered(self, packet: Down) -> None:
        request = next((each for each in self.outbox if each.packet_id == packet.packet_id), None)
        if request is None:
            return
        if packet.code == 2:
            if self.version == V5:  # to be said again, as a new PUBLISH
                self._trace(f"{self}: refused for now: {request.fields.get('id')}")
                request.packet_id = 0
                self._publish(request)
            return
        self.outbox.remove(request)
        if packet.code or request.erred:
            request.state = REFUSED
        elif "id" in request.fields or self.version == V5:  # else an error does not say whose it is
            request.state = DONE
        self._trace(f"{self}: {request.state}: {request.fields.get('id')}")

    def _published(self, packet: Down) -> None:
        fields = packet.fields
        assert fields is not None
        op, first, last = fields["op"], 0, 0
        if op == "batch" or (op in ITEMS and "pos" in fields and "dup" not in fields):  # else it repeats an answer
            first, last = first_of(fields), fields["pos"]
            self._trace(f"{self}: <- {op} {first}…{last}{' DUP' if packet.dup else ''}")
            self.judge.offered(fields)
            if not self.rolled:
                self.have = max(self.have, last)
        elif op == "welcome":
            self._welcomed(fields)
        elif op == "error" and not packet.dup:
            self._refused(fields)
        elif op == "page" and "conv" not in fields and fields.get("items"):
            self._page(fields["items"])
        if packet.packet_id:
            number = self.judge.came if last else 0
            assert (packet.packet_id < FIRST_REPLY_PACKET_ID) == bool(last), "a packet identifier of something else"
            self._to_ack.append((packet.packet_id, first, last, number))

    def _welcomed(self, fields: Map) -> None:
        hello = self._hellos.pop(fields["id"], None)
        if hello is None:
            return  # of a former connection
        self._trace(f"{self}: <- welcome {fields['id']}: {fields['pos']} of {fields['head']}")
        after = hello.get("after")
        self.judge.welcomed(fields["id"], fields["pos"], after)
        self.judge.standings[0].connection = self.line if after is not None else self.judge.standings[0].connection
        self.is_app = self.is_app or hello.get("ack") == "app"
        if after is not None:
            if self.rolled and not self._reads:
                self._to_ack = [each for each in self._to_ack if not each[1]]
            self.rolled, self.have = False, after

    def _refused(self, fields: Map) -> None:
        hello = self._hellos.pop(fields.get("id", ""), None)
        if hello is None:
            for request in self.outbox:
                request.erred |= request.fields.get("id", "") == fields.get("id") and not fields["retry"]
            return
        self._trace(f"{self}: <- error {fields}")
        if not fields["retry"]:
            self.judge.refused(fields["id"])
            if self.rolled:
                self.have, self.rolled = 0, False
                self.judge.standings.clear()  # it has asked for what is gone

    def _page(self, items: list[Map]) -> None:
        following = None
        for item in items:
            first = first_of(item)
            if following not in (None, first):
                raise Broken(f"a page has {first} where {following} was next")
            following = item["pos"] + 1


_CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "batch": (True, False, 512),
    "window": (1, 2, 7),
    "codec": ("json", "msgpack"),
    "zip": (True, False),
}
