"""Passwords and tokens: how they are made, hashed and compared."""

from __future__ import annotations

import hashlib
import secrets
from functools import cache

from pwdlib.exceptions import PwdlibError
from pwdlib.hashers.argon2 import Argon2Hasher

MIN_PASSWORD_CHARACTERS = 8
"""Of new ones; whoever has a shorter one from before keeps it."""
MAX_PASSWORD_BYTES = 1024
"""A longer password is never right, so that nobody can make the server hash megabytes."""

_TOKEN_PREFIX = "mqim_"  # noqa: S105 - what marks a token is no secret

# 19 MiB, 2 rounds, 1 lane: the second choice of OWASP's password storage sheet; 20 to 25 ms of one core. The
# others (12 MiB and 3 rounds, 9 and 4, 7 and 5) take a tenth to a quarter less.
_hasher = Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1)


def hash_password(password: bytes) -> str:
    """The argon2id hash of a password, with its salt and parameters. Takes tens of milliseconds and releases the GIL."""
    return _hasher.hash(password)


def verify_password(password: bytes, password_hash: str) -> bool:
    """Whether the password is the one that was hashed. As slow as `hash_password`, right or wrong."""
    try:
        return _hasher.verify(password, password_hash)
    except PwdlibError:
        return False


@cache
def decoy_hash() -> str:
    """A hash that no password matches in practice, to spend the same time on a user that does not exist."""
    return hash_password(secrets.token_bytes(32))


def make_password() -> str:
    """A new random password of 20 characters, about 119 bits."""
    return secrets.token_urlsafe(15)


def make_token() -> str:
    """A new random token of 256 bits, which a client sends in place of its password."""
    return _TOKEN_PREFIX + secrets.token_urlsafe(32)


def may_be_token(password: bytes) -> bool:
    """Whether it is worth comparing with an account's tokens; a password may look like one."""
    return password.startswith(_TOKEN_PREFIX.encode()) and len(password) <= MAX_PASSWORD_BYTES


def token_digest(token: bytes) -> bytes:
    """What is stored of a token. It is random enough that a plain SHA-256 can't be undone."""
    return hashlib.sha256(token).digest()
