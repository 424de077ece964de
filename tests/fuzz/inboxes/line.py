"""A connection of a device to a server's process: what is on its way in both directions, and the `Link` that the bridge sees."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from mqtt_im.mqtt import V5
from mqtt_im.transport.api import Lease
from tests.support.im import Map, decode

from .process import Process, Session

UNLIMITED = 1 << 16


class Up(NamedTuple):
    """A packet of the device: `publish`, `puback`, `subscribe` (with its QoS of the two topics)."""

    kind: str
    packet_id: int = 0
    payload: bytes = b""
    dup: bool = False
    qos: tuple[int, int] = (-1, -1)


class Down(NamedTuple):
    """A packet of the server: `connack`, `suback`, `publish`, `puback`."""

    kind: str
    packet_id: int = 0
    fields: Map | None = None
    dup: bool = False
    code: int = 0
    """Of PUBACK, in MQTT 5: 1 where the request was refused for good, 2 where it is to be sent again."""
    cursor: int = 0
    """Of SUBACK: where the delivery begins."""
    resumed: bool = False


class Line:
    """Implements `transport.api.Link`."""

    address, protocol = "", "mqtt"
    since = 0
    max_packet = 0

    def __init__(self, process: Process, user: str, device: str, version: int, room: int) -> None:
        """`room`: the client's Receive Maximum, of MQTT 5."""
        self.process = process
        self.user, self.device, self.version = user, device, version
        self.lease: Lease | None = None
        self.session = ""
        self.clean, self.resumed = True, False
        self.user_qos = self.device_qos = -1
        self.room = room if version == V5 else UNLIMITED
        self._unacked: set[int] | None = set() if room < UNLIMITED and version == V5 else None
        self.writable = True
        self.closed = False
        self.up: deque[Up] = deque()
        self.down: deque[Down] = deque()
        self.opened = False
        self.abandoned = False
        """The device has gone: what it has sent may still arrive, then the server notices."""
        self._busy = False
        """A SUBSCRIBE is being worked on; what is behind it waits."""
        self._failed = self._tokens = 0
        self._next = 1
        self._pending: dict[int, tuple[int, int]] = {}
        """Of each token without an answer: its packet, and what the answer says."""
        self._answered: set[int] = set()

    def __str__(self) -> str:
        return f"{self.user}/{self.device}"

    # The transport.

    def accept(self, session: Session, *, resumed: bool) -> None:
        """The device is let in."""
        self.session, self.resumed, self.clean = session.name, resumed, not session.kept
        self.user_qos, self.device_qos = session.user_qos, session.device_qos
        self.opened = True
        self.down.append(Down("connack", resumed=resumed))

    def arrive(self, count: int) -> bool:
        """So many packets of the device arrive at most; whether something has changed."""
        if self.closed:
            self.up.clear()
            return False
        changed = False
        while self.opened and self.up and count > 0 and not self.closed and not self._busy:
            if self.up[0].kind != "puback" and not self.writable:
                break
            count -= 1
            changed = True
            self._handle(self.up.popleft())
        if self.abandoned and not self.up and not self._busy and not self.closed:
            self.end("lost")
            return True
        return changed

    def _handle(self, packet: Up) -> None:
        bridge = self.process.bridge
        match packet.kind:
            case "puback":
                ids = [packet.packet_id]
                if self._unacked is not None:
                    again = self._vacate(packet.packet_id)
                    bridge.acked(self, ids)
                    if again:
                        bridge.writable(self)
                    return
                while self.up and self.up[0].kind == "puback":
                    ids.append(self.up.popleft().packet_id)
                bridge.acked(self, ids)
            case "subscribe":
                self._busy = True
                self.process.background(self._subscribe(packet))
            case _ if self._failed:
                pass
            case _:
                token = 0
                if packet.packet_id:
                    token = self._tokens = self._tokens + 1
                    self._pending[token] = packet.packet_id, 0
                bridge.uplink(self, packet.payload, token, packet.packet_id, packet.dup)

    def _vacate(self, packet_id: int) -> bool:
        assert self._unacked is not None
        if packet_id not in self._unacked:
            return False
        self._unacked.discard(packet_id)
        self.room += 1
        return self.room == 1

    async def _subscribe(self, packet: Up) -> None:
        bridge, session = self.process.bridge, self.process.sessions[self.user, self.device]
        before = session.user_qos, session.device_qos
        session.user_qos, session.device_qos = packet.qos
        self.user_qos, self.device_qos = packet.qos
        await bridge.register(self)
        self._busy = False
        if self.closed:
            return
        delivery = bridge.delivery_of(self)
        if delivery is None:
            self.process.faults.append(f"{self} would have SUBACK, and has no delivery")
            return
        self.down.append(Down("suback", packet.packet_id, cursor=delivery.cursor))
        for old, new in zip(before, packet.qos, strict=True):
            if old != new and not self.closed:
                bridge.subscribe(self, "")

    def stall(self) -> None:
        """The socket takes no more for now, or takes more again."""
        if self.closed:
            return
        self.writable = not self.writable
        if self.writable:
            self.process.bridge.writable(self)

    def end(self, reason: str) -> None:
        """The connection ends; what was written may arrive."""
        if self.closed:
            return
        self.closed = True
        if self.opened:
            self.process.left(self)

    # Link

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        packet_id: int,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",
    ) -> bool:
        """See `Link`."""
        if self.closed:
            return True
        if self._unacked is not None and packet_id and packet_id not in self._unacked:
            if self.room <= 0:
                self.process.faults.append(f"{self} is sent more than it takes")
            self._unacked.add(packet_id)
            self.room -= 1
        fields = decode(payload)
        for item in fields["items"] if fields["op"] == "batch" else [fields]:
            if item["op"] == "msg" and "body" in item and (item["conv"], item["seq"]) in self.process.recalled:
                self.process.faults.append(f"{self} is sent what was recalled: {item}")
        self.down.append(Down("publish", packet_id, fields, dup))
        return True

    def owes(self) -> float:
        """See `Link`."""
        return 0.0

    def charge(self, units: float) -> None:
        """See `Link`."""

    def under_way(self, size: int) -> None:
        """See `Link`."""

    def keep(self, size: int) -> None:
        """See `Link`."""

    def done(self, token: int) -> None:
        """See `Link`."""
        self._answer(token, 0)

    def refuse(self, token: int, code: int, text: str) -> None:
        """See `Link`."""
        self._answer(token, 2 if text.startswith(("unavailable", "rate_limited")) else 1)

    def _answer(self, token: int, says: int) -> None:
        self._pending[token] = self._pending[token][0], says
        self._answered.add(token)
        while self._next in self._answered:
            self._answered.discard(self._next)
            packet_id, code = self._pending.pop(self._next)
            if not self.closed:
                self.down.append(Down("puback", packet_id, code=code))
            self._next += 1
        if self._next == self._failed:
            self.end("uplink_failed")

    def fail(self, token: int) -> None:
        """See `Link`."""
        if not token or token == self._next:
            self.end("uplink_failed")
        elif not self._failed or token < self._failed:
            self._failed = token

    def close(self, reason: str) -> None:
        """See `Link`."""
        self.end(reason)
