"""MQTT 5 packets as bytes, both ways; nothing here checks what it is asked to build.

Written against the standard alone, so that the server's own codec is not its own witness.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from tests.support.packets import CONNECT, DISCONNECT, PUBLISH, PUBREL, SUBSCRIBE, UNSUBSCRIBE, Packet, packet, text

FORMAT, EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION, SUB_ID = 1, 2, 3, 8, 9, 11
SESSION_EXPIRY, ASSIGNED, KEEP_ALIVE, AUTH_METHOD, AUTH_DATA, PROBLEMS = 17, 18, 19, 21, 22, 23
WILL_DELAY, RESPONSE_INFO, INFO, REFERENCE, REASON, RECEIVE_MAX, ALIAS_MAX, ALIAS = 24, 25, 26, 28, 31, 33, 34, 35
MAX_QOS, RETAIN_OK, USER, MAX_PACKET, WILDCARDS, SUB_IDS, SHARED = 36, 37, 38, 39, 40, 41, 42

_BYTES = {FORMAT, PROBLEMS, RESPONSE_INFO, MAX_QOS, RETAIN_OK, WILDCARDS, SUB_IDS, SHARED}
_SHORTS = {KEEP_ALIVE, RECEIVE_MAX, ALIAS_MAX, ALIAS}
_LONGS = {EXPIRY, SESSION_EXPIRY, WILL_DELAY, MAX_PACKET}
_BINARY = {CORRELATION, AUTH_DATA}

Given = dict[int, Any] | list[tuple[int, Any]] | bytes | None
"""Properties: by identifier, in an order of their own, or as the bytes that they are to be."""


def varint(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def _one(identifier: int, value: Any) -> bytes:
    if identifier in _BYTES:
        encoded = bytes((value,))
    elif identifier in _SHORTS:
        encoded = struct.pack(">H", value)
    elif identifier in _LONGS:
        encoded = struct.pack(">I", value)
    elif identifier == SUB_ID:
        encoded = varint(value)
    elif identifier == USER:
        encoded = text(value[0]) + text(value[1])
    else:
        encoded = text(value)
    return bytes((identifier,)) + encoded


def properties(given: Given) -> bytes:
    if given is None:
        return b"\0"
    if isinstance(given, bytes):
        return varint(len(given)) + given
    pairs = given.items() if isinstance(given, dict) else given
    encoded = b"".join(_one(identifier, value) for identifier, value in pairs)
    return varint(len(encoded)) + encoded


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def read_properties(data: bytes, at: int) -> tuple[list[tuple[int, Any]], int]:
    length, at = read_varint(data, at)
    end, found = at + length, list[tuple[int, Any]]()
    while at < end:
        identifier, at = data[at], at + 1
        value: Any
        if identifier in _BYTES:
            value, at = data[at], at + 1
        elif identifier in _SHORTS:
            value, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        elif identifier in _LONGS:
            value, at = int.from_bytes(data[at : at + 4], "big"), at + 4
        elif identifier == SUB_ID:
            value, at = read_varint(data, at)
        else:
            value, at = _read_binary(data, at)
            if identifier == USER:
                second, at = _read_binary(data, at)
                value = (value.decode(), second.decode())
            elif identifier not in _BINARY:
                value = value.decode()
        found.append((identifier, value))
    assert at == end
    return found, end


def _read_binary(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    return data[at + 2 : end], end


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    properties: Given = None


def connect(
    client_id: str,
    *,
    username: str | None = None,
    password: str | None = None,
    clean: bool = True,
    keepalive: int = 0,
    will: Will | None = None,
    given: Given = None,
) -> bytes:
    flags = clean << 1 | (username is not None) << 7 | (password is not None) << 6
    payload = text(client_id)
    if will is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        payload += properties(will.properties) + text(will.topic) + text(will.payload)
    for secret in (username, password):
        if secret is not None:
            payload += text(secret)
    return packet(CONNECT, text("MQTT") + bytes([5, flags]) + struct.pack(">H", keepalive) + properties(given) + payload)


def publish(
    topic: str,
    payload: bytes,
    *,
    qos: int = 1,
    packet_id: int = 0,
    dup: bool = False,
    retain: bool = False,
    given: Given = None,
) -> bytes:
    identifier = struct.pack(">H", packet_id) if qos else b""
    return packet(PUBLISH, text(topic) + identifier + properties(given) + payload, dup << 3 | qos << 1 | retain)


def acknowledge(kind: int, packet_id: int, code: int | None = None, given: Given = None) -> bytes:
    body = struct.pack(">H", packet_id)
    if code is not None:
        body += bytes((code,)) + (b"" if given is None else properties(given))
    return packet(kind, body, 2 if kind == PUBREL else 0)


def subscribe(packet_id: int, *filters: tuple[str, int], given: Given = None) -> bytes:
    body = b"".join(text(name) + bytes([options]) for name, options in filters)
    return packet(SUBSCRIBE, struct.pack(">H", packet_id) + properties(given) + body, 2)


def unsubscribe(packet_id: int, *filters: str, given: Given = None) -> bytes:
    return packet(UNSUBSCRIBE, struct.pack(">H", packet_id) + properties(given) + b"".join(map(text, filters)), 2)


def disconnect(code: int | None = None, given: Given = None) -> bytes:
    body = b"" if code is None else bytes((code,)) + (b"" if given is None else properties(given))
    return packet(DISCONNECT, body)


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH taken apart."""

    topic: str
    payload: bytes
    qos: int
    dup: bool
    retain: bool
    packet_id: int
    properties: list[tuple[int, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, packet: Packet) -> Publish:
        length = int.from_bytes(packet.body[:2], "big")
        topic, at = packet.body[2 : 2 + length].decode("utf-8"), 2 + length
        qos, packet_id = packet.flags >> 1 & 3, 0
        if qos:
            packet_id, at = int.from_bytes(packet.body[at : at + 2], "big"), at + 2
        found, at = read_properties(packet.body, at)
        return cls(topic, packet.body[at:], qos, bool(packet.flags & 8), bool(packet.flags & 1), packet_id, found)


@dataclass(frozen=True, slots=True)
class Connack:
    present: bool
    code: int
    properties: dict[int, Any]

    @classmethod
    def of(cls, packet: Packet) -> Connack:
        found, end = read_properties(packet.body, 2)
        assert end == len(packet.body)
        assert packet.body[0] in (0, 1)
        return cls(bool(packet.body[0]), packet.body[1], dict(found))


def code_of(packet: Packet) -> tuple[int, dict[int, Any]]:
    """Reason code and properties of a PUBACK, PUBREC, PUBREL or PUBCOMP."""
    if len(packet.body) < 3:
        return 0, {}
    found = dict(read_properties(packet.body, 3)[0]) if len(packet.body) > 3 else {}
    return packet.body[2], found


def codes_of(packet: Packet) -> list[int]:
    """The codes of a SUBACK or UNSUBACK."""
    _, at = read_properties(packet.body, 2)
    return list(packet.body[at:])


def goodbye(packets: list[Packet]) -> int:
    """The reason code of the DISCONNECT that is the last of these packets."""
    assert packets, "the connection was closed without DISCONNECT"
    assert packets[-1].kind == DISCONNECT, packets
    return packets[-1].body[0]
