"""The failures of PostgreSQL as one line each: those that pass by themselves, and those that somebody must mend."""

from __future__ import annotations

from typing import Final

import psycopg

from mqtt_im.protocol.errors import StoreError

_MENDED_BY_PEOPLE: Final = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "no password supplied",
    "is not permitted to log in",
    "does not allow connections",
    "certificate",
    "SSL",
    "invalid port number",
    "invalid sslmode value",
    "for connection option",
    "unsupported startup parameter",
)
"""What a server says in refusing a connection for good; libpq gives no code for it. In another language it is waited for."""
_FULL: Final = ("53100", "53200")
_RIGHTS: Final = "42501"
_NO_SCHEMA: Final = "3F000"
NO_SCHEMA: Final = "its user may use no schema there; make it the owner of the database, or grant it USAGE and CREATE on one"


class Unreachable(StoreError):
    """The database can't be used now; that passes without anybody changing the configuration."""


class NoAnswer(psycopg.OperationalError):
    """The server has kept its connection open and said nothing for too long."""


class WrongDatabase(StoreError):
    """The database can't be used as configured: waiting helps nothing."""


def one_line(error: BaseException) -> str:
    """What went wrong, without line breaks and without anything secret."""
    sqlstate = getattr(error, "sqlstate", None)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if sqlstate in _FULL:
        return f"the database has no room: {text}"
    return text


def is_final(error: BaseException) -> bool:
    """Whether only people can mend this."""
    if isinstance(error, WrongDatabase):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is not None:
        return error.sqlstate.startswith(("28", "3D", "3F", "42"))
    return any(known in str(error).partition("\n")[0] for known in _MENDED_BY_PEOPLE)


def explained(error: psycopg.Error, where: str) -> StoreError:
    """The failure as `WrongDatabase` or `Unreachable`; `where` names the database."""
    text = f"{where}: {one_line(error)}"
    if error.sqlstate == _NO_SCHEMA:
        text = f"{where}: {NO_SCHEMA}"
    elif error.sqlstate == _RIGHTS:
        text += "; the user of store.url must own the database, or be granted CREATE on it and on its schema"
    return WrongDatabase(text) if is_final(error) else Unreachable(text)
