"""Where the contents of files are kept. All methods block; the service calls them on threads of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol


class Blobs(Protocol):
    """Contents by file id. Failures are `OSError`s."""

    def put(self, file: str, path: Path) -> None:
        """The bytes at `path` are the content of the file, on stable storage; `path` may be gone afterwards."""

    def open(self, file: str, start: int, size: int) -> BinaryIO:
        """A stream of `size` bytes from `start` on. Raises `FileNotFoundError`."""

    def remove(self, file: str) -> None:
        """There is no such content, whether there was or not."""

    def all(self) -> Iterator[tuple[str, float]]:
        """Every content there is: its id, and when it came, in s since 1970."""

    def check(self) -> None:
        """Raise where contents can't be kept there now."""
