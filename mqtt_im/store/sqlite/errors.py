"""What a store that can't be read or written raises."""

from __future__ import annotations

import sqlite3
from typing import Final

import peewee

ERRORS: Final[tuple[type[Exception], ...]] = (sqlite3.Error, peewee.DatabaseError)
"""Of both layers; anything else is a fault of ours."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNREADABLE: Final = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})


class Damage(sqlite3.DatabaseError):
    """What was read is not what can have been written."""


def is_damage(error: BaseException | None) -> bool:
    """Whether a page of a file is not what was written, or can't be read."""
    if isinstance(error, peewee.DatabaseError):
        error = error.__cause__ or error.__context__
    if isinstance(error, Damage):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF in _DAMAGED or code in _UNREADABLE)
