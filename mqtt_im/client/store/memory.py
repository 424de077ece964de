"""A store that remembers nothing: for clients that live as long as their process."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from typing import Any

from mqtt_im.client.core.inbox import Marks

from .interface import Loaded, Row


class MemoryStore:
    """See `interface.Store`."""

    def open(self, user: str, device: str | None) -> Loaded:  # noqa: D102
        return Loaded(device or new_device(), Marks(), 0, [])

    def add(self, row: Row) -> None:  # noqa: D102
        pass

    def replace(self, row: Row) -> None:  # noqa: D102
        pass

    def tried(self, keys: Iterable[int]) -> None:  # noqa: D102
        pass

    def remove(self, key: int, last_n: int) -> None:  # noqa: D102
        pass

    def mark(self, marks: Marks) -> None:  # noqa: D102
        pass

    def note(self, name: str, value: Any) -> None:  # noqa: D102
        pass

    def transaction(self) -> contextlib.AbstractContextManager[None]:  # noqa: D102
        return contextlib.nullcontext()

    def close(self) -> None:  # noqa: D102
        pass


def new_device() -> str:
    """A device id that no other has."""
    return f"py-{secrets.token_hex(6)}"
