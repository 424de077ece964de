"""What one node has still to tell the others: gathered by any thread, sent by the bus's, and bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

MAX_SIZE: Final = 8 << 20
"""Of what waits and must not be lost; what need not be told goes then."""
MAX_WAITING: Final = 20_000
MAX_TOLD: Final = 16 << 20
"""So much is told while the database is away or slow, in items and bytes; more is dropped, and all told anew later."""


class Item:
    """Something to tell, or somebody to be told that what stands before it was; `keep`: it must not be lost."""

    __slots__ = ("done", "keep", "message", "size", "told")

    def __init__(
        self,
        message: list[Any] | None,
        *,
        keep: bool = False,
        size: int = 0,
        told: int = 0,
        done: Callable[[], None] | None = None,
    ) -> None:
        self.message = message
        self.keep = keep
        self.size = size
        self.told = told
        self.done = done


class Outbox:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._out: list[Item] = []
        self._unsent: list[Item] = []
        """What the thread has taken and not sent yet."""
        self._size = 0
        """Bytes that wait, of what must not be lost."""
        self.told = 0
        """The same of what may be."""
        self.dropped = False
        """Something was not told."""

    def __len__(self) -> int:
        """How much waits to be taken."""
        return len(self._out)

    def tell(self, message: list[Any]) -> bool:
        """It is told, or dropped; True where it is the first that waits."""
        size = _size(message)
        with self._lock:
            first = not self._out
            if len(self._out) < MAX_WAITING and self.told + size <= MAX_TOLD:
                self._out.append(Item(message, told=size))
                self.told += size
            else:
                self.dropped = True
        return first

    def keep(self, messages: Iterable[list[Any]], done: Callable[[], None] | None, size: int) -> bool | None:
        """They are told, each of `size` bytes, in order, once; then `done` is called.

        None where too much waits, and nobody is to be told when it is done; else whether it is the first that waits.
        """
        with self._lock:
            first = not self._out
            if done is None and self._size > MAX_SIZE:
                return None
            for message in messages:
                self._out.append(Item(message, keep=True, size=size))
                self._size += size
            if done is not None:
                self._out.append(Item(None, keep=True, done=done))
        return first

    def take(self) -> list[Item]:
        """All that waits, and of what was taken and lost with the connection what must not be."""
        with self._lock:
            out, self._out = self._out, []
            self.told -= sum(item.told for item in self._unsent)  # which is lost
        self._unsent = [item for item in self._unsent if item.keep] + out
        return self._unsent

    def sent(self) -> list[Callable[[], None]]:
        """What was taken is sent; who is to be told so."""
        unsent, self._unsent = self._unsent, []
        with self._lock:
            self._size -= sum(item.size for item in unsent)
            self.told -= sum(item.told for item in unsent)
        return [item.done for item in unsent if item.done is not None]

    def has_room_again(self) -> bool:
        """Whether something was not told, for want of room that there is now."""
        with self._lock:
            again = self.dropped and self.told < MAX_TOLD // 2 and len(self._out) < MAX_WAITING // 2
            self.dropped = self.dropped and not again
        return again


def _size(value: Any) -> int:
    """About how many bytes it takes in memory."""
    if isinstance(value, str):
        return 50 + len(value)
    if isinstance(value, dict):
        return 64 + sum(_size(key) + _size(what) for key, what in value.items())
    if isinstance(value, list | tuple):
        return 64 + sum(map(_size, value))
    return 32
