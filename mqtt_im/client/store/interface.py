"""What every store of a client can do. All of it blocks; the calls of one client come one after another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from mqtt_im.client.core.inbox import Marks
from mqtt_im.client.payload import Codec

Map = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """An outbox entry as it is kept. Times are seconds since 1970 and, within one start of the machine, since that."""

    key: int
    id: str
    op: str
    fields: Map
    codec: Codec
    raw: bytes | None
    n: int | None
    tried: bool
    made: float
    """When it was made, by the wall clock."""
    made_up: float
    """The same, in seconds since the machine was started."""
    boot: str
    """Which start of the machine that was; empty where it can't be told."""
    ttl: float | None
    """Seconds from `made` until it has expired."""
    timeout: float | None
    """Seconds from `made` until the app gives it up."""


@dataclass(slots=True)
class Loaded:
    """Everything that a store holds when it is opened."""

    device: str
    marks: Marks
    last_n: int
    rows: list[Row]
    notes: dict[str, Any] = field(default_factory=dict)
    """Small things by name: limits, what lasted on each address."""


class Store(Protocol):
    """See the module. A call that raises `StoreUnusable` has changed nothing."""

    def open(self, user: str, device: str | None) -> Loaded:
        """Open or make it. Raises `StoreInUse`, `StoreUnusable`."""

    def add(self, row: Row) -> None:
        """A new entry of the outbox."""

    def replace(self, row: Row) -> None:
        """An entry that was not tried yet says something else now."""

    def tried(self, keys: Iterable[int]) -> None:
        """These entries may be on the wire from now on."""

    def remove(self, key: int, last_n: int) -> None:
        """The entry has its answer, or was given up; `last_n` is the newest number that is used up."""

    def mark(self, marks: Marks) -> None:
        """The inbox stands there."""

    def note(self, name: str, value: Any) -> None:
        """Remember something small under a name."""

    def transaction(self) -> Any:
        """A context: what is called in it is on disk together when it ends, or none of it."""

    def close(self) -> None:
        """Let it go; nothing is called afterwards."""
