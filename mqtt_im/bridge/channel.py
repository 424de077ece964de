"""A channel: one device's connection as the bridge serves it, with its delivery, its choices and its replies."""

from __future__ import annotations

import time
from typing import Any

from mqtt_im.core.delivery import Claim, Delivery
from mqtt_im.protocol.codec import deflate, encode_json, json_to_msgpack
from mqtt_im.transport.api import FIRST_REPLY_PACKET_ID, LAST_REPLY_PACKET_ID, Link

MIN_ZIP_BYTES = 128
"""Shorter payloads are sent as they are."""

TYPING_AGAIN_S = 1.0

Replies = dict[int, tuple[bool, bytes]]
"""Replies without PUBACK: packet identifier → (to the device topic?, payload as it was sent)."""


class Channel:
    """Lives as long as its link. `delivery` is None until the device has subscribed and its state was read."""

    __slots__ = (
        "batch",
        "codec",
        "delivery",
        "device",
        "device_topic",
        "held",
        "link",
        "opening",
        "ready",
        "replies",
        "typed",
        "user",
        "user_topic",
        "waiting",
        "window",
        "zip",
        "_next_reply",
    )

    def __init__(self, link: Link, user_topic: bytes, device_topic: bytes) -> None:
        self.link = link
        self.user = link.user
        self.device = link.device
        self.user_topic = user_topic
        self.device_topic = device_topic
        self.delivery: Delivery | None = None
        self.opening = False
        """The device's state was asked for."""
        self.ready = False
        """It will be pumped in this turn of the loop."""
        self.codec = "json"
        self.batch = False
        self.zip = False
        self.window = 0
        """What `hello` asked for; 0 where it did not."""
        self.replies: Replies = {}
        self.waiting = 0
        """Requests that have no answer yet."""
        self.held: list[int] | None = None
        """Uplinks that are done, but whose acknowledgement waits until the device has read its replies."""
        self.typed: tuple[str, bool, float] | None = None
        """The last `typing` that was passed on: to whom, its state, and when (seconds, monotonic)."""
        self._next_reply = FIRST_REPLY_PACKET_ID

    @property
    def listening(self) -> bool:
        """Whether the device is subscribed to one of its down topics."""
        return self.link.user_qos >= 0 or self.link.device_qos >= 0

    def may_tell_typing(self, to: str, on: bool, now: float) -> bool:
        """Whether a `typing` is news: not the same again within `TYPING_AGAIN_S`."""
        if self.typed is not None:
            last_to, last_on, at = self.typed
            if (to, on) == (last_to, last_on) and now - at < TYPING_AGAIN_S:
                return False
        self.typed = (to, on, now)
        return True

    @property
    def item_qos(self) -> int:
        """The granted QoS of the topic that items go to."""
        return self.link.user_qos if self.link.user_qos >= 0 else max(self.link.device_qos, 0)

    def pump(self, now: int, claim: Claim) -> int:
        """Write what the delivery has to send and the socket has room for; returns how many packets that were."""
        delivery, link = self.delivery, self.link
        if delivery is None or link.closed:
            return 0
        topic = self.user_topic if link.user_qos >= 0 else self.device_topic
        publish, encode = link.publish, None if self.codec == "json" and not self.zip else self.encode
        count = 0
        while link.writable:
            packet = delivery.take(now, claim)
            if packet is None:
                break
            packet_id, payload, dup = packet
            publish(topic, payload if encode is None else encode(payload), packet_id, dup)
            count += 1
        return count

    def encode(self, payload: bytes) -> bytes:
        """JSON text in the form that the device has asked for."""
        if self.codec == "msgpack":
            payload = json_to_msgpack(payload)
        if self.zip and len(payload) >= MIN_ZIP_BYTES:
            payload = deflate(payload)
        return payload

    def reply(self, fields: dict[str, Any]) -> None:
        """Send a reply, where the device listens: to its own topic if it has that one."""
        link = self.link
        if link.closed or not self.listening:
            return
        to_device = link.device_qos >= 0
        payload = self.encode(encode_json(fields))
        packet_id = 0
        if (link.device_qos if to_device else link.user_qos) > 0:
            packet_id = self._reply_id()
            if packet_id:
                self.replies[packet_id] = (to_device, payload)
        link.publish(self.device_topic if to_device else self.user_topic, payload, packet_id)

    def event(self, payload: bytes) -> None:
        """Send an event at QoS 0, unless the device does not keep up; it is found again in `convs`."""
        link = self.link
        if not link.closed and link.writable and self.listening:
            link.publish(self.user_topic if link.user_qos >= 0 else self.device_topic, self.encode(payload), 0)

    def resend(self, replies: Replies) -> None:
        """Replies that a former connection of the session had not acknowledged leave again (MQTT-4.4.0-1)."""
        for packet_id, (to_device, payload) in replies.items():
            if (self.link.device_qos if to_device else self.link.user_qos) > 0:
                self.replies[packet_id] = (to_device, payload)
                self.link.publish(self.device_topic if to_device else self.user_topic, payload, packet_id, True)

    def _reply_id(self) -> int:
        for _ in range(LAST_REPLY_PACKET_ID - FIRST_REPLY_PACKET_ID + 1):
            packet_id = self._next_reply
            self._next_reply = packet_id + 1 if packet_id < LAST_REPLY_PACKET_ID else FIRST_REPLY_PACKET_ID
            if packet_id not in self.replies:
                return packet_id
        return 0


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
