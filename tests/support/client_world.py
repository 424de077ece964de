"""The client's core and the server's core, talking through bytes that get lost: no sockets, no threads, no clock.

`App` is a process with a disk: what was handed to the disk is there after a kill only if it was written before. `Served` is
one connection as the bridge serves it, on the store's twin in memory.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from mqtt_im.bridge.claims import Claims
from mqtt_im.client.core.effects import (
    Acknowledge,
    Answered,
    Drop,
    Effect,
    Failed,
    Lost,
    Mark,
    Publish,
    Refuse,
    Save,
    Subscribe,
    Unreadable,
)
from mqtt_im.client.core.entries import UNCOUNTED, Entry
from mqtt_im.client.core.inbox import Inbox, Marks
from mqtt_im.client.core.outbox import Outbox
from mqtt_im.client.core.session import Session
from mqtt_im.client.payload import encode
from mqtt_im.core.delivery import Delivery
from mqtt_im.core.rules import Who
from mqtt_im.protocol.codec import decode_request, encode_json, json_to_msgpack
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.requests import Hello, Sync
from mqtt_im.store.given import Given
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.memory.engine import MemoryEngine
from mqtt_im.store.queries import pages
from tests.support.delivery import taken

Map = dict[str, Any]
USER, DEVICE = "alice", "pc"
DOWN = f"im/v1/{USER}/{DEVICE}/down"
EPOCH = "first"


class Server:
    """What survives connections: the store. `ghost` has no account, and `window` packets go without PUBACK."""

    def __init__(self, window: int = 4) -> None:
        self.claims = Claims()
        self.engine = MemoryEngine(Given(has_account=lambda name: name != "ghost", claim=self.claims.take_back))
        self.now = 1_000_000
        self.window = window
        self.served: Served | None = None
        self.epoch = EPOCH

    def ask(self, user: str, device: str, request: Any) -> RequestJob:
        """One request, decided and committed."""
        self.now += 1
        job = RequestJob(Who(user, device, 0, True, "made"), request, lambda _job: None)
        self.engine.run([job], self.now)
        if self.served is not None:
            self.served.pump()
        return job

    def say(self, by: str, op: str, **fields: Any) -> None:
        """Somebody else does something."""
        job = self.ask(by, "tel", decode_request(encode_json({"op": op, **fields}), 10_000, 10_000))
        assert job.refusal is None, job.refusal

    def inbox(self, after: int = 0) -> list[Map]:
        """The items of the user, as the device sees them."""
        entries = self.engine.entries(self.engine.state.user(USER), after, 100_000, 1 << 30)
        return [json.loads(entry.item(pos, USER, DEVICE, self.now)) for pos, entry in entries]


class Served:
    """One connection: `down` is what leaves for the client, `PUBLISH` or `PUBACK`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.delivery: Delivery | None = None
        self.down: deque[tuple[str, Any, Any]] = deque()
        self.codec = "json"

    def subscribe(self, token: int) -> None:
        state = self.server.engine.state
        user = state.user(USER)
        device = state.device(USER, DEVICE)
        if device is None:
            self.server.ask(USER, DEVICE, Hello())
            device = state.device(USER, DEVICE)
        assert device is not None
        window = self.server.window
        self.delivery = Delivery(USER, DEVICE, device.cursor, user.head, qos=1, window=window, app=device.app)
        self.down.append(("suback", token, None))
        self.pump()

    def publish(self, token: int, payload: bytes) -> None:
        request = decode_request(payload, 10_000, 100_000)
        if isinstance(request, Sync):
            who = Who(USER, DEVICE, 0, True)
            try:
                self.reply({**pages.sync(self.server.engine, who, request, 3, 10_000), "id": request.id})
            except Refusal as refusal:
                self.error(request.id, refusal)
        else:
            if isinstance(request, Hello) and request.epoch not in (None, self.server.epoch):
                request.after = request.n = None
            job = self.server.ask(USER, DEVICE, request)
            if job.refusal is not None:
                self.error(request.id, job.refusal)
            elif isinstance(request, Hello):
                self.hello(request, job)
            else:
                if request.__struct_config__.tag == "ack" and self.delivery is not None:
                    self.delivery.confirmed(request.pos)  # type: ignore[attr-defined]
                if job.decision is not None and job.decision.reply is not None:
                    self.reply(job.decision.reply)
        self.down.append(("puback", token, None))
        self.pump()

    def hello(self, request: Hello, job: RequestJob) -> None:
        state = job.device_state
        assert state is not None
        assert self.delivery is not None
        self.codec = request.codec or self.codec
        self.delivery.batch = bool(request.batch)
        self.delivery.app = state.app
        if request.after is not None:
            self.delivery.restart(request.after, state.head)
        welcome = {"op": "welcome", "id": request.id, "pos": self.delivery.cursor, "head": state.head, "n": state.n}
        self.reply({**welcome, "epoch": self.server.epoch, "limits": {"packet": 10_000, "body": 500, "page": 3, "window": 4}})

    def error(self, request_id: str | None, refusal: Refusal) -> None:
        fields = {"op": "error", "id": request_id, "code": refusal.code, "message": refusal.message, "retry": refusal.retry}
        self.reply({**fields, **({} if refusal.expected is None else {"expected": refusal.expected})})

    def reply(self, fields: Map) -> None:
        self.send(encode_json(fields), 0)

    def send(self, payload: bytes, packet_id: int) -> None:
        self.down.append(("publish", json_to_msgpack(payload) if self.codec == "msgpack" else payload, packet_id))

    def pump(self) -> None:
        delivery, engine = self.delivery, self.server.engine
        if delivery is None:
            return
        delivery.head = max(delivery.head, engine.state.user(USER).head)
        while True:
            packet = taken(delivery, self.server.now, self.server.claims.offer)
            if packet is not None:
                self.send(packet.payload, packet.packet_id)
            elif (wanted := delivery.want()) is not None:
                after, limit = wanted
                owner = engine.state.user(USER)
                delivery.fetched(engine.entries(owner, after, limit, 1 << 20), owner.head)
            else:
                return


