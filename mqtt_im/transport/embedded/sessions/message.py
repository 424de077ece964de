"""A message on a plain topic, as it is routed, and what goes with it to one subscriber."""

from __future__ import annotations

from dataclasses import dataclass

from mqtt_im.mqtt import properties as props
from mqtt_im.transport.embedded.sessions.session import IDENTIFIER_SHIFT


@dataclass(frozen=True, slots=True)
class PlainMessage:
    """One PUBLISH on a plain topic."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: bytes = b""
    """Encoded ones that go with it."""
    expires: int = 0
    """When nobody is to get it any more, in ms by the steady time; 0: never."""

    @property
    def size(self) -> int:
        """Bytes of the payload and of what goes with it."""
        return len(self.payload) + len(self.properties)


def identifiers(options: list[int]) -> bytes:
    """The Subscription Identifiers of all subscriptions by which a message comes (MQTT5-3.3.4-3 to -5)."""
    if not any(each >> IDENTIFIER_SHIFT for each in options):
        return b""
    return b"".join(
        props.one(props.SUBSCRIPTION_IDENTIFIER, each >> IDENTIFIER_SHIFT) for each in options if each >> IDENTIFIER_SHIFT
    )
