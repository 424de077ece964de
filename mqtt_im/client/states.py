"""Where a client stands with its server: a word, and what belongs to it."""

from __future__ import annotations

from typing import Self


class State(str):
    """`"connecting"`, `"online"`, `"waiting"`, `"refused"` or `"closed"`, and compares as that.

    `retry_at` is when a waiting client tries again (seconds since 1970, as `time.time()`), `reason` why it was refused;
    None elsewhere.
    """

    __slots__ = ("reason", "retry_at")

    retry_at: float | None
    reason: str | None

    def __new__(cls, word: str, *, retry_at: float | None = None, reason: str | None = None) -> Self:  # noqa: D102
        self = super().__new__(cls, word)
        self.retry_at = retry_at
        self.reason = reason
        return self
