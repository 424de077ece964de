"""Strict decoders of what clients send, in both versions.

A decoder takes the bytes between a packet's header and its end, and either returns all that the packet says or
raises `Malformed`. Nothing malformed is repaired: amqtt's own decoders accept much of it, which is why they are not used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mqtt_im.mqtt import V5, V311
from mqtt_im.mqtt import properties as props
from mqtt_im.mqtt.properties import Properties, text
from mqtt_im.mqtt.reasons import CLIENT_CODES, Malformed
from mqtt_im.mqtt.topics import valid_filter, valid_share, valid_topic

NO_LOCAL: Final = 0x04
RETAIN_AS_PUBLISHED: Final = 0x08
MAX_FILTERS: Final = 10_000
"""Of one packet, which has room for 65,000: those were taken apart in one go, for 70 ms, before anybody asked what they cost."""


@dataclass(frozen=True, slots=True)
class Will:
    """What is published for a client that goes without DISCONNECT."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    delay: int = 0
    """Seconds between the end of the connection and the will."""
    expiry: int | None = None
    """Message Expiry Interval in seconds, counted from when it is published."""
    handed_on: bytes = b""
    """Encoded properties that go with it to whoever gets it."""

    @property
    def size(self) -> int:
        """Bytes that it takes, roughly."""
        return len(self.topic) + len(self.payload) + len(self.handed_on)


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT of either version."""

    version: int
    client_id: str
    clean: bool
    """Clean session of 3.1.1, clean start of 5."""
    keep_alive: int
    """Seconds; 0 is none."""
    will: Will | None
    username: str | None
    password: bytes | None
    properties: Properties = field(default_factory=dict)


class OtherVersion(Exception):
    """A CONNECT of another protocol version than the two; `name` is it, as text, `newer` whether it comes after them."""

    def __init__(self, name: str, *, newer: bool = False) -> None:
        super().__init__(name)
        self.name = name
        self.newer = newer


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH of either version."""

    topic: str
    """Empty where a topic alias stands for it."""
    packet_id: int
    """0 at QoS 0."""
    payload: bytes
    properties: Properties | None = None
    """None where there are none."""
    handed_on: bytes = b""
    """Encoded properties that go with it to whoever gets it."""


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
            raise Malformed("packet_id_zero")  # MQTT-2.3.1-1, MQTT5-2.2.1-3
        return packet_id

    def properties(self, packet: str) -> tuple[Properties, bytes]:
        found, handed_on, self.at = props.decode(self.body, self.at, packet)
        return found, handed_on

    @property
    def more(self) -> bool:
        return self.at < len(self.body)

    def finish(self) -> None:
        if self.more:
            raise Malformed("too_long")


def claims_v5(beginning: bytes) -> bool:
    """Whether a CONNECT's body that begins so is MQTT 5's: a mistake in it is then answered in that version's words."""
    return beginning.startswith(b"\0\4MQTT\5")


def connect(body: bytes) -> Connect:
    """Decode a CONNECT. Raises `OtherVersion` for one that is neither MQTT 3.1.1 nor 5."""
    reader = _Reader(body)
    name = reader.text()
    version = reader.byte()
    if name == "MQIsdp" and version & 0x7F == 3:
        raise OtherVersion("3.1")
    if name != "MQTT":
        raise Malformed("protocol_name")  # MQTT-3.1.2-1
    if version not in (V311, V5):
        raise OtherVersion("unknown", newer=V5 < version < 0x80)  # MQTT-3.1.2-2
    flags = reader.byte()
    has_will, will_qos, will_retain = flags & 0x04, flags >> 3 & 3, flags & 0x20
    if flags & 0x01:
        raise Malformed("connect_flags")  # MQTT-3.1.2-3
    if will_qos == 3 or (not has_will and (will_qos or will_retain)):
        raise Malformed("will_flags")  # MQTT-3.1.2-11, -13, -14, -15
    if flags & 0x40 and not flags & 0x80 and version == V311:
        raise Malformed("password_without_username")  # MQTT-3.1.2-22
    keep_alive = reader.number()
    found: Properties = {}
    if version == V5:
        found, _ = reader.properties("CONNECT")
        if props.AUTHENTICATION_DATA in found and props.AUTHENTICATION_METHOD not in found:
            raise Malformed("auth_data")
    client_id = reader.text()
    will = _will(reader, version, will_qos, bool(will_retain)) if has_will else None
    username = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    reader.finish()
    return Connect(version, client_id, bool(flags & 0x02), keep_alive, will, username, password, found)


def _will(reader: _Reader, version: int, qos: int, retain: bool) -> Will:
    found, handed_on = reader.properties(props.WILL) if version == V5 else ({}, b"")
    topic = reader.text()
    if not valid_topic(topic):
        raise Malformed("will_topic")
    _check_response_topic(found)
    payload = reader.binary()
    return Will(topic, payload, qos, retain, found.get(props.WILL_DELAY, 0), found.get(props.MESSAGE_EXPIRY), handed_on)


