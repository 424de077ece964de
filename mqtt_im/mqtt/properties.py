"""The properties of MQTT 5 (MQTT5-2.2.2): one table of what each is, where it may stand and what it may say.

Decoded they are a dict from identifier to value: int, bytes, str, or a list of pairs for User Property, a list of ints for
Subscription Identifier.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mqtt_im.mqtt.framing import remaining_length
from mqtt_im.mqtt.reasons import Malformed

PAYLOAD_FORMAT: Final = 0x01
MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_IDENTIFIER: Final = 0x0B
SESSION_EXPIRY: Final = 0x11
ASSIGNED_CLIENT_ID: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTHENTICATION_METHOD: Final = 0x15
AUTHENTICATION_DATA: Final = 0x16
REQUEST_PROBLEM_INFORMATION: Final = 0x17
WILL_DELAY: Final = 0x18
REQUEST_RESPONSE_INFORMATION: Final = 0x19
RESPONSE_INFORMATION: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARDS_AVAILABLE: Final = 0x28
IDENTIFIERS_AVAILABLE: Final = 0x29
SHARED_AVAILABLE: Final = 0x2A

BYTE: Final = "byte"
SHORT: Final = "two bytes"
LONG: Final = "four bytes"
VARIABLE: Final = "variable"
BINARY: Final = "binary"
TEXT: Final = "text"
PAIR: Final = "pair"

WILL: Final = "WILL"
"""The place of a will's properties, inside CONNECT."""

_FROM_CLIENT_ACKS: Final = "PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK"


class Property(NamedTuple):
    """One row of the table."""

    name: str
    kind: str
    packets: frozenset[str]
    """Where it may stand, whoever sends it."""
    values: range | None = None
    """The numbers that it may be; None: all of its kind."""


def _row(name: str, kind: str, packets: str, values: range | None = None) -> Property:
    return Property(name, kind, frozenset(packets.split()), values)


_FLAG: Final = range(2)
_POSITIVE: Final = range(1, 1 << 32)

TABLE: Final[dict[int, Property]] = {
    PAYLOAD_FORMAT: _row("Payload Format Indicator", BYTE, "PUBLISH WILL", _FLAG),
    MESSAGE_EXPIRY: _row("Message Expiry Interval", LONG, "PUBLISH WILL"),
    CONTENT_TYPE: _row("Content Type", TEXT, "PUBLISH WILL"),
    RESPONSE_TOPIC: _row("Response Topic", TEXT, "PUBLISH WILL"),
    CORRELATION_DATA: _row("Correlation Data", BINARY, "PUBLISH WILL"),
    SUBSCRIPTION_IDENTIFIER: _row("Subscription Identifier", VARIABLE, "PUBLISH SUBSCRIBE", _POSITIVE),
    SESSION_EXPIRY: _row("Session Expiry Interval", LONG, "CONNECT CONNACK DISCONNECT"),
    ASSIGNED_CLIENT_ID: _row("Assigned Client Identifier", TEXT, "CONNACK"),
    SERVER_KEEP_ALIVE: _row("Server Keep Alive", SHORT, "CONNACK"),
    AUTHENTICATION_METHOD: _row("Authentication Method", TEXT, "CONNECT CONNACK AUTH"),
    AUTHENTICATION_DATA: _row("Authentication Data", BINARY, "CONNECT CONNACK AUTH"),
    REQUEST_PROBLEM_INFORMATION: _row("Request Problem Information", BYTE, "CONNECT", _FLAG),
    WILL_DELAY: _row("Will Delay Interval", LONG, "WILL"),
    REQUEST_RESPONSE_INFORMATION: _row("Request Response Information", BYTE, "CONNECT", _FLAG),
    RESPONSE_INFORMATION: _row("Response Information", TEXT, "CONNACK"),
    SERVER_REFERENCE: _row("Server Reference", TEXT, "CONNACK DISCONNECT"),
    REASON_STRING: _row("Reason String", TEXT, f"CONNACK {_FROM_CLIENT_ACKS} DISCONNECT AUTH"),
    RECEIVE_MAXIMUM: _row("Receive Maximum", SHORT, "CONNECT CONNACK", _POSITIVE),
    TOPIC_ALIAS_MAXIMUM: _row("Topic Alias Maximum", SHORT, "CONNECT CONNACK"),
    TOPIC_ALIAS: _row("Topic Alias", SHORT, "PUBLISH"),
    MAXIMUM_QOS: _row("Maximum QoS", BYTE, "CONNACK", _FLAG),
    RETAIN_AVAILABLE: _row("Retain Available", BYTE, "CONNACK", _FLAG),
    USER_PROPERTY: _row(
        "User Property", PAIR, f"CONNECT CONNACK PUBLISH WILL SUBSCRIBE UNSUBSCRIBE {_FROM_CLIENT_ACKS} DISCONNECT AUTH"
    ),
    MAXIMUM_PACKET_SIZE: _row("Maximum Packet Size", LONG, "CONNECT CONNACK", _POSITIVE),
    WILDCARDS_AVAILABLE: _row("Wildcard Subscription Available", BYTE, "CONNACK", _FLAG),
    IDENTIFIERS_AVAILABLE: _row("Subscription Identifiers Available", BYTE, "CONNACK", _FLAG),
    SHARED_AVAILABLE: _row("Shared Subscription Available", BYTE, "CONNACK", _FLAG),
}

