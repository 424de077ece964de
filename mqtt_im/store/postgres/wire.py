"""Statements on one connection: prepared, with binary arrays, and as many in one round trip as there are.

This is libpq's pipeline mode, through `psycopg.pq`: an ordinary psycopg cursor costs two to three times the CPU.
"""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from mqtt_im.postgres.connecting import Connection
from mqtt_im.postgres.errors import one_line

from .errors import Lost

GRACE_S: Final = 1.0
"""So much longer than the server lets a statement run its answer is waited for; then the connection counts as lost."""

_INT8, _TEXT, _BYTEA, _BOOL, _UUID = 20, 25, 17, 16, 2950
_ARRAYS: Final = {_INT8: 1016, _TEXT: 1009, _BYTEA: 1001, _BOOL: 1000, _UUID: 2951}
_FATAL: Final = int(pq.ExecStatus.FATAL_ERROR)
_NULL: Final = struct.pack(">i", -1)
_int = struct.Struct(">q").pack
_length = struct.Struct(">i").pack
_header = struct.Struct(">iiiii").pack


def _array(oid: int, count: int, parts: Iterable[bytes], nulls: bool = False) -> bytes:
    """An array of so many elements, each with its length in front."""
    if not count:
        return struct.pack(">iii", 0, 0, oid)
    return _header(1, int(nulls), oid, count, 1) + b"".join(parts)


def _ints(values: Sequence[int]) -> bytes:
    count = len(values)
    if not count:
        return _array(_INT8, 0, ())
    return _int_head(count) + _sized_ints(count, values)


def _columns(columns: Sequence[Sequence[int]]) -> list[bytes]:
    """Each an array of so many whole numbers as the others, packed together."""
    count = len(columns[0])
    if not count:
        return [_ints(())] * len(columns)
    head, size = _int_head(count), 12 * count
    data = _sized_ints(count * len(columns), chain.from_iterable(columns))
    return [head + data[at : at + size] for at in range(0, len(data), size)]


@lru_cache(256)
def _int_head(count: int) -> bytes:
    return _header(1, 0, _INT8, count, 1)


@lru_cache(256)
def _int_pack(count: int) -> tuple[Callable[..., bytes], bytes]:
    return struct.Struct(">" + "4xq" * count).pack, b"\x08" * count


def _sized_ints(count: int, values: Iterable[int]) -> bytearray:
    """Each with its length in front, which is put between them all at once."""
    pack, sizes = _int_pack(count)
    data = bytearray(pack(*values))
    data[3::12] = sizes
    return data


def _texts(values: Sequence[str]) -> bytes:
    encoded = [value.encode() for value in values]
    return _array(_TEXT, len(values), [_length(len(value)) + value for value in encoded])


def _blobs(values: Sequence[bytes | None]) -> bytes:
    parts = [_NULL if value is None else _length(len(value)) + value for value in values]
    return _array(_BYTEA, len(values), parts, None in values)


def _flags(values: Sequence[bool]) -> bytes:
    return _array(_BOOL, len(values), [b"\0\0\0\1\1" if value else b"\0\0\0\1\0" for value in values])


def _hashes(values: Sequence[bytes | None]) -> bytes:
    parts = [_NULL if value is None else b"\0\0\0\x10" + value for value in values]
    return _array(_UUID, len(values), parts, None in values)


_ENCODE: Final[dict[str, tuple[int, Callable[[Any], bytes]]]] = {
    "i": (_INT8, _int),
    "t": (_TEXT, str.encode),
    "b": (_BYTEA, bytes),
    "u": (_UUID, bytes),
    "I": (_ARRAYS[_INT8], _ints),
    "T": (_ARRAYS[_TEXT], _texts),
    "B": (_ARRAYS[_BYTEA], _blobs),
    "F": (_ARRAYS[_BOOL], _flags),
    "U": (_ARRAYS[_UUID], _hashes),
}
"""Kinds of parameters: a whole number, text, bytes, 16 bytes, and arrays of them, and of truth values."""


class Statement:
    """SQL with the kinds of its parameters (see `_ENCODE`)."""

    def __init__(self, sql: str, takes: str = "") -> None:
        """Where there are spaces in `takes`, what is between them are columns of the same rows, whole numbers first."""
        self.sql = " ".join(sql.split()).encode()
        kinds = [kind for kind in takes if kind != " "]
        self.oids = [_ENCODE[kind][0] for kind in kinds]
        self.formats = [1] * len(kinds)
        self._encode = [_ENCODE[kind][1] for kind in kinds]
        self._tables: list[tuple[int, int, int]] = []
        """Where the columns of each table begin, where its last ones that are whole numbers end, and where the others do."""
        at = 0
        for table in takes.split() if " " in takes else ():
            self._tables.append((at, at + table.count("I"), at + len(table)))
            at += len(table)

    def encoded(self, values: Sequence[Any]) -> list[bytes]:
        """The parameters."""
        encode = self._encode
        if not self._tables:
            return [encode_one(value) for encode_one, value in zip(encode, values, strict=True)]
        found: list[bytes] = []
        for first, end, last in self._tables:
            if end > first:
                found += _columns(values[first:end])
            found += [encode[at](values[at]) for at in range(end, last)]
        return found


class Step(NamedTuple):
    """A statement with its parameters."""

    statement: Statement
    values: Sequence[Any] = ()


class Answer(NamedTuple):
    """What a statement has given."""

    rows: list[tuple[Any, ...]]


PLANNING: Final = b"""
    SET plan_cache_mode = force_generic_plan; SET jit = off;
    SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"""
