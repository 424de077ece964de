"""Puts the ledger and the SQLite engine together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mqtt_im.clock import Clock
from mqtt_im.disk import reason
from mqtt_im.protocol.errors import StoreError
from mqtt_im.shares import USUAL_MB, Bounds
from mqtt_im.store.given import Given
from mqtt_im.store.ledger import Ledger

from .engine import Engine
from .errors import ERRORS
from .tables.files import LOG_FILE

_FAILED: Final[tuple[type[Exception], ...]] = (*ERRORS, ValueError)


def opener(
    data_dir: Path,
    *,
    given: Given = Given(),  # noqa: B008 - nothing of it changes
    synchronous: str = "full",
    memory_mb: int = USUAL_MB,
) -> Callable[[], Engine]:
    """What opens the SQLite files of a folder and replays the log's tail. That raises `StoreError`.

    What is kept in memory is bounded so that the process takes about `memory_mb` at most.
    """

    def make() -> Engine:
        try:
            return Engine(data_dir, synchronous, given, Bounds(memory_mb))
        except _FAILED as error:
            raise StoreError(f"the store can't be opened: {reason(data_dir / LOG_FILE, error)}") from error

    return make


def open_ledger(data_dir: Path, *, clock: Clock | None = None, **options: Any) -> Ledger:
    """A ledger on the SQLite files of a folder, which are opened when it starts; `options` are those of `opener`."""
    return Ledger(opener(data_dir, **options), clock=clock)
