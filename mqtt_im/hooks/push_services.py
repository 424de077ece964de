"""Which push services are worth trying: each origin has a circuit of its own, since one that is silent says nothing of others.

Also who has a notification already, of those whom one attempt could not all reach: a repeat is for the others alone. All threads
of a sender share both; both are bounded, and what is forgotten is tried, or told, once more.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from mqtt_im.cache import Cache
from mqtt_im.logs import RateLimited

from .retry import Circuit

MAX_ORIGINS: Final = 256
"""Users name them, within `webpush.services`."""
HALF_TOLD_BYTES: Final = 4 << 20
_ENTRY_BYTES: Final = 200
"""Of a notification, and of each endpoint that has it, beside their texts."""

_Value = TypeVar("_Value")

_log: Final = RateLimited(logging.getLogger(__name__))


@dataclass(slots=True)
class _Origin:
    circuit: Circuit = field(default_factory=Circuit)
    under_way: int = 0


class PushServices:
    """See the module. Times are ms, of any clock that only goes forward."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._lock = threading.Lock()
        self._origins: OrderedDict[str, _Origin] = OrderedDict()
        self._half_told: Cache[str, frozenset[str]] = Cache(HALF_TOLD_BYTES)

    def enter(self, origin: str, now: int) -> int:
        """0 where an attempt may begin, which ends with `leave`; else after how many ms to ask again."""
        with self._lock:
            known = _newest(self._origins, origin, _Origin(), MAX_ORIGINS)
            if known.circuit.slots(now, 1, known.under_way):
                known.under_way += 1
                return 0
            return known.circuit.pause(now)

    def leave(self, origin: str, now: int, *, works: bool, asked: int = 0) -> None:
        """An attempt is over: the service works, or is out of order and may have asked for a pause of `asked` ms."""
        with self._lock:
            known = _newest(self._origins, origin, _Origin(under_way=1), MAX_ORIGINS)
            known.under_way = max(0, known.under_way - 1)  # it may have been forgotten, and begun anew, meanwhile
            if works:
                if known.circuit.works():
                    _log.info("webpush: the push service works again", service=origin)
            elif known.circuit.fails(now, self._chance(), asked):
                _log.warning("webpush: the push service is out of order; what is for it waits", service=origin)

    def told(self, notification: str) -> frozenset[str]:
        """The endpoints that have this notification, of one that not all have."""
        with self._lock:
            return self._half_told.get(notification) or frozenset()

    def half_told(self, notification: str, endpoints: frozenset[str]) -> None:
        """These have the notification, and others have not; where there are none, nothing is to be remembered any more."""
        with self._lock:
            if endpoints:
                size = _ENTRY_BYTES + sum(_ENTRY_BYTES + len(endpoint) for endpoint in endpoints)
                self._half_told.put(notification, endpoints, size)
            else:
                self._half_told.drop(notification)


def _newest(table: OrderedDict[str, _Value], key: str, value: _Value, most: int) -> _Value:
    """The entry of this key, or `value` where there was none; it is the newest now. The oldest goes where there are too many."""
    found = table.setdefault(key, value)
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)
    return found