"""Of a connection that asks the same again and again: a plan is made once for each statement, and looks up what it is given.

A plan that was made while the tables were small, and nothing is known of them yet, would read them from end to end for a while.
"""
BEGIN: Final = Statement("BEGIN")
BEGIN_READING: Final = Statement("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
COMMIT: Final = Statement("COMMIT")
ROLLBACK: Final = Statement("ROLLBACK")
_FORGET: Final = Statement("DEALLOCATE ALL")


class Link:
    """One connection, for one thread at a time. Raises `psycopg.Error`; `Lost` where the connection is gone with it."""

    def __init__(self, connection: Connection) -> None:
        """The connection is this one's from now on."""
        self._connection = connection
        self._patience_s = connection.patience_s + GRACE_S
        self._pg = connection.pgconn
        self._pg.nonblocking = 1
        self._names: dict[Statement, bytes] = {}
        self._made = 0
        """Statements that were prepared so far; each has a name of its own."""
        self._rows = Transformer()
        """Reads rows, in C."""
        self._first: tuple[Step, ...] = ()
        self._poll = select.poll()
        self._poll.register(self._pg.socket, select.POLLIN)
        self.lost = False
        """Whether it is of no use any more."""

    def begin(self, statement: Statement) -> None:
        """What is run next begins with this, in the same round trip."""
        self._first = (Step(statement),)

    def run(self, *steps: Step) -> list[Answer]:
        """What the steps have given, done in one round trip; where one fails, those after it are not done."""
        return [self._answer(result) for result in self._done(steps)]

    def _done(self, steps: Sequence[Step]) -> list[pq.abc.PGresult]:
        if self.lost:
            raise Lost("the connection to the database is lost")
        first, self._first = self._first, ()
        try:
            results, failed = self._exchange((*first, *steps) if first else steps)
        except (psycopg.OperationalError, OSError) as error:
            raise self._gone(error) from error
        if failed is not None:
            self._names.clear()  # which of them are prepared is not known any more
            problem = error_from_result(failed)
            if self._pg.status != pq.ConnStatus.OK or _closes(problem.sqlstate):
                raise self._gone(problem) from problem
            problem.args = (one_line(problem),)
            raise problem
        return results[len(first) :] if first else results

    def one(self, statement: Statement, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        return self.run(Step(statement, values))[0].rows

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._pg.transaction_status != pq.TransactionStatus.IDLE

    def roll_back(self) -> None:
        """No transaction is open."""
        self._first = ()
        if not self.lost and self.in_transaction:
            self.run(Step(ROLLBACK))
            if not self._names or len(self._names) == 1:  # an error has made us forget those that were prepared
                self._names.clear()
                self.run(Step(_FORGET))
                self._names.clear()

    def close(self) -> None:
        """The connection is closed."""
        self.lost = True
        self._connection.close()

    def _gone(self, error: Exception) -> Lost:
        self.close()
        return Lost(f"the connection to the database is lost: {one_line(error)}")

    def _exchange(self, steps: Sequence[Step]) -> tuple[list[pq.abc.PGresult], pq.abc.PGresult | None]:
        """What each has given, and what the first that failed has said."""
        pg = self._pg
        pg.enter_pipeline_mode()
        fresh = self._send(steps)
        pg.pipeline_sync()
        deadline = time.monotonic() + self._patience_s
        if pg.flush():
            self._flush(deadline)
        results = []
        failed = None
        is_busy, get_result = pg.is_busy, pg.get_result
        for at in range(len(steps) + len(fresh)):
            if is_busy():
                self._busy(deadline)
            result = get_result()
            if result is None or get_result() is not None:  # the end is known with the result, so nothing is waited for
                raise psycopg.OperationalError("the database has answered out of turn")
            if result.status == _FATAL and failed is None:
                failed = result
            if at not in fresh:
                results.append(result)
        ended = get_result() if not self._busy(deadline) else None
        if ended is None or ended.status != pq.ExecStatus.PIPELINE_SYNC:
            raise psycopg.OperationalError("the database has answered out of turn")
        pg.exit_pipeline_mode()
        return results, failed

    def _send(self, steps: Sequence[Step]) -> set[int]:
        """Which of the results will only say that a statement was prepared on the way."""
        pg, names = self._pg, self._names
        send = pg.send_query_prepared
        fresh: set[int] = set()
        for at, (statement, values) in enumerate(steps):
            name = names.get(statement)
            if name is None:
                self._made += 1
                name = names[statement] = b"s%d" % self._made
                fresh.add(at + len(fresh))
                pg.send_prepare(name, statement.sql, statement.oids)
            if values:
                send(name, statement.encoded(values), statement.formats, 1)
            else:
                send(name, None, None, 1)
        return fresh

    def _flush(self, deadline: float) -> None:
        pg = self._pg
        while pg.flush():
            self._poll.modify(pg.socket, select.POLLIN | select.POLLOUT)
            try:
                if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise psycopg.OperationalError(f"the database has not answered within {self._patience_s:g} s")
            finally:
                self._poll.modify(pg.socket, select.POLLIN)
            pg.consume_input()

    def _answer(self, result: pq.abc.PGresult) -> Answer:
        count = result.ntuples
        if not count:
            return Answer([])
        rows = self._rows
        rows.set_pgresult(result)
        return Answer(rows.load_rows(0, count, tuple))

    def _busy(self, deadline: float) -> bool:
        """Wait until a result is there; always False."""
        pg = self._pg
        while pg.is_busy():
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise psycopg.OperationalError(f"the database has not answered within {self._patience_s:g} s")
            pg.consume_input()
        return False


def _closes(sqlstate: str | None) -> bool:
    """Whether the server ends the connection with this error: it shuts down, or was told to."""
    return sqlstate is None or sqlstate.startswith(("57P", "08"))


def ints(data: Sequence[int]) -> bytes:
    """Whole numbers of 8 bytes in a row, as `inbox` keeps them."""
    return struct.pack(f">{len(data)}q", *data)
