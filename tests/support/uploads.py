"""Uploaded files in memory, for stores that are run by hand."""

from __future__ import annotations

from collections.abc import Iterable

from mqtt_im.core.model import Upload


class Carrying(list[tuple[str, int]]):
    """Implements `core.model.Carriers`."""

    def groups(self) -> set[str]:
        return {conv for conv, _ in self if conv[0] == "#"}


class MemoryUploads:
    """Implements `store.uploads.Uploads`; `owners` says whose each file is."""

    def __init__(self, owners: dict[str, str]) -> None:
        self.owners = owners
        self.kept: list[tuple[str, str, int]] = []
        self.batch: list[tuple[str, str, int]] = []
        self.gone: set[str] = set()

    def stored(self, file: str) -> Upload | None:
        return self._found(file, self.kept)

    def find(self, file: str) -> Upload | None:
        return self._found(file, self.kept + self.batch)

    def _found(self, file: str, rows: list[tuple[str, str, int]]) -> Upload | None:
        if file not in self.owners:
            return None
        carriers = sorted(((conv, seq) for carried, conv, seq in rows if carried == file), reverse=True)
        return Upload(file, self.owners[file], f"{file}.png", "image/png", 9, Carrying(carriers))

    def carry(self, files: Iterable[str], conv: str, seq: int) -> None:
        self.batch += [(file, conv, seq) for file in files]

    def released(self, files: Iterable[str]) -> None:
        self.gone.update(files)

    def commit(self) -> None:
        self.kept += self.batch
        self.batch = []

    def rollback(self) -> None:
        self.batch = []
