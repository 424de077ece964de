"""The folder of all that must survive, and its lock: two servers never write into one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from mqtt_im.disk import give_up_reserve
from mqtt_im.protocol.errors import StoreError

LOCK_NAME = "lock"
RESTORING = "restoring"
"""A folder in the folder: what a restore, or a copy, has made so far. While it is there, no server starts."""
PATIENCE_S = 1.0
"""So long a start waits for the lock."""


class FolderLock:
    """Held from `take` to `release`, or to the end of the process, however that ends."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._file: int | None = None

    def take(self, restoring: bool = False, writing: bool = True) -> None:
        """Make the folder where it is missing and lock it. `StoreError` where another server has it, or it can't be written.

        Also where a restore or a copy into it was not finished, unless it is to be (`restoring`). On a full disk the reserve is
        given up, unless nothing is to be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self.folder / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"data_dir {self.folder} can't be used: {error.strerror}") from error
        if not _locked(file):
            holder = os.pread(file, 32, 0).decode(errors="replace").strip()
            os.close(file)
            raise StoreError(f"data_dir {self.folder} is in use by another server" + (f" (process {holder})" if holder else ""))
        if not restoring and (self.folder / RESTORING).exists():
            os.close(file)
            raise StoreError(f"data_dir {self.folder}: a restore, or a copy, was not finished; run it again")
        with contextlib.suppress(OSError):  # a full disk: the number only helps people
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        if writing:
            give_up_reserve(self.folder)

    def release(self) -> None:
        """Let another server have the folder."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @staticmethod
    def is_held(folder: str | os.PathLike[str]) -> bool:
        """Whether a server runs on this folder."""
        try:
            file = os.open(Path(folder) / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(file)
        return False


def _locked(file: int) -> bool:
    """Whether the lock could be had; somebody who looks whether it is held (`is_held`) has it for a moment."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        else:
            return True