class App:
    """The process of an app, and its disk."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.rows: dict[str, Entry] = {}
        self.marks = Marks()
        self.last_n = 0
        self.now = 0.0
        self.answers: dict[str, str] = {}
        """What the app was told of what it sent: id → `sent`, or the code of the failure."""
        self.shown: list[tuple[int, bool]] = []
        """Position and `again` of the messages that the app has had in hand."""
        self.events: list[int] = []
        self.accepted: list[tuple[str, str]] = []
        """Id and op of what `send` has returned for, in order."""
        self.count = 0
        self.start()

    def start(self) -> None:
        """A new process on the same disk."""
        self.writes: deque[tuple[Callable[[], None], Callable[[], None]]] = deque()
        outbox = Outbox(last_n=self.last_n)
        for row in sorted(self.rows.values(), key=lambda entry: entry.key):
            outbox.add(replace(row))
        self.session = Session(USER, DEVICE, outbox, Inbox(self.marks))
        self.session.inbox.listening = True
        self.up: deque[tuple[str, int, Any]] = deque()
        self.pending: int | None = None
        """The message that is being handed over: its hand-over waits for the disk."""
        self.event_pending: int | None = None

    # The line

    def connect(self) -> None:
        self.cut()
        self.server.served = Served(self.server)
        self.apply(self.session.connected(self.now))

    def cut(self) -> None:
        self.server.served = None
        self.up.clear()
        self.session.lost()

    def up_one(self) -> bool:
        """One packet reaches the server."""
        served = self.server.served
        if served is None or not self.up:
            return False
        kind, token, payload = self.up.popleft()
        if kind == "subscribe":
            served.subscribe(token)
        elif kind == "puback":
            if served.delivery is not None:
                served.delivery.acked(token)
                served.pump()
        else:
            served.publish(token, payload)
        return True

    def down_one(self) -> bool:
        """One packet reaches the client."""
        served = self.server.served
        if served is None or not served.down:
            return False
        kind, what, packet_id = served.down.popleft()
        if kind == "suback":
            self.apply(self.session.suback(what, [1, 1]))
        elif kind == "puback":
            self.apply(self.session.puback(self.now, what, 0, ""))
        else:
            self.apply(self.session.received(self.now, DOWN, what, packet_id))
        return True

    def disk_one(self) -> bool:
        """One write is on disk."""
        if not self.writes:
            return False
        write, then = self.writes.popleft()
        write()
        then()
        return True

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.apply(self.session.tick(self.now))

    def kill(self) -> None:
        self.cut()
        self.start()

    def settle(self) -> None:
        """Everything that can happen on a good line happens."""
        for _ in range(20_000):
            busy = self.up_one() | self.down_one() | self.disk_one()
            if not busy:
                due = self.session.due(self.now)
                if due == float("inf"):
                    return
                self.tick(max(due - self.now, 0.001))
        raise AssertionError("no end")

    # The app

    def send(self, op: str, body: Any = None, **fields: Any) -> str:
        """The change waits for the disk; it is accepted once it is there."""
        self.count += 1
        request_id = f"c{self.count}"
        outbox = self.session.outbox
        counted = op not in UNCOUNTED
        goes = self.session.phase == "online" and outbox.would_go(counted=counted)
        key, n = outbox.reserve(counted=counted)
        raw = None if body is None else encode(body, "msgpack")
        entry = Entry(key, request_id, op, fields, "msgpack", raw, n, goes, made=self.now)
        session = self.session

        def write() -> None:
            self.rows[request_id] = replace(entry)
            self.accepted.append((request_id, op))

        def then() -> None:
            session.outbox.add(entry)
            self.apply(session.pump(self.now))

        self.writes.append((write, then))
        return request_id

    def next_message(self) -> None:
        """The app asks for the next message; it has it once the disk knows."""
        inbox = self.session.inbox
        if self.pending is not None:
            return
        if inbox.hand is not None:
            inbox.done(inbox.hand["pos"], inbox.epoch)
        found = inbox.next_message()
        if found is None:
            self.save()
            return
        item, again = found
        self.pending = item["pos"]

        def then() -> None:
            self.pending = None
            if inbox.hand is item:
                inbox.handed_over()
                self.shown.append((item["pos"], again))

        self.save(then)

    def next_event(self) -> None:
        inbox = self.session.inbox
        if self.event_pending is not None or inbox.next_event() is None:
            return
        event = inbox.take_event()
        if "pos" in event:
            self.event_pending = event["pos"]

            def then() -> None:
                self.event_pending = None
                self.events.append(event["pos"])

            self.save(then)

    def save(self, then: Callable[[], None] = lambda: None, *, ack: bool = False) -> None:
        session, marks = self.session, self.session.inbox.marks()

        def write() -> None:
            self.marks = marks

        def saved() -> None:
            session.saved(self.now, marks.cursor, marks.epoch)
            then()
            if ack:
                self.apply(session.acknowledge())

        self.writes.append((write, saved))

    # Effects

    def apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Publish(token, _, payload, _):
                self.up.append(("publish", token, payload))
            case Subscribe(token, _):
                self.up.append(("subscribe", token, None))
            case Acknowledge(packet_id):
                self.up.append(("puback", packet_id, None))
            case Mark(entries):
                session = self.session
                ids = [entry.id for entry in entries]
                self.writes.append((lambda: self.mark_tried(ids), lambda: self.apply(session.marked(self.now, entries))))
            case Save(then_ack):
                self.save(ack=then_ack)
            case Lost():
                self.save()
            case Answered(entry, answer):
                assert answer["op"] in ("sent", "ok")
                self.over(entry, "sent")
            case Failed(entry, code, _):
                self.over(entry, code)
            case Drop():
                self.cut()
            case Refuse() | Unreadable():
                raise AssertionError(effect)
            case _:
                pass

    def over(self, entry: Entry, how: str) -> None:
        assert self.answers.get(entry.id, how) == how
        self.answers[entry.id] = how
        last_n = self.session.outbox.last_n
        self.writes.append((lambda: self.remove(entry.id, last_n), lambda: None))

    def mark_tried(self, ids: list[str]) -> None:
        for request_id in ids:
            if request_id in self.rows:
                self.rows[request_id].tried = True

    def remove(self, request_id: str, last_n: int) -> None:
        self.rows.pop(request_id, None)
        self.last_n = last_n
