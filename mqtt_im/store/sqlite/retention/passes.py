"""Retention: a pass over the log that takes out what may go, a fold at a time, between the batches of the ledger.

Which records go, and what goes with them, says `choosing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from mqtt_im.core.records import (
    AnyRecord,
    Cursors,
    Message,
    decode,
)
from mqtt_im.protocol.names import members_of_direct
from mqtt_im.shares import Bounds
from mqtt_im.store.commits import Author
from mqtt_im.store.common.retaining import Content
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.sqlite.checkpoints import Checkpoints
from mqtt_im.store.sqlite.flusher import Flusher
from mqtt_im.store.sqlite.state.projected import ProjectedState
from mqtt_im.store.sqlite.tables.log import Log
from mqtt_im.store.sqlite.tables.projection import Projection
from mqtt_im.store.wanted import Asked

from .base import BaseState
from .choosing import Choice, Fold
from .folds import AMENDED, GONE, INDEXES, Folds, Position

FOLD_WEIGHT: Final = 400_000
"""One fold changes about so many rows in all tables. The more there are, the fewer pages are written for each."""
SLICE_ROWS: Final = 50
"""Rows of the log that are read in one part …"""
SLICE_WEIGHT: Final = 1_000
"""… and how much of a fold one part makes; a message to a large group may be a part of its own."""
_TRIES: Final = 100
"""How often the content of the write-ahead files is tried to be removed, as long as somebody reads them."""


class Host(Protocol):
    """The engine that a pass works on."""

    log: Log
    state: ProjectedState
    bounds: Bounds
    now: int
    last: int

    @property
    def projection(self) -> Projection:
        """What is looked up in the projections."""

    @property
    def folds(self) -> Folds:
        """What of retention the projections have."""

    @property
    def flusher(self) -> Flusher:
        """What writes the projections."""

    @property
    def checkpoints(self) -> Checkpoints:
        """Those of the projections."""

    def append(self, author: Author, record: AnyRecord) -> None:
        """See `interface.Engine`."""

    @property
    def changing(self) -> AbstractContextManager[object]:
        """See `interface.Store`."""

    def commit(self) -> None:
        """See `interface.Store`."""

    def count_gone(self, name: str, gone: int, size: int) -> None:
        """So many of the user's messages, and of their bytes, are kept no more."""

    def raise_floor(self, name: str, floor: int) -> None:
        """A user's items up to this one are gone."""

    def base(self) -> BaseState:
        """The base, to be moved on."""

    def forget(self, lsns: Sequence[int], messages: Sequence[tuple[int, int]], names: Mapping[int, str]) -> None:
        """Log rows were taken away or emptied, and the messages with these `(cid, seq)` are gone; `names` are conversations'."""


