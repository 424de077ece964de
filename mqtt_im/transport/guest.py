"""A connection that speaks no MQTT, and counts as one of its user's all the same: what every `Link` has, done nothing with."""

from __future__ import annotations

from typing import Any

from mqtt_im.mqtt import V311
from mqtt_im.transport.api import Lease


class Guest:
    """A `Link` that keeps no session and hands in nothing. Subclasses write, and end."""

    answered = True

    def __init__(self, user: str, device: str, address: str = "", lease: Lease | None = None) -> None:
        """`device` is empty where no device reads."""
        self.user = user
        self.device = device
        self.address = address
        self.lease = lease
        self.since = 0
        self.session = ""
        self.clean = True
        self.resumed = False
        self.user_qos = 0
        self.device_qos = -1
        self.writable = True
        self.version = V311
        self.room = 0x1_0000
        self.max_packet = 0
        self.closed = False
        self.key: tuple[str, str] | None = None
        """Its place among the connections that are logged in."""
        self.bucket: Any = None
        """The transport's: how fast its user may be."""

    @property
    def protocol(self) -> str:
        """See `Link`."""
        return "sse"

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        packet_id: int,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",
    ) -> bool:
        """See `Link`."""
        return True

    def charge(self, units: float) -> None:
        """See `Link`."""

    def under_way(self, size: int) -> None:
        """See `Link`."""

    def keep(self, size: int) -> None:
        """See `Link`."""

    def owes(self) -> float:
        """See `Link`."""
        return 0.0

    def done(self, token: int) -> None:
        """See `Link`."""

    def refuse(self, token: int, code: int, text: str) -> None:
        """See `Link`."""

    def fail(self, token: int) -> None:
        """See `Link`."""

    def close(self, reason: str) -> None:
        """See `Link`."""
        self.end(reason)

    def end(self, reason: str, *, abort: bool = False) -> None:
        """It is over; a second call does nothing."""
        self.closed = True

    def stop(self) -> None:
        """The server is stopping: nothing that it hands in is handled any more."""
