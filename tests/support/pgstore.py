"""The store on PostgreSQL without its thread: a batch is run to its end where it is called."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, TypeVar, cast

from mqtt_im.core.rules import Limits
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.meta import prepare
from mqtt_im.postgres.nodes import Me, register
from mqtt_im.store.given import Given
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.postgres.engine import Engine
from mqtt_im.store.postgres.large import MEMBERS
from mqtt_im.store.postgres.opening import opener
from mqtt_im.store.postgres.schema import DDL
from mqtt_im.store.uploads import NoUploads, Uploads

from .store import ByHand, HereAndNow, SetClock

T = TypeVar("T")


class PostgresStore(ByHand):
    """The ledger's own code on a database, run by hand."""

    engine: Engine

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
        most_at_once: int = MEMBERS,
    ) -> None:
        self.database = Database(url)
        self.data_dir = data_dir
        self.me = Me(name)
        self.clock = SetClock()
        make = opener(
            self.database,
            me=self.me,
            wake=self._wake,
            given=Given(limits or Limits(), has_account, claim, unclaim, online, uploads or NoUploads()),
            own_clock=True,
            most_at_once=most_at_once,
        )
        self.ledger = Ledger(make, clock=self.clock)
        self.ledger._loop = cast(Any, HereAndNow())
        self._open()

    def _open(self) -> None:
        self.woken: list[tuple[list[str], list[str]]] = []
        self.settled: list[tuple[str, int]] = []
        """Items of which the loop is told that they hold nothing any more."""
        with self.database.connect("test") as connection:
            prepare(self.database, connection, DDL)
            register(self.database, connection, self.me, self.data_dir)
        self._begin()

    def _wake(self, users: list[str], groups: list[str], replaced: list[tuple[str, int]]) -> None:
        if users or groups:
            self.woken.append((users, groups))
        self.settled += replaced

    def crash(self) -> None:
        """The process ends here."""
        self.reader.close()
        self.engine.link.close()

    def reopen(self) -> None:
        """A new process on the same database."""
        self._open()
