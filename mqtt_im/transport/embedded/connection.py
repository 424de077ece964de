"""One MQTT connection: packets are handled where they arrive.

What is hot runs in `run` without tasks: PUBLISH on the device's own `up`, PUBACK, PINGREQ. Everything else goes through
`receiving`. Rules of this file and of `holding`:

- Packets are handled in the order in which they came. What must wait (login, a subscription, the request rate, a full window,
  a client that does not read) sets `_stop`; packets behind it are held, and reading pauses when they are many. PINGREQ and
  PUBACK pass what is held.
- Nothing waits for a later packet of the same client: that may stand behind more packets than are held.
- A user's packets have `_TURN_S` of each turn of the loop; what is left of them waits for the next one.
- Acknowledgements leave as `answers` orders them.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final

from mqtt_im.mqtt import V5, encode, reasons
from mqtt_im.mqtt.framing import (
    DISCONNECT,
    SUBSCRIBE,
    UNSUBSCRIBE,
    body_and_end,
)
from mqtt_im.mqtt.reasons import Malformed
from mqtt_im.transport.api import FIRST_PLAIN_PACKET_ID
from mqtt_im.transport.embedded import admission, receiving
from mqtt_im.transport.embedded.holding import END, LOOK_AGAIN_S, RUN, TASK, WINDOW, WRITE, Holding
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.limits import FAR_BEYOND_S
from mqtt_im.transport.under_way import LARGE

_TURN_S: Final = 0.003

_PING_S: Final = 0.05
"""What a ping is paid for with: 20 of them a second, and 40 at once."""
_ACKNOWLEDGEMENT_S: Final = 0.002
"""The same of an acknowledgement that nothing waited for: 500 a second, and 1,000 at once."""
_ACKED_AT_ONCE: Final = 64
CONTROL_BURST_S: Final = 2.0
_PAUSE_S: Final = 0.1
"""So long such packets wait at least, once they do: looking at each of them again costs more than it."""


def _is_goodbye(held: bytes | float) -> bool:
    """Whether what is held is a DISCONNECT that takes the will back (MQTT5-3.14.4-3)."""
    return isinstance(held, bytes) and held[0] == DISCONNECT and held[2:3] in (b"", b"\0")


class Connection(Holding):
    """A client's packets, in the order in which they come."""

    __slots__ = ("_control_until",)

    def __init__(self, hub: Hub, listener: str) -> None:
        super().__init__(hub, listener)
        self._control_until = 0.0
        """The time up to which packets that nobody pays for as requests are paid for, as in a `Bucket`."""

    # Input

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        if self.closed:
            return
        self._last_heard = now = self.hub.clock()
        if not self.opened and not self.has_room(len(data)):
            return
        partial = self._partial
        if partial is not None:
            partial.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                self.keep(len(data))
                return
            whole = b"".join(partial)
            self.keep(len(data) - len(whole))
            data = whole
            self._partial = None
        try:
            if self._stop:
                self.hold(data, 0, now)
            elif self.opened:
                self._held_since = now
                at = self.run(data, now)
                if at >= 0:
                    self.hold(data, at, now)
            else:
                self.greet(data, now)
        except Malformed as wrong:
            self.violation(wrong)

    def eof_received(self) -> bool:
        """The peer will send no more: what it has sent is still handled and answered, then the connection ends."""
        if self.opened:
            busy = bool(self._held or self._pending or self._stop == TASK)
        else:
            # Who hangs up while the login takes its time has given up, unless something was to be published.
            busy = any(isinstance(held, bytes) and held[0] & 0xF0 == 0x30 for held in self._held or ())
        # Over TLS a transport cannot stay half open.
        if not busy or self.closed or self.transport.get_extra_info("ssl_object") is not None:
            return super().eof_received()
        self._eof = True
        return True

    def nothing_pending(self) -> None:
        """The last acknowledgement has left, and the peer will send no more."""
        if self._stop == RUN and not self._held:
            self.end("lost")

    def flooding(self, now: float) -> bool:
        """See `Holding`."""
        return self._control_until - now > CONTROL_BURST_S

    def meter(self, now: float, count: int = 1) -> None:
        """See `Peer`."""
        self._control_until = max(self._control_until, now) + count * _ACKNOWLEDGEMENT_S

    def run(self, data: bytes, now: float) -> int:  # noqa: C901 - the hot loop, in one piece for speed
        """See `Holding`."""
        hub, bucket = self.hub, self.bucket
        handler, limit = hub.handler, hub.limits.max_packet_bytes
        if bucket.turn != now:
            bucket.turn, bucket.turn_ends = now, perf_counter() + _TURN_S
        at, end = 0, len(data)
        while at < end:
            first = data[at]
            body = at + 2  # short packets, which no limit can concern, are measured here
            if body <= end and (length := data[at + 1]) < 0x7F and body + length <= end:
                stop = body + length
            elif (  # a message of two bytes of length, as `body_and_end` has it
                first == 0x32
                and body < end
                and data[body] < 0x80 <= length
                and (stop := body + 1 + (length & 0x7F | data[body] << 7)) <= end
                and stop - at <= limit
            ):
                body += 1
            else:
                body, stop = body_and_end(data, at, limit)
                if stop > end:
                    self.wait_for(data, at, stop)
                    return -1
            if first == 0x40:
                if self._control_until - now > CONTROL_BURST_S:
                    self.slow_down(max(_PAUSE_S, self._control_until - now - CONTROL_BURST_S))
                    return at
                if stop - body != 2 or self._unacked is not None:
                    if self.version != V5:
                        raise Malformed("puback_length")
                    receiving.puback5(self, data[body:stop])
                    at = stop
                    continue
                packet_id = data[body] << 8 | data[body + 1]
                if packet_id >= FIRST_PLAIN_PACKET_ID:
                    receiving.puback(self, packet_id)
                elif not packet_id:
                    raise Malformed("packet_id_zero")
                elif self.device:
                    acked = [packet_id]
                    # Those that stand right behind it are told of together.
                    while stop + 4 <= end and data[stop] == 0x40 and data[stop + 1] == 2 and len(acked) < _ACKED_AT_ONCE:
                        packet_id = data[stop + 2] << 8 | data[stop + 3]
                        if not 0 < packet_id < FIRST_PLAIN_PACKET_ID:
                            break
                        acked.append(packet_id)
                        stop += 4
                    if unknown := len(acked) - handler.acked(self, acked):
                        self.meter(now, unknown)
            elif 0x30 <= first < 0x40:
                if len(self._pending) >= self.max_pending or not self.writable:
                    if self.version == V5 and self.writable and first & 0x06:
                        raise Malformed("receive_maximum")
                    self.full = self.writable
                    self._stop = WINDOW if self.full else WRITE
                    return at
                if stop - at > LARGE and hub.under_way.full(self.party):
                    self.slow_down(LOOK_AGAIN_S)
                    return at
                if wait := bucket.take(now):
                    if now - self._held_since < FAR_BEYOND_S or not receiving.beyond_rate(self, first, data[body:stop], wait):
                        self.slow_down(wait)
                        return at
                elif first == 0x32 and data.startswith(self._up, body) and self.device:
                    start = body + len(self._up)
                    packet_id = data[start] << 8 | data[start + 1] if start + 2 <= stop else 0
                    if not packet_id:
                        raise Malformed("packet_id_zero")
                    if self.version == V5:
                        if start + 3 > stop or data[start + 2]:
                            receiving.publish(self, first, data[body:stop])
                            at = stop
                            if self._stop:
                                return at
                            continue
                        payload = data[start + 3 : stop]
                    else:
                        payload = data[start + 2 : stop]
                    self._tokens = token = self._tokens + 1
                    self._pending[token] = b"\x40\x02" + data[start : start + 2]
                    handler.uplink(self, payload, token, packet_id, False)
                else:
                    receiving.publish(self, first, data[body:stop])
            elif first == 0xC0:
                if stop != body:
                    raise Malformed("pingreq_length")
                if not self.writable:
                    self._stop = WRITE
                    return at
                if self.flooding(now):
                    self.slow_down(max(_PAUSE_S, self._control_until - now - CONTROL_BURST_S))
                    return at
                self._control_until = max(self._control_until, now) + _PING_S
                self.answer(encode.PINGRESP)
            else:
                if first in (SUBSCRIBE, UNSUBSCRIBE) and (wait := bucket.take(now)):
                    self.slow_down(wait)
                    return at
                if self.flooding(now):
                    self.slow_down(max(_PAUSE_S, self._control_until - now - CONTROL_BURST_S))
                    return at
                receiving.other(self, first, data[body:stop])
            at = stop
            if self._stop:
                return at
            if at < end and perf_counter() > bucket.turn_ends:
                self.wait_for_turn()
                return at
        return -1

    def uplink_received(self, token: int, packet_id: int) -> None:
        """An uplink at QoS 2 has its answer."""
        receiving.uplink_received(self, token, packet_id)

    def window_opened(self) -> None:
        """Half of the uplinks that filled the window have their answer."""
        if self._stop == WINDOW:
            self.hub.loop.call_soon(self.go_on, WINDOW)

    def handle_nothing_more(self) -> None:
        """Packets that come from now on are not handled."""
        self._stop = END

    # Beginning and end

    def stop(self) -> None:
        """Handle nothing more: the server is stopping. A login that waits for its turn is told to come back."""
        if self.login is not None:
            self.turn_down(encode.SERVER_UNAVAILABLE, reasons.UNAVAILABLE, "stopping")
            return
        self._stop = END
        if not self._paused and not self.closed:
            self._paused = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The write buffer has drained below its low-water mark."""
        super().resume_writing()
        if self.closed or self.mqtt_session is None:
            return
        if self.device:
            self.hub.handler.writable(self)
        self.hub.plain.streams.pump(self.mqtt_session)
        self.go_on(WRITE)

    def ended(self, reason: str) -> None:
        """Leave the shared state, tell the bridge, and fire the will unless the client said goodbye."""
        self._stop = END
        if self._held and self.will is not None and any(map(_is_goodbye, self._held)):
            self.will = None  # it was said, and only waited for its turn
        self._held = self._partial = self._rest = self.incoming_aliases = None
        if self.login is not None:
            self.login.cancel()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self.turned_away:
            self.hub.turned_away -= 1
        self.hub.count("closes", reason=reason)
        if self.opened:
            self.hub.tell("connection ended", self, reason=reason)
        admission.leave(self)
