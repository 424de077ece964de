"""Which node sends the webhooks, where several have one outbox: one at a time leads, and it alone changes the outbox.

Who leads stands in the outbox itself. Every transaction of the leader begins by looking there, under the lock that keeps the
others out; so a node that stood still and was declared dead writes nothing more, and another one goes on where it had got to.
A leader that has stopped is followed at once, one that has died when the nodes have declared it dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from mqtt_im.store.postgres.follow import LogReader
from mqtt_im.tables.postgres import Lane

from .outbox import Outbox

CONFIRM_S: Final = 1.0
LEASE_S: Final = 3.0
"""A leader that has not confirmed for so long that it leads begins no attempt; a dead one is followed later than that."""


class Lead:
    """Whether this node leads for one outbox. Used by the thread that uses the outbox, but for `current`."""

    def __init__(self, incarnation: Callable[[], int], may: Callable[[], bool]) -> None:
        """`incarnation` is this node's; `may`: whether it knows enough of the others to lead."""
        self._incarnation = incarnation
        self._may = may
        self._confirmed = float("-inf")
        self._tried = float("-inf")
        self.mine = 0
        """The incarnation as which this node leads; 0: it does not."""

    @property
    def current(self) -> bool:
        """Whether this node has confirmed not long ago that it leads. For any thread."""
        return time.monotonic() - self._confirmed < LEASE_S

    def look(self, rows: Outbox) -> bool:
        """Whether this node leads; where nobody does, it does from now on. Asks the database once a second."""
        now = time.monotonic()
        if now - self._tried < CONFIRM_S:
            return bool(self.mine)
        self._tried = now
        mine = self._incarnation()
        leads = self.mine == mine or self._may()
        self.mine = mine if leads and rows.lead(mine) else 0
        self._confirmed = now if self.mine else float("-inf")
        return bool(self.mine)

    def lost(self) -> None:
        """Another node leads."""
        self.mine = 0
        self._confirmed = float("-inf")

    def end(self, rows: Outbox) -> None:
        """This node stops: another one may lead."""
        if self.mine:
            rows.leave(self.mine)
        self.lost()


class SharedLogReader(LogReader):
    """Reads the log over the connection that the small tables of this node have."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane.database)
        self._lane = lane

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lane.lock:
            self._connection = self._lane.connection()
            return super()._rows(query, *values)

    def close(self) -> None:
        """The connection is the tables'."""
