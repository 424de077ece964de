"""Accounts: who may log in. One small SQLite file, written by the command line beside the running server.

Every change writes a row into a journal in the same transaction. A server that has the file open learns of it by
`PRAGMA data_version`, which costs microseconds, and reads only the journal's new rows; so a new account can log in,
and be written to, as soon as the command that made it has returned. Which accounts there are is a function of the journal.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import peewee

from mqtt_im.accounts import passwords
from mqtt_im.protocol import names
from mqtt_im.protocol.errors import MqttImError, StoreError

FILE_NAME = "accounts.db"
_BUSY_TIMEOUT_MS = 5_000
_binding = threading.Lock()


class AccountRow(peewee.Model):
    """One account."""

    name = peewee.CharField(primary_key=True)
    password_hash = peewee.CharField()
    created = peewee.BigIntegerField()

    class Meta:
        """Names the table."""

        table_name = "account"
        without_rowid = True


class TokenRow(peewee.Model):
    """One token of an account, as its digest."""

    digest = peewee.BlobField(primary_key=True)
    name = peewee.CharField(index=True)
    created = peewee.BigIntegerField()

    class Meta:
        """Names the table."""

        table_name = "token"


class ChangeRow(peewee.Model):
    """The journal: an account was added, removed, or lost its old password and tokens."""

    id = peewee.AutoField()
    name = peewee.CharField()
    what = peewee.CharField()

    class Meta:
        """Names the table."""

        table_name = "change"


What = Literal["added", "removed", "password", "token"]


class Change(NamedTuple):
    """What happened to an account: `added`, `removed`, `password` (old ones, and tokens, are void), `token` (one more)."""

    name: str
    what: What


class Credentials(NamedTuple):
    """What a login of one account is checked against."""

    password_hash: str
    tokens: frozenset[bytes]
    version: int
    """Changes with the password, and when an account of that name is made anew."""


class Account(NamedTuple):
    """An account as listed."""

    name: str
    created: int
    """Milliseconds since 1970."""
    tokens: int
    """How many tokens it has."""


class Accounts:
    """The accounts in one folder. Every method may be called from any thread. Failures of SQLite are `StoreError`s."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / FILE_NAME
        self._lock = threading.RLock()
        self._versions: dict[str, int] = {}
        self._last_change = 0
        self._data_version = -1
        self._changes: list[Change] = []
        self._db = peewee.SqliteDatabase(
            str(self.path),
            thread_safe=False,  # one connection for all threads, under our lock: data_version belongs to a connection
            check_same_thread=False,
            pragmas={"journal_mode": "wal", "synchronous": "full", "busy_timeout": _BUSY_TIMEOUT_MS},
        )
        with self._guarded():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db.connect()
            models = [AccountRow, TokenRow, ChangeRow]
            with _binding, self._db.bind_ctx(models):
                self._db.create_tables(models)
            self._refresh()
            self._changes.clear()

    def close(self) -> None:
        """Close the file. Nothing else may be called after it."""
        with self._lock:
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
            tokens = self._rows(TokenRow.select(TokenRow.digest).where(TokenRow.name == name))
            return Credentials(hashes[0][0], frozenset(bytes(digest) for (digest,) in tokens), version)

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
            raise MqttImError("name", f"{name!r} is no user name: it is 1 to 64 of A-Z a-z 0-9 _ . -")
        password_hash = _hash(password)
        try:
            with self._writing():
                self._run(AccountRow.insert(name=name, password_hash=password_hash, created=_now()))
                self._note(name, "added")
        except peewee.IntegrityError:
            raise MqttImError("exists", f"there is a user {name} already") from None

    def set_password(self, name: str, password: str) -> None:
        """Change the password and revoke all tokens; the user's connections are closed. Code `not_found`."""
        password_hash = _hash(password)
        with self._writing():
            self._found(name, self._run(AccountRow.update(password_hash=password_hash).where(AccountRow.name == name)))
            self._run(TokenRow.delete().where(TokenRow.name == name))
            self._note(name, "password")

    def add_token(self, name: str) -> str:
        """Make a token that the account's clients may send in place of the password. Code `not_found`."""
        token = passwords.make_token()
        with self._writing():
            self._found(name, len(self._rows(AccountRow.select(AccountRow.name).where(AccountRow.name == name))))
            self._run(TokenRow.insert(digest=passwords.token_digest(token.encode()), name=name, created=_now()))
            self._note(name, "token")
        return token

    def remove(self, name: str) -> None:
        """Remove an account and its tokens; its connections are closed. Code `not_found`."""
        with self._writing():
            self._found(name, self._run(AccountRow.delete().where(AccountRow.name == name)))
            self._run(TokenRow.delete().where(TokenRow.name == name))
            self._note(name, "removed")

    # Within

    def _refresh(self) -> None:
        data_version = self._db.pragma("data_version")
        if data_version == self._data_version:
            return
        journal = ChangeRow.select(ChangeRow.id, ChangeRow.name, ChangeRow.what)
        for change, name, what in self._rows(journal.where(ChangeRow.id > self._last_change).order_by(ChangeRow.id)):
            self._apply(change, name, what)
        # Taken before the journal was read: a change in between is found by the next call.
        self._data_version = data_version

    def _apply(self, change: int, name: str, what: What) -> None:
        self._last_change = change
        if what == "removed":
            self._versions.pop(name, None)
        elif what != "token":
            self._versions[name] = change
        self._changes.append(Change(name, what))

    def _note(self, name: str, what: What) -> None:
        self._run(ChangeRow.insert(name=name, what=what))

    def _run(self, query: Any) -> Any:
        return query.execute(self._db)

    def _rows(self, query: Any) -> list[Any]:
        return list(query.tuples().execute(self._db))

    @staticmethod
    def _found(name: str, rows: int) -> None:
        if not rows:
            raise MqttImError("not_found", f"there is no user {name}")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except peewee.IntegrityError:
                raise
            except (peewee.PeeweeException, OSError) as error:
                raise StoreError(f"{self.path}: {error}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; its own journal rows are read back, since data_version tells only of other connections."""
        with self._guarded():
            with self._db.atomic("IMMEDIATE"):
                yield
            self._data_version = -1
            self._refresh()


def _hash(password: str) -> str:
    encoded = password.encode()
    if not 0 < len(encoded) <= passwords.MAX_PASSWORD_BYTES:
        raise MqttImError("password", f"a password has 1 to {passwords.MAX_PASSWORD_BYTES} bytes")
    return passwords.hash_password(encoded)


def _now() -> int:
    return time.time_ns() // 1_000_000