def _check_response_topic(found: Properties) -> None:
    if props.RESPONSE_TOPIC in found and not valid_topic(found[props.RESPONSE_TOPIC]):
        raise Malformed("response_topic")


def publish(first: int, body: bytes, version: int = V311) -> Publish:
    """Decode a PUBLISH with a valid first byte."""
    reader = _Reader(body)
    topic = reader.text()
    if (topic or version == V311) and not valid_topic(topic):
        raise Malformed("topic")  # MQTT-3.3.2-2, MQTT-4.7.3-1
    packet_id = reader.packet_id() if first & 0x06 else 0
    if version == V311:
        return Publish(topic, packet_id, body[reader.at :])
    found, handed_on = reader.properties("PUBLISH")
    if props.SUBSCRIPTION_IDENTIFIER in found:
        raise Malformed("subscription_identifier")
    if found.get(props.TOPIC_ALIAS) == 0:
        raise Malformed("topic_alias")
    if not topic and props.TOPIC_ALIAS not in found:
        raise Malformed("no_topic")
    _check_response_topic(found)
    return Publish(topic, packet_id, body[reader.at :], found or None, handed_on)


def acknowledgement(body: bytes, packet: str, version: int = V311) -> tuple[int, int]:
    """Decode PUBACK, PUBREC, PUBREL or PUBCOMP (`packet` says which): its packet identifier, and its reason code."""
    reader = _Reader(body)
    packet_id = reader.packet_id()
    code = 0
    if version == V5 and reader.more:
        code = reader.byte()
        if code not in CLIENT_CODES[packet]:
            raise Malformed("reason_code")
        if reader.more:
            reader.properties(packet)
    reader.finish()
    return packet_id, code


def subscribe(body: bytes, version: int = V311) -> tuple[int, list[tuple[str, int]], int]:
    """Decode a SUBSCRIBE: packet identifier, filters with their options, and Subscription Identifier (0: none).

    Options are the QoS asked for in two bits, `NO_LOCAL`, `RETAIN_AS_PUBLISHED`, and Retain Handling in two bits above.
    """
    reader = _Reader(body)
    packet_id = reader.packet_id()
    identifier = 0
    if version == V5:
        found, _ = reader.properties("SUBSCRIBE")
        identifier = found.get(props.SUBSCRIPTION_IDENTIFIER, 0)
    filters: list[tuple[str, int]] = []
    while reader.more:
        topic_filter = _filter(reader, version)
        options = reader.byte()
        if options & 3 == 3 or options > (0x3F if version == V5 else 2):
            raise Malformed("subscribe_qos" if version == V311 or options & 3 == 3 else "subscribe_options")  # MQTT-3.8.3-4
        if options >> 4 == 3:
            raise Malformed("retain_handling")
        if options & NO_LOCAL and topic_filter.startswith("$share/"):
            raise Malformed("no_local")
        filters.append((topic_filter, options))
        if len(filters) > MAX_FILTERS:
            raise Malformed("too_many_filters")
    if not filters:
        raise Malformed("no_filters")  # MQTT-3.8.3-3
    return packet_id, filters, identifier


def unsubscribe(body: bytes, version: int = V311) -> tuple[int, list[str]]:
    """Decode an UNSUBSCRIBE: its packet identifier and filters."""
    reader = _Reader(body)
    packet_id = reader.packet_id()
    if version == V5:
        reader.properties("UNSUBSCRIBE")
    filters: list[str] = []
    while reader.more:
        filters.append(_filter(reader, version))
        if len(filters) > MAX_FILTERS:
            raise Malformed("too_many_filters")
    if not filters:
        raise Malformed("no_filters")  # MQTT-3.10.3-2
    return packet_id, filters


def _filter(reader: _Reader, version: int) -> str:
    topic_filter = reader.text()
    if not (valid_share(topic_filter) if version == V5 else valid_filter(topic_filter)):
        raise Malformed("filter")  # MQTT-4.7.1-2, -3, MQTT-4.7.3-1, MQTT5-4.8.2-1
    return topic_filter


def disconnect(body: bytes, version: int = V311) -> tuple[int, Properties]:
    """Decode a DISCONNECT: its reason code and properties."""
    if not body:
        return 0, {}
    if version == V311:
        raise Malformed("disconnect_length")
    reader = _Reader(body)
    code = reader.byte()
    if code not in CLIENT_CODES["DISCONNECT"]:
        raise Malformed("reason_code")
    found: Properties = {}
    if reader.more:
        found, _ = reader.properties("DISCONNECT")
        if props.SERVER_REFERENCE in found:
            raise Malformed("property")  # a server's alone
    reader.finish()
    return code, found
