"""The tables of the accounts' file, and what they are told as."""

from __future__ import annotations

from typing import Any, NamedTuple

import peewee

CREATED = "added"
REMOVED = "removed"
PASSWORD = "password"  # noqa: S105 - the name of a change
TOKEN = "token"  # noqa: S105 - the same
REVOKED = "revoked"
ERASED = "erased"


class AccountRow(peewee.Model):
    """One account."""

    name = peewee.TextField(primary_key=True)
    password_hash = peewee.TextField()
    created = peewee.BigIntegerField()

    class Meta:
        """Names the table."""

        table_name = "account"
        without_rowid = True


class TokenRow(peewee.Model):
    """One token of a user, as its digest. `session`: it was made by a login, which its logout ends."""

    digest = peewee.BlobField(primary_key=True)
    name = peewee.TextField(index=True)
    created = peewee.BigIntegerField()
    label = peewee.TextField(default="")
    expires = peewee.BigIntegerField(null=True)
    session = peewee.BooleanField(default=False)

    class Meta:
        """Names the table."""

        table_name = "token"


class ChangeRow(peewee.Model):
    """The journal: an account was added, removed, or lost its old password and tokens; a token was made, or revoked."""

    id = peewee.AutoField()
    name = peewee.TextField()
    what = peewee.TextField()
    token = peewee.TextField(default="")

    class Meta:
        """Names the table."""

        table_name = "change"


class ErasingRow(peewee.Model):
    """A user who was removed, and whose inbox is still to be erased."""

    name = peewee.TextField(primary_key=True)

    class Meta:
        """Names the table."""

        table_name = "erasing"
        without_rowid = True


class LeavingRow(peewee.Model):
    """A user who was removed, and whose groups are still to be handed on."""

    name = peewee.CharField(primary_key=True)

    class Meta:
        """Names the table."""

        table_name = "leaving"
        without_rowid = True


MODELS = (AccountRow, TokenRow, ChangeRow, ErasingRow, LeavingRow)

_LATER = {
    "token": {"label": "VARCHAR NOT NULL DEFAULT ''", "expires": "BIGINT", "session": "INTEGER NOT NULL DEFAULT 0"},
    "change": {"token": "VARCHAR NOT NULL DEFAULT ''"},
}
"""Columns that the first tables did not have."""


def add_columns(db: peewee.Database) -> None:
    """The tables of an older file have every column."""
    for table, columns in _LATER.items():
        there = {column.name for column in db.get_columns(table)}
        for name, kind in columns.items():
            if name not in there:
                db.execute_sql(f'ALTER TABLE "{table}" ADD COLUMN "{name}" {kind}')  # type: ignore[no-untyped-call]


class Change(NamedTuple):
    """What happened to a user.

    `added`, `removed`, `password` (old ones, and tokens, are void), `token` (one more), `revoked` (one less: `token`),
    `erased` (what the store has of the user is to go).
    """

    name: str
    what: str
    token: str = ""


class Credentials(NamedTuple):
    """What a login of one account is checked against."""

    password_hash: str
    version: int
    """Changes with the password, and when an account of that name is made anew."""


class Account(NamedTuple):
    """An account as listed."""

    name: str
    created: int
    """Milliseconds since 1970."""
    tokens: int
    """How many tokens it has."""


class Token(NamedTuple):
    """A token as it is known after it was made."""

    id: str
    """Names it, and says nothing of its secret."""
    user: str
    name: str
    created: int
    """Milliseconds since 1970."""
    expires: int | None
    """Milliseconds since 1970; None: never."""
    session: bool
    """Made by a login."""

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Token:
        """What a row of `token` says: digest, name, label, created, expires, session."""
        digest, user, label, created, expires, session = row
        return cls(token_id(bytes(digest)), user, label, created, expires, bool(session))

    def is_over(self, now: int) -> bool:
        """Whether it has expired at this time (ms since 1970)."""
        return self.expires is not None and now >= self.expires


def token_id(digest: bytes) -> str:
    """The public name of a token: the first 8 bytes of its digest, in hex."""
    return digest[:8].hex()
