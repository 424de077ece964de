"""Tokens: what clients may send in place of a password, until it ends or is revoked."""

from __future__ import annotations

from typing import Any

from mqtt_im.accounts import passwords
from mqtt_im.accounts.journal import Journal, now_ms
from mqtt_im.accounts.models import REVOKED, TOKEN, AccountRow, Token, TokenRow, token_id
from mqtt_im.disk import lacks_room
from mqtt_im.protocol.errors import MqttImError, StoreError

MAX_SESSIONS = 100
"""Logins of one user whose tokens are kept; one more ends the oldest."""
MAX_TOKENS = 1000
"""Tokens of one user that an operator has made."""


class Tokens(Journal):
    """The tokens of all users, also of those who have no account."""

    # Reading

    def token(self, token: bytes) -> Token | None:
        """The token of this text, from memory where it was asked for before; None where there is none, or it has expired."""
        digest = passwords.token_digest(token)
        with self._guarded():
            self._refresh()
            known = self._known.token(token_id(digest))
            if (known is None or known[0] != digest) and not self._on_loop:
                known = self._look_up(digest)
        return None if known is None or known[0] != digest or known[1].is_over(now_ms()) else known[1]

    def is_known(self, token: bytes) -> bool:
        """Whether the token was asked for before: then it is in memory, for as long as it is good."""
        return self._known.token(token_id(passwords.token_digest(token))) is not None

    def _look_up(self, digest: bytes) -> tuple[bytes, Token] | None:
        rows = self._rows(_tokens().where(TokenRow.digest == digest))
        if not rows:
            return None
        known = digest, Token.of(rows[0])
        with self._lock:
            self._known.remember_token(*known)
        return known

    def has_token(self, name: str, token: str) -> bool:
        """Whether the user has a token of this `id` that has not expired."""
        with self._guarded():
            self._refresh()
            known = self._known.token(token)
        if known is not None or self._on_loop:
            return known is not None and known[1].user == name and not known[1].is_over(now_ms())
        return any(other.id == token for other in self.tokens(name))

    def tokens(self, name: str, after: str = "", limit: int = -1) -> list[Token]:
        """The user's tokens that have not expired, by `id`, those behind `after`."""
        with self._guarded():
            rows = self._rows(_tokens().where(TokenRow.name == name).order_by(TokenRow.digest))
        now = now_ms()
        found = [token for token in map(Token.of, rows) if token.id > after and not token.is_over(now)]
        return found if limit < 0 else found[:limit]

    # Writing

    def add_token(self, name: str, label: str = "", expires: int | None = None) -> str:
        """Make a token that the account's clients may send in place of the password. Codes `not_found`, `quota`.

        `label` is what the operator calls it; `expires` is in ms since 1970, None for never.
        """
        with self._guarded():
            self._refresh()
            return self.make_token(name, label, expires)[0]

    def make_token(
        self, name: str, label: str = "", expires: int | None = None, *, session: bool = False, account: bool = True
    ) -> tuple[str, Token]:
        """A new token of a user: its text, which is kept nowhere, and what it is known as.

        `account`: the user must have one, else code `not_found`. A user has at most `MAX_SESSIONS` that are `session`, the newest
        ones; code `quota` at `MAX_TOKENS` others. On a full disk one that is `session` is good until this process ends,
        or has too many newer ones in memory.
        """
        text = passwords.make_token()
        digest = passwords.token_digest(text.encode())
        token = Token(token_id(digest), name, label, now_ms(), expires, session)
        try:
            self._write_token(digest, token, account)
        except StoreError as error:
            if not session or self._shared or not lacks_room(error) or (account and not self.exists(name)):
                raise
            with self._lock:
                self._known.let_pass(digest, token)
        return text, token

    def _write_token(self, digest: bytes, token: Token, account: bool) -> None:
        name, session = token.user, token.session
        with self._writing():
            if account:  # read here, so that nobody removes it meanwhile
                self._found(name, len(self._written(AccountRow.select(AccountRow.name).where(AccountRow.name == name))))
            self._run(TokenRow.delete().where(TokenRow.name == name, TokenRow.expires <= token.created))
            theirs = TokenRow.select(TokenRow.digest).where(TokenRow.name == name, TokenRow.session == session)
            older = self._written(theirs.order_by(TokenRow.created))
            if not session and len(older) >= MAX_TOKENS:
                raise MqttImError("quota", f"{name} has {MAX_TOKENS} tokens; revoke one first")
            if session:
                for (oldest,) in older[: max(0, len(older) + 1 - MAX_SESSIONS)]:
                    self._revoke(name, bytes(oldest))
            row = {"digest": digest, "name": name, "created": token.created, "label": token.name, "expires": token.expires}
            self._run(TokenRow.insert({**row, "session": session}))
            self._note(name, TOKEN, token.id)

    def revoke(self, name: str, token: str) -> None:
        """A user's token, by its `id`, is good for nothing any more; its connections are closed. Code `not_found`."""
        with self._lock:
            if token in self._known.passing_of(name):
                self._known.end_passing(token)
                return
        with self._writing():
            rows = self._written(TokenRow.select(TokenRow.digest).where(TokenRow.name == name))
            found = [bytes(digest) for (digest,) in rows if token_id(bytes(digest)) == token]
            if not found:
                raise MqttImError("not_found", f"{name} has no token {token}")
            for digest in found:
                self._revoke(name, digest)

    def revoke_all(self, name: str) -> None:
        """The user, who need not have an account, has no token any more."""
        with self._lock:
            for token in self._known.passing_of(name):
                self._known.end_passing(token)
        with self._writing():
            for (digest,) in self._written(TokenRow.select(TokenRow.digest).where(TokenRow.name == name)):
                self._revoke(name, bytes(digest))

    def _revoke(self, name: str, digest: bytes) -> None:
        self._run(TokenRow.delete().where(TokenRow.digest == digest))
        self._note(name, REVOKED, token_id(digest))


def _tokens() -> Any:
    return TokenRow.select(TokenRow.digest, TokenRow.name, TokenRow.label, TokenRow.created, TokenRow.expires, TokenRow.session)
