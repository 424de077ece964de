"""An upload on its way to the disk: written and hashed piece by piece on a thread, so that its size costs no memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

PIECE: Final = 256 << 10
"""Bytes that are gathered before a thread writes them."""


class Incoming:
    """A file in `folder` that is gone again unless it is kept. All methods block."""

    def __init__(self, folder: Path) -> None:
        self._descriptor, name = tempfile.mkstemp(dir=folder)
        self.path = Path(name)
        self.size = 0
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """So many bytes more. Raises `OSError`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._hash.update(data)
        self.size += len(data)

    def finish(self) -> str:
        """Everything written is on stable storage; its SHA-256. Raises `OSError`."""
        os.fsync(self._descriptor)
        self._close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        """It leaves nothing, unless it was moved elsewhere."""
        self._close()
        self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
