"""How a store is read by commands where nothing can be written beside it.

SQLite makes a file beside a database that is read while nobody has it open. Where there is no room for that, the databases are
read as files that do not change (`disk.reading`), and no server starts meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mqtt_im.disk import is_full
from mqtt_im.store.folder import FolderLock


@contextmanager
def readable(data_dir: Path) -> Iterator[bool]:
    """Whether the databases of the folder are to be opened as files that do not change. Raises `StoreError`."""
    if not is_full(data_dir) or FolderLock.is_held(data_dir):
        yield False
        return
    lock = FolderLock(data_dir)
    lock.take(writing=False)
    try:
        yield True
    finally:
        lock.release()
