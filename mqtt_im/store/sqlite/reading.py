"""What is committed, as the reader's thread sees it: on connections of its own, beside the ledger's.

A *view* is one moment (`view`). It begins inside the gate, so that nothing is missing between the projections and the
generations. Where generations change places in the middle, a view begins anew.

What was read is told before anything that was committed later is: else a message that was recalled meanwhile would come back,
and one that was replaced would be offered. So a look that has shown messages begins anew where one of their conversations has
had an edit, a reaction, a recall or a replacement since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, cast

import peewee

from mqtt_im.clock import Times
from mqtt_im.shares import Bounds
from mqtt_im.store.given import Given
from mqtt_im.store.interface import Readable

from .errors import ERRORS
from .gate import Gate, Yielding
from .state.projected import ProjectedState
from .tables.files import open_log, open_projection
from .tables.log import Log
from .tables.projection import Projection
from .view import NotYet, ReadState, View

_TRIES: Final = 3
"""After so many beginnings the gate stays closed until the end: others wait for this one look."""
_CACHE_KIB: Final = 16_384


class _MovedError(Exception):
    """The view is over before its end."""


class Reading:
    """Implements `interface.Reading` beside an engine."""

    gathers = False
    errors = ERRORS

    def __init__(
        self,
        data_dir: Path,
        gate: Gate,
        writer: Callable[[], ProjectedState],
        given: Given,
        bounds: Bounds,
    ) -> None:
        """`writer` tells the ledger's state, which is looked at inside the gate. Raises `StoreError`, and one of `errors`."""
        self._gate = gate
        self._writer = writer
        self._log_db = open_log(data_dir, readonly=True)
        self._projection_db = open_projection(data_dir, readonly=True)
        self._projection_db.pragma("cache_size", -bounds.of(_CACHE_KIB))
        self._projection = Yielding(_connection(self._projection_db), gate, self._check, snapshot=True)
        self._log = Yielding(_connection(self._log_db), gate, self._check)
        self._moves = self._changes = 0
        gate.enter()
        try:
            self._moves, self._changes = gate.moves, gate.changes
            self._log.keep = self._projection.keep = True
            state = ReadState(Log(self._log), Projection(self._projection), gate, given, bounds)
        finally:
            self._projection.end()
            gate.leave()
        self.view = View(state, given, bounds)
        self._awaited = 0

    def together(self, fetches: Sequence[tuple[str, int, int]]) -> AbstractContextManager[None]:
        """See `interface.Reading`: one look is as cheap as another."""
        return nullcontext()

    def run(self, look: Callable[[Readable], None], tell: Callable[[], None], now: Times, exact: bool = False) -> bool:
        """See `interface.Reading`."""
        changed = 0
        for attempt in range(_TRIES + 1):
            self._log.keep = self._projection.keep = attempt == _TRIES
            self._gate.enter()
            try:
                self._begin(now)
                look(self.view)
                self._check()
                changed = self.view.state.changed_since(self.view.last, exact)
                if changed > self._gate.committed:
                    raise NotYet(changed)
                if not changed:
                    tell()
                    return True
            except _MovedError:
                continue
            except NotYet as later:
                self._awaited = later.lsn
                return False
            finally:
                self._projection.end()
                self._gate.leave()
        self._awaited = changed  # what was looked at was committed meanwhile, which needs no gate: soon it is looked at again
        return False

    def wait(self, seconds: float) -> None:
        """See `interface.Reading`."""
        self._gate.enter()
        try:
            self._gate.wait(self._awaited, seconds)
        finally:
            self._gate.leave()

    def close(self) -> None:
        """See `interface.Reading`."""
        self._log_db.close()
        self._projection_db.close()

    def _begin(self, now: Times) -> None:
        view, gate = self.view, self._gate
        self._moves = gate.moves
        view.state.begin(self._writer())
        view.last = gate.committed
        view.now = max(view.now, now.wall)
        view.behind, view.ahead = view.now - now.steady, now.ahead
        if gate.changes != self._changes:
            changed = gate.changed_since(self._changes)
            self._changes = gate.changes
            if changed is None:  # too many to tell
                view.state.forget_all_records()
                view.rendering.kept.clear()
                return
            for lsns, messages in changed:
                view.state.forget_records(lsns)
                view.rendering.kept.forget(lsns, messages)

    def _check(self) -> None:
        if self._gate.moves != self._moves:
            raise _MovedError


def _connection(db: peewee.SqliteDatabase) -> sqlite3.Connection:
    return cast(sqlite3.Connection, db.connection())  # type: ignore[no-untyped-call]
