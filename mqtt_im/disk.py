"""The disk that the data is on: whether it is full, and a reserve for that day.

A server that starts on a full disk needs a little room all the same, for the files that SQLite keeps beside each database while
it is open. A file in `data_dir` keeps it free, and is given up when the disk is full; so people can read what is stored.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

RESERVE: Final = "reserve"
RESERVE_BYTES: Final = 1 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_PLENTY: Final = 4
"""The reserve is made, or made again, where so many times as much is free."""


def is_full(folder: Path) -> bool:
    """Whether hardly anything can be written there."""
    return _free(folder) < RESERVE_BYTES


def reason(path: Path, error: BaseException) -> str:
    """What people are told about a file that could not be used."""
    while "cannot rollback" in str(error) and error.__context__ is not None:
        error = error.__context__  # what SQLite had rolled back by itself
    text = str(getattr(error, "strerror", None) or error)
    return f"{path}: {text}" + (" (the disk is full)" if is_full(path.parent) else "")


def reading(file: Path, unchanging: bool) -> str:
    """What SQLite is told to open for reading; `unchanging`: nothing is written beside it, and nobody else has it open.

    That suits a database of which a part stands in its write-ahead file as well: the index of that file is kept in memory by who
    has the database alone (https://sqlite.org/vfs.html, "unix-excl"). Where there is room for what stands there, it stands in the
    database itself afterwards, as after any use of it.
    """
    if not unchanging:
        how = "mode=ro"
    elif _goes_on(file):
        how = "mode=rw&vfs=unix-excl"
    else:
        how = "mode=ro&immutable=1"
    return f"{file.absolute().as_uri()}?{how}"


def _goes_on(file: Path) -> bool:
    """Whether a part of the database stands in its write-ahead file."""
    try:
        return file.with_name(f"{file.name}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def lacks_room(error: BaseException | None) -> bool:
    """Whether something could not be written only because the disk is full."""
    while error is not None:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def keep_reserve(folder: Path) -> None:
    """The reserve is there, where there is room for it."""
    file = folder / RESERVE
    with contextlib.suppress(OSError):
        if not file.exists() and _free(folder) > _PLENTY * RESERVE_BYTES:
            descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, os.urandom(RESERVE_BYTES))  # what a file system that compresses can't make smaller
            finally:
                os.close(descriptor)


def give_up_reserve(folder: Path) -> None:
    """Where the disk is full, the reserve is room for what has to be written all the same."""
    if is_full(folder):
        with contextlib.suppress(OSError):
            (folder / RESERVE).unlink(missing_ok=True)


def _free(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize


def sync(path: Path) -> None:
    """What was written to a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
