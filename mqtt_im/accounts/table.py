"""Accounts: who may log in. Small tables of their own, written by the command line beside the running server.

Every change writes a row into a journal in the same transaction. A server that has the file open learns of it by
`PRAGMA data_version`, which costs microseconds, and reads only the journal's new rows; so a new account can log in,
and be written to, as soon as the command that made it has returned. Which accounts there are is a function of the journal.

Where the tables are shared over a network, an event loop must not wait for them: there it is answered from what was read
last, and whoever needs the newest word has `catch_up` called on another thread before.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import peewee

from mqtt_im.accounts import passwords
from mqtt_im.accounts.known import Known
from mqtt_im.accounts.models import (
    CREATED,
    ERASED,
    MODELS,
    PASSWORD,
    REMOVED,
    REVOKED,
    TOKEN,
    Account,
    AccountRow,
    Change,
    ChangeRow,
    Credentials,
    ErasingRow,
    LeavingRow,
    Token,
    TokenRow,
    add_columns,
    token_id,
)
from mqtt_im.disk import lacks_room, reason
from mqtt_im.protocol import names
from mqtt_im.protocol.errors import MqttImError, StoreError
from mqtt_im.shares import Bounds
from mqtt_im.tables import Place, place_of
from mqtt_im.tables.sqlite import SqliteTables

NAME: Final = "accounts"
FILE_NAME: Final = "accounts.db"

MAX_SESSIONS = 100
"""Logins of one user whose tokens are kept; one more ends the oldest."""
MAX_TOKENS = 1000
"""Tokens of one user that an operator has made."""


class Accounts:
    """The accounts and tokens in one place. Every method may be called from any thread. Failures of it are `StoreError`s.

    Reads and writes have a connection each in a file, so that nobody who looks something up waits for somebody else's disk.
    """

    def __init__(self, where: str | os.PathLike[str] | Place, readonly: bool = False, bounds: Bounds | None = None) -> None:
        """`readonly`: only the methods that read are called, and nothing is written; `bounds` are for what is remembered.

        Raises `StoreError`.
        """
        place = place_of(where)
        self.shared = self._shared = place.shared
        """Other servers have them too; then `catch_up` has something to do."""
        self._lock = threading.RLock()
        """Of what is in memory; nobody waits for a network under it."""
        self._writer_lock = threading.RLock()
        self._reader_lock = self._lock if not place.shared else threading.RLock()
        self._known = Known(bounds or Bounds())
        self._seen: int | None = None
        """`Tables.changes` when the journal was read last."""
        self._writer = place.open(NAME, MODELS, readonly=readonly)
        if isinstance(self._writer, SqliteTables) and not readonly:
            add_columns(self._writer.db)
        self._reader = self._writer if place.shared else place.open(NAME, MODELS, readonly=readonly)
        self.where = str(Path(self._writer.where).parent.absolute()) if not place.shared else self._writer.where
        """The folder, or the database, for messages."""
        self._read_journal()
        self._known.take_changes()

    def close(self) -> None:
        """Nothing may be called after it."""
        with self._writer_lock, self._lock:
            self._writer.close()
            self._reader.close()

    # Reading

    def exists(self, name: str) -> bool:
        """Whether there is such an account, from memory; only a miss looks whether the file has changed."""
        if name in self._known.versions:
            return True
        with self._guarded():
            self._refresh()
            return name in self._known.versions

    def catch_up(self, name: str | None = None, token: bytes | None = None) -> None:
        """What is shared is read anew: the journal, and what a login of this name, or with this token, is checked against.

        To be called on a thread that may wait. In a file nothing has to be done.
        """
        if not self._shared:
            return
        with self._reading():
            self._read_journal()
            version = self._known.versions.get(name) if name is not None else None
            if name is not None and version is not None and self._known.hash_of(name) is None:
                for (password_hash,) in self._rows(AccountRow.select(AccountRow.password_hash).where(AccountRow.name == name)):
                    with self._lock:
                        self._known.remember_hash(name, version, password_hash)
            if token is not None:
                self._look_up(passwords.token_digest(token))

    def credentials(self, name: str) -> Credentials | None:
        """What a login is checked against, as of now; None where there is no such account."""
        with self._guarded():
            self._refresh()
            version = self._known.versions.get(name)
            if version is None:
                return None
            if self._on_loop:
                known = self._known.hash_of(name)
                if known is None:
                    raise StoreError(f"{self._writer.where}: the account was changed just now")
                return Credentials(known, version)
            hashes = self._rows(AccountRow.select(AccountRow.password_hash).where(AccountRow.name == name))
            if not hashes:
                return None
            return Credentials(hashes[0][0], version)

    def version(self, name: str) -> int | None:
        """The version of an account's credentials, as of now; None where there is no such account. Takes microseconds."""
        with self._guarded():
            self._refresh()
            return self._known.versions.get(name)

    def all(self) -> list[Account]:
        """All accounts by name."""
        count = peewee.fn.COUNT(TokenRow.digest)
        query = (
            AccountRow.select(AccountRow.name, AccountRow.created, count)
            .join(TokenRow, peewee.JOIN.LEFT_OUTER, on=TokenRow.name == AccountRow.name)
            .group_by(AccountRow.name)
            .order_by(AccountRow.name)
        )
        with self._guarded():
            return [Account(*row) for row in self._rows(query)]

    def some(self, after: str, limit: int, name: str | None = None) -> list[Account]:
        """The accounts behind `after`, by name, at most `limit`; or the one of this name alone."""
        which = AccountRow.name > after if name is None else AccountRow.name == name
        query = AccountRow.select(AccountRow.name, AccountRow.created).where(which).order_by(AccountRow.name).limit(limit)
        with self._guarded():
            return [Account(row[0], row[1], 0) for row in self._rows(query)]

    def token(self, token: bytes) -> Token | None:
        """The token of this text, from memory where it was asked for before; None where there is none, or it has expired."""
        digest = passwords.token_digest(token)
        with self._guarded():
            self._refresh()
            known = self._known.token(token_id(digest))
            if (known is None or known[0] != digest) and not self._on_loop:
                known = self._look_up(digest)
        return None if known is None or known[0] != digest or known[1].is_over(_now()) else known[1]

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
            return known is not None and known[1].user == name and not known[1].is_over(_now())
        return any(other.id == token for other in self.tokens(name))

    def tokens(self, name: str, after: str = "", limit: int = -1) -> list[Token]:
        """The user's tokens that have not expired, by `id`, those behind `after`."""
        with self._guarded():
            rows = self._rows(_tokens().where(TokenRow.name == name).order_by(TokenRow.digest))
        now = _now()
        found = [token for token in map(Token.of, rows) if token.id > after and not token.is_over(now)]
        return found if limit < 0 else found[:limit]

    def take_changes(self) -> list[Change]:
        """What has changed since the last call, by any process, in order. Called a few times a second by a server."""
        with self._guarded():
            self._refresh()
            with self._lock:
                return self._known.take_changes()

    # Writing

    def add(self, name: str, password: str) -> None:
        """Make an account. Code `exists` where there is one, `name` where the name is none for a user."""
        if not names.is_user(name):
            raise MqttImError("name", f"{name!r} is no user name: it is 1 to 64 of A-Z a-z 0-9 _ . -, but not . or ..")
        password_hash = _hash(password)
        try:
            with self._writing():
                if self._written(ErasingRow.select(ErasingRow.name).where(ErasingRow.name == name)):
                    raise MqttImError("exists", f"the former user {name} is still being erased; try again in a moment")
                self._run(AccountRow.insert(name=name, password_hash=password_hash, created=_now()))
                self._note(name, CREATED)
        except peewee.IntegrityError:
            raise MqttImError("exists", f"there is a user {name} already") from None

    def set_password(self, name: str, password: str) -> None:
        """Change the password and revoke all tokens; the user's connections are closed. Code `not_found`."""
        password_hash = _hash(password)
        with self._writing():
            self._found(name, self._run(AccountRow.update(password_hash=password_hash).where(AccountRow.name == name)))
            self._run(TokenRow.delete().where(TokenRow.name == name))
            self._note(name, PASSWORD)

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
        token = Token(token_id(digest), name, label, _now(), expires, session)
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

    def to_erase(self) -> list[str]:
        """Users whose inbox is still to be erased."""
        with self._guarded():
            return [name for (name,) in self._rows(ErasingRow.select(ErasingRow.name))]

    def ask_erase(self, name: str) -> None:
        """The user, who has no account any more, is to be erased from the store, and so by a server that runs or the next one."""
        with self._writing():
            self._run(TokenRow.delete().where(TokenRow.name == name))
            self._run(ErasingRow.insert(name=name).on_conflict_ignore())
            self._note(name, ERASED)

    def was_erased(self, name: str) -> None:
        """It is done."""
        with self._writing():
            self._run(ErasingRow.delete().where(ErasingRow.name == name))

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

    def remove(self, name: str) -> None:
        """Remove an account and its tokens; its connections are closed. Code `not_found`."""
        with self._writing():
            self._found(name, self._run(AccountRow.delete().where(AccountRow.name == name)))
            self._run(TokenRow.delete().where(TokenRow.name == name))
            self._run(LeavingRow.insert(name=name).on_conflict_ignore())
            self._note(name, REMOVED)

    def to_hand_on(self) -> list[str]:
        """Removed users whose groups are still to be handed on, by a server that runs or the next one."""
        with self._guarded():
            return [name for (name,) in self._rows(LeavingRow.select(LeavingRow.name))]

    def was_handed_on(self, name: str) -> None:
        """It is done."""
        with self._writing():
            self._run(LeavingRow.delete().where(LeavingRow.name == name))

    # Within

    @property
    def _on_loop(self) -> bool:
        """Whether this is no place to wait for the network."""
        if not self._shared:
            return False
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def _refresh(self) -> None:
        """What is in memory is what the journal says; on an event loop, what it has said last."""
        changes = self._reader.changes
        if changes is None:
            if not self._on_loop:
                self._read_journal()
        elif changes != self._seen:
            self._read_journal()
            # Taken before the journal was read: a change in between is found by the next call.
            self._seen = changes

    def _read_journal(self) -> None:
        journal = ChangeRow.select(ChangeRow.id, ChangeRow.name, ChangeRow.what, ChangeRow.token)
        rows = self._rows(journal.where(ChangeRow.id > self._known.last_change).order_by(ChangeRow.id))
        with self._lock:
            for row in rows:
                self._known.take_in(*row)

    def _note(self, name: str, what: str, token: str = "") -> None:
        self._run(ChangeRow.insert(name=name, what=what, token=token))

    def _run(self, query: Any) -> Any:
        return self._writer.run(query)

    def _written(self, query: Any) -> list[Any]:
        return self._writer.rows(query)

    def _rows(self, query: Any) -> list[Any]:
        with self._reading():
            return self._reader.rows(query)

    @staticmethod
    def _found(name: str, rows: int) -> None:
        if not rows:
            raise MqttImError("not_found", f"there is no user {name}")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock if not self._shared else nullcontext(), self._failures():
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._reader_lock, self._failures():
            yield

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except peewee.IntegrityError:
            raise
        except peewee.PeeweeException as error:
            where = self._writer.where
            raise StoreError(f"{where}: {error}" if self._shared else reason(Path(where), error)) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, which counts as read when it is over."""
        with self._failures(), self._writer_lock, self._writer.transaction():
            yield
        with self._guarded():
            self._refresh()


def _tokens() -> Any:
    return TokenRow.select(TokenRow.digest, TokenRow.name, TokenRow.label, TokenRow.created, TokenRow.expires, TokenRow.session)


def _hash(password: str) -> str:
    encoded = password.encode()
    least, most = passwords.MIN_PASSWORD_CHARACTERS, passwords.MAX_PASSWORD_BYTES
    if len(password) < least or len(encoded) > most:
        raise MqttImError("password", f"a password has {least} characters at least and {most} bytes at most")
    return passwords.hash_password(encoded)


def _now() -> int:
    return time.time_ns() // 1_000_000
