"""What a store must know of uploaded files, which live beside it (`mqtt_im.files`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from mqtt_im.core.model import Upload


class Uploads(Protocol):
    """Used in the ledger's thread, but for `stored`. What a method raises voids the batch, like a failure of the store itself."""

    def stored(self, file: str) -> Upload | None:
        """See `core.view.View.upload`, without what is not committed yet; from any thread."""

    def find(self, file: str) -> Upload | None:
        """See `core.view.View.upload`; the batch included."""

    def carry(self, files: Iterable[str], conv: str, seq: int) -> None:
        """A message of the batch carries these."""

    def released(self, files: Iterable[str]) -> None:
        """The content of a message that carried these is gone with the batch."""

    def commit(self) -> None:
        """What `carry` told is on disk. Called before the batch itself is: a carrier too many does no harm."""

    def rollback(self) -> None:
        """The batch has failed."""


class NoUploads:
    """Nobody can upload anything."""

    def stored(self, file: str) -> Upload | None:
        """See `Uploads`."""

    def find(self, file: str) -> Upload | None:
        """See `Uploads`."""

    def carry(self, files: Iterable[str], conv: str, seq: int) -> None:
        """See `Uploads`."""

    def released(self, files: Iterable[str]) -> None:
        """See `Uploads`."""

    def commit(self) -> None:
        """See `Uploads`."""

    def rollback(self) -> None:
        """See `Uploads`."""
