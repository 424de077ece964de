"""Messages straight into an engine, or into one table, and what they cost."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psycopg
from msgspec import Raw

from bench.meter import run_seconds
from bench.priority import level
from mqtt_im.core.records import Message, encode
from mqtt_im.core.rules import Who
from mqtt_im.load.bodies import bodies
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.meta import prepare
from mqtt_im.postgres.nodes import Me, register
from mqtt_im.process import collect_seldom
from mqtt_im.protocol import requests as rq
from mqtt_im.store.interface import Anew
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.postgres.opening import opener
from mqtt_im.store.postgres.schema import DDL
from mqtt_im.store.postgres.wire import BEGIN, COMMIT, Link, Statement, Step
from tests.support.postgres import Cluster

FLOOR: Final = "one table"
SETTINGS: Final = {"fsync": "on", "shared_buffers": "256MB", "max_wal_size": "4GB"}
"""Of PostgreSQL: durable, and no checkpoint while something is measured."""
USERS: Final = 10_000
_FILLED_AT_ONCE: Final = 250
_FLOOR_DDL: Final = "CREATE TABLE floor (lsn int8, rec bytea)"
_APPEND: Final = Statement("INSERT INTO floor SELECT * FROM unnest($1, $2)", "IB")
_PATIENCE_S: Final = 120.0

Commit = Callable[[int], None]
"""Commits one batch of so many messages."""


class Cost(NamedTuple):
    """What one message took, in µs of CPU and bytes of write-ahead log."""

    node: float
    database: float
    wal: float


class Writer:
    """Messages between pairs, into one engine."""

    def __init__(self, engine: Any, name: str, pair: Callable[[random.Random], tuple[str, str]] | None = None) -> None:
        """`pair` tells who writes to whom; any two of all users where it is not given."""
        self.engine = engine
        self._dice = random.Random(name)
        self._texts = [Raw(b'"%b"' % body) for body in bodies()]
        self._name = name
        self._pair = pair or (lambda dice: (f"user{dice.randrange(USERS)}", f"user{dice.randrange(USERS)}"))
        self.count = 0
        """Messages so far; their ids end with their numbers."""
        self.anew = 0
        """Batches that had to begin once more, since a rule asked for what was not locked."""

    def commit(self, size: int) -> None:
        """One batch of messages. Raises what the engine raises."""
        self.run([self._job() for _ in range(size)])

    def run(self, jobs: Sequence[Job]) -> None:
        """These are done, as one batch."""
        engine = self.engine
        engine.now = time.time_ns() // 1_000_000
        while True:
            engine.prefetch(jobs)
            try:
                for job in jobs:
                    job.prepare(engine)
                break
            except Anew:
                self.anew += 1
                for job in jobs:
                    job.commits = None
        engine.commit()
        for job in jobs:
            job.finish(engine)
        engine.side_work(len(jobs))

    def _job(self) -> RequestJob:
        self.count += 1
        user, to = self._pair(self._dice)
        send = rq.Send(id=f"{self._name}-{self.count}", to=to, body=self._dice.choice(self._texts))
        return RequestJob(Who(user, "pc", 0), send, lambda _: None)


def fill(engine: Any, users: int = USERS) -> None:
    """Every user is there and has written once: a store that is in use."""
    collect_seldom()  # as in the server
    pairs = iter([(f"user{number}", f"user{users - 1 - number}") for number in range(users)])
    writer = Writer(engine, "fill", lambda _: next(pairs))
    for _ in range(users // _FILLED_AT_ONCE):
        writer.commit(_FILLED_AT_ONCE)


@contextmanager
def node(url: str, name: str) -> Iterator[Any]:
    """The engine of one node on this database."""
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        database, me = Database(url), Me(name)
        with database.connect("bench", patience_s=_PATIENCE_S) as connection:
            prepare(database, connection, DDL)
            register(database, connection, me, Path(folder))
        engine = opener(database, me=me)()
        try:
            yield engine
        finally:
            engine.close()


@contextmanager
def floor(url: str) -> Iterator[Commit]:
    """Appends the records of messages to one table, which has no index."""
    connection = Database(url).connect("floor", patience_s=_PATIENCE_S)
    connection.execute(_FLOOR_DDL)
    link = Link(connection)
    records = [encode(Message(0, "user1:user2", 1, "user1", "pc", "an id", 0, [1, 1], b'"%b"' % body)) for body in bodies()]
    dice, lsn = random.Random(1), 0

    def commit(size: int) -> None:
        nonlocal lsn
        lsn += size
        rows = [*range(lsn - size, lsn)], [dice.choice(records) for _ in range(size)]
        link.run(Step(BEGIN), Step(_APPEND, rows), Step(COMMIT))

    try:
        yield commit
    finally:
        link.close()


def cost(
    cluster: Cluster | None,
    commit: Commit,
    size: int,
    messages: int,
    warm_up: int = 256,
    settle: Callable[[], None] | None = None,
) -> Cost:
    """Of a message, in batches of `size`, after some that are not counted; without a `cluster` this process's alone.

    `settle` does what the engine has put off, which counts too.
    """
    for _ in range(max(3, warm_up // size)):
        commit(size)
    if settle is not None:
        settle()
    with Meter(cluster) as meter:
        for _ in range(messages // size):
            commit(size)
        if settle is not None:
            settle()
    count = messages // size * size
    return Cost(meter.node / count * 1e6, meter.database / count * 1e6, meter.wal / count)


class Meter:
    """CPU seconds of this process and of PostgreSQL, and bytes of its write-ahead log, from `with` to its end.

    What the meter takes itself counts nowhere: its one connection is there before, and the clocks are read behind what it asks
    at the beginning, and before that at the end. The processes that PostgreSQL has then come as early as this one.
    """

    def __init__(self, cluster: Cluster | None) -> None:
        """Without a `cluster` this process's alone."""
        self._cluster = cluster
        self._connection: psycopg.Connection[Any] | None = None
        self.node = self.database = self.wal = 0.0

    def __enter__(self) -> Self:
        if self._cluster is not None:
            level(self._cluster.processes)
            self._connection = psycopg.connect(self._cluster.url(), autocommit=True)
            self.wal = -self._written()
        node, database = self._clocks()
        self.node, self.database = -node, -database
        return self

    def __exit__(self, *_: object) -> None:
        node, database = self._clocks()
        self.node += node
        self.database += database
        if self._connection is not None:
            self.wal += self._written()
            self._connection.close()

    def _clocks(self) -> tuple[float, float]:
        return time.process_time(), run_seconds(self._cluster.processes) if self._cluster is not None else 0.0

    def _written(self) -> float:
        assert self._connection is not None
        row = self._connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        return float(row[0])
