"""What a batch takes back before anybody was offered it, and what becomes of that where the batch fails (INV-12)."""

from __future__ import annotations

import sqlite3
from typing import Any, cast

import pytest

from mqtt_im.bridge.claims import Claims
from mqtt_im.store.sqlite.taking_back import TakingBack


class Inboxes:
    """Each user has an item, of log row 7; that of `broken` can't be read."""

    broken: str | None = "bob"

    def user(self, name: str) -> str:
        return name

    def items(self, user: str, after: int, limit: int) -> list[tuple[int, int]]:
        if user == self.broken:
            raise sqlite3.OperationalError("disk I/O error")
        return [(after + 1, 7)]


def test_what_was_taken_before_one_could_not_be_read_is_offered_again() -> None:
    claims, inboxes = Claims(), Inboxes()
    taking = TakingBack(claims.take_back, claims.release)
    taking.begin(cast(Any, inboxes), 5, {("bob", "pc")})
    with pytest.raises(sqlite3.OperationalError):
        taking.take_all([("ann", 1), ("bob", 1)])
    assert not claims.offer("ann", 1), "as long as the batch may be kept"
    inboxes.broken = None
    taking.undo(cast(Any, inboxes))
    assert claims.offer("ann", 1)


def test_what_a_former_server_may_have_offered_is_left() -> None:
    inboxes = Inboxes()
    inboxes.broken = None
    taking = TakingBack(lambda *_: True, lambda *_: None)
    taking.begin(cast(Any, inboxes), 7, {("bob", "pc")})
    assert taking.take_all([("ann", 1), ("bob", 1), ("cat", 2)]) == [("ann", 1), ("cat", 2)]
