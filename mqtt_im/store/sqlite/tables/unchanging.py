"""How a store is read by commands where nothing can be written beside it.

SQLite makes a file beside a database that is read while nobody has it open. Where there is no room for that, the databases are
read as files that do not change, and no server starts meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mqtt_im.disk import is_full
from mqtt_im.store.folder import FolderLock


@contextmanager
def readable(data_dir: Path, names: Iterable[str]) -> Iterator[bool]:
    """Whether these databases of the folder are to be opened as files that do not change. Raises `StoreError`."""
    if not is_full(data_dir) or FolderLock.is_held(data_dir) or any(_goes_on(data_dir / name) for name in names):
        yield False
        return
    lock = FolderLock(data_dir)
    lock.take(writing=False)
    try:
        yield True
    finally:
        lock.release()


def uri(file: Path, unchanging: bool) -> str:
    """What SQLite is told to open for reading."""
    return f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if unchanging else ''}"


def _goes_on(file: Path) -> bool:
    """Whether a part of the database stands in its write-ahead file."""
    try:
        return file.with_name(f"{file.name}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False
