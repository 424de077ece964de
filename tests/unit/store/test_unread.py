"""What is unread is counted in steps, and what is gone takes none."""

from __future__ import annotations

from typing import Any, cast

from mqtt_im.core.model import Conv, User
from mqtt_im.store.queries.unread import Counts


class _Kept:
    """A state with the messages from `first` on."""

    def __init__(self, first: int) -> None:
        self.first = first

    def nearest_message(self, conv: Conv, first: int, last: int, upward: bool) -> int | None:
        return max(self.first, first) if self.first <= last else None

    def unread(self, parts: list[tuple[Conv, int, int]], user: User) -> dict[str, tuple[int, int]]:
        return {conv.name: (last - max(first, self.first) + 1, 0) for conv, first, last in parts}


def test_what_retention_has_taken_takes_no_step() -> None:
    conv, other, bob = Conv(1, "ann:bob"), Conv(2, "bob:cat"), User(1, "bob")
    parts = [(conv, 1, 10**9), (other, 1, 10**9)]
    assert Counts(10).of(cast(Any, _Kept(10**9 - 4)), parts, bob) == {"ann:bob": (5, 0), "bob:cat": (5, 0)}
    assert Counts(10).of(cast(Any, _Kept(10**9 + 1)), parts, bob) == {"ann:bob": (0, 0), "bob:cat": (0, 0)}
