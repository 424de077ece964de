"""Contents of files in a folder: one file each, in 256 folders by the first letters of a digest of its id."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class Folder:
    """Implements `Blobs`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, file: str) -> Path:
        return self._folder / hashlib.blake2b(file.encode(), digest_size=1).hexdigest() / file

    def put(self, file: str, path: Path) -> None:
        """See `Blobs`."""
        target = self._path(file)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync(self._folder)
        os.rename(path, target)
        _sync(target.parent)

    def open(self, file: str, start: int, size: int) -> BinaryIO:
        """See `Blobs`."""
        stream = self._path(file).open("rb", buffering=0)
        stream.seek(start)
        return stream

    def remove(self, file: str) -> None:
        """See `Blobs`."""
        self._path(file).unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[str, float]]:
        """See `Blobs`."""
        if not self._folder.is_dir():
            return
        for folder in os.scandir(self._folder):
            if not folder.is_dir() or len(folder.name) != 2:
                continue
            for entry in os.scandir(folder.path):
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat().st_mtime

    def check(self) -> None:
        """See `Blobs`."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _sync(folder: Path) -> None:
    """The folder's entries are on stable storage."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
