"""The places that connections of one HTTP listener have, and what they share: turns, and bytes that are held for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mqtt_im.http.turns import Turns
from mqtt_im.shares import USUAL_MB, Bounds
from mqtt_im.transport.held import Held

if TYPE_CHECKING:
    from mqtt_im.http.connection import HttpConnection

SPARE: Final = 256
"""Places above all, on which health alone is answered."""

Count = Callable[..., None]


class Places:
    """The connections of one listener."""

    def __init__(self, limit: int, head_s: float, count: Count, memory_mb: int = USUAL_MB) -> None:
        """At most `limit` at one time; a head is due within `head_s` seconds; `count` adds to the metrics.

        What has come of requests takes a share of the `memory_mb` that the process may have.
        """
        self.limit = limit
        self.head_s = head_s
        self.count = count
        self.turns = Turns()
        self.held: Held[HttpConnection] = Held(Bounds(memory_mb))
        self.all: set[HttpConnection] = set()
        self._idle: OrderedDict[HttpConnection, None] = OrderedDict()
        """Without a request under way, the longest idle first."""

    def enter(self, connection: HttpConnection) -> None:
        """A connection was accepted. It is `spare` where there is no place for it."""
        if len(self.all) >= self.limit:
            if self._idle:
                self.count("http_refused", reason="idle")
                next(iter(self._idle)).cut()
            else:
                connection.spare = True
        self.all.add(connection)
        self.idle(connection)

    def found(self, connection: HttpConnection) -> bool:
        """Whether there is a place for a spare connection by now: what a proxy has asked for health on, it uses for all else."""
        connection.spare = len(self.all) > self.limit
        return not connection.spare

    def idle(self, connection: HttpConnection) -> None:
        """It waits for a request."""
        if connection in self.all:
            self._idle[connection] = None
            self._idle.move_to_end(connection)
            if len(self.all) > self.limit + SPARE:
                self.count("http_refused", reason="max_connections")
                next(iter(self._idle)).cut()

    def busy(self, connection: HttpConnection) -> None:
        """It has a request under way."""
        self._idle.pop(connection, None)

    def leave(self, connection: HttpConnection) -> None:
        """It is gone."""
        self.all.discard(connection)
        self._idle.pop(connection, None)
