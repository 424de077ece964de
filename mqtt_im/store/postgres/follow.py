"""The log as it is read beside the ledgers, by those who follow it at their own pace on their own thread.

Each node numbers its batches from blocks of its own, so a row may be committed after one with a higher number. A follower would
never come back for it; so rows are shown only up to where the log is *settled*: every transaction that can have a number up to
there is over. Such a transaction has got its number under locks, and with the first of them an identifier of its own; so it is
over once all transactions are that were under way when the numbers had come so far.
"""

from __future__ import annotations

import time
from typing import Any, Final

import psycopg

from mqtt_im.core.records import AnyRecord, decode
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import explained

from .locked import LSNS

MAX_BYTES: Final = 1 << 20
"""Of what is read at one time."""
_POLL_S: Final = 0.005
_AFTER: Final = (
    "SELECT lsn, rec FROM (SELECT lsn, rec, sum(octet_length(rec)) OVER (ORDER BY lsn) - octet_length(rec) AS before"
    " FROM log WHERE lsn > %s AND lsn <= %s ORDER BY lsn LIMIT %s) part WHERE before < %s ORDER BY lsn"
)


class LogReader:
    """Reads committed rows over a connection of its own. Used from one thread at a time. Raises `StoreError`."""

    def __init__(self, database: Database, purpose: str = "follow") -> None:
        self._database = database
        self._purpose = purpose
        self._connection: Connection | None = None
        self.settled = 0
        """Up to this row nothing is missing any more."""
        self.more = False
        """Whether `after` may have left out what was there behind the rows that it gave last."""
        self._next: tuple[int, int] | None = None
        """A row, and the first transaction that was not under way yet when that had been numbered."""

    def after(self, lsn: int, limit: int) -> list[tuple[int, AnyRecord]]:
        """The rows after `lsn`, in order, at most `limit`, and no more behind `MAX_BYTES`, as far as they are settled."""
        self.settle()
        rows = self._rows(_AFTER, lsn, self.settled, limit, MAX_BYTES)
        self.more = len(rows) == limit or sum(len(data) for _, data in rows) >= MAX_BYTES
        return [(number, decode(data)) for number, data in rows]

    def get(self, lsn: int) -> AnyRecord | None:
        """One row as it is now; None where it is gone."""
        for (data,) in self._rows("SELECT rec FROM log WHERE lsn = %s", lsn):
            record: AnyRecord = decode(data)
            return record
        return None

    def settle(self, patience_s: float = 0.0) -> int:
        """The newest row that is settled; at least what was committed before, unless that takes longer."""
        deadline = time.monotonic() + patience_s
        if self._next is None:
            # Of a sequence that was never asked, the first number is still to be given.
            last = self._number("SELECT last_value + %s * is_called::int - 1 FROM lsn", LSNS)
            self._next = last, self._number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8")
        upto, end = self._next
        while True:
            if self._number("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8") >= end:
                self.settled, self._next = upto, None
                return self.settled
            if time.monotonic() >= deadline:
                return self.settled
            time.sleep(_POLL_S)

    def _number(self, query: str, *values: object) -> int:
        found: int = self._rows(query, *values)[0][0]
        return found

    @property
    def connection(self) -> Connection:
        """Its connection, opened where it was not, or was lost."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect(self._purpose)
            self._next = None
        return self._connection

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(query.encode(), values, binary=True).fetchall()
        except psycopg.Error as error:
            raise explained(error, self._database.where) from error

    def close(self) -> None:
        """The connection is closed."""
        if self._connection is not None:
            self._connection.close()
