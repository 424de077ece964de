"""MQTT 3.1.1 packets as bytes, both ways; nothing here checks what it is asked to build.

Written against the standard alone, so that the server's own codec is not its own witness.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 8, 9, 10, 11, 12, 13, 14


@dataclass(frozen=True, slots=True)
class Packet:
    """One control packet as it came: type, the four flag bits, everything behind the remaining length."""

    kind: int
    flags: int
    body: bytes

    @property
    def packet_id(self) -> int:
        """The identifier of an acknowledgement (all but PUBLISH begin with it)."""
        return int.from_bytes(self.body[:2], "big")

    @property
    def codes(self) -> list[int]:
        """Return codes of a SUBACK."""
        return list(self.body[2:])


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH taken apart."""

    topic: str
    payload: bytes
    qos: int
    dup: bool
    retain: bool
    packet_id: int

    @classmethod
    def of(cls, packet: Packet) -> Publish:
        length = int.from_bytes(packet.body[:2], "big")
        topic, rest = packet.body[2 : 2 + length].decode("utf-8"), packet.body[2 + length :]
        qos = packet.flags >> 1 & 3
        packet_id = int.from_bytes(rest[:2], "big") if qos else 0
        return cls(topic, rest[2:] if qos else rest, qos, bool(packet.flags & 8), bool(packet.flags & 1), packet_id)


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


class Parser:
    """Cuts a byte stream into packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        self._buffer += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def _next(self) -> Packet | None:
        length, shift = 0, 0
        for index, byte in enumerate(self._buffer[1:5], start=2):
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                end = index + length
                if len(self._buffer) < end:
                    return None
                packet = Packet(self._buffer[0] >> 4, self._buffer[0] & 15, bytes(self._buffer[index:end]))
                del self._buffer[:end]
                return packet
        return None


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Fixed header and body (MQTT 3.1.1, 2.2)."""
    header, length = bytearray([kind << 4 | flags]), len(body)
    while True:
        length, digit = divmod(length, 128)
        header.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(header) + body


def text(value: str | bytes) -> bytes:
    """A string with its two bytes of length (1.5.3); `bytes` go in as they are, to build what is not UTF-8."""
    raw = value.encode("utf-8") if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw


def connect(
    client_id: str,
    *,
    username: str | None = None,
    password: str | None = None,
    clean: bool = True,
    keepalive: int = 0,
    will: Will | None = None,
    protocol: str = "MQTT",
    level: int = 4,
) -> bytes:
    flags = clean << 1 | (username is not None) << 7 | (password is not None) << 6
    payload = text(client_id)
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        payload += text(will.topic) + text(will.payload)
    for secret in (username, password):
        if secret is not None:
            payload += text(secret)
    return packet(CONNECT, text(protocol) + bytes([level, flags]) + struct.pack(">H", keepalive) + payload)


def publish(topic: str, payload: bytes, *, qos: int = 1, packet_id: int = 0, dup: bool = False, retain: bool = False) -> bytes:
    identifier = struct.pack(">H", packet_id) if qos else b""
    return packet(PUBLISH, text(topic) + identifier + payload, dup << 3 | qos << 1 | retain)


def acknowledge(kind: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return packet(kind, struct.pack(">H", packet_id), 2 if kind == PUBREL else 0)


def subscribe(packet_id: int, *filters: tuple[str, int]) -> bytes:
    body = b"".join(text(name) + bytes([qos]) for name, qos in filters)
    return packet(SUBSCRIBE, struct.pack(">H", packet_id) + body, 2)


def unsubscribe(packet_id: int, *filters: str) -> bytes:
    return packet(UNSUBSCRIBE, struct.pack(">H", packet_id) + b"".join(map(text, filters)), 2)
