"""MQTT packets as the load generator writes them: encoded once, spliced afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Form:
    """How one version of MQTT writes what the other writes otherwise."""

    level: int
    given: bytes = b""
    """The properties of CONNECT, with their length."""
    none: bytes = b""
    """The properties of every other packet, which has none."""


V311: Final = Form(4)
V5: Final = Form(5, b"\0", b"\0")
V5_ALIASES: Final = Form(5, b"\x03\x22\0\x10", b"\0")
"""The server may give 16 topics an alias (MQTT5-3.1.2.11.5)."""

PUBACK_HEAD = b"\x40\x02"
DISCONNECT = b"\xe0\x00"
PINGREQ = b"\xc0\x00"


def remaining_length(length: int) -> bytes:
    """The variable-length encoding of a packet's remaining length (MQTT-2.2.3)."""
    out = bytearray()
    while True:
        length, digit = divmod(length, 128)
        out.append(digit | 0x80 if length else digit)
        if not length:
            return bytes(out)


def text(value: str) -> bytes:
    """A UTF-8 string behind its two bytes of length (MQTT-1.5.3)."""
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def connect(
    client_id: str, username: str | None = None, password: str | None = None, clean: bool = True, form: Form = V311
) -> bytes:
    """A CONNECT without will and without keep-alive, so that an idle connection costs no pings."""
    flags = 0x02 if clean else 0
    payload = text(client_id)
    if username is not None:
        flags |= 0x80
        payload += text(username)
    if password is not None:
        flags |= 0x40
        payload += text(password)
    body = text("MQTT") + bytes((form.level, flags, 0, 0)) + form.given + payload
    return b"\x10" + remaining_length(len(body)) + body


def subscribe(packet_id: int, topic_filter: str, qos: int = 1, form: Form = V311) -> bytes:
    """A SUBSCRIBE to one filter."""
    body = packet_id.to_bytes(2, "big") + form.none + text(topic_filter) + bytes((qos,))
    return b"\x82" + remaining_length(len(body)) + body


def publish_head(topic: str, payload_length: int, form: Form = V311) -> bytes:
    """What stands before the packet identifier of a QoS 1 PUBLISH with so many bytes of payload, which `form.none` precedes."""
    name = text(topic)
    return b"\x32" + remaining_length(len(name) + 2 + len(form.none) + payload_length) + name


def publish(topic: str, payload: bytes, packet_id: int) -> bytes:
    """A whole QoS 1 PUBLISH."""
    return publish_head(topic, len(payload)) + packet_id.to_bytes(2, "big") + payload
