"""The reserve for a full disk, and what people are told of one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import peewee
import pytest

from mqtt_im import disk
from mqtt_im.store.folder import FolderLock


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes are free, to be changed."""
    found = [1 << 40]
    monkeypatch.setattr(disk, "_free", lambda _: found[0])
    return found


def test_the_reserve_is_kept_given_up_and_made_again(tmp_path: Path, free: list[int]) -> None:
    lock, reserve = FolderLock(tmp_path), tmp_path / disk.RESERVE
    disk.keep_reserve(tmp_path)
    assert reserve.stat().st_blocks * 512 >= disk.RESERVE_BYTES
    lock.take()
    assert reserve.exists()
    lock.release()
    free[0] = 4096
    lock.take()
    assert not reserve.exists()
    disk.keep_reserve(tmp_path)
    assert not reserve.exists()
    free[0] = 1 << 30
    disk.keep_reserve(tmp_path)
    assert reserve.exists()
    lock.release()


def test_what_failed_first_is_told_and_that_the_disk_is_full(tmp_path: Path, free: list[int]) -> None:
    """SQLite rolls back by itself where the disk is full, and that there is nothing to roll back any more hides why."""
    file = tmp_path / "some.db"

    def failing() -> None:
        try:
            raise sqlite3.OperationalError("database or disk is full")
        except sqlite3.OperationalError:
            raise peewee.OperationalError("cannot rollback - no transaction is active")  # noqa: B904 - as peewee does

    with pytest.raises(peewee.OperationalError) as caught:
        failing()
    assert disk.reason(file, caught.value) == f"{file}: database or disk is full"
    free[0] = 0
    assert disk.reason(file, OSError(28, "No space left on device")) == f"{file}: No space left on device (the disk is full)"
