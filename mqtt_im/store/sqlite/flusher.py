"""Writes what is in memory into the projections, in bulk.

The projections follow the log at the latest after so many rows, bytes or seconds. A bulk write goes in slices between the
batches, and keeps up with them: a generation is written before the next one is full.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import peewee

from mqtt_im.shares import Bounds

from .committing import Committing
from .gate import Gate
from .state.bulks import slices
from .state.projected import ProjectedState
from .tables.projection import Projection

FLUSH_ROWS = 20_000
FLUSH_BYTES = 24 << 20
"""The projections follow the log at the latest after so many rows, or so many bytes in memory …"""
FLUSH_PARTS = 20_000
"""… or so many changed members …"""
FLUSH_AFTER_S = 3.0
"""… or so many seconds, unless there is a reason to be `patient`."""
SLICE_ROWS = 250
"""Some milliseconds where they stand far apart."""
MOST_ROWS = 4_000
"""Rows that are written at once, unless more have come meanwhile: some milliseconds."""
MANY_ROWS = 4_000
"""A bulk write of so many rows is committed on a thread, which takes up to 100 ms …"""
_LOOK_S = 0.005
"""… and it is looked again so often whether that is over, where nothing else is to be done."""
FAR_TOO_FULL = 3
"""So many times what is to be kept in memory."""
AT_START = 2
"""So many times that are set aside at a start, and as much again is taken over it."""
HELD_S = 0.05
"""Between two looks whether a bulk write that is held may begin."""
MOST_S = 0.01
"""And so long it takes at most, where there is room in memory for what comes meanwhile."""


class Flusher:
    """The bulk writes of one store. Raises what `sqlite3` raises; then the state is to be loaded anew, and `begin` called."""

    def __init__(
        self,
        projection: Projection,
        epoch: str,
        gate: Gate,
        bounds: Bounds,
        committed: Callable[[], object] = lambda: None,
        behind: Callable[[], bool] = lambda: False,
        beside: Callable[[], peewee.SqliteDatabase] | None = None,
        begins: Callable[[], object] = lambda: None,
    ) -> None:
        """`committed` is called when a generation has been written; none is begun while what was written is `behind`.

        Where there is no room in memory for that, one is begun all the same, once `begins` has returned. `beside` opens the
        projections once more, to look into them while what was written is committed on a thread; without it that is never done.
        """
        self._gate = gate
        self._committed = committed
        self._behind = behind
        self._begins = begins
        self._bounds = bounds
        self._projection = projection
        self._epoch = epoch
        self._state: ProjectedState
        self._bulk: Iterator[tuple[str, list[tuple[Any, ...]]]] | None = None
        self._commit: Committing | None = None
        """Of the bulk write, where that is done on a thread."""
        self._beside = beside
        self._looks: peewee.SqliteDatabase | None = None
        self._last = 0
        self._rows = self._written = 0
        """Of the bulk write that is under way: about how many there are, and how many are written."""
        self._made = 0
        """Rows that the live generation had when it was last looked at."""
        self._done_at = time.monotonic()
        self.patient = False
        """Whether a generation is only written when it is full, however long that takes."""

    def abort(self) -> None:
        """A bulk write that is under way leaves nothing, or everything where it was about to end. Nothing else is open for it."""
        self._bulk = None
        if self._commit is not None:
            with contextlib.suppress(Exception):  # then it has left nothing
                self._end_commit()
        if self._looks is not None:
            self._looks.close()
            self._looks = None
        self._projection.rollback()

    def begin(self, state: ProjectedState) -> None:
        """From here on the generations of this state are written."""
        self._state = state

    @property
    def writing(self) -> bool:
        """Whether a bulk write is under way."""
        return self._bulk is not None

    def _filled(self) -> float:
        """How much the live generation has of what is to be kept in memory."""
        live = self._state.live
        return max(live.count / FLUSH_ROWS, live.parts / FLUSH_PARTS, live.weight / self._bounds.of(FLUSH_BYTES))

    def full(self) -> bool:
        """Whether the live generation has as much as is to be kept in memory."""
        return self._filled() >= 1

    def overfull(self) -> bool:
        """Whether it has so much that a start sets it aside."""
        return self._filled() >= AT_START

    def heavy(self) -> bool:
        """Whether it weighs more than may be in memory even for a while."""
        return self._state.live.weight >= FAR_TOO_FULL * self._bounds.of(FLUSH_BYTES)

    def crowded(self) -> bool:
        """Whether it has as much while the one before is being written, so that what makes much more should wait."""
        return self.full() and (self._bulk is not None or self._held())

    def _held(self) -> bool:
        """Whether none is to be begun now: what comes meanwhile has room in memory."""
        return self._behind() and self._filled() < FAR_TOO_FULL

    def pause(self) -> float | None:
        """Seconds until `step` has something to do; None where nothing waits."""
        if self._commit is not None:
            return _LOOK_S
        if self._bulk is not None:
            return 0.0
        if not self._state.live.records:
            return None
        if self.patient:
            pause = 0.0 if self.full() else None
        else:
            pause = max(0.0, FLUSH_AFTER_S - (time.monotonic() - self._done_at))
        return HELD_S if pause == 0.0 and self._held() else pause

    def step(self, hurry: bool = False, wait: bool = False) -> bool:
        """Write one slice of the projections, where one is due; False where there is nothing to do now.

        `wait`: also for a commit that is under way.
        """
        state = self._state
        if self._bulk is None:
            due = not self.patient and time.monotonic() - self._done_at >= FLUSH_AFTER_S
            if not state.live.records or not (hurry or ((due or self.full()) and not self._held())):
                return False
            self._bulk = self._freeze()
        bulk = next(self._bulk, None) if self._commit is None else None
        if bulk is not None:
            if bulk[1]:
                self._projection.write(*bulk)
            self._written += len(bulk[1])
            return True
        if self._commit is None and self._beside is not None and self._written >= MANY_ROWS and not wait:
            self._looks = self._looks or self._beside()
            self._projection.look_on(self._looks.connection())  # type: ignore[no-untyped-call]
            self._commit = Committing(self._projection, self._epoch, self._last)
        if self._commit is None:
            self._projection.commit(self._epoch, self._last)
        elif wait or self._commit.over:
            self._end_commit()
        else:
            return False
        self._bulk = None
        self._done_at = time.monotonic()
        with self._gate:
            state.thaw()
        self._committed()
        return False

    def _end_commit(self) -> None:
        assert self._commit is not None
        commit, self._commit = self._commit, None
        try:
            commit.end()
        finally:
            self._projection.look_on(None)

    def _freeze(self) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        """The live generation is frozen, and a transaction begun in which these slices are to be written."""
        self._begins()
        state = self._state
        self._rows, self._written, self._made = state.live.rows, 0, 0
        with self._gate:
            bulk = slices(state.freeze(), SLICE_ROWS)
            self._gate.move()
        assert state.frozen is not None
        self._last = state.frozen.last
        self._projection.begin()
        return bulk

    def set_aside(self) -> None:
        """What is live is frozen, and will be written beside what comes next; what was frozen before is written now."""
        while self._bulk is not None:
            self.step(wait=True)
        self._bulk = self._freeze()

    def keep_up(self, waiting: Callable[[], bool] = lambda: False) -> None:
        """Write a slice, where one is due, and as many as it takes for a generation to be written before the next one is full.

        Where that does not succeed, more is written than comes, however long that takes once there is far too much in memory;
        before, it ends when somebody is `waiting`, and what makes very much waits (`crowded`). Nothing is written while somebody
        waits and it keeps up.
        """
        if self._bulk is None:
            self.step()
            return
        live, filled = self._state.live, self._filled()
        if self._written > self._rows * filled and waiting():
            return
        made, self._made = live.rows - self._made, live.rows
        # More than has come since, so that memory is bounded; but not all, so that nobody waits for all of it.
        most = self._written + max(MOST_ROWS, 2 * made)
        due = most if filled >= 1 else min(most, max(self._written + SLICE_ROWS, int(self._rows * filled)))
        end = time.perf_counter() + MOST_S
        while self.step(wait=filled >= FAR_TOO_FULL) and self._written < due:
            if filled < FAR_TOO_FULL and (waiting() or time.perf_counter() >= end):
                return

    def flush(self) -> None:
        """The projections hold everything that is committed."""
        while self._bulk is not None:
            self.step(wait=True)
        while self.step(hurry=True, wait=True):
            pass
