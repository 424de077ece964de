"""What is kept and how long, and what was taken away: the words in which retention is asked for, whichever the store."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mqtt_im.protocol.errors import StoreError


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept, and how long; the keys of `[store]`."""

    retention_days: int = 0
    """0: age alone removes nothing."""
    retention_messages: int = 0
    """Of each conversation; 0: all."""
    device_expiry_days: int = 90
    """0: every registered device holds back what it has not acknowledged."""

    @property
    def removes(self) -> bool:
        """Whether anything may ever go."""
        return bool(self.retention_days or self.retention_messages)


class Removed(msgspec.Struct):
    """What a pass has taken away."""

    messages: int = 0
    items: int = 0
    rows: int = 0
    """Rows of the log, those of messages included."""
    scoured: bool = True
    """Whether the content is gone from the write-ahead files too; they are written over in time."""


Ended = Callable[[Removed | StoreError], None]
"""Is told what a pass has taken away, or why it failed."""
