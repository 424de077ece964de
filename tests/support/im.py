"""A messaging client over `RawClient`: requests as maps, and a record of every PUBLISH that came.

One object is one connection. It reads only while it waits for something, acknowledges what it reads unless `auto_ack` is
off, and forgets nothing: `events` holds all that was received, batches taken apart, in order of arrival.
"""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from tests.support import packets
from tests.support.packets import Publish, Will
from tests.support.raw import PATIENCE_S, Closed, Found, RawClient

Map = dict[str, Any]

PREFIX = "im/v1"
ITEMS = frozenset({"msg", "sent", "edited", "recalled", "reacted", "report", "void"})
REPLIES = frozenset({"sent", "ok", "error", "welcome", "page", "convs"})

_ids = itertools.count(1)


def decode(payload: bytes) -> Map:
    """A payload of any of the forms of PROTOCOL.md §3."""
    if payload[:1] == b"\x78":
        payload = zlib.decompress(payload)
    value = json.loads(payload) if payload[:1] == b"{" else msgspec.msgpack.decode(payload)
    assert isinstance(value, dict), f"a payload is one map, got {value!r}"
    return value


def codec_of(payload: bytes) -> str:
    """`json`, `msgpack`, or either with `+zip` behind it."""
    suffix = ""
    if payload[:1] == b"\x78":
        payload, suffix = zlib.decompress(payload), "+zip"
    return ("json" if payload[:1] == b"{" else "msgpack") + suffix


@dataclass(frozen=True, slots=True)
class Event:
    """One downlink map and the packet it came in (several share one packet in a batch)."""

    data: Map
    packet: Publish

    @property
    def op(self) -> str:
        return str(self.data["op"])

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def matches(self, op: str, fields: Map) -> bool:
        return self.op == op and all(key in self.data and self.data[key] == value for key, value in fields.items())


