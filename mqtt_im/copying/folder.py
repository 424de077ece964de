"""A folder with a store, which no server uses meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from mqtt_im.hooks.webpush import KEY_NAME
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.folder import FolderLock
from mqtt_im.store.sqlite import whole as sqlite
from mqtt_im.store.sqlite.tables.files import LOG_FILE, PROJECTION_FILE
from mqtt_im.store.sqlite.tables.unchanging import readable
from mqtt_im.tables import Folder, Tables

from .small import FILES, Models


class Files:
    """The store and the small tables of a folder, as long as it is not closed."""

    def __init__(self, folder: Path, unchanging: bool = False) -> None:
        """`unchanging`: see `unchanging.readable`."""
        self.where = str(folder.absolute())
        self._folder = folder
        self._unchanging = unchanging
        self._open = ExitStack()

    def whole(self) -> sqlite.SqliteWhole:
        """All that the store holds."""
        whole = sqlite.SqliteWhole(self._folder, self._unchanging)
        self._open.callback(whole.close)
        return whole

    def small(self, name: str, *, made: bool = False) -> tuple[Tables, Models] | None:
        """See `HasSmall`."""
        file, models = FILES[name]
        place = Folder(self._folder, self._unchanging)
        if not made and not place.has(file):
            return None
        tables = place.open(file, models, readonly=self._unchanging)
        self._open.callback(tables.close)
        return tables, models

    def push_key(self) -> bytes | None:
        """See `HasSmall`."""
        file = self._folder / KEY_NAME
        return file.read_bytes() if file.exists() else None

    def keep_push_key(self, pem: bytes) -> None:
        """See `HasSmall`."""
        with os.fdopen(os.open(self._folder / KEY_NAME, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
            stream.write(pem)

    def close(self) -> None:
        """Nothing of it is open."""
        self._open.close()


@contextmanager
def held(folder: Path) -> Iterator[Files]:
    """A folder with a store, of which the projections have all that is in the log. Raises `StoreError`."""
    if not (folder / LOG_FILE).is_file():
        raise StoreError(f"{folder / LOG_FILE}: there is no such file; has a server run on this data_dir?")
    with readable(folder) as unchanging:
        if unchanging and not sqlite.is_settled(folder):
            raise StoreError(f"{folder / PROJECTION_FILE}: lacks some of what is in the log (the disk is full)")
        files = Files(folder, unchanging)
        with nullcontext() if unchanging else _alone(folder):
            try:
                yield files
            finally:
                files.close()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = FolderLock(folder)
    lock.take()
    try:
        sqlite.settle(folder)
        yield
    finally:
        lock.release()
