"""Power cuts: what is left of a store's files is what was synced last."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mqtt_im.store.sqlite.retention.folds import Folds
from mqtt_im.store.sqlite.tables.files import LOG_FILE, PROJECTION_FILE
from mqtt_im.store.sqlite.tables.log import Log
from tests.support.store import SqliteStore


class Power:
    """While it is entered, `cut` leaves of the log what was there at the last commit that is not lazy, and of the projections
    what was there when a pass had made sure of them, or at the beginning. SQLite may keep more, and never less."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._kept: dict[Path, bytes] = {}
        self._patches = ExitStack()

    def __enter__(self) -> Power:
        self._note(LOG_FILE, PROJECTION_FILE)
        for owner, name, files in (
            (Log, "append", (LOG_FILE,)),
            (Folds, "decide", (LOG_FILE,)),
            (Folds, "settle", (LOG_FILE, PROJECTION_FILE)),
        ):
            self._patches.enter_context(patch.object(owner, name, self._noting(getattr(owner, name), files)))
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()

    def cut(self) -> None:
        """The machine is off; the store is to be opened again."""
        self._store.crash()
        for name in (LOG_FILE, PROJECTION_FILE):
            for file in self._store.data_dir.glob(name + "*"):
                file.unlink()
        for file, content in self._kept.items():
            file.write_bytes(content)

    def _noting(self, function: Callable[..., Any], files: tuple[str, ...]) -> Callable[..., Any]:
        def noting(*args: Any) -> Any:
            result = function(*args)
            if result is not False:
                self._note(*files)
            return result

        return noting

    def _note(self, *names: str) -> None:
        for name in names:
            for end in ("", "-wal"):
                file = self._store.data_dir / (name + end)
                self._kept[file] = file.read_bytes() if file.exists() else b""
