"""What threads have opened is closed, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from mqtt_im.clock import Clock
from mqtt_im.config import FilesConfig
from mqtt_im.files import service
from mqtt_im.files.folder import Folder
from mqtt_im.files.receiving import Incoming
from mqtt_im.files.service import Files, Ledger, open_files
from mqtt_im.files.table import Stored
from mqtt_im.files.threads import Content, Threads

STORED = Stored("file", "ann", "x", "text/plain", 4, "", 0)


class _Ledger:
    clock = Clock()
    epoch = "epoch"


def opened_below(folder: Path) -> set[str]:
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {path for path in found if path.startswith(str(folder))}


async def told() -> None:
    """What the threads have ended has come to the loop, and to who waited for it."""
    for _ in range(4):
        await asyncio.sleep(0)


def play(tmp_path: Path, part: Callable[[Files, Path], AsyncIterator[None]]) -> None:
    """Run `part` up to its `yield`, by which it has cancelled what it wanted to; the rest is run with nothing under way."""

    async def main() -> None:
        files = open_files(FilesConfig(), tmp_path)
        await files.start(cast(Ledger, _Ledger()))
        steps = part(files, tmp_path)
        await anext(steps)
        await files.stop()
        await told()
        async for _ in steps:
            pass
        files.close()

    asyncio.run(main())


async def cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("fails", [False, True], ids=["opened", "not opened"])
def test_a_file_that_is_opened_for_nobody_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    streams: list[BinaryIO] = []
    really = Folder.open

    def slow(self: Folder, file: str, start: int, size: int) -> BinaryIO:
        begun.set()
        goes_on.wait(5)
        if fails:
            raise OSError
        streams.append(really(self, file, start, size))
        return streams[0]

    monkeypatch.setattr(Folder, "open", slow)

    async def part(files: Files, folder: Path) -> AsyncIterator[None]:
        (folder / "given").write_bytes(b"four")
        Folder(folder / "files").put(STORED.id, folder / "given")
        task = asyncio.create_task(files.open(STORED, 0, 4))
        await asyncio.to_thread(begun.wait)
        await cancelled(cast("asyncio.Task[object]", task))
        goes_on.set()
        yield
        assert [stream.closed for stream in streams] == [True] * (not fails)

    play(tmp_path, part)


def test_an_upload_that_is_ended_while_it_begins_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    class Slow(Incoming):
        def __init__(self, folder: Path) -> None:
            begun.set()
            goes_on.wait(5)
            super().__init__(folder)

    monkeypatch.setattr(service, "Incoming", Slow)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    async def part(files: Files, folder: Path) -> AsyncIterator[None]:
        task = asyncio.create_task(files.receive("ann", "x", "text/plain", None, pieces()))
        await asyncio.to_thread(begun.wait)
        await cancelled(cast("asyncio.Task[object]", task))
        goes_on.set()
        yield
        assert list((folder / "files" / "incoming").iterdir()) == []
        assert opened_below(folder / "files" / "incoming") == set()

    play(tmp_path, part)


def test_what_is_being_read_is_closed_after_it(tmp_path: Path) -> None:
    """A descriptor that is closed amid a read may be another file's by then."""
    begun, goes_on = threading.Event(), threading.Event()
    (tmp_path / "file").write_bytes(b"four")

    class Slow:
        def __init__(self) -> None:
            self.stream = (tmp_path / "file").open("rb", buffering=0)
            self.close = self.stream.close

        def read(self, size: int) -> bytes | None:
            begun.set()
            goes_on.wait(5)
            assert not self.stream.closed
            return self.stream.read(size)

    async def main() -> None:
        threads, slow = Threads(), Slow()
        content = Content(cast(BinaryIO, slow), 4, threads)
        task = asyncio.create_task(content.read(4))
        await asyncio.to_thread(begun.wait)
        await cancelled(cast("asyncio.Task[object]", task))
        content.close()
        assert not slow.stream.closed
        goes_on.set()
        threads.stop()
        await told()
        assert slow.stream.closed

    asyncio.run(main())


def test_a_content_is_closed_when_the_threads_have_stopped(tmp_path: Path) -> None:
    """As where a server stops while somebody has not taken all of a file yet."""
    (tmp_path / "file").write_bytes(b"four")

    async def main() -> None:
        threads = Threads()
        stream = (tmp_path / "file").open("rb", buffering=0)
        content = Content(stream, 4, threads)
        assert await content.read(2) == b"fo"
        threads.stop()
        content.close()
        assert stream.closed

    asyncio.run(main())
