"""Puts the ledger and the SQLite engine together."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, Final

from mqtt_im.clock import Clock
from mqtt_im.core.rules import Limits
from mqtt_im.disk import reason
from mqtt_im.protocol.errors import StoreError
from mqtt_im.shares import USUAL_MB, Bounds
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.uploads import NoUploads, Uploads

from .engine import Engine
from .errors import ERRORS
from .tables.files import LOG_FILE

_FAILED: Final[tuple[type[Exception], ...]] = (*ERRORS, ValueError)


def opener(
    data_dir: Path,
    *,
    synchronous: str = "full",
    limits: Limits | None = None,
    has_account: Callable[[str], bool] = lambda _: True,
    claim: Callable[[str, int], bool] = lambda *_: False,
    unclaim: Callable[[str, int], None] = lambda *_: None,
    online: Container[str] = frozenset(),
    uploads: Uploads | None = None,
    memory_mb: int = USUAL_MB,
) -> Callable[[], Engine]:
    """What opens the SQLite files of a folder and replays the log's tail. That raises `StoreError`.

    What is kept in memory is bounded so that the process takes about `memory_mb` at most.
    """

    def make() -> Engine:
        try:
            return Engine(
                data_dir,
                synchronous,
                limits or Limits(),
                has_account,
                claim,
                unclaim,
                online,
                uploads or NoUploads(),
                Bounds(memory_mb),
            )
        except _FAILED as error:
            raise StoreError(f"the store can't be opened: {reason(data_dir / LOG_FILE, error)}") from error

    return make


def open_ledger(data_dir: Path, *, clock: Clock | None = None, **options: Any) -> Ledger:
    """A ledger on the SQLite files of a folder, which are opened when it starts; `options` are those of `opener`."""
    return Ledger(opener(data_dir, **options), clock=clock)
