"""The store on PostgreSQL without its thread: a batch is run to its end where it is called."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from mqtt_im.core.rules import Limits
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.meta import prepare
from mqtt_im.postgres.nodes import Me, register
from mqtt_im.store.interface import Readable
from mqtt_im.store.jobs import Job
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.postgres.engine import Engine
from mqtt_im.store.postgres.opening import opener
from mqtt_im.store.postgres.schema import DDL
from mqtt_im.store.reader import Reader
from mqtt_im.store.readonly import Owed
from mqtt_im.store.uploads import Uploads

from .store import HereAndNow, SetClock

T = TypeVar("T")


class PostgresStore:
    """The ledger's own code on a database, run by hand."""

    def __init__(
        self,
        url: str,
        data_dir: Path,
        limits: Limits | None = None,
        has_account: Callable[[str], bool] = lambda _: True,
        claim: Callable[[str, int], bool] = lambda *_: False,
        unclaim: Callable[[str, int], None] = lambda *_: None,
        online: Container[str] = frozenset(),
        uploads: Uploads | None = None,
        name: str = "node",
    ) -> None:
        self.database = Database(url)
        self.data_dir = data_dir
        self.me = Me(name)
        self.clock = SetClock()
        make = opener(
            self.database,
            me=self.me,
            wake=lambda users, groups: self.woken.append((users, groups)),
            limits=limits,
            has_account=has_account,
            claim=claim,
            unclaim=unclaim,
            online=online,
            uploads=uploads,
            own_clock=True,
        )
        self.ledger = Ledger(make, clock=self.clock)
        self.ledger._loop = cast(Any, HereAndNow())
        self._open()

    def _open(self) -> None:
        self.woken: list[tuple[list[str], list[str]]] = []
        with self.database.connect("test") as connection:
            prepare(self.database, connection, DDL)
            register(self.database, connection, self.me, self.data_dir)
        self.ledger.failing = None
        self.ledger._owed = Owed()
        self.engine = cast(Engine, self.ledger._make())
        self.reader = self.ledger._reader = Reader(self.ledger._tell_one, self.clock)
        self.reader._make = self.engine.reading

    def see(self, look: Callable[[Readable], T], now: int, steady: int | None = None) -> T:
        """What `look` sees as the reader's thread does, at a time in ms since 1970."""
        seen: list[T] = []
        if self.reader._reading is None:
            self.reader._reading = self.engine.reading()
        assert self.reader._reading.run(lambda view: seen.append(look(view)), lambda: None, self.clock.set(now, steady))
        return seen[-1]

    def run(self, batch: Sequence[Job], now: int, steady: int | None = None) -> None:
        """The jobs are over, and have been told so. `now` is the time in ms since 1970; see `SetClock` for `steady`."""
        self.clock.set(now, steady)
        writes = [job for job in batch if not job.reads]
        if writes:
            self.ledger._work(self.engine, writes)
            while len(self.ledger._turns):
                self.ledger._work(self.engine, self.ledger._gather(self.engine)[0])
        for job in batch:
            if job.reads:
                self.reader.submit(job)
                self.reader._gather(block=False)
                self.reader.serve()

    def crash(self) -> None:
        """The process ends here."""
        self.reader.close()
        self.engine._link.close()

    def reopen(self) -> None:
        """A new process on the same database."""
        self._open()

    def close(self) -> None:
        """The process ends in good order."""
        self.reader.close()
        self.engine.close()
