"""Accounts: who may log in. One small SQLite file, written by the command line beside the running server.

Every change writes a row into a journal in the same transaction. A server that has the file open learns of it by
`PRAGMA data_version`, which costs microseconds, and reads only the journal's new rows; so a new account can log in,
and be written to, as soon as the command that made it has returned. Which accounts there are is a function of the journal.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import peewee

from mqtt_im.accounts import passwords
from mqtt_im.accounts.models import (
    CREATED,
    ERASED,
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
    Token,
    TokenRow,
    make_tables,
    token_id,
)
from mqtt_im.protocol import names
from mqtt_im.protocol.errors import MqttImError, StoreError

FILE_NAME = "accounts.db"
_BUSY_TIMEOUT_MS: Final = 5_000


MAX_SESSIONS = 100
"""Logins of one user whose tokens are kept; one more ends the oldest."""
MAX_TOKENS = 1000
"""Tokens of one user that an operator has made."""
_CACHED_TOKENS: Final = 100_000


class Accounts:
    """The accounts and tokens in one folder. Every method may be called from any thread. Failures of SQLite are `StoreError`s.

    Reads and writes have a connection each, so that nobody who looks something up waits for somebody else's disk.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / FILE_NAME
        self._lock = threading.RLock()
        self._writer_lock = threading.RLock()
        self._versions: dict[str, int] = {}
        self._last_change = 0
        self._data_version = -1
        self._changes: list[Change] = []
        self._tokens: OrderedDict[str, tuple[bytes, Token]] = OrderedDict()
        """Tokens that were asked for, with their digests, by `id`."""
        self._db = self._open()
        self._writer = self._open()
        with self._guarded():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db.connect()
            self._writer.connect()
            make_tables(self._writer)
            self._refresh()
            self._changes.clear()

    def _open(self) -> peewee.SqliteDatabase:
        return peewee.SqliteDatabase(
            str(self.path),
            thread_safe=False,  # one connection for all threads, under a lock of ours: data_version belongs to a connection
            check_same_thread=False,
            pragmas={"journal_mode": "wal", "synchronous": "full", "busy_timeout": _BUSY_TIMEOUT_MS},
        )

    def close(self) -> None:
        """Close the file. Nothing else may be called after it."""
        with self._writer_lock, self._lock:
            self._writer.close()
            self._db.close()

    # Reading

    def exists(self, name: str) -> bool:
        """Whether there is such an account, from memory; only a miss looks whether the file has changed."""
        if name in self._versions:
            return True
        with self._guarded():
            self._refresh()
            return name in self._versions

    def credentials(self, name: str) -> Credentials | None:
        """What a login is checked against, as of now; None where there is no such account."""
        with self._guarded():
            self._refresh()
            version = self._versions.get(name)
            if version is None:
                return None
            hashes = self._rows(AccountRow.select(AccountRow.password_hash).where(AccountRow.name == name))
            if not hashes:
                return None
            return Credentials(hashes[0][0], version)

    def version(self, name: str) -> int | None:
        """The version of an account's credentials, as of now; None where there is no such account. Takes microseconds."""
        with self._guarded():
            self._refresh()
            return self._versions.get(name)

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
            known = self._tokens.get(token_id(digest))
            if known is None or known[0] != digest:
                rows = self._rows(_tokens().where(TokenRow.digest == digest))
                if not rows:
                    return None
                known = digest, Token.of(rows[0])
                self._tokens[known[1].id] = known
                if len(self._tokens) > _CACHED_TOKENS:
                    self._tokens.popitem(last=False)
        return None if known[1].is_over(_now()) else known[1]

    def has_token(self, name: str, token: str) -> bool:
        """Whether the user has a token of this `id` that has not expired."""
        with self._guarded():
            self._refresh()
            known = self._tokens.get(token)
        if known is not None:
            return known[1].user == name and not known[1].is_over(_now())
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
            changes, self._changes = self._changes, []
            return changes

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
        ones; code `quota` at `MAX_TOKENS` others.
        """
        text, now = passwords.make_token(), _now()
        digest = passwords.token_digest(text.encode())
        with self._writing():
            if account:  # read here, so that nobody removes it meanwhile
                self._found(name, len(self._written(AccountRow.select(AccountRow.name).where(AccountRow.name == name))))
            self._run(TokenRow.delete().where(TokenRow.name == name, TokenRow.expires <= now))
            theirs = TokenRow.select(TokenRow.digest).where(TokenRow.name == name, TokenRow.session == session)
            older = self._written(theirs.order_by(TokenRow.created))
            if not session and len(older) >= MAX_TOKENS:
                raise MqttImError("quota", f"{name} has {MAX_TOKENS} tokens; revoke one first")
            if session:
                for (oldest,) in older[: max(0, len(older) + 1 - MAX_SESSIONS)]:
                    self._revoke(name, bytes(oldest))
            row = {"digest": digest, "name": name, "created": now, "label": label, "expires": expires, "session": session}
            self._run(TokenRow.insert(row))
            self._note(name, TOKEN, token_id(digest))
        return text, Token(token_id(digest), name, label, now, expires, session)

    def revoke(self, name: str, token: str) -> None:
        """A user's token, by its `id`, is good for nothing any more; its connections are closed. Code `not_found`."""
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
            self._note(name, REMOVED)

    # Within

    def _refresh(self) -> None:
        data_version = self._db.pragma("data_version")
        if data_version == self._data_version:
            return
        journal = ChangeRow.select(ChangeRow.id, ChangeRow.name, ChangeRow.what, ChangeRow.token)
        for change, name, what, token in self._rows(journal.where(ChangeRow.id > self._last_change).order_by(ChangeRow.id)):
            self._apply(change, name, what, token)
        # Taken before the journal was read: a change in between is found by the next call.
        self._data_version = data_version

    def _apply(self, change: int, name: str, what: str, token: str) -> None:
        self._last_change = change
        if what == REMOVED:
            self._versions.pop(name, None)
        elif what not in (TOKEN, REVOKED, ERASED):
            self._versions[name] = change
        if what == REVOKED:
            self._tokens.pop(token, None)
        elif what != TOKEN:
            for known in [id_ for id_, (_, known) in self._tokens.items() if known.user == name]:
                del self._tokens[known]
        self._changes.append(Change(name, what, token))

    def _note(self, name: str, what: str, token: str = "") -> None:
        self._run(ChangeRow.insert(name=name, what=what, token=token))

    def _run(self, query: Any) -> Any:
        return query.execute(self._writer)

    def _written(self, query: Any) -> list[Any]:
        return list(query.tuples().execute(self._writer))

    def _rows(self, query: Any) -> list[Any]:
        return list(query.tuples().execute(self._db))

    @staticmethod
    def _found(name: str, rows: int) -> None:
        if not rows:
            raise MqttImError("not_found", f"there is no user {name}")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock, self._failures():
            yield

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except peewee.IntegrityError:
            raise
        except (peewee.PeeweeException, OSError) as error:
            raise StoreError(f"{self.path}: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, which counts as read when it is over."""
        with self._failures(), self._writer_lock, self._writer.atomic("IMMEDIATE"):
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
