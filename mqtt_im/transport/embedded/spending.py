"""One rate for each user over all nodes: each tells the others once a second who has spent how much, and they charge it too.

A user who sends at several nodes at once is as fast as at one, but for what was let through before the word came: at most a
second, and the burst, of each node. It is paid for afterwards, as everything that turns out to cost more.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import Any, Final

from mqtt_im.cluster import Neighbours
from mqtt_im.transport.embedded.buckets import SharedBucket
from mqtt_im.transport.embedded.hub import Hub

EVERY_S: Final = 1.0
SHARE: Final = 0.05
"""Who has spent less than this part of the rate is not told of."""
MAX_TOLD: Final = 1_000
"""Users that are told of at once: those who have spent the most."""


class Spending:
    """Of one node among several. Lives on the event loop."""

    def __init__(self, hub: Hub, neighbours: Neighbours) -> None:
        self._hub = hub
        self._neighbours = neighbours
        self._spent: dict[str, float] = {}
        self._least = max(1.0, hub.limits.requests_per_second * SHARE)
        hub.spent = self._spent
        neighbours.on("spent", self._told)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """From now on the others are told."""
        self._timer = self._hub.loop.call_later(EVERY_S, self._tell)

    def stop(self) -> None:
        """They are told no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self.start()
        much = [(units, user) for user, units in self._spent.items() if units >= self._least]
        self._spent.clear()
        if much and self._neighbours.others:
            most = much if len(much) <= MAX_TOLD else heapq.nlargest(MAX_TOLD, much)
            self._neighbours.tell("spent", {user: round(units, 1) for units, user in most})

    def _told(self, _: int, fields: list[Any]) -> None:
        hub, now = self._hub, self._hub.clock()
        for name, units in fields[0].items():
            bucket = hub.user(name).bucket
            if isinstance(bucket, SharedBucket):
                bucket.spent_elsewhere(units, now)
            hub.release_user(name)