class Pass:
    """One pass. `step` is called on the ledger's thread, between batches, until it returns False.

    Raises what `sqlite3` raises; then the pass is over, and so is the state of the engine until it is loaded anew.
    """

    def __init__(self, engine: Host, policy: Policy, now: int) -> None:
        """`now` is ms since 1970."""
        self.removed = Removed()
        self._engine = engine
        self._now = now
        self._work: Generator[bool, None, None] | None = None
        self._at = 0
        self.waits = False
        """The next step is for later, however idle the store is."""
        self._base = engine.base()
        self._choice = Choice(engine.state, self._base, policy, now, engine.bounds)
        self._until = 0 if policy.retention_messages else self._choice.before
        """Rows from this time on are left alone; 0: none are."""

    def end(self) -> None:
        """See `retaining.Pass`."""
        if self._work is not None:
            self._work.close()

    def step(self) -> bool:
        """One more part is done; False where there was none left."""
        self.waits = False
        if self._work is None:
            self._work = self._run()
        return next(self._work, False)

    def _run(self) -> Generator[bool, None, None]:
        """Yields True after each part."""
        flusher = self._engine.flusher
        flusher.patient = True  # else each of its bulk writes touches again many of the pages that the next one and a fold do
        try:
            yield from self._parts()
        finally:
            flusher.patient = False

    def _parts(self) -> Iterator[bool]:
        engine, folds = self._engine, self._engine.folds
        upto = self._choose_end()
        while engine.projection.position()[1] < upto:
            if not engine.flusher.writing:
                engine.flusher.step(hurry=True)
            self.waits = engine.flusher.writing
            yield True
        while self._at < upto:
            yield from self._settle()
            number, base = folds.position()
            fold = Fold(base)
            while self._at < upto and fold.weight < FOLD_WEIGHT:
                rows = [(lsn, decode(data)) for lsn, data in folds.rows(self._at, upto, SLICE_ROWS)]
                if not rows or (self._until and rows[-1][1].ts >= self._until):
                    rows = [row for row in rows if row[1].ts < self._until]
                    upto = rows[-1][0] if rows else self._at
                self._prefetch(fold, rows)
                enough = fold.weight + SLICE_WEIGHT
                for lsn, record in rows:
                    self._choice.look_at(fold, lsn, record)
                    self._at = lsn
                    if fold.weight >= enough:
                        break
                yield True
            if fold.plan.gone or fold.plan.rewritten or fold.plan.unpacked or fold.base != base:
                yield from self._fold(fold, Position(number + 1, fold.base))
        if (yield from self._try(folds.settle)):
            yield from self._tidy()
        self.removed.scoured = yield from self._try(folds.scour)

    def _settle(self) -> Iterator[bool]:
        """What was done before is there for sure. Even a power cut must not put the projections back to before the base."""
        yield from self._try(self._engine.folds.settle)
        yield from self._tidy()

    def _tidy(self) -> Iterator[bool]:
        for _ in self._engine.folds.tidy():
            yield True

    def _try(self, part: Callable[[], bool]) -> Generator[bool, None, bool]:
        """Until it works, or has been tried often; whether it has worked."""
        checkpoints = self._engine.checkpoints
        checkpoints.look()  # what is done beside need not be done here
        for _ in range(_TRIES):
            yield from self._while_bulk()
            while checkpoints.busy:
                self.waits = True
                yield True
            if part():
                return True
            self.waits = True
            yield True
        return False

    def _prefetch(self, fold: Fold, rows: list[tuple[int, AnyRecord]]) -> None:
        """Whom these records are about is in memory, in the base as far as it has not got to them."""
        asked: list[Asked] = []
        for lsn, record in rows:
            if isinstance(record, Message) and lsn > fold.base:
                pair = members_of_direct(record.conv)
                to = record.conv if pair is None else pair[1] if pair[0] == record.by else pair[0]
                asked.append((record.by, None, to, ()))
        self._base.prefetch(asked)
        with self._engine.changing:
            self._engine.state.prefetch_records(record for _, record in rows if isinstance(record, Content))

    def _gather(self, fold: Fold) -> Iterator[bool]:
        """The plan says what becomes of inboxes, of what users keep, and of the base."""
        plan = fold.plan
        items, freed = plan.changes["item"], plan.changes[GONE]
        for count, uid in enumerate(sorted(fold.items)):
            items += [(uid, pos) for pos in fold.items[uid]]
            if not count % SLICE_WEIGHT:
                yield True
        for count, (name, uid) in enumerate(fold.freed.items()):
            user = self._base.user(name)
            freed.append((user.gone, user.gone_bytes, uid))
            if not count % SLICE_WEIGHT:
                yield True
        for statement, made in self._base.moved():
            rows: list[tuple[Any, ...]] = []
            for count, row in enumerate(made):
                if row is not None:
                    rows.append(row)
                if row is None or not count % SLICE_WEIGHT:
                    yield True
            if rows:
                plan.base.append((statement, rows))

    def _fold(self, fold: Fold, position: Position) -> Iterator[bool]:
        engine, folds, plan = self._engine, self._engine.folds, fold.plan
        yield from self._gather(fold)
        for _ in folds.write_down(position.number, plan):
            yield True
        folds.decide(position)
        self.removed.messages += len(fold.messages)
        self.removed.items += len(plan.changes["item"])
        self.removed.rows += len(plan.gone)
        yield from self._between_bulks()
        for _ in folds.project(plan, INDEXES):  # the rows stay as they are, as long as somebody finds them
            yield from self._between_bulks()
        for lsns in folds.work_off(plan):
            engine.forget(lsns, (), {})
            yield True
        self._base.thaw()
        yield from self._between_bulks()
        for messages in folds.project(plan, AMENDED):
            engine.forget((), messages, fold.convs)
            yield from self._between_bulks()
        for floors in folds.raise_floors(plan):
            for floor, uid in floors:
                engine.raise_floor(fold.names[uid], floor)
            yield from self._between_bulks()
        for rows in folds.count_gone(plan):
            for gone, size, uid in rows:
                engine.count_gone(fold.names[uid], gone, size)
            yield from self._between_bulks()
        folds.projected_now(position.number)

    def _between_bulks(self) -> Iterator[bool]:
        """The projections may be written."""
        yield True
        yield from self._while_bulk()

    def _while_bulk(self) -> Iterator[bool]:
        """Until no bulk write is under way; the ledger goes on with it meanwhile."""
        while self._engine.flusher.writing:
            self.waits = True
            yield True

    def _choose_end(self) -> int:
        """The newest row that may go. A row is put after those that hold something, so that they are not the newest."""
        engine = self._engine
        newest = engine.log.get(engine.last)
        if newest is not None and not isinstance(decode(newest), Cursors):
            with engine.changing:
                engine.append(Job(), Cursors(max(self._now, engine.now), []))
            engine.commit()
        return engine.last - 1