HANDED_ON: Final = frozenset((PAYLOAD_FORMAT, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, USER_PROPERTY))
"""What a server hands on with a message, unaltered and in order (MQTT5-3.3.2-4, -15, -16, -17, -18, -20)."""

MAX_USER_PROPERTIES: Final = 500
"""Of one packet: each is taken apart, and a packet has room for tens of thousands."""

Properties = dict[int, Any]

_WIDTHS: Final = {BYTE: 1, SHORT: 2, LONG: 4}


def text(encoded: bytes) -> str:
    """Decode UTF-8 without surrogates (MQTT-1.5.3-1, MQTT5-1.5.4-1) and NUL (MQTT-1.5.3-2, MQTT5-1.5.4-2)."""
    try:
        decoded = encoded.decode()
    except UnicodeDecodeError:
        raise Malformed("utf8") from None
    if "\0" in decoded:
        raise Malformed("nul")
    return decoded


def variable(data: bytes, at: int) -> tuple[int, int]:
    """The variable byte integer at `at`, in as few bytes as it takes (MQTT5-1.5.5-1), and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise Malformed("too_short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                raise Malformed("variable_integer")
            return value, at
        shift += 7
        if shift > 21:
            raise Malformed("variable_integer")


def decode(data: bytes, at: int, packet: str) -> tuple[Properties, bytes, int]:
    """The properties whose length stands at `at`, the bytes of those that are handed on, and where they end.

    Raises `Malformed` for what is no property of this packet, stands twice, or says what it may not.
    """
    length, at = variable(data, at)
    end = at + length
    if end > len(data):
        raise Malformed("too_short")
    found: Properties = {}
    handed_on: list[bytes] = []
    while at < end:
        start = at
        identifier, at = variable(data, at)
        row = TABLE.get(identifier)
        if row is None or packet not in row.packets:
            raise Malformed("property")
        value, at = _value(data, at, end, row)
        if row.kind is PAIR or (identifier == SUBSCRIPTION_IDENTIFIER and packet == "PUBLISH"):
            values = found.setdefault(identifier, [])
            values.append(value)
            if len(values) > MAX_USER_PROPERTIES:
                raise Malformed("user_properties")
        elif identifier in found:
            raise Malformed("property_twice")
        else:
            found[identifier] = value
        if identifier in HANDED_ON:
            handed_on.append(data[start:at])
    return found, b"".join(handed_on), end


def _value(data: bytes, at: int, end: int, row: Property) -> tuple[Any, int]:
    kind = row.kind
    value: Any
    if (width := _WIDTHS.get(kind)) is not None:
        value, at = int.from_bytes(data[at : at + width], "big"), at + width
    elif kind is VARIABLE:
        value, at = variable(data, at)
    elif kind is PAIR:
        name, at = _binary(data, at, end)
        content, at = _binary(data, at, end)
        value = (text(name), text(content))
    else:
        value, at = _binary(data, at, end)
        if kind is TEXT:
            value = text(value)
    if at > end:
        raise Malformed("too_short")
    if row.values is not None and value not in row.values:
        raise Malformed("property_value")
    return value, at


def _binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    start = at + 2
    at = start + int.from_bytes(data[at:start], "big")
    if start > end or at > end:
        raise Malformed("too_short")
    return data[start:at], at


def one(identifier: int, value: Any) -> bytes:
    """One property, with its identifier, as it stands in a packet."""
    kind = TABLE[identifier].kind
    if (width := _WIDTHS.get(kind)) is not None:
        encoded = int(value).to_bytes(width, "big")
    elif kind is VARIABLE:
        encoded = remaining_length(value)
    elif kind is PAIR:
        encoded = _with_length(value[0].encode()) + _with_length(value[1].encode())
    else:
        encoded = _with_length(value.encode() if kind is TEXT else value)
    return bytes((identifier,)) + encoded


def _with_length(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def encode(*properties: tuple[int, Any]) -> bytes:
    """Several properties without their length, in this order."""
    return b"".join(one(identifier, value) for identifier, value in properties)


def with_length(encoded: bytes) -> bytes:
    """Encoded properties behind their length."""
    return remaining_length(len(encoded)) + encoded
