"""What of a connection's packets waits: they are held in the order in which they came, and handled when the wait is over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from functools import partial
from time import perf_counter
from typing import Any, Final

from mqtt_im.mqtt.framing import PINGREQ, PUBACK, body_and_end
from mqtt_im.mqtt.reasons import Malformed
from mqtt_im.transport.embedded.hub import Hub
from mqtt_im.transport.embedded.stranger import Stranger

RUN: Final = 0
"""Packets are handled as they come."""
RATE: Final = 1
"""The user's request rate is used up; a timer goes on."""
WINDOW: Final = 2
"""Too many uplinks wait for their answer; the answers go on."""
WRITE: Final = 3
"""The client does not read; the drained buffer goes on."""
TASK: Final = 4
"""A packet is being handled by a task; its end goes on."""
TURN: Final = 5
"""The user has had enough of this turn of the loop; another one goes on."""
END: Final = 6
"""Nothing more is handled."""

_MANY_HELD: Final = 1_000
"""So many held packets are taken apart; what comes behind them is not."""
LOOK_AGAIN_S: Final = 0.25
"""Room may be made meanwhile, so it is looked again after so long at the latest."""


class Holding(Stranger):
    """What sets `_stop` says what is waited for; until then `hold` keeps what comes."""

    __slots__ = (
        "_held",
        "_held_bytes",
        "_held_since",
        "_missing",
        "_partial",
        "_rest",
        "_stop",
        "_wake",
    )

    def __init__(self, hub: Hub, listener: str) -> None:
        super().__init__(hub, listener)
        self._stop = RUN
        self._wake: asyncio.TimerHandle | None = None
        self._partial: list[bytes] | None = None
        self._missing = 0
        self._held: deque[bytes | float] | None = None
        """Packets that wait; a number before them is the time at which those behind it came in."""
        self._held_bytes = 0
        self._held_since = 0.0
        self._rest: list[bytes] | None = None
        """What came behind too many packets to be looked at now: bytes as they came."""

    def run(self, data: bytes, now: float) -> int:
        """Handle the packets in `data`; returns where it stopped because `_stop` was set, or -1 where it did not."""
        raise NotImplementedError

    def flooding(self, now: float) -> bool:
        """Whether so many pings, and acknowledgements of nothing, came lately that the next ones wait."""
        raise NotImplementedError

    def wait_for(self, data: bytes, at: int, end: int) -> None:
        """Keep the packet that begins at `at`: it is not complete, and cannot be before `end`."""
        self._partial = [data[at:] if at else data]
        self._missing = end - len(data)
        self.keep(len(data) - at)

    def hold(self, data: bytes, at: int, now: float) -> None:
        """Keep packets until what is being waited for is over; handle what need not wait."""
        if self.closed:
            return
        if self._rest is not None:
            self._rest.append(data[at:])
            self.keep(len(data) - at)
            return
        before = self._held_bytes
        self._hold(data, at, now)
        if self._held_bytes != before:
            self.keep(self._held_bytes - before)

    def _hold(self, data: bytes, at: int, now: float) -> None:
        held = self._held
        if held is None:
            held = self._held = deque()
        marked = False
        limit, end = self.hub.limits.max_packet_bytes, len(data)
        while at < end:
            try:
                _, stop = body_and_end(data, at, limit)
                if stop > end:
                    self.wait_for(data, at, stop)
                    break
                passes = self.opened and data[at] in (PUBACK, PINGREQ)
                if (passes and (self.flooding(now) or not self.writable)) or len(held) > _MANY_HELD:
                    self._look_later(data, at)
                    return
                if passes:
                    self.run(data[at:stop], now)
            except Malformed:
                if not self.opened:
                    raise
                self._look_later(data, at)  # packets before it have their turn first, wherever the stream was cut
                return
            if not passes:
                if not marked:
                    held.append(now)
                    marked = True
                held.append(data[at:stop])
                self._held_bytes += stop - at
            at = stop
        if self._held_bytes > limit:
            self._read_no_more()

    def _look_later(self, data: bytes, at: int) -> None:
        """No more of it is looked at, and nothing more read, before the packets that are held had their turn."""
        self._rest = [data[at:]]
        self.keep(len(data) - at)
        self._read_no_more()

    def _read_no_more(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def wait_for_turn(self) -> None:
        """The user has had enough of this turn of the loop."""
        self._stop = TURN
        self.hub.next_turn(partial(self.go_on, TURN))

    def slow_down(self, wait: float) -> None:
        """Nothing is handled for so many seconds."""
        hub = self.hub
        self._stop = RATE
        hub.count("throttled")
        # Something may be given back meanwhile, so it is looked again before the whole time is over.
        self._wake = hub.loop.call_later(min(wait, LOOK_AGAIN_S), self.go_on, RATE)

    def go_on(self, reason: int) -> None:
        """What packets waited for is over: handle those that are held."""
        if self._stop != reason or self.closed or self.hub.draining:
            return
        self._stop = RUN
        now = self.hub.clock()
        held = self._held
        if held:
            before = self._held_bytes
            try:
                if not self._run_held(held, now):
                    return
            except Malformed as wrong:
                self.violation(wrong)
                return
            finally:
                if self._held_bytes != before:
                    self.keep(self._held_bytes - before)
        self._held = None
        self._held_since = now
        if self._rest is not None:
            rest, self._rest = b"".join(self._rest), None
            self.keep(-len(rest))
            try:
                at = self.run(rest, now)
                if at >= 0:
                    self.hold(rest, at, now)
            except Malformed as wrong:
                self.violation(wrong)
            if self._stop or self.closed:
                return
        if self._eof:
            if not self._pending:
                self.end("lost")
        elif self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _run_held(self, held: deque[bytes | float], now: float) -> bool:
        """Handle what is held; False where the rest has to wait again."""
        while held:
            packet = held.popleft()
            if isinstance(packet, float):
                self._held_since = packet
                continue
            at = self.run(packet, now)
            if at == 0:
                held.appendleft(packet)
                held.appendleft(self._held_since)
                return False
            self._held_bytes -= len(packet)
            if at > 0:
                return False
            if perf_counter() > self.bucket.turn_ends:
                self.wait_for_turn()
                return False
        return True

    def start(self, work: Coroutine[Any, Any, None], *, at_once: bool = False) -> None:
        """Handle a packet in a task; the packets behind it wait for its end. `at_once`: here, since it waits for nothing."""
        if at_once:
            try:
                work.send(None)
            except StopIteration:
                return
            except Exception:  # noqa: BLE001 - see `_work`
                self.hub.failed(f"handling a packet of {self}")
            self.end("internal_error")
            return
        self._stop = TASK
        self.hub.background(self._work(work))

    async def _work(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - a mistake of ours costs one connection, not the server
            self.hub.failed(f"handling a packet of {self}")
            self.end("internal_error")
        self.go_on(TASK)
