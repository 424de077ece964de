"""Where one MQTT packet ends and the next begins, in bytes that arrive in pieces of any size.

Everything about the fixed header (MQTT-2.2) is in this file. A wrong first byte or a length above the limit is
known as soon as these bytes are there, before the packet is.
"""

from __future__ import annotations

from typing import Final

from mqtt_im.mqtt.reasons import Malformed

CONNECT: Final = 0x10
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x62
PUBCOMP: Final = 0x70
SUBSCRIBE: Final = 0x82
UNSUBSCRIBE: Final = 0xA2
PINGREQ: Final = 0xC0
DISCONNECT: Final = 0xE0
AUTH: Final = 0xF0

_PUBLISH: Final = range(0x30, 0x40)

FIRST_BYTES: Final = frozenset(
    {
        *(CONNECT, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT),
        *(0x30, 0x31),  # PUBLISH at QoS 0 carries no DUP (MQTT-3.3.1-2)
        *(0x32, 0x33, 0x3A, 0x3B),
        *(0x34, 0x35, 0x3C, 0x3D),  # there is no QoS 3 (MQTT-3.3.1-4)
    }
)
"""What the first byte of a client's packet can be: its type and the flags that go with it (MQTT-2.2.2-2)."""


def body_and_end(data: bytes, start: int, limit: int) -> tuple[int, int]:
    """Where the body of the packet at `start` begins and where the packet ends; its end may lie beyond the data.

    The body is at 0 where the header itself is not complete; the end is then the least that must be there to say more.
    Raises `Malformed` for a first byte that no client may send and for a packet of more than `limit` bytes.
    """
    end = len(data)
    first = data[start]
    if first not in FIRST_BYTES:
        raise wrong_first_byte(first)
    at = start + 3
    if at <= end and data[at - 1] < 0x80 <= data[at - 2]:
        length = data[at - 2] & 0x7F | data[at - 1] << 7  # two bytes of length: most messages
    else:
        at, length = _length(data, start + 1, end)
        if not at:
            return 0, end + 1
    if at - start + length > limit:
        raise Malformed("packet_too_large")
    return at, at + length


def _length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Where the remaining length that begins at `at` ends, and what it is; 0 where it is not complete."""
    length = shift = 0
    while True:
        if at >= end:
            return 0, 0
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return at, length
        shift += 7
        if shift > 21:
            raise Malformed("remaining_length")


def wrong_first_byte(first: int) -> Malformed:
    """What to raise for a first byte that is not one of `FIRST_BYTES`."""
    if first in _PUBLISH:
        return Malformed("publish_flags")
    if first == AUTH:
        return Malformed("auth_packet")
    if first >> 4 in (0, 15):
        return Malformed("reserved_type")
    if first >> 4 in (2, 9, 11, 13):
        return Malformed("server_packet")
    return Malformed("header_flags")


def remaining_length(length: int) -> bytes:
    """Encode a remaining length, 0 … 268,435,455 (MQTT-2.2.3)."""
    encoded = bytearray()
    while True:
        length, byte = length >> 7, length & 0x7F
        if not length:
            encoded.append(byte)
            return bytes(encoded)
        encoded.append(byte | 0x80)
