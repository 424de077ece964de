"""What a token says that somebody else has signed, and that it is wrong (`jwts`, which is imported where it is asked for)."""

from __future__ import annotations

from typing import NamedTuple


class WrongToken(Exception):
    """The token is none, was not signed with the key, is for somebody else, or has ended."""


class Claims(NamedTuple):
    """What a good token says."""

    user: str
    expires: int | None
    """Milliseconds since 1970; None where it does not end."""
