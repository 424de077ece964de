"""What a process knows of accounts and tokens without asking: which accounts there are, and what was asked for before.

It follows from the journal of changes, row by row. For one thread at a time; whoever has it holds a lock.
"""

from __future__ import annotations

from typing import Final

from mqtt_im.cache import Cache
from mqtt_im.shares import Bounds

from .models import ERASED, REMOVED, REVOKED, TOKEN, Change, Token

_TOKENS_BYTES: Final = 32 << 20
_HASHES_BYTES: Final = 16 << 20
_ENTRY_BYTES: Final = 500
"""Of a token or a hash, beside its texts."""
_OWNER_BYTES: Final = 250
"""Of a token, for whose it is."""


class Known:
    """Of one place with accounts."""

    def __init__(self, bounds: Bounds) -> None:
        self.versions: dict[str, int] = {}
        """Every account, with the version of its credentials."""
        self.last_change = 0
        """The newest row of the journal that is taken in."""
        self._changes: list[Change] = []
        self._tokens: Cache[str, tuple[bytes, Token]] = Cache(bounds.of(_TOKENS_BYTES), self._left)
        """Tokens that were asked for, with their digests, by `id`."""
        self._of: dict[str, list[str]] = {}
        """Which of them are a user's."""
        self._passing: set[str] = set()
        """Those of them that are in no file, since there was no room for them."""
        self._hashes: Cache[str, tuple[int, str]] = Cache(bounds.of(_HASHES_BYTES))
        """Hashes of passwords that were asked for, by name, with the version of the account."""

    def take_in(self, change: int, name: str, what: str, token: str) -> None:
        """A row of the journal, of which each counts once."""
        if change <= self.last_change:
            return
        self.last_change = change
        if what == REMOVED:
            self.versions.pop(name, None)
        elif what not in (TOKEN, REVOKED, ERASED):
            self.versions[name] = change
        if what == REVOKED:
            self._tokens.drop(token)
        elif what != TOKEN:
            for id_ in list(self._of.get(name, ())):
                self._tokens.drop(id_)
        self._changes.append(Change(name, what, token))

    def take_changes(self) -> list[Change]:
        """What has changed since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    # Tokens.

    def token(self, id_: str) -> tuple[bytes, Token] | None:
        """A token and its digest; None where it was not asked for lately."""
        return self._tokens.get(id_)

    def remember_token(self, digest: bytes, token: Token) -> None:
        """It was asked for."""
        size = _ENTRY_BYTES + _OWNER_BYTES + len(token.user) + len(token.name)
        self._tokens.put(token.id, (digest, token), size)
        self._of.setdefault(token.user, []).append(token.id)

    def let_pass(self, digest: bytes, token: Token) -> None:
        """It is good as long as it is remembered: there was no room for it in a file."""
        self.remember_token(digest, token)
        self._passing.add(token.id)

    def passing_of(self, name: str) -> list[str]:
        """The user's tokens that are in no file."""
        return [id_ for id_ in self._of.get(name, ()) if id_ in self._passing]

    def end_passing(self, id_: str) -> None:
        """Such a token is revoked."""
        known = self._tokens.get(id_)
        if known is not None:
            self._tokens.drop(id_)
            self._changes.append(Change(known[1].user, REVOKED, id_))

    def _left(self, id_: str, known: tuple[bytes, Token]) -> None:
        self._passing.discard(id_)
        user = known[1].user
        theirs = self._of[user]
        theirs.remove(id_)
        if not theirs:
            del self._of[user]

    # Passwords.

    def hash_of(self, name: str) -> str | None:
        """The hash of an account's password; None where it was not asked for since it changed."""
        known = self._hashes.get(name)
        return None if known is None or known[0] != self.versions.get(name) else known[1]

    def remember_hash(self, name: str, version: int, password_hash: str) -> None:
        """It was asked for."""
        self._hashes.put(name, (version, password_hash), _ENTRY_BYTES + len(name) + len(password_hash))
