"""Many small files: how many a user may have, and that those which leave are looked at a few at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mqtt_im.clock import Clock
from mqtt_im.config import FilesConfig
from mqtt_im.files import service
from mqtt_im.files.errors import FileRefused
from mqtt_im.files.service import LOOKS, Files, Ledger, open_files
from mqtt_im.files.table import Stored
from tests.unit.transport.harness import on_loop

MANY = 3 * LOOKS


class _Ledger:
    """Of a store in which no message carries anything; notes how many files are looked at in one go."""

    clock = Clock()
    epoch = "epoch"

    def __init__(self) -> None:
        self.files: Files
        self.looked = self.most = 0

    def _ask(self, function: Callable[[Any], Any]) -> Any:
        self.looked = 0
        found = function(SimpleNamespace(state=SimpleNamespace(upload=self._upload, conv=lambda _: None)))
        self.most = max(self.most, self.looked)
        return found

    def _upload(self, file: str) -> Any:
        self.looked += 1
        return self.files._table.upload(file)

    async def call(self, function: Callable[[Any], Any], user: str = "") -> Any:
        return self._ask(function)

    async def decide(self, function: Callable[[Any], Any]) -> Any:
        return self._ask(function)


@contextmanager
def _files(folder: Path, quota: int = 1 << 30) -> Iterator[tuple[Files, _Ledger]]:
    files, ledger = open_files(FilesConfig(quota_bytes=quota), folder), _Ledger()
    ledger.files = files
    yield files, ledger
    files.close()


def _uploaded(files: Files, owner: str, count: int, created: int) -> None:
    for number in range(count):
        files._table.add(Stored(f"{owner}-{created % 100}-{number}", owner, "x", "text/plain", 1, "", created))


@on_loop
async def test_uploads_of_who_is_erased_are_looked_at_a_few_at_a_time(tmp_path: Path) -> None:
    """The ledger's thread looked at all of them at once: with 100,000 nobody's message was committed for seconds."""
    with _files(tmp_path) as (files, ledger):
        await files.start(cast(Ledger, ledger))
        _uploaded(files, "ann", MANY, files._now())
        _uploaded(files, "bob", 1, files._now())
        files._table.carry([("ann-0-7", "ann:bob", 1)])
        await files.forget_user("ann")
        assert 0 < ledger.most <= LOOKS
        assert (files._table.used("ann").files, files._table.used("bob").files) == (0, 1)
        await files.stop()


@on_loop
async def test_whether_a_file_was_ever_carried_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sweep went through all files that there are, of all users, while everybody who asked for a file waited."""
    with _files(tmp_path) as (files, ledger):
        await files.start(cast(Ledger, ledger))
        monkeypatch.setattr(service, "SLICES", 0)
        old, seen = files._now() - (service.UNCARRIED_S + 1) * 1000, list[str]()
        aged = files._table.aged

        def seeing(*args: Any) -> Any:
            found = aged(*args)
            seen.extend(file.id for file in found)
            return found

        monkeypatch.setattr(files._table, "aged", seeing)
        _uploaded(files, "ann", MANY, old)
        _uploaded(files, "bob", 2, files._now())
        files._table.carry([(f"ann-{old % 100}-{number}", "ann:bob", number) for number in range(5)])
        for _ in range(2):
            await files.sweep()
        assert len(seen) == len(set(seen)) == MANY
        assert 0 < ledger.most <= LOOKS
        assert (files._table.used("ann").files, files._table.used("bob").files) == (5, 2)
        _uploaded(files, "cat", 3, old + 1)
        await files.sweep()
        assert files._table.used("cat").files == 0
        await files.stop()


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


@on_loop
async def test_files_that_are_empty_have_their_quota_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They took none of it, and of the disk 4 KiB each, a file in a folder and a row."""
    monkeypatch.setattr(service, "MOST_FILES", 3)
    for quota, most in ((1, 3), (5 * service.LEAST_BYTES, 5)):
        with _files(tmp_path / str(quota), quota) as (files, ledger):
            await files.start(cast(Ledger, ledger))
            for _ in range(most):
                await files.receive("ann", "x", "text/plain", None, _nothing())
            with pytest.raises(FileRefused, match=f"you may have {most} files") as refused:
                await files.receive("ann", "x", "text/plain", None, _nothing())
            assert refused.value.code == "quota"
            await files.receive("bob", "x", "text/plain", None, _nothing())
            await files.stop()
