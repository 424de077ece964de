"""Claims: which items that a later message may replace were offered to a device, and which were taken back first.

The one thing that the event loop and the ledger's thread decide together, under a lock: an item is either offered or replaced,
never both (INV-12). Only items with a `key` come here.
"""

from __future__ import annotations

import threading

MAX_REMEMBERED = 100_000


class Claims:
    """Thread-safe. Remembers the newest `MAX_REMEMBERED` of each kind; what is older is long acknowledged or gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offered: dict[tuple[str, int], None] = {}
        self._taken: dict[tuple[str, int], None] = {}

    def offer(self, user: str, pos: int) -> bool:
        """The item counts as offered from now on; False where it was taken back before."""
        key = (user, pos)
        with self._lock:
            if key in self._taken:
                return False
            _remember(self._offered, key)
            return True

    def still_there(self, user: str, pos: int) -> bool:
        """Whether the item was not taken back; it may be all the same."""
        with self._lock:
            return (user, pos) not in self._taken

    def take_back(self, user: str, pos: int) -> bool:
        """The item will be offered to nobody from now on; False where it was offered before."""
        key = (user, pos)
        with self._lock:
            if key in self._offered:
                return False
            _remember(self._taken, key)
            return True

    def release(self, user: str, pos: int) -> None:
        """An item that was taken back may be offered after all, since what was to replace it was not kept."""
        with self._lock:
            self._taken.pop((user, pos), None)


def _remember(memory: dict[tuple[str, int], None], key: tuple[str, int]) -> None:
    if len(memory) >= MAX_REMEMBERED:
        del memory[next(iter(memory))]
    memory[key] = None
