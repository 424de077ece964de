"""A connection until its login is over: what it may send, and how much of that is kept.

Nobody pays for what strangers send, so all of them together have a bound.
"""

from __future__ import annotations

from typing import Final

from mqtt_im.mqtt import V5, encode, packets, reasons
from mqtt_im.mqtt.framing import CONNECT, FIRST_BYTES, body_and_end, wrong_first_byte
from mqtt_im.mqtt.reasons import Malformed
from mqtt_im.transport.embedded import admission
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.peer import Peer
from mqtt_im.transport.embedded.sessions.session import Session

_GREETING_BYTES: Final = 4096
"""So much is kept of each of them all the same."""


class Stranger(Peer):
    """Takes CONNECT, and has it admitted."""

    __slots__ = ("_strange",)

    def __init__(self, hub: Hub, listener: str) -> None:
        super().__init__(hub, listener)
        self._strange = 0
        """Bytes that came before the login was over, as far as they are counted among the strangers'."""

    def has_room(self, size: int) -> bool:
        """Count what comes from nobody yet; where that is too much of all together, who has sent more than a greeting is cut."""
        hub = self.hub
        hub.strangers += size
        self._strange += size
        if hub.strangers <= hub.most_strangers or self._strange <= _GREETING_BYTES:
            return True
        hub.log.note("strangers", self.address, "%s is cut: too much has come of those who have not logged in", self)
        self.end("strangers", abort=True)
        return False

    def _is_known(self) -> None:
        """It is no stranger any more, or is gone."""
        self.hub.strangers -= self._strange
        self._strange = 0

    def greet(self, data: bytes, now: float) -> None:
        """Take CONNECT, which must be first (MQTT-3.1.0-1)."""
        if data[0] != CONNECT:
            raise Malformed("no_connect") if data[0] in FIRST_BYTES else wrong_first_byte(data[0])
        try:
            body, stop = body_and_end(data, 0, self.hub.limits.max_packet_bytes)
            if stop > len(data):
                self.wait_for(data, 0, stop)
                return
            connect = packets.connect(data[body:stop])
        except Malformed as wrong:
            # Its length stands before the version (MQTT5-3.1.4-1, -4.13.1-1).
            if any(packets.claims_v5(data[at : at + 7]) for at in range(2, 6)):
                self.version = V5
                self.hub.count("malformed_packets", reason=wrong.reason)
                self.turn_down(0, wrong.code, "malformed", text=wrong.reason)
                return
            raise
        except packets.OtherVersion as other:
            if other.newer:
                self.version = V5  # an answer in that form says more (MQTT5-3.1.2-2)
            self.turn_down(encode.UNACCEPTABLE_VERSION, reasons.UNSUPPORTED_VERSION, f"version_{other.name}")
            return
        self.wishes(connect)
        self.keep_alive(0)  # it was in time; how long a login takes is not the client's fault
        self.start(admission.admit(self, connect))
        self.hold(data, stop, now)

    def attach(
        self, session: Session, resumed: bool, connect: packets.Connect, assigned: str = "", keep_alive: int | None = None
    ) -> None:
        """See `Peer`."""
        super().attach(session, resumed, connect, assigned, keep_alive)
        self._is_known()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._is_known()
        super().connection_lost(exc)

    def wait_for(self, data: bytes, at: int, end: int) -> None:
        """Keep the packet that begins at `at`: it is not complete, and cannot be before `end`."""
        raise NotImplementedError

    def hold(self, data: bytes, at: int, now: float) -> None:
        """Keep packets until what is being waited for is over."""
        raise NotImplementedError
