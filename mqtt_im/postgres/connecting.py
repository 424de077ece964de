"""Connections to the database that `store.url` names: to the host that takes writes, and never waiting without end.

A frozen server keeps its sockets open and answers nothing, which no setting of the server's can end. So each wait on a
connection has an end of its own (`patience_s`), after which the connection is closed: whether the last statement was done is
unknown then, as after any lost connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import conninfo

from mqtt_im.protocol.errors import ConfigError

from .errors import NoAnswer, Unreachable, WrongDatabase, explained, one_line

OLDEST: Final = 14
"""The oldest release that is used."""
CONNECT_S: Final = 3
PATIENCE_S: Final = 4.0
"""So long one statement of ordinary size is waited for."""
IDLE_IN_TRANSACTION_S: Final = 5
"""After so long the server takes back the locks of a node that stands still in a transaction."""
RETRY_S: Final = 0.5
SAY_AGAIN_S: Final = 10.0
_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_S,
    "target_session_attrs": "read-write",
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
}

_ENCODINGS: Final = ("UTF8", "SQL_ASCII")
"""Of databases that take every text; the second one looks at none."""

log = logging.getLogger(__name__)


class Connection(psycopg.Connection[Any]):
    """A connection that is closed where a statement has no answer within `patience_s` seconds."""

    patience_s: float = PATIENCE_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See `psycopg.Connection`."""
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if type(error).__name__ != "_WaitTimeout":
                raise
            self.close()
            raise NoAnswer("the database does not answer") from error


class Database:
    """The database of `store.url`, as one node uses it."""

    def __init__(self, url: str, node: str = "") -> None:
        """`node` is part of the name under which `pg_stat_activity` shows the connections. Raises `ConfigError`."""
        try:
            given = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            # libpq's sentence may quote the URL, with its password.
            expected = "expected postgresql://user:password@host/database, with nothing but options of libpq behind a ?"
            raise ConfigError([f"store.url: {expected}"]) from error
        if not all(_is_port(text) for text in str(given.get("port", "")).split(",")):
            raise ConfigError(["store.url: a port is a number from 1 to 65535"])
        self._params: dict[str, Any] = {**_DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
        self.node = node
        hosts = str(given.get("host") or given.get("hostaddr") or "local socket")
        self.where = f"database {given.get('dbname') or given.get('user') or ''} at {hosts}"
        """Names it in messages; holds no password."""

    def connect(self, purpose: str, *, patience_s: float = PATIENCE_S) -> Connection:
        """A connection in autocommit mode to the host that takes writes. Raises `Unreachable` or `WrongDatabase`.

        The server ends a transaction that stands still. What a statement may take is `patience_s`, here and at the server.
        """
        name = f"mqtt-im {self.node} {purpose}".replace("  ", " ")[:63]
        try:
            connection = Connection.connect(**{"application_name": name} | self._params, autocommit=True)
            try:
                self._set_up(connection, patience_s)
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            raise explained(error, self.where) from error
        return connection

    def _set_up(self, connection: Connection, patience_s: float) -> None:
        version = connection.info.server_version
        if version < OLDEST * 10_000:
            raise WrongDatabase(f"{self.where}: PostgreSQL {version // 10_000} is too old; {OLDEST} or newer is needed")
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in _ENCODINGS:
            raise WrongDatabase(f"{self.where}: its encoding is {encoding}; make one with ENCODING 'UTF8', which has every text")
        connection.patience_s = patience_s
        connection.execute(
            f"SET statement_timeout = {int(patience_s * 1000)};"
            f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_S * 1000};"
            "SET lock_timeout = 0; SET client_min_messages = warning; SET client_encoding = 'UTF8'; SET TimeZone = 'UTC'"
        )

    def wait_for(self, purpose: str, *, stop: Callable[[], bool] = lambda: False) -> Connection:
        """As `connect`, as soon as the database is there; a line in the log every ten seconds says that it is waited for.

        Raises `WrongDatabase`; and `Unreachable` once `stop` says so.
        """
        said = 0.0
        while True:
            try:
                return self.connect(purpose)
            except Unreachable as error:
                if stop():
                    raise
                if not said or time.monotonic() - said >= SAY_AGAIN_S:
                    log.warning("waiting for the database: %s", error.message)
                    said = time.monotonic()
            time.sleep(RETRY_S)

    def check_pooling(self, connection: Connection) -> None:
        """Raise `WrongDatabase` where a pool hands out connections by the transaction: locks and LISTEN don't work there."""
        found = _backend(connection)
        if found == connection.info.backend_pid:
            return  # nothing stands in between
        with self.connect("check") as other:
            try:
                with other.transaction():
                    _backend(other)  # takes a connection out of the pool; where that was ours, the next statement runs elsewhere
                    same = _backend(connection) == found
            except psycopg.Error as error:  # a pool in statement mode takes no transaction at all
                raise WrongDatabase(f"{self.where}: {_POOLED} ({one_line(error)})") from error
        if not same:
            raise WrongDatabase(f"{self.where}: {_POOLED}")


_POOLED: Final = "a pool in transaction mode stands in between; use one in session mode, or none"


def _is_port(text: str) -> bool:
    """Whether libpq takes it for a port; an empty one is the usual one."""
    return not text or (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65_536)


def _backend(connection: Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])
