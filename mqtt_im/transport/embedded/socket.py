"""A socket that was accepted: its life, its timers, and what is held for it. What is written to it is `wire`'s matter."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from mqtt_im.pacing import pace
from mqtt_im.transport.accepting import is_lost
from mqtt_im.transport.embedded.hub import USUAL_WRITE_BUFFER, Hub
from mqtt_im.transport.parting import Parting

_LAST_BYTES_S: Final = 5.0
"""Time for the last bytes to leave before the socket is cut."""
_LINGER_S: Final = 2.0
"""Time for the peer to close its side, where it may have something left to read."""
_LOOK_S: Final = 60.0
"""So often it is looked whether a connection is lost that is not read from."""
_ITS_OWN_WISH: Final = ("lost", "disconnect")
"""Reasons that the peer has given itself: nothing is left for it to read."""


class Socket(asyncio.Protocol):
    """`end` runs once, whatever happens to it; `ended` is where subclasses clean up."""

    __slots__ = (
        "_closing",
        "_due",
        "_keep_alive",
        "_last_heard",
        "_parting",
        "_paused",
        "_timer",
        "address",
        "closed",
        "held",
        "hub",
        "listener",
        "network",
        "transport",
        "writable",
    )

    def __init__(self, hub: Hub, listener: str) -> None:
        self.hub = hub
        self.listener = listener
        self.transport: asyncio.Transport
        self.address = ""
        """The client's IP address."""
        self.network = ""
        """What it counts as, once it is counted for its address."""
        self.held = 0
        """Bytes that are held for it, among those of all (`Hub.held`); below 0 where it has given way."""
        self.closed = False
        self.writable = True
        self._paused = False
        """It is not read from."""
        self._last_heard = 0.0
        self._keep_alive = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._due = ""
        """The reason of an end that `ended` is to be told of."""
        self._parting: Parting | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket was accepted, and whoever is at its other end speaks MQTT at once."""
        self.accepted(transport)  # type: ignore[arg-type]
        if not self.closed:
            self.came_from(self.address)

    def accepted(self, transport: asyncio.Transport) -> None:
        """A socket was accepted; CONNECT is due within `limits.connect_timeout_s`, whatever has to come before it.

        `came_from` follows when it is known who is there: a proxy may speak for somebody.
        """
        hub = self.hub
        # WebSocket connections come with a stand-in of the same interface.
        self.transport = transport
        pace(transport)
        if hub.write_buffer != USUAL_WRITE_BUFFER:
            transport.set_write_buffer_limits(hub.write_buffer)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._last_heard = hub.clock()
        hub.count("connections_accepted", listener=self.listener)
        if reason := hub.socket_opened(self):
            self.turn_away(reason, reason)
            return
        self._timer = hub.loop.call_later(hub.limits.connect_timeout_s, self.end, "connect_timeout")

    def came_from(self, address: str) -> None:
        """The client's address is known; what is bounded for each address is looked at now."""
        self.address = address
        if (reason := self.hub.address_known(self)) and not self.may_be_told(reason):
            self.turn_away(reason, reason)

    def may_be_told(self, reason: str) -> bool:
        """Whether a socket that there is no room for stays a moment, to be told so by who knows its version."""
        return False

    def turn_away(self, reason: str, why: str) -> None:
        """Cut a connection that has not come as far as CONNECT; `reason` is a word for counters, `why` is for the log."""
        if self.closed:
            return
        self.hub.count("connects_refused", reason=reason)
        self.hub.log.note(reason, self.address, "a connection from %s is refused: %s", self.address, why)
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        if not self.closed:
            self.end("lost", abort=True)
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._parting is not None:
            self._parting.begin(_LINGER_S, partial(self.hub.socket_closed, self))
        else:
            self.hub.socket_closed(self)

    def eof_received(self) -> bool:
        """The peer will send no more: the connection ends."""
        self.end("lost")
        return False

    # Ending

    def end(self, reason: str, *, abort: bool = False) -> None:
        """End the connection; after a second call `ended` surely was told.

        What was written leaves first, and reaches a peer that reads within `_LINGER_S`, unless `abort`; until then the socket
        has its place.
        """
        if self.closed:
            self.settle()
            return
        if not abort:
            self.farewell(reason)
            if not self.flush():
                return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._let_go()
        self.write_no_more()
        if abort:
            self.transport.abort()
        else:
            if reason not in _ITS_OWN_WISH:
                self._parting = Parting.of(self.hub.loop, self.transport)
            self._closing = self.hub.loop.call_later(_LAST_BYTES_S, self.transport.abort)
            self.transport.close()
        self._due = reason
        if reason != "lost" or not self.hub.settles_later(self):
            self.settle()

    def settle(self) -> None:
        """What the end means for others was done, once."""
        reason, self._due = self._due, ""
        if reason:
            self.ended(reason)

    def cut(self) -> None:
        """Whatever the peer may have left to read: the socket goes now."""
        self.transport.abort()
        if self._parting is not None:
            self._parting.end()

    def flush(self) -> bool:
        """Hand what was gathered to the socket; False where the connection has ended, perhaps for that reason."""
        return not self.closed

    def write_no_more(self) -> None:
        """Nothing is gathered any more, and nobody waits for the peer to read."""

    def farewell(self, reason: str) -> None:
        """Write what the peer is told about the end."""

    def ended(self, reason: str) -> None:
        """The connection has just ended, for this reason."""

    # What is held

    @property
    def party(self) -> str:
        """Whose what is held is: the network's that the client comes from."""
        return self.network or self.address

    def keep(self, size: int) -> None:
        """See `Link`. What was said is true of all together; who has to give way does so in a later turn of the loop."""
        if self.held < 0:
            return
        self.held += size
        for other in self.hub.held.changed(self, size):
            other.give_way()

    def give_way(self) -> None:
        """Nothing is held for it from now on, and it ends."""
        self._let_go()
        if not self.closed:
            self.hub.log.note(
                "memory", self.address, "%s is cut: too much is held for connections, and most for %s", self, self.party
            )
            self.hub.loop.call_soon(self._end_of_room)

    def _end_of_room(self) -> None:
        # Who does not read is not told.
        self.end("memory", abort=not self.writable)

    def _let_go(self) -> None:
        self.hub.unread.changed(self, 0)
        if self.held > 0:
            size, self.held = self.held, 0
            self.hub.held.changed(self, -size)
        self.held = -1

    # Timers

    def keep_alive(self, seconds: int) -> None:
        """From now on the client is gone when it was silent for one and a half times `seconds` (MQTT-3.1.2-24); 0 is never."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._keep_alive = seconds * 1.5
        self._timer = self.hub.loop.call_later(self._keep_alive or _LOOK_S, self._check_alive)

    def _check_alive(self) -> None:
        """The timer is not moved by each packet; it looks when it fires, and comes back when it would be due.

        Nothing is heard of a client that we do not read from, but that the kernel has taken it for lost: nobody else looks then.
        """
        if self._paused and is_lost(self.transport.get_extra_info("socket")):
            self.end("lost", abort=True)
            return
        allowed = self._keep_alive
        silent = 0.0 if self._paused or not allowed else self.hub.clock() - self._last_heard
        if allowed and silent >= allowed - 0.001:
            self.end("keep_alive")
        else:
            again = allowed - silent if allowed and not self._paused else min(allowed or _LOOK_S, _LOOK_S)
            self._timer = self.hub.loop.call_later(again, self._check_alive)
