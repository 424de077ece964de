"""Accounts: who may log in. Small tables of their own, written by the command line beside the running server.

How a server learns of that is in `journal.py`; tokens are in `tokens.py`.
"""

from __future__ import annotations

import peewee

from mqtt_im.accounts import passwords
from mqtt_im.accounts.journal import now_ms
from mqtt_im.accounts.models import (
    CREATED,
    ERASED,
    PASSWORD,
    REMOVED,
    Account,
    AccountRow,
    Credentials,
    ErasingRow,
    LeavingRow,
    TokenRow,
)
from mqtt_im.accounts.tokens import Tokens
from mqtt_im.protocol import names
from mqtt_im.protocol.errors import MqttImError, StoreError


class Accounts(Tokens):
    """The accounts and tokens in one place."""

    # Reading

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
                self._run(AccountRow.insert(name=name, password_hash=password_hash, created=now_ms()))
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


def _hash(password: str) -> str:
    encoded = password.encode()
    least, most = passwords.MIN_PASSWORD_CHARACTERS, passwords.MAX_PASSWORD_BYTES
    if len(password) < least or len(encoded) > most:
        raise MqttImError("password", f"a password has {least} characters at least and {most} bytes at most")
    return passwords.hash_password(encoded)
