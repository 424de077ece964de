"""Claims: which items that a later message may replace were offered to a device, and which were taken back first.

The one thing that the event loop and the ledger's thread decide together, under a lock: an item is either offered or replaced,
never both (INV-12). Only items with a `key` come here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from mqtt_im.shares import Bounds

MAX_OFFERED = 100_000
"""Items of which it is known by itself that they were offered; of those before, that all up to one were."""
MAX_USERS = 100_000
"""Users of whom that is known; beyond that whatever is not known counts as offered."""


class Claims:
    """Thread-safe. What does not fit into memory any more counts as offered: it is not replaced, and never both."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._lock = threading.Lock()
        self._offered: OrderedDict[str, set[int]] = OrderedDict()
        self._count = 0
        self._upto: OrderedDict[str, int] = OrderedDict()
        """By user, up to which item everything counts as offered."""
        self._forgot = False
        """Of users who are not known it is not known either."""
        self._taken: set[tuple[str, int]] = set()
        """Taken back, by a batch of which the loop was not told yet."""

    def offer(self, user: str, pos: int) -> bool:
        """The item counts as offered from now on; False where it was taken back before."""
        with self._lock:
            if (user, pos) in self._taken:
                return False
            known = self._offered.get(user)
            if known is None:
                known = self._offered[user] = set()
            if pos not in known:
                known.add(pos)
                self._count += 1
                if self._count > self._bounds.of(MAX_OFFERED):
                    self._fold()
            return True

    def still_there(self, user: str, pos: int) -> bool:
        """Whether the item was not taken back; it may be all the same."""
        with self._lock:
            return (user, pos) not in self._taken

    def take_back(self, user: str, pos: int) -> bool:
        """The item will be offered to nobody from now on; False where it was, or may have been, offered before."""
        with self._lock:
            if pos in self._offered.get(user, ()) or pos <= self._upto.get(user, 0):
                return False
            if self._forgot and user not in self._upto:
                return False
            self._taken.add((user, pos))
            return True

    def release(self, user: str, pos: int) -> None:
        """An item that was taken back may be offered after all, since what was to replace it was not kept."""
        with self._lock:
            self._taken.discard((user, pos))

    def settle(self, items: Iterable[tuple[str, int]]) -> None:
        """These items, which were taken back, are replaced, and whoever reads them from now on sees that."""
        with self._lock:
            self._taken.difference_update(items)

    def _fold(self) -> None:
        user = next(iter(self._offered))
        known = self._offered.pop(user)
        self._count -= len(known)
        self._upto[user] = max(*known, self._upto.pop(user, 0), 0)
        if len(self._upto) > self._bounds.of(MAX_USERS):
            del self._upto[next(iter(self._upto))]
            self._forgot = True
