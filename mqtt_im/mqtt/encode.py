"""What a server sends, in both versions. What needs no properties is the same in both, and shorter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mqtt_im.mqtt.framing import DISCONNECT, remaining_length
from mqtt_im.mqtt.properties import with_length

PINGRESP: Final = b"\xd0\x00"

ACCEPTED: Final = 0
UNACCEPTABLE_VERSION: Final = 1
IDENTIFIER_REJECTED: Final = 2
SERVER_UNAVAILABLE: Final = 3

CONNACK_UNSUPPORTED: Final = b"\x20\x03\x00\x84\x00"
"""CONNACK in the form of MQTT 5: no session, reason 0x84 (unsupported protocol version), no properties."""


def connack(code: int, session_present: bool = False) -> bytes:
    """CONNACK of 3.1.1; only an accepted connection has a session present (MQTT-3.2.2-4)."""
    return bytes((0x20, 2, session_present and code == ACCEPTED, code))


def connack5(code: int, session_present: bool = False, properties: bytes = b"") -> bytes:
    """CONNACK of 5, with encoded properties; only an accepted connection has a session present (MQTT5-3.2.2-6)."""
    body = bytes((session_present and code == ACCEPTED, code)) + with_length(properties)
    return b"\x20" + remaining_length(len(body)) + body


def suback(packet_id: int, codes: Sequence[int]) -> bytes:
    """SUBACK of 3.1.1 with one code for each filter, in their order (MQTT-3.8.4-5)."""
    return b"".join((b"\x90", remaining_length(2 + len(codes)), packet_id.to_bytes(2, "big"), bytes(codes)))


def suback5(packet_id: int, codes: Sequence[int], *, unsuback: bool = False) -> bytes:
    """SUBACK, or UNSUBACK, of 5 with one code for each filter, in their order (MQTT5-3.8.4-6, MQTT5-3.11.3-1)."""
    first = b"\xb0" if unsuback else b"\x90"
    return b"".join((first, remaining_length(3 + len(codes)), packet_id.to_bytes(2, "big"), b"\0", bytes(codes)))


def suback5_size(filters: int) -> int:
    """The bytes of a SUBACK, or UNSUBACK, of 5 for so many filters."""
    return 1 + len(remaining_length(3 + filters)) + 3 + filters


def short(first: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL, PUBCOMP (in both versions: reason 0) or UNSUBACK of 3.1.1."""
    return bytes((first, 2, packet_id >> 8, packet_id & 0xFF))


def acknowledgement(first: int, packet_id: int, code: int, properties: bytes = b"") -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP of 5 with a reason code, and encoded properties."""
    body = packet_id.to_bytes(2, "big") + bytes((code,))
    if properties:
        body += with_length(properties)
    return bytes((first,)) + remaining_length(len(body)) + body


def disconnect(code: int, properties: bytes = b"") -> bytes:
    """DISCONNECT of 5."""
    body = bytes((code,)) + (with_length(properties) if properties else b"")
    return bytes((DISCONNECT,)) + remaining_length(len(body)) + body


def publish_head(first: int, topic_length: int, rest: int) -> bytes:
    """The header of a PUBLISH and the length of its topic; `rest` counts the bytes behind the topic."""
    return b"".join((bytes((first,)), remaining_length(2 + topic_length + rest), topic_length.to_bytes(2, "big")))
