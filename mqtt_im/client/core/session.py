"""The conversation of one device with the server, over all its connections.

Everything that is said on the wire is decided here; it does no I/O: what happens comes in as calls, what is to be done goes out
as effects.

    offline ──connected──▶ handshake ──welcome──▶ online
       ▲                       │                    │
       └───────lost────────────┴────────────────────┘

| phase | what is sent | what comes in |
|---|---|---|
| offline | SUBSCRIBE and `hello` with CONNECT | |
| handshake | the outbox (and those two where they have not left) | items wait for `welcome`, and so do their PUBACKs |
| online | the outbox, questions, `ack`, `sync` where a `pos` is missing | items in order of `pos`, replies, events |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Literal

from mqtt_im.client.payload import Codec, Map, Nonsense, decode
from mqtt_im.protocol.topics import Topics

from .effects import (
    Acknowledge,
    Answered,
    Drop,
    Effect,
    Failed,
    Happened,
    Lost,
    Mark,
    Online,
    Refuse,
    Reply,
    Save,
    Unreadable,
    Unsubscribe,
    Watched,
)
from .entries import OVERHEAD, Entry
from .filling import Filling
from .inbox import Inbox, is_position
from .limits import DEFAULT_PACKET, UNKNOWN, Limits, over, told
from .outbox import WINDOW, Outbox
from .packets import ANY, Packets, Unanswered
from .peeking import PAUSE, Peeking

ACK_AFTER_S: Final = 0.5
"""Progress is told to the server so long after it was made, together."""
_RESERVED: Final = 16
"""Of the packets that may be without PUBACK, so many are left to what is no change."""
_UNHEARD: Final = 2
"""After so many connections that ended before CONNACK, nothing is sent with CONNECT: the server may not bear it."""
_FOR_NOW: Final = frozenset({"rate_limited", "unavailable"})
_FOR_GOOD: Final = frozenset({"forbidden", "quota"})

Phase = Literal["offline", "handshake", "online"]


class Session:
    """See the module. `now` is always seconds on a clock that never goes back."""

    def __init__(
        self,
        user: str,
        device: str,
        outbox: Outbox,
        inbox: Inbox,
        *,
        limits: Limits = UNKNOWN,
        codec: Codec = "msgpack",
        prefix: str = "im/v1",
    ) -> None:
        self.user = user
        self.device = device
        self.outbox = outbox
        self.inbox = inbox
        self.limits = limits
        self.phase: Phase = "offline"
        self.watched: set[str] = set()
        """Users whose presence is followed."""
        self._topics = Topics(prefix)
        self._down = (self._topics.user_down(user), self._topics.device_down(user, device))
        self._packets = Packets(self._topics.up(user, device), codec)
        self._filling = Filling(inbox, self._packets)
        self._peeking = Peeking(inbox, self._packets)
        self._unanswered = Unanswered()
        self._marking: dict[str, Entry] = {}
        """Changes that leave as soon as the disk knows that they were tried."""
        self._hello = ""
        self._named_positions = False
        self._early: list[Map] = []
        """Items that came before `welcome`."""
        self._early_packets: list[int] = []
        self._saved = inbox.cursor
        """The cursor as the disk has it."""
        self._acked = 0
        """The cursor as the server has it."""
        self._ack_due = math.inf
        self._careful = False
        """The last connection ended before `welcome`: this time nothing is sent with CONNECT, and `welcome` is waited for before
        anything of the outbox is."""
        self._greeted = False
        """`hello` has left on this connection."""
        self._unheard = 0
        """Connections in a row that ended before CONNACK, though more than CONNECT had left."""

    # The connection

    def opening(self) -> list[Effect]:
        """CONNECT leaves, and this with it: the server then knows what is wanted before it sends anything (MQTT-3.1.4-5)."""
        self._reset()
        return [] if self._careful or self._unheard >= _UNHEARD else self._greet()

    def _greet(self) -> list[Effect]:
        self._greeted = True
        return [*self._packets.subscribe(self._down), *self._say_hello(self.outbox.connected(), positions=True)]

    def connected(self, now: float, receive_maximum: int | None = None, largest: int | None = None) -> list[Effect]:
        """CONNACK has come: what leaves now. MQTT 5 may bound the packets without PUBACK, and their bytes."""
        self.phase = "handshake"
        self._unheard = 0
        at_once = receive_maximum or ANY
        self._packets.bound(at_once)
        self.outbox.window = max(1, min(WINDOW, at_once - _RESERVED))
        if largest is not None:
            self.limits = replace(self.limits, packet=largest)
        effects = [] if self._greeted else self._greet()
        if self.watched:
            effects += self._packets.subscribe(tuple(self._topics.presence(user) for user in sorted(self.watched)))
        if not self._careful:
            effects += self.pump(now)
        self._careful = True
        return effects

    def _say_hello(self, n: int | None, *, positions: bool) -> list[Effect]:
        self._hello = self._packets.name("h")
        self._named_positions = positions and bool(self.inbox.epoch)
        hello: Map = {"op": "hello", "id": self._hello}
        if self._named_positions:
            hello.update(epoch=self.inbox.epoch, after=self._saved)
        if n is not None:
            hello["n"] = n
        hello.update(ack="app", codec=self._packets.codec, batch=True, zip=True)
        return self._packets.request(hello)

    def lost(self) -> None:
        """The connection is gone."""
        if self._greeted and self.phase == "offline":
            self._unheard += 1
        self._reset()

    def _reset(self) -> None:
        self.phase = "offline"
        self._greeted = False
        self.outbox.lost()
        self.inbox.lost_connection()
        self._packets.begin()
        self._filling.reset()
        self._peeking.reset()
        self._unanswered.clear()
        self._marking.clear()
        self._early.clear()
        self._early_packets.clear()
        self._ack_due = math.inf

    # What comes in

    def received(self, now: float, topic: str, payload: bytes, packet_id: int) -> list[Effect]:
        """A PUBLISH; `packet_id` is 0 at QoS 0."""
        effects: list[Effect] = []
        try:
            if topic in self._down:
                data = decode(payload)
                if packet_id and self.phase == "handshake" and "pos" in data:
                    self._early_packets.append(packet_id)
                    packet_id = 0
                effects += self._take_in(now, data)
            elif (user := self._topics.presence_of(topic)) in self.watched:
                data = decode(payload, op="presence")
                if data.get("state") in ("online", "offline"):
                    effects += self._happened({**data, "user": user})
        except Nonsense as error:
            effects.append(Unreadable(str(error)))
        if packet_id:
            effects.append(Acknowledge(packet_id))
        return effects

    def _take_in(self, now: float, data: Map) -> list[Effect]:
        op, request_id = data["op"], data.get("id")
        if op == "welcome":
            return self._welcome(now, data)
        if op == "batch":
            return self._items(now, data.get("items"))
        if "pos" in data:
            return self._items(now, [data])
        if op in ("receipt", "typing"):
            return self._happened(data)
        if op == "error" and request_id is None and self.phase == "handshake" and data.get("code") == "quota":
            return [Refuse(f"quota: {data.get('message', '')}")]  # why the SUBACK behind it refuses
        if not isinstance(request_id, str):
            return []
        if op == "error":
            return self._error(now, request_id, data) if self._packets.is_news(request_id) else []
        if self._filling.is_mine(request_id):
            return self._filled(now, data)
        if self._peeking.is_mine(request_id):
            return self._peeked(now, data)
        return self._done(now, request_id, data)

    def _items(self, now: float, items: object) -> list[Effect]:
        effects: list[Effect] = []
        for item in items if isinstance(items, list) else ():
            if not isinstance(item, dict) or not isinstance(item.get("op"), str) or not is_position(item.get("pos")):
                effects.append(Unreadable("an item without a position"))
                continue
            if item["op"] == "sent" and isinstance(item.get("id"), str):
                effects += self._done(now, item["id"], item)
            if item.get("dup"):
                continue  # the answer to a repeat, which shows the position of the first
            if self.phase == "handshake":
                self._early.append(item)
            else:
                self.inbox.offer(item)
        return effects + self.progress(now)

    def progress(self, now: float) -> list[Effect]:
        """After the inbox has changed: ask for what is missing, and later tell the server what is done."""
        if self.phase != "online":
            return []
        if self.inbox.cursor > self._acked and self._ack_due == math.inf:
            self._ack_due = now + ACK_AFTER_S
        return [Happened(None), *self._filling.ask(), *self._peeking.ask(now, self._acked)]

    def _filled(self, now: float, data: Map) -> list[Effect]:
        effects = self._items(now, data.get("items"))
        lost = self._filling.answered()
        return effects + ([] if lost is None else self._lose(*lost, "missing")) + self.progress(now)

    def _peeked(self, now: float, page: Map) -> list[Effect]:
        self._peeking.answered(now, page)
        return self.progress(now)

    def _lose(self, first: int, last: int, why: str) -> list[Effect]:
        return [Lost(), *self._happened({"op": "lost", "first": first, "last": last, "why": why})]

    def _happened(self, event: Map) -> list[Effect]:
        self.inbox.happened(event)
        return [Happened(event)]

    # The answer to `hello`

    def _welcome(self, now: float, data: Map) -> list[Effect]:
        if self.phase != "handshake" or data.get("id") != self._hello:
            return []
        position, epoch = data.get("pos"), data.get("epoch")
        if not isinstance(epoch, str) or not epoch or not isinstance(position, int) or position < 0:
            return [Drop("the server's welcome makes no sense")]
        self.phase = "online"
        self._careful = False
        self._acked = position
        self._saved = position if epoch != self.inbox.epoch else max(self._saved, position)
        lost = self.inbox.begin(epoch, position)
        effects: list[Effect] = [Save()]
        if lost is not None:
            effects += self._lose(*lost, "retention" if lost[0] else "epoch")
        self.limits = told(data.get("limits"), self.limits)
        effects.append(Online(data))
        early, self._early = self._early, []
        effects += self._items(now, early)
        effects += [Acknowledge(packet_id) for packet_id in self._early_packets]
        self._early_packets.clear()
        return effects + self._too_large() + self.pump(now)

    def _hello_refused(self, code: str, message: str, after: float | None, *, retry: bool) -> list[Effect]:
        if retry:
            return [Drop(message, after)]
        if self._named_positions and code == "bad_field":
            return self._say_hello(None, positions=False)  # the position is one that the server does not have any more
        return [Refuse(f"{code}: {message}")] if code in _FOR_GOOD else [Drop(f"{code}: {message}")]

    def _error(self, now: float, request_id: str, data: Map) -> list[Effect]:
        code, message, retry = str(data.get("code")), str(data.get("message", "")), data.get("retry") is True
        after = data.get("retry_after")
        after = float(after) if isinstance(after, int | float) and 0 <= after < 3600 else None
        if request_id == self._hello and self.phase == "handshake":
            return self._hello_refused(code, message, after, retry=retry)
        if self._filling.is_mine(request_id):
            lost = self._filling.refused()
            return [] if lost is None else self._lose(*lost, "missing") + self.progress(now)
        if self._peeking.is_mine(request_id):
            return self._peeked(now, {})
        self._unanswered.forget(request_id)
        if code == "out_of_order" or retry:
            expected = data.get("expected")
            after = None if code == "out_of_order" else 1.0 if after is None else after
            if not self.outbox.put_back(request_id, now, expected=expected if is_position(expected) else None, after=after):
                return [Reply(request_id, {**data, "op": "error"})]
        elif (entry := self.outbox.refused(request_id)) is not None:
            return [Failed(entry, code, message), *self.pump(now)]
        else:
            return [Reply(request_id, {**data, "op": "error"})]
        return self.pump(now)

    # Changes

    def pump(self, now: float) -> list[Effect]:
        """Send what may be sent of the outbox."""
        if self.phase == "offline" or self._marking or (self._careful and self.phase == "handshake"):
            return []
        taken = self.outbox.take(now, (self.limits.packet or DEFAULT_PACKET) - len(self._packets.up) - OVERHEAD)
        fresh = tuple(entry for entry in taken if not entry.tried)
        if fresh:
            self._marking = {entry.id: entry for entry in taken}
            for entry in fresh:
                entry.tried = True
            return [Mark(fresh)]
        return [effect for entry in taken for effect in self._packets.change(entry, now)]

    def marked(self, now: float, entries: Iterable[Entry]) -> list[Effect]:
        """The disk knows that these were tried: now they leave, and what stands between them."""
        if not any(self._marking.get(entry.id) is entry for entry in entries):
            return []  # of a connection that is gone
        leaving = [entry for entry in self._marking.values() if entry.id in self.outbox.under_way]
        self._marking = {}
        return [effect for entry in leaving for effect in self._packets.change(entry, now)] + self.pump(now)

    def _done(self, now: float, request_id: str, answer: Map) -> list[Effect]:
        self._unanswered.forget(request_id)
        entry = self.outbox.answered(request_id)
        return [Reply(request_id, answer)] if entry is None else [Answered(entry, answer), *self.pump(now)]

    def puback(self, now: float, token: int, code: int, reason: str) -> list[Effect]:
        """A PUBACK; `code` is MQTT 5's reason code (0 in MQTT 3.1.1), `reason` its reason string."""
        op, request_id, news, effects = self._packets.puback(token, code)
        if code >= 0x80:
            if not news:
                return effects  # the `error` has told it, and the request may have been sent again since
            word, colon, message = reason.partition(": ")
            if colon and request_id:  # else the `error` says it
                refusal = {"code": word, "message": message, "retry": word in _FOR_NOW}
                effects += self._error(now, request_id, refusal)
        elif op == "read":
            effects += self._done(now, request_id, {"op": "ok"})
        elif request_id in self.outbox.under_way:
            paused = self.inbox.received - self._acked >= PAUSE
            self._unanswered.acknowledged(request_id, now, paused=paused)
        return effects

    def over_limit(self, entry: Entry) -> str | None:
        """Why the server would not take it, by the limits that it told last; None where it would, or none are known."""
        return over(self.limits, entry, self._packets.up)

    def _too_large(self) -> list[Effect]:
        """What waited for the limits to be known, and is over them."""
        large = self.outbox.over_limit(min(self.limits.body or math.inf, self.limits.packet or math.inf))
        found = [(entry, why) for entry in large if (why := self.over_limit(entry)) is not None]
        return [Failed(entry, "too_large", why) for entry, why in found if self.outbox.give_up(entry)]

    # Questions, presence, progress

    def ask(self, request: Map) -> list[Effect]:
        """Send a question; the reply comes as `Reply`."""
        return self._packets.request(request)

    def tell(self, request: Map) -> list[Effect]:
        """Send what need not arrive."""
        return self._packets.request(request, 0) if self.phase == "online" else []

    def watch(self, user: str) -> list[Effect]:
        """Follow a user's presence, on this connection and the ones to come."""
        self.watched.add(user)
        return [] if self.phase == "offline" else self._packets.subscribe((self._topics.presence(user),))

    def unwatch(self, user: str) -> list[Effect]:
        """Follow it no more."""
        self.watched.discard(user)
        return [] if self.phase == "offline" else [Unsubscribe((self._topics.presence(user),))]

    def suback(self, token: int, codes: Iterable[int]) -> list[Effect]:
        """A SUBACK, with its return codes in the order of the filters."""
        filters, refused = self._packets.suback(token, codes)
        if any(name in self._down for name in refused):
            return [Refuse("the server does not let this device subscribe to its own topics")]
        if not filters or filters == self._down:
            return []
        users = tuple(self._topics.presence_of(name) or "" for name in filters)
        unknown = tuple(self._topics.presence_of(name) or "" for name in refused)
        self.watched.difference_update(unknown)
        return [Watched(users, unknown)]

    def saved(self, now: float, cursor: int, epoch: str) -> None:
        """The disk has this cursor, so the server may have it too, a little later."""
        if epoch == self.inbox.epoch:
            self._saved = max(self._saved, cursor)
        if self.phase == "online" and self._saved > self._acked and self._ack_due == math.inf:
            self._ack_due = now + ACK_AFTER_S

    def acknowledge(self) -> list[Effect]:
        """Tell the server what is done, as far as the disk knows it."""
        if self.phase != "online" or self._saved <= self._acked:
            return []
        self._acked = self._saved
        return self._packets.request({"op": "ack", "pos": self._acked})

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: see `due`."""
        effects: list[Effect] = []
        for entry in list(self.outbox.timed.values()):
            if entry.given_up_at <= now and self.outbox.give_up(entry):
                expired = entry.expires is not None and entry.expires <= now
                why = "its ttl ran out before the server had it" if expired else "the server has not answered in time"
                effects.append(Failed(entry, "expired" if expired else "timeout", why))
        for request_id in self._unanswered.take(now):
            again = self.outbox.under_way.get(request_id)
            if again is not None and request_id in self.outbox.open:
                effects += self._packets.change(again, now)
        if self._ack_due <= now and self.phase == "online":
            self._ack_due = math.inf
            if self._saved < self.inbox.cursor:
                effects.append(Save(then_ack=True))
            effects += self.acknowledge()
        if self.phase == "online":
            effects += self._peeking.ask(now, self._acked)
        return effects + self.pump(now)

    def due(self, now: float) -> float:
        """When `tick` has something to do; infinity where nothing is waited for."""
        ends = (entry.given_up_at for entry in self.outbox.timed.values())
        waits = math.inf if self.phase != "online" else min(self.outbox.due(now), self._peeking.due(self._acked))
        return min(self._ack_due, waits, self._unanswered.due(), *ends)
