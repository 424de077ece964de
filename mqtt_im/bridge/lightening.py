"""What deliveries have in memory for devices that acknowledge nothing, or read nothing, is bounded as a sum over all (INV-16).

Who has most of it is lightened, which costs nobody anything: it is read from the store again when it can be sent. What packets in
flight take all the same is bounded by smaller windows for those who have most of them, until there is room again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from mqtt_im.core.delivery import MAX_BUFFERED_BYTES
from mqtt_im.core.entries import Entry
from mqtt_im.core.flights import DeliveryMemory

from .channel import Channel
from .slices import Line, surely

USUAL_FETCH_BYTES: Final = MAX_BUFFERED_BYTES // 2
_LEAST_FETCH_BYTES: Final = 16 * 1024
"""Where there is little memory, or large packets in flight are too much. One item may be larger."""
FEW: Final = 8
"""The window of who has most in flight, where that is too much of all."""
_USUAL: Final = 4
_SOON: Final = 32
"""When such a part of what there may be has come, it is looked how much there is."""
_IDLE: Final = 8
"""Channels with nothing in memory that take as long as one step."""


class Lightening:
    """It works in `line`, a few channels at a time."""

    def __init__(
        self,
        channels: Callable[[], Iterable[Channel]],
        memory: DeliveryMemory,
        window: int,
        fetch_bytes: int,
        pump: Callable[[Channel], None],
        line: Line,
    ) -> None:
        """`window` is that of who has asked for none; so much is fetched for a channel at once; `pump` sends what has room."""
        self._channels = channels
        self._memory = memory
        self._window = window
        self._fetch_bytes = max(_LEAST_FETCH_BYTES, fetch_bytes)
        self._pump = pump
        self._line = line
        self._busy = False
        self._narrow: list[Channel] = []
        """Those with a smaller window."""

    @property
    def fetch_bytes(self) -> int:
        """How much is to be fetched for a channel at once."""
        return _LEAST_FETCH_BYTES if self._memory.full else self._fetch_bytes

    def look(self) -> None:
        """Where much has come into memory since the last time, it is looked how much there is, a moment later."""
        if self._memory.came >= self._memory.most // (_SOON if self._narrow else _USUAL) and not self._busy:
            self._busy = True
            self._line.start(self._look())

    def _look(self) -> Iterator[int]:
        try:
            memory, idle, total = self._memory, 0, 0
            memory.came = 0
            self._narrow = [channel for channel in self._narrow if channel.delivery is not None]
            some: list[tuple[int, int, Channel]] = []
            for number, channel in enumerate(list(self._channels())):
                size = surely(_weight, channel)
                if size:
                    some.append((size, number, channel))
                    total += size
                    yield 1
                else:
                    idle += 1
                    if idle % _IDLE == 0:
                        yield 1
            if total > memory.most:
                some.sort(reverse=True)
                yield from self._lighten(some, total)
            elif self._narrow and total <= memory.most // 2:
                yield from self._widen()
        finally:
            self._busy = False

    def _lighten(self, some: list[tuple[int, int, Channel]], total: int) -> Iterator[int]:
        """Those who have most give way until a quarter is free."""
        enough = self._memory.most * 3 // 4
        made: dict[int, tuple[Entry, Entry]] = {}
        left: list[tuple[int, int, Channel]] = []
        for size, number, channel in some:
            if total <= enough:
                return
            still = surely(partial(_lightened, made), channel)
            left.append((still, number, channel))
            total -= size - still
            yield 2
        left.sort(reverse=True)
        for size, _, channel in left:
            if total <= enough:
                return
            delivery = channel.delivery
            if delivery is not None and delivery.window > FEW:
                delivery.window = FEW
                self._narrow.append(channel)
            total -= size
            yield 1

    def _widen(self) -> Iterator[int]:
        """There is room again."""
        narrow, self._narrow = self._narrow, []
        for channel in narrow:
            yield surely(self._widen_one, channel)

    def _widen_one(self, channel: Channel) -> int:
        if channel.delivery is not None:
            channel.delivery.window = channel.window or self._window
            self._pump(channel)
        return 1


def _lightened(made: dict[int, tuple[Entry, Entry]], channel: Channel) -> int:
    """What is left of it."""
    if channel.delivery is not None:
        channel.delivery.lighten(channel.takes_more, made)
    return _weight(channel)


def _weight(channel: Channel) -> int:
    delivery = channel.delivery
    return 0 if delivery is None or delivery.idle else delivery.weight(channel.takes_more)