class ImClient(RawClient):
    def __init__(self, port: int, user: str, device: str = "phone", **socket_options: Any) -> None:
        super().__init__(port, **socket_options)
        self.user, self.device = user, device
        self.up_topic = f"{PREFIX}/{user}/{device}/up"
        self.user_down = f"{PREFIX}/{user}/down"
        self.device_down = f"{PREFIX}/{user}/{device}/down"
        self.presence_topic = f"{PREFIX}/{user}/presence"
        self.auto_ack = True
        self.session_present = False
        self.events: list[Event] = []
        self.plain: list[Publish] = []
        """What came on topics outside the prefix and on presence topics."""
        self.pubacks: list[int] = []
        """Packet identifiers of PUBACK and PUBREC in the order in which they came."""
        self.pubcomps: list[int] = []
        self.subacks: dict[int, list[int]] = {}
        self.unsubacks: list[int] = []
        self._taken: set[int] = set()

    # Connecting

    def sign_in(
        self,
        *,
        clean: bool = True,
        client_id: str | None = None,
        username: str | None = None,
        password: str | None = None,
        keepalive: int = 0,
        will: Will | None = None,
    ) -> Self:
        """CONNECT as this user and device. Raises `Refused`."""
        self.session_present = self.connect(
            self.device if client_id is None else client_id,
            username=self.user if username is None else username,
            password=password,
            clean=clean,
            keepalive=keepalive,
            will=will,
        )
        return self

    def listen(self, *, user_qos: int | None = 1, device_qos: int | None = 1) -> Self:
        """Subscribe to the two down topics (None: not to that one), in one SUBSCRIBE."""
        wanted = [(self.user_down, user_qos), (self.device_down, device_qos)]
        filters = [(name, qos) for name, qos in wanted if qos is not None]
        granted = self.subscribe(*filters)
        assert granted == [min(qos, 1) for _, qos in filters], f"granted {granted}"
        return self

    def subscribe(self, *filters: tuple[str, int] | str) -> list[int]:
        """SUBSCRIBE, and the return codes of the SUBACK."""
        packet_id = self.next_packet_id()
        pairs = [(entry, 1) if isinstance(entry, str) else entry for entry in filters]
        self.send(packets.subscribe(packet_id, *pairs))
        return self.until(lambda: self.subacks.get(packet_id), "SUBACK")

    def unsubscribe(self, *filters: str) -> None:
        packet_id = self.next_packet_id()
        self.send(packets.unsubscribe(packet_id, *filters))
        self.until(lambda: packet_id in self.unsubacks, "UNSUBACK")

    def disconnect(self) -> None:
        """DISCONNECT, then wait until the server has closed its side."""
        self.send(packets.packet(packets.DISCONNECT))
        self.until_closed()
        self.close()

    # Sending

    def request(
        self, op: str, *, qos: int = 1, packet_id: int | None = None, dup: bool = False, form: str = "json", **fields: Any
    ) -> int:
        """PUBLISH one request on the own `up`; its packet identifier. Waits for nothing."""
        return self.publish(self.up_topic, encode({"op": op, **fields}, form), qos=qos, packet_id=packet_id, dup=dup)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        packet_id: int | None = None,
        dup: bool = False,
        retain: bool = False,
    ) -> int:
        if packet_id is None:
            packet_id = self.next_packet_id() if qos else 0
        self.send(packets.publish(topic, payload, qos=qos, packet_id=packet_id, dup=dup, retain=retain))
        return packet_id

    def ask(self, op: str, **fields: Any) -> Event:
        """Make a request with an `id` (a new one unless given) and return its reply, whichever op that has."""
        fields.setdefault("id", f"r{next(_ids)}")
        self.request(op, **fields)
        return self.reply(fields["id"])

    def must(self, op: str, **fields: Any) -> Event:
        """`ask`, where an error would be a failure of the test."""
        answer = self.ask(op, **fields)
        assert answer.op != "error", f"{op} {fields} was refused: {answer.data}"
        return answer

    def refused(self, op: str, code: str, **fields: Any) -> Event:
        """`ask`, where the answer must be an error of this code that is not worth repeating."""
        answer = self.ask(op, **fields)
        assert answer.op == "error", f"{op} {fields} was not refused: {answer.data}"
        assert answer["code"] == code, answer.data
        assert answer["retry"] is False, answer.data
        assert answer["message"], answer.data
        return answer

    def say(self, to: str, body: Any, **fields: Any) -> Event:
        """Send a message; its `sent`."""
        answer = self.must("send", to=to, body=body, **fields)
        assert answer.op == "sent", answer.data
        return answer

    def confirmed(self, op: str, **fields: Any) -> None:
        """Make a request and return at its PUBACK."""
        packet_id = self.request(op, **fields)
        self.until(lambda: packet_id in self.pubacks, f"PUBACK of {op}")

    def puback(self, event: Event) -> None:
        self.send(packets.acknowledge(packets.PUBACK, event.packet.packet_id))

    # Receiving

    @property
    def items(self) -> list[Event]:
        """The items received so far, repeats included. A `sent` with `dup` answers a repeated request and is no item."""
        return [event for event in self.events if event.op in ITEMS and not event.data.get("dup")]

    @property
    def positions(self) -> list[int]:
        return [event["pos"] for event in self.items]

    def received(self, count: int) -> None:
        """Read until so many items have come on this connection, repeats included."""
        self.until(lambda: len(self.items) >= count, f"{count} items")

    def acknowledged(self, count: int) -> None:
        """Read until so many uplinks of this connection have their PUBACK or PUBREC."""
        self.until(lambda: len(self.pubacks) >= count, f"{count} PUBACKs")

    def until(self, probe: Callable[[], Found | None], what: str, timeout_s: float = PATIENCE_S) -> Found:
        """Read packets until `probe` returns something true. Raises `AssertionError` where it never does, `Closed` at the end."""
        deadline = time.monotonic() + timeout_s
        while not (found := probe()):
            try:
                self._take_in(self.receive(max(0.0, deadline - time.monotonic())))
            except TimeoutError:
                raise AssertionError(f"{self.user}:{self.device} waited in vain for {what}; {self._history()}") from None
            except Closed as error:
                if found := probe():
                    return found
                raise Closed(f"{self.user}:{self.device} waiting for {what}: {error}; {self._history()}") from error
        return found

    def wait(self, op: str, *, timeout_s: float = PATIENCE_S, **fields: Any) -> Event:
        """The first event of this op with these fields that no earlier `wait` has returned."""

        def probe() -> Event | None:
            for index, event in enumerate(self.events):
                if index not in self._taken and event.matches(op, fields):
                    self._taken.add(index)
                    return event
            return None

        return self.until(probe, f"{op} {fields}", timeout_s)

    def reply(self, request_id: str) -> Event:
        """The first reply to `request_id` that was not returned before."""

        def probe() -> Event | None:
            for index, event in enumerate(self.events):
                if index not in self._taken and event.op in REPLIES and event.data.get("id") == request_id:
                    self._taken.add(index)
                    return event
            return None

        return self.until(probe, f"the reply to {request_id}")

    def drain(self) -> list[Event]:
        """Read up to the head of the own inbox and return every item received on this connection.

        A message to oneself marks the head: items come in `pos` order, so all before it have come when it does.
        """
        mark = f"mark{next(_ids)}"
        self.request("send", to=self.user, body=mark, id=mark)
        self.until(lambda: any(event.data.get("id") == mark for event in self.items), "the mark at the head of the inbox")
        return [event for event in self.items if not str(event.data.get("id", "")).startswith("mark")]

    def flush(self) -> None:
        """Return when the server has handled all that was sent before on this connection, and its packets have come."""
        self.must("devices")

    def wait_closed(self, timeout_s: float = PATIENCE_S) -> None:
        """Take in what still comes until the server closes the connection."""
        for packet in self.until_closed(timeout_s):
            self._take_in(packet, acknowledge=False)

    def _take_in(self, packet: packets.Packet, acknowledge: bool = True) -> None:
        if packet.kind == packets.PUBLISH:
            publish = Publish.of(packet)
            if publish.qos and self.auto_ack and acknowledge:
                self.send(packets.acknowledge(packets.PUBREC if publish.qos == 2 else packets.PUBACK, publish.packet_id))
            self._record(publish)
        elif packet.kind == packets.PUBREL:
            self.send(packets.acknowledge(packets.PUBCOMP, packet.packet_id))
        elif packet.kind in (packets.PUBACK, packets.PUBREC):
            self.pubacks.append(packet.packet_id)
            if packet.kind == packets.PUBREC and acknowledge:
                self.send(packets.acknowledge(packets.PUBREL, packet.packet_id))
        elif packet.kind == packets.PUBCOMP:
            self.pubcomps.append(packet.packet_id)
        elif packet.kind == packets.SUBACK:
            self.subacks[packet.packet_id] = packet.codes
        elif packet.kind == packets.UNSUBACK:
            self.unsubacks.append(packet.packet_id)
        else:
            assert packet.kind == packets.PINGRESP, f"unexpected {packet}"

    def _record(self, publish: Publish) -> None:
        if publish.topic not in (self.user_down, self.device_down):
            self.plain.append(publish)
            return
        data = decode(publish.payload)
        if data["op"] == "batch":
            assert data["items"][-1]["pos"] == data["pos"], data
            self.events += [Event(item, publish) for item in data["items"]]
        else:
            self.events.append(Event(data, publish))

    def _history(self) -> str:
        last = "\n  ".join(str(event.data)[:300] for event in self.events[-10:])
        return f"received {len(self.events)} events, the last ones:\n  {last}"


def encode(data: Map, form: str = "json") -> bytes:
    """A request as `json` or `msgpack`, with `+zip` as a zlib stream."""
    raw = json.dumps(data).encode() if form.startswith("json") else msgspec.msgpack.encode(data)
    return zlib.compress(raw) if form.endswith("+zip") else raw


def direct(one: str, other: str) -> str:
    """Id of the direct conversation of two users."""
    return ":".join(sorted((one, other)))
