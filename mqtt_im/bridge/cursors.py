"""Cursors: what acknowledgements have moved, and who has left, handed to the ledger a moment later and together.

Losing the last of it in a crash only means that items come again. Two things hold all the same (INV-11):

- It never overtakes what the device has said since. Before a `hello` that sets the cursor is handed in, everything that was moved
  until then stands in the ledger's line; what moves while it is under way waits for its end, and is void where it was accepted.
- What a failed batch has not kept is handed in again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final, Literal

from mqtt_im.cache import Cache
from mqtt_im.core.delivery import Delivery
from mqtt_im.store.jobs.delivering import CursorsJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.ledger import Ledger

DELAY_S: Final = 0.2
"""Acknowledgements are handed in so much later, together."""
AT_ONCE: Final = 250
"""So many at most, and who has left as well: the rest a moment later, so that nobody waits for a thousand."""
NEXT_S: Final = 0.02
RETRY_S: Final = 1.0
"""After a batch that failed."""
FAILED_BYTES: Final = 32 << 20
"""Of what waits to be handed in again, by device; the oldest is forgotten beyond that."""
MAX_LEFT = 100_000
"""Devices that have gone, which that has still to be noted of."""
_DEVICE_BYTES: Final = 300
_MARK_BYTES: Final = 150

Key = tuple[str, str]
"""User and device."""


class Cursors:
    """Lives on the event loop."""

    def __init__(self, ledger: Ledger, tell: Callable[[Job], None], connected: Callable[[str, str], bool]) -> None:
        """`tell` is given each job that was committed; `connected` says whether a device has its delivery."""
        self._ledger = ledger
        self._tell = tell
        self._connected = connected
        self._moved: dict[Key, Delivery] = {}
        """Deliveries whose cursor has moved since it was last handed in."""
        self._left: dict[Key, bool] = {}
        """Devices that have gone since that was last handed in, and whether they had acknowledged all that they were offered."""
        self._failed: Cache[Key, tuple[int, dict[str, int]]] = Cache(FAILED_BYTES)
        """Cursors and delivered marks that a failed batch has not kept."""
        self._held: dict[Key, int] = {}
        """Devices that are about to say where they stand, and how often."""
        self._timer: asyncio.TimerHandle | None = None
        self.tells_others = False
        """Other servers look in the store for what a device that has left may have in hand."""

    def moved(self, delivery: Delivery) -> None:
        """The delivery's cursor has moved."""
        if not delivery.moved:
            delivery.moved = True
            self._moved[delivery.user, delivery.device] = delivery
            self._soon(DELAY_S)

    def left(self, user: str, device: str, *, settled: bool) -> None:
        """The device's delivery has ended; `settled` says whether it had acknowledged all that it was offered."""
        if self.tells_others and not self._left:
            asyncio.get_running_loop().call_soon(self._write_some)
        self._left[user, device] = settled
        self._soon(DELAY_S)

    def comes(self, user: str, device: str) -> None:
        """The device begins a delivery: it goes on where its last one ended."""
        key = (user, device)
        if self._waits(key) or key in self._left:
            self.write_of([key])

    def known(self, user: str, device: str) -> int:
        """The highest cursor of the device that is not in the store, since that failed; 0 for none."""
        found = self._failed.get((user, device))
        return 0 if found is None else found[0]

    def forget(self, user: str, device: str) -> None:
        """The device is registered no more."""
        key = (user, device)
        self._failed.drop(key)
        self._left.pop(key, None)
        delivery = self._moved.pop(key, None)
        if delivery is not None:
            delivery.moved = False

    def forget_all(self) -> None:
        """Others have all devices: nothing that was not handed in counts any more."""
        for delivery in self._moved.values():
            delivery.moved = False
        self._moved.clear()
        self._left.clear()
        self._failed.clear()

    def hold(self, user: str, device: str) -> None:
        """The device is about to say where it stands: that is handed in next, and `release` is called at its end."""
        key = (user, device)
        self.write_of([key])
        self._held[key] = self._held.get(key, 0) + 1

    def release(self, user: str, device: str, void: Literal["nothing", "since", "all"]) -> None:
        """What the device had to say is decided, and says which cursors that acknowledgements have moved do not count.

        `since`: those that moved while it was under way. `all`: those from before too, where the store has not got them yet.
        """
        key = (user, device)
        count = self._held.pop(key) - 1
        if count:
            self._held[key] = count
        if void != "nothing":
            cursor, marks = self._take_failed(key)
            delivery = self._moved.pop(key, None)
            if delivery is not None:
                delivery.moved = False
                _merge(marks, delivery.delivered())
            if void == "all":
                cursor = 0
            if cursor or marks:  # what was delivered stays so
                self._keep_failed(key, cursor, marks)
        if self._waits(key):
            self._soon(DELAY_S)

    def _soon(self, delay_s: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._write_some)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write_some(self) -> None:
        self._stop_waiting()
        self._write((), AT_ONCE, lazy=True)
        if self._left or next(self._free(), None) is not None:
            self._soon(NEXT_S)

    def write_of(self, keys: Iterable[Key]) -> None:
        """What these devices have acknowledged is on its way to the ledger, before what is submitted next.

        And with it what else there is, where that is no crowd's.
        """
        self._write([key for key in keys if self._waits(key) or key in self._left], AT_ONCE)

    def write(self) -> None:
        """Everything that may be handed in is on its way to the ledger, before what is submitted next."""
        self._stop_waiting()
        while self._write((), AT_ONCE):
            pass

    def _waits(self, key: Key) -> bool:
        """Whether a cursor of the device is still to be handed in."""
        return key in self._moved or self._failed.get(key) is not None

    def _free(self) -> Iterator[Key]:
        """Devices with a cursor that may be handed in."""
        for key in self._moved:
            if key not in self._held:
                yield key
        for failed in self._failed.items():
            if failed[0] not in self._moved and failed[0] not in self._held:
                yield failed[0]

    def _gone(self, first: Iterable[Key]) -> Iterator[Key]:
        """Devices that have gone, which may be told of, these first; not before its cursor is handed in.

        Who has it all has acknowledged what is not in the store yet.
        """
        for key in chain(first, self._left):
            if key in self._left and (key in self._held or not self._waits(key)):
                yield key

    def _write(self, first: Iterable[Key], most: int, lazy: bool = False) -> bool:
        """These are handed in, and of all that there is `most`; whether that was anything."""
        keys = dict.fromkeys(first)
        moves: list[tuple[str, str, int, list[Any]]] = []
        own = [key for key in keys if key not in self._held]
        for key in list(dict.fromkeys(chain(own, islice(self._free(), most))))[: max(most, len(own))]:
            delivery = self._moved.pop(key, None)
            cursor, marks = self._take_failed(key)
            if delivery is not None:
                delivery.moved = False
                cursor = max(cursor, delivery.cursor)
                _merge(marks, delivery.delivered())
            if cursor or marks:
                moves.append((*key, cursor, _pairs(marks)))
        left = [(*key, self._left.pop(key)) for key in dict.fromkeys(islice(self._gone(keys), most))]
        if moves or left:
            self._ledger.submit(CursorsJob(moves, self._written, left, lazy))
        return bool(moves or left)

    def _written(self, job: CursorsJob) -> None:
        if job.refusal is None:
            self._tell(job)
            return
        # What comes back here was moved before anything that the device has said since was decided: answers keep their order.
        for user, device, cursor, marks in job.moves:
            key = (user, device)
            before, known = self._take_failed(key)
            _merge(known, marks)
            self._keep_failed(key, max(before, cursor), known)
        for user, device, settled in job.left:
            if not self._connected(user, device):
                self._left.setdefault((user, device), settled)
        while len(self._left) > MAX_LEFT:
            del self._left[next(iter(self._left))]
        self._stop_waiting()
        self._soon(RETRY_S)

    def _take_failed(self, key: Key) -> tuple[int, dict[str, int]]:
        found = self._failed.get(key)
        if found is None:
            return 0, {}
        self._failed.drop(key)
        return found

    def _keep_failed(self, key: Key, cursor: int, marks: dict[str, int]) -> None:
        self._failed.put(key, (cursor, marks), _DEVICE_BYTES + _MARK_BYTES * len(marks))


def _merge(marks: dict[str, int], pairs: list[Any]) -> None:
    for conv, seq in zip(pairs[::2], pairs[1::2], strict=True):
        marks[conv] = max(seq, marks.get(conv, 0))


def _pairs(marks: dict[str, int]) -> list[Any]:
    return [part for mark in marks.items() for part in mark]
