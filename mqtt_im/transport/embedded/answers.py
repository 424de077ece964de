"""The acknowledgements of what a client publishes: in the order of arrival, whatever finishes first (MQTT-4.6.0-2, -3).

Each has a token, counted up from 1, and leaves when all before it have left. QoS 1 and 2, uplinks and plain messages stand in
one row.
"""

from __future__ import annotations

from typing import Final

from mqtt_im.mqtt import V5, encode
from mqtt_im.mqtt import properties as props
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.wire import Wire

_MAX_REASON_BYTES: Final = 1024


class Answers(Wire):
    """A wire with acknowledgements that wait."""

    __slots__ = ("_eof", "_failed", "_marked", "_next", "_pending", "_tokens", "explains", "full", "max_pending", "twos")

    def __init__(self, hub: Hub, listener: str) -> None:
        super().__init__(hub, listener)
        self.twos: dict[int, int] | None = None
        """Uplinks at QoS 2 that wait for their answer: token → packet identifier."""
        self.explains = True
        """The client wants reason strings (Request Problem Information)."""
        self.max_pending = hub.max_pending
        """Publishes that may wait for their acknowledgement."""
        self._tokens = 0
        self._next = 1
        self._pending: dict[int, bytes] = {}
        """Acknowledgements that have not left, by token, in order."""
        self._marked: set[int] | None = None
        """Those of them whose answer is there, but that wait for earlier ones."""
        self.full = False
        """No more publishes are handled before half of those that wait have left."""
        self._eof = False
        """The peer will send no more; the connection ends when all that it has sent is handled and answered."""
        self._failed = 0
        """The first token that will have no acknowledgement; 0 where there is none."""

    def token(self, acknowledgement: bytes) -> int:
        """Take the next place in the order of acknowledgements."""
        self._tokens = token = self._tokens + 1
        self._pending[token] = acknowledgement
        return token

    def waits_for(self, acknowledgement: bytes) -> bool:
        """Whether this acknowledgement has a place and has not left."""
        return acknowledgement in self._pending.values()

    def done(self, token: int) -> None:
        """The uplink `token` has its final answer: its PUBACK or PUBREC leaves when those before it have left."""
        if self.twos is not None and token in self.twos:
            self.uplink_received(token, self.twos.pop(token))
        else:
            self.acknowledge(token)

    def acknowledge(self, token: int) -> None:
        """Let an acknowledgement leave, with those that waited for it."""
        if token != self._next:
            if self._marked is None:
                self._marked = set()
            self._marked.add(token)
            return
        pending, marked = self._pending, self._marked
        while True:
            acknowledgement = pending.pop(token, None)
            if acknowledgement is not None and not self.closed:
                self.answer(acknowledgement)
            token += 1
            if not marked or token not in marked:
                break
            marked.discard(token)
        self._next = token
        if token == self._failed:
            self.end("uplink_failed")
        elif self.full and len(pending) <= self.max_pending // 2:
            self.full = False
            self.window_opened()
        if not pending:
            if self._eof:
                self.nothing_pending()
            if self.hub.draining:
                self.hub.answered()

    def refuse(self, token: int, code: int, text: str) -> None:
        """The uplink `token` was refused: MQTT 5's acknowledgement says so, and why (MQTT5-3.4.2.1); 3.1.1 has only `done`."""
        if self.version != V5:
            self.done(token)
            return
        pending = self._pending.get(token)
        if pending is not None:
            packet_id = int.from_bytes(pending[2:4], "big")
            self._pending[token] = self.refusal(pending[0], packet_id, code, text)
        if self.twos is not None:
            self.twos.pop(token, None)
        self.acknowledge(token)

    def refusal(self, first: int, packet_id: int, code: int, text: str) -> bytes:
        """The acknowledgement that says why, as long as the client wants that and takes it (MQTT5-3.1.2-29, -3.4.2-2)."""
        if self.explains and text:
            told = text.encode()[:_MAX_REASON_BYTES].decode(errors="ignore").replace("\0", " ")
            full = encode.acknowledgement(first, packet_id, code, props.one(props.REASON_STRING, told))
            if not self.max_packet or len(full) <= self.max_packet:
                return full
        return encode.acknowledgement(first, packet_id, code)

    def fail(self, token: int) -> None:
        """The uplink `token` is not acknowledged; the connection is closed once what was written has left.

        Uplinks before it are still answered in their order; none after it is.
        """
        if not token or token == self._next:
            self.end("uplink_failed")
        elif not self._failed or token < self._failed:
            self._failed = token
            self.handle_nothing_more()

    @property
    def waiting(self) -> int:
        """How many publishes wait for their acknowledgement."""
        return len(self._pending)

    @property
    def answered(self) -> bool:
        """Everything that was handed in has its acknowledgement."""
        return not self._pending

    def uplink_received(self, token: int, packet_id: int) -> None:
        """An uplink at QoS 2 has its answer: remember its identifier, then acknowledge it."""
        raise NotImplementedError

    def window_opened(self) -> None:
        """It is `full` no more."""

    def nothing_pending(self) -> None:
        """The last acknowledgement has left, and the peer will send no more."""

    def handle_nothing_more(self) -> None:
        """Packets that come from now on are not handled: they will have no acknowledgement."""
