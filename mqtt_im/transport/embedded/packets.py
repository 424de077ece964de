"""Strict decoders of what clients send, and encoders of what we answer.

A decoder takes the bytes between a packet's header and its end, and either returns all that the packet says or
raises `Malformed`. Nothing malformed is repaired: amqtt's own decoders accept much of it, which is why they are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mqtt_im.protocol.topics import valid_filter, valid_topic
from mqtt_im.transport.embedded.framing import Malformed, remaining_length

PINGRESP: Final = b"\xd0\x00"

ACCEPTED: Final = 0
UNACCEPTABLE_VERSION: Final = 1
IDENTIFIER_REJECTED: Final = 2
SERVER_UNAVAILABLE: Final = 3

CONNACK_V5_UNSUPPORTED: Final = b"\x20\x03\x00\x84\x00"
"""CONNACK in the form of MQTT 5: no session, reason 0x84 (unsupported protocol version), no properties."""


@dataclass(frozen=True, slots=True)
class Will:
    """What is published for a client that goes without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT of MQTT 3.1.1."""

    client_id: str
    clean: bool
    keep_alive: int
    """Seconds; 0 is none."""
    will: Will | None
    username: str | None
    password: bytes | None


class OtherVersion(Exception):
    """A CONNECT of another protocol version; `answer` is the CONNACK that such a client understands."""

    def __init__(self, name: str, answer: bytes) -> None:
        super().__init__(name)
        self.name = name
        self.answer = answer


class _Reader:
    """Takes fields off a body, one after the other."""

    __slots__ = ("at", "body")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def byte(self) -> int:
        if self.at >= len(self.body):
            raise Malformed("too_short")
        self.at += 1
        return self.body[self.at - 1]

    def number(self) -> int:
        return self.byte() << 8 | self.byte()

    def binary(self) -> bytes:
        length = self.number()
        start, self.at = self.at, self.at + length
        if self.at > len(self.body):
            raise Malformed("too_short")
        return self.body[start : self.at]

    def text(self) -> str:
        return text(self.binary())

    def packet_id(self) -> int:
        packet_id = self.number()
        if not packet_id:
            raise Malformed("packet_id_zero")  # MQTT-2.3.1-1
        return packet_id

    @property
    def more(self) -> bool:
        return self.at < len(self.body)

    def finish(self) -> None:
        if self.more:
            raise Malformed("too_long")


def text(encoded: bytes) -> str:
    """Decode UTF-8 without surrogates (MQTT-1.5.3-1) and NUL (MQTT-1.5.3-2)."""
    try:
        decoded = encoded.decode()
    except UnicodeDecodeError:
        raise Malformed("utf8") from None
    if "\0" in decoded:
        raise Malformed("nul")
    return decoded


def connect(body: bytes) -> Connect:
    """Decode a CONNECT. Raises `OtherVersion` for one that is not MQTT 3.1.1."""
    reader = _Reader(body)
    name = reader.text()
    level = reader.byte()
    if name == "MQIsdp" and level & 0x7F == 3:
        raise OtherVersion("3.1", connack(UNACCEPTABLE_VERSION))
    if name != "MQTT":
        raise Malformed("protocol_name")  # MQTT-3.1.2-1
    if level == 5:
        raise OtherVersion("5", CONNACK_V5_UNSUPPORTED)
    if level != 4:
        raise OtherVersion("unknown", connack(UNACCEPTABLE_VERSION))  # MQTT-3.1.2-2
    flags = reader.byte()
    has_will, will_qos, will_retain = flags & 0x04, flags >> 3 & 3, flags & 0x20
    if flags & 0x01:
        raise Malformed("connect_flags")  # MQTT-3.1.2-3
    if will_qos == 3 or (not has_will and (will_qos or will_retain)):
        raise Malformed("will_flags")  # MQTT-3.1.2-11, -13, -14, -15
    if flags & 0x40 and not flags & 0x80:
        raise Malformed("password_without_username")  # MQTT-3.1.2-22
    keep_alive = reader.number()
    client_id = reader.text()
    will = None
    if has_will:
        topic = reader.text()
        if not valid_topic(topic):
            raise Malformed("will_topic")
        will = Will(topic, reader.binary(), will_qos, bool(will_retain))
    username = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    reader.finish()
    return Connect(client_id, bool(flags & 0x02), keep_alive, will, username, password)


def publish(first: int, body: bytes) -> tuple[str, int, bytes]:
    """Decode a PUBLISH with a valid first byte: topic, packet identifier (0 at QoS 0), payload."""
    reader = _Reader(body)
    topic = reader.text()
    if not valid_topic(topic):
        raise Malformed("topic")  # MQTT-3.3.2-2, MQTT-4.7.3-1
    packet_id = reader.packet_id() if first & 0x06 else 0
    return topic, packet_id, body[reader.at :]


def packet_id_only(body: bytes) -> int:
    """Decode PUBACK, PUBREC, PUBREL or PUBCOMP."""
    reader = _Reader(body)
    packet_id = reader.packet_id()
    reader.finish()
    return packet_id


def subscribe(body: bytes) -> tuple[int, list[tuple[str, int]]]:
    """Decode a SUBSCRIBE: its packet identifier, and the filters with the QoS asked for."""
    reader = _Reader(body)
    packet_id = reader.packet_id()
    filters: list[tuple[str, int]] = []
    while reader.more:
        topic_filter = _filter(reader)
        qos = reader.byte()
        if qos > 2:
            raise Malformed("subscribe_qos")  # MQTT-3.8.3-4
        filters.append((topic_filter, qos))
    if not filters:
        raise Malformed("no_filters")  # MQTT-3.8.3-3
    return packet_id, filters


def unsubscribe(body: bytes) -> tuple[int, list[str]]:
    """Decode an UNSUBSCRIBE: its packet identifier and filters."""
    reader = _Reader(body)
    packet_id = reader.packet_id()
    filters: list[str] = []
    while reader.more:
        filters.append(_filter(reader))
    if not filters:
        raise Malformed("no_filters")  # MQTT-3.10.3-2
    return packet_id, filters


def _filter(reader: _Reader) -> str:
    topic_filter = reader.text()
    if not valid_filter(topic_filter):
        raise Malformed("filter")  # MQTT-4.7.1-2, -3, MQTT-4.7.3-1
    return topic_filter


def connack(code: int, session_present: bool = False) -> bytes:
    """CONNACK; only an accepted connection has a session present (MQTT-3.2.2-4)."""
    return bytes((0x20, 2, session_present and code == ACCEPTED, code))


def suback(packet_id: int, codes: list[int]) -> bytes:
    """SUBACK with one code for each filter, in their order (MQTT-3.8.4-5)."""
    return b"".join((b"\x90", remaining_length(2 + len(codes)), packet_id.to_bytes(2, "big"), bytes(codes)))


def short(first: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK."""
    return bytes((first, 2, packet_id >> 8, packet_id & 0xFF))


def publish_head(first: int, topic_length: int, rest: int) -> bytes:
    """The header of a PUBLISH and the length of its topic; `rest` counts the bytes behind the topic."""
    return b"".join((bytes((first,)), remaining_length(2 + topic_length + rest), topic_length.to_bytes(2, "big")))
