"""What uploads have in memory, whatever the disk does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from mqtt_im.clock import Clock
from mqtt_im.config import FilesConfig
from mqtt_im.files import service
from mqtt_im.files.gathering import USUAL_BYTES
from mqtt_im.files.receiving import PIECE, Incoming
from mqtt_im.files.service import Files, Ledger, open_files
from mqtt_im.shares import Bounds

UPLOADS = 60
CHUNK = b"x" * 65_536


class _Ledger:
    clock = Clock()
    epoch = "epoch"


def test_uploads_that_wait_for_the_disk_count_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing more is taken from where it came in. A thousand of them had a quarter of a megabyte each."""
    disk, taken = threading.Event(), 0

    class Slow(Incoming):
        def write(self, data: bytes) -> None:
            disk.wait()
            super().write(data)

    monkeypatch.setattr(service, "Incoming", Slow)

    async def pieces(files: Files) -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(2 * PIECE // len(CHUNK)):
            await asyncio.sleep(0)
            await files.gathering.room()
            taken += len(CHUNK)
            yield CHUNK

    async def play() -> None:
        files = open_files(FilesConfig(), tmp_path, memory_mb=100)
        await files.start(cast(Ledger, _Ledger()))
        coming: list[asyncio.Task[Any]] = [
            asyncio.create_task(files.receive("ann", "x", "text/plain", None, pieces(files))) for _ in range(UPLOADS)
        ]
        before = -1
        while taken != before:
            before = taken
            await asyncio.sleep(0.2)
        disk.set()
        assert 0 < before == files.gathering.size <= Bounds(100).of(USUAL_BYTES) + len(CHUNK)
        assert all(stored.size == 2 * PIECE for stored in await asyncio.gather(*coming))
        assert files.gathering.size == 0
        await files.stop()
        files.close()

    asyncio.run(play())
