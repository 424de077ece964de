"""What sessions and plain topics stand on: configuration, counters, and the file in which they are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mqtt_im.clock import Clock
from mqtt_im.config import LimitsConfig
from mqtt_im.shares import Bounds
from mqtt_im.transport.embedded.limits import Count, Quiet
from mqtt_im.transport.embedded.sessions.access import Access
from mqtt_im.transport.embedded.sessions.persistence import Persistence
from mqtt_im.transport.embedded.sessions.session import Room

log: Final = logging.getLogger("mqtt_im.mqtt")


class Ground:
    """Shared by all that is in this folder; `store` is set before the first client comes."""

    def __init__(
        self,
        access: Access,
        limits: LimitsConfig,
        count: Count,
        notes: Quiet,
        background: Callable[[Coroutine[Any, Any, None]], None],
        clock: Clock,
    ) -> None:
        """`background` runs what nobody awaits."""
        self.clock = clock
        self.access = access
        self.limits = limits
        self.count = count
        self.log = notes
        self.background = background
        self.bounds = bounds = Bounds(limits.memory_mb)
        self.room = Room(bounds.less(limits.max_queued_bytes), bounds.less(limits.max_queued_bytes_per_user))
        self.store: Persistence

    def now(self) -> float:
        """The steady time, in seconds: what ends after a while is measured by it, on disk too."""
        return self.clock.steady() / 1000

    def expires_at(self, interval: int | None) -> int:
        """When a Message Expiry Interval that begins now, in seconds, is over: ms by the steady time; 0 for none."""
        return 0 if interval is None else self.clock.steady() + interval * 1000

    def left(self, expires: int) -> int:
        """How many seconds are left until then, at least 1."""
        return max(1, -int((self.clock.steady() - expires) // 1000))
