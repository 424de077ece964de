"""MQTT packets as attacks write them, of both versions, and larger or more than anybody else's."""

from __future__ import annotations

from mqtt_im.load.wire import PINGREQ, PUBACK_HEAD, remaining_length, text

V311, V5 = 4, 5
"""Protocol levels."""


def connect(
    client_id: str,
    username: str | None = None,
    password: str | None = None,
    clean: bool = True,
    *,
    version: int = V311,
    will: tuple[str, bytes] | None = None,
    properties: bytes = b"",
) -> bytes:
    """A CONNECT without keep-alive, so that an idle connection costs no pings; with a will of QoS 1 where one is given."""
    flags = 0x02 if clean else 0
    payload = text(client_id)
    if will is not None:
        flags |= 0x0C
        payload += (b"\0" if version == V5 else b"") + text(will[0]) + len(will[1]).to_bytes(2, "big") + will[1]
    if username is not None:
        flags |= 0x80
        payload += text(username)
    if password is not None:
        flags |= 0x40
        payload += text(password)
    known = remaining_length(len(properties)) + properties if version == V5 else b""
    body = text("MQTT") + bytes((version, flags, 0, 0)) + known + payload
    return b"\x10" + remaining_length(len(body)) + body


def subscribe(packet_id: int, topic_filter: str, qos: int = 1, *, version: int = V311) -> bytes:
    """A SUBSCRIBE to one filter."""
    body = packet_id.to_bytes(2, "big") + (b"\0" if version == V5 else b"") + text(topic_filter) + bytes((qos,))
    return b"\x82" + remaining_length(len(body)) + body


def publish(
    topic: str,
    payload: bytes,
    packet_id: int,
    *,
    qos: int = 1,
    retain: bool = False,
    version: int = V311,
    properties: bytes = b"",
) -> bytes:
    """A whole PUBLISH."""
    head = text(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
    if version == V5:
        head += remaining_length(len(properties)) + properties
    return bytes((0x30 | qos << 1 | retain,)) + remaining_length(len(head) + len(payload)) + head + payload


__all__ = ["PINGREQ", "PUBACK_HEAD", "V5", "V311", "connect", "publish", "remaining_length", "subscribe", "text"]
