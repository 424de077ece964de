"""Passwords that were right or wrong lately, so that a reconnect costs microseconds and an old password is no guess."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from mqtt_im.shares import Bounds

MAX_REMEMBERED = 100_000
MAX_REMEMBERED_WRONG = 10_000
"""Passwords, of which each takes about 450 bytes."""

_Key = TypeVar("_Key")


class _Verdict(NamedTuple):
    digest: bytes
    version: int | None
    until: float


class Verdicts:
    """Which passwords were right or wrong lately, as hashes under a key that nobody else has; memory is bounded."""

    def __init__(self, seconds: float, clock: Callable[[], float], bounds: Bounds | None = None) -> None:
        self.seconds = seconds
        self._bounds = bounds or Bounds()
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[str, _Verdict] = OrderedDict()
        """By user: the last one."""
        self._wrong: OrderedDict[bytes, _Verdict] = OrderedDict()
        """By digest, so that guesses never drive out what was right."""

    def digest(self, user: str, password: bytes) -> bytes:
        """What stands for this password of this user."""
        return hmac.digest(self._key, user.encode() + b"\0" + password, "sha256")

    def verdict(self, user: str, digest: bytes, version: int | None) -> bool | None:
        """Whether the password was right; None where it has to be looked at. `version` is the account's, as of now."""
        if self.was_right(user, digest, version) and self._right[user].until > self._clock():
            return True
        wrong = self._wrong.get(digest)
        if wrong is not None and (wrong.version != version or wrong.until <= self._clock()):
            del self._wrong[digest]
        elif wrong is not None:
            return False
        return None

    def note(self, user: str, digest: bytes, version: int | None, *, right: bool) -> None:
        """Remember what a password of this version of the account was found to be."""
        verdict = _Verdict(digest, version, self._clock() + self.seconds)
        if right:
            _put(self._right, user, verdict, self._bounds.of(MAX_REMEMBERED))
        else:
            _put(self._wrong, digest, verdict, self._bounds.of(MAX_REMEMBERED_WRONG))

    def forget_wrong(self) -> None:
        """What was wrong may be right now."""
        self._wrong.clear()

    def was_right(self, user: str, digest: bytes, version: int | None) -> bool:
        """Whether this password let the user in once, however long ago. No guesser has it, so it need not wait behind one."""
        right = self._right.get(user)
        if right is not None and right.version != version:
            del self._right[user]
            return False
        return right is not None and hmac.compare_digest(right.digest, digest)


def _put(entries: OrderedDict[_Key, _Verdict], key: _Key, verdict: _Verdict, most: int) -> None:
    entries[key] = verdict
    entries.move_to_end(key)
    if len(entries) > most:
        entries.popitem(last=False)
