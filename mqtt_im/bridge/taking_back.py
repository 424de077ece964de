"""What was recalled leaves what the bridge keeps beside the store: packets without PUBACK, of who is connected and of who was.

They are many, so they are looked through a few at a time; recalls that come meanwhile are looked for together after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from mqtt_im.core.flights import Message, take_back

from .channel import Channel
from .parking import Parked, Parking
from .slices import Line, surely


class TakingBack:
    """It works in `line`; `done` is called after each time that everything was looked through."""

    def __init__(self, channels: Callable[[], Iterable[Channel]], parking: Parking, done: Callable[[], None], line: Line) -> None:
        self._channels = channels
        self._parking = parking
        self._done = done
        self._line = line
        self._waiting: set[Message] = set()
        self._busy = False

    def recalled(self, conv: str, seq: int) -> None:
        """Nothing of this message's content is kept, a moment later."""
        self._waiting.add((conv, seq))
        if not self._busy:
            self._busy = True
            self._line.start(self._look())

    def _look(self) -> Iterator[int]:
        try:
            while self._waiting:
                gone, self._waiting = self._waiting, set()
                for channel in list(self._channels()):
                    yield surely(partial(_connected, gone), channel)
                for parked in self._parking.all():
                    yield surely(partial(_parked, gone), parked)
        finally:
            self._busy = False
            self._done()


def _connected(gone: set[Message], channel: Channel) -> int:
    return 1 if channel.delivery is None else channel.delivery.taken_back(gone)


def _parked(gone: set[Message], parked: Parked) -> int:
    return 1 + sum([take_back(flight.entries, gone) for flight in parked.flights.values()])
