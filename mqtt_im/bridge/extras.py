"""What MQTT 5 adds to an uplink: properties that have their say in the request, and Correlation Data that its `sent` carries."""

from __future__ import annotations

from mqtt_im.mqtt.reasons import PAYLOAD_FORMAT, TOPIC_INVALID
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.transport.api import Extra

from .channel import Channel

MAX_AWAITED = 1024
"""`sent` items whose Correlation Data is kept; a device that skips them does not make it more."""


def apply(extra: Extra, request: rq.Request, payload: bytes, channel: Channel) -> tuple[Refusal, int] | None:
    """Let the properties of an uplink have their say; what is wrong with them, and its reason code (PROTOCOL §7)."""
    topic = extra.response_topic
    if topic is not None and topic.encode() not in (channel.user_topic, channel.device_topic):
        return Refusal("bad_field", "Response Topic: expected one of the device's own down topics"), TOPIC_INVALID
    if extra.is_text:
        try:
            payload.decode()
        except UnicodeDecodeError as error:
            return Refusal("bad_payload", f"the payload is not UTF-8 (byte {error.start}), as its format says"), PAYLOAD_FORMAT
    wrong = expire(request, extra.expiry)
    return None if wrong is None else (wrong, PAYLOAD_FORMAT)


def expire(request: rq.Request, expiry: int | None) -> Refusal | None:
    """A Message Expiry Interval is the `ttl` of a `send` that has none; what is wrong with it."""
    if expiry is None or not isinstance(request, rq.Send) or request.ttl is not None:
        return None
    if not expiry:
        return Refusal("bad_field", "Message Expiry Interval: expected at least 1 second")
    request.ttl = min(expiry, 2**31)
    return None


def await_sent(channel: Channel, job: RequestJob, correlation: bytes) -> None:
    """The `sent` of this request is on its way, and is to carry its Correlation Data."""
    for commit in job.commits or () if isinstance(job.request, rq.Send) else ():
        for user, pos in commit.to:
            if user == channel.user and channel.delivery is not None:
                while channel.awaited and len(channel.awaited) >= MAX_AWAITED:
                    channel.came(next(iter(channel.awaited)))
                channel.wait_for(pos, correlation)
