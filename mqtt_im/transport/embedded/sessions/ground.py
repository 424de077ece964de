"""What sessions and plain topics stand on: configuration, counters, and the file in which they are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mqtt_im.config import LimitsConfig
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
    ) -> None:
        """`background` runs what nobody awaits."""
        self.access = access
        self.limits = limits
        self.count = count
        self.log = notes
        self.background = background
        self.room = Room(limits.max_queued_bytes, limits.max_queued_bytes_per_user)
        self.store: Persistence
