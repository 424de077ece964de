"""The folder's lock: one server has it, and who looks whether one has it is in nobody's way."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from unittest.mock import patch

import pytest

from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.folder import LOCK_NAME, FolderLock


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    first.take()
    with patch("mqtt_im.store.folder.PATIENCE_S", 0.01), pytest.raises(StoreError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path).take()
    assert FolderLock.is_held(tmp_path)
    first.release()
    assert not FolderLock.is_held(tmp_path)


def test_who_looks_at_that_moment_does_not_stop_a_start(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).touch()
    looking = os.open(tmp_path / LOCK_NAME, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    later = threading.Timer(0.05, os.close, (looking,))
    later.start()
    lock = FolderLock(tmp_path)
    lock.take()
    lock.release()
    later.join()
