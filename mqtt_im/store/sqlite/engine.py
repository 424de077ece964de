"""The engine: the SQLite files at work for the ledger. Lives in the ledger's thread; knows of no loop.

It joins the state (`state/`), the batch that is being gathered (`batch.py`), the projections (`projections.py`), and
retention. A batch that fails leaves nothing, neither on disk nor in memory: then the state is read anew from the disk
(`Engine.load`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mqtt_im.core.records import AMENDMENTS, AnyRecord, decode
from mqtt_im.shares import Bounds
from mqtt_im.store.commits import Author
from mqtt_im.store.common.rendering import Rendering, Showing
from mqtt_im.store.common.retaining import Compactor
from mqtt_im.store.given import Given
from mqtt_im.store.policy import Ended, Policy
from mqtt_im.store.wanted import Asking

from .arriving import Arriving, enough
from .batch import Batch
from .checkpoints import Checkpoints
from .erasure import Erasure
from .errors import ERRORS, is_damage
from .flusher import Flusher
from .gate import Gate
from .mending import Mending, leave_unfinished
from .projections import Projections
from .reading import Reading
from .replay import decoded, replay, without_collecting
from .retention.base import BaseState
from .retention.folds import Folds
from .retention.passes import Host, Pass
from .state.projected import ProjectedState
from .tables.files import PROJECTION_FILE, open_log
from .tables.log import Log
from .tables.models import LogMeta
from .tables.projection import Projection
from .taking_back import TakingBack

logger = logging.getLogger(__name__)

_MENDING_POLL_S = 0.1
_AGAIN_S = 60.0
"""After damaged projections could not be made anew."""


class Engine(Showing):
    """Implements `interface.Store`."""

    errors = ERRORS
    alone = True
    gathers_s = 0.0

    def __init__(
        self,
        data_dir: Path,
        synchronous: str,
        given: Given,
        bounds: Bounds | None = None,
    ) -> None:
        self.limits = given.limits
        self.online = given.online
        self.loaded_upto = 0
        """The newest log row when the server started."""
        self.cut_off: set[tuple[str, str]] | None = None
        """User and device of all to which a former server may have offered what they have not acknowledged."""
        self.now = 0
        """ms since 1970 of the batch; never goes back."""
        self.behind = self.ahead = 0
        self.gate = Gate()
        self.bounds = bounds = bounds or Bounds()
        self._data_dir = data_dir
        self._given = given
        self._taking_back = TakingBack(given.claim, given.unclaim)
        self._log_db = open_log(data_dir, synchronous, bounds=bounds)
        with self._log_db.bind_ctx([LogMeta]):
            self.epoch: str = LogMeta.get_by_id("epoch").value
            mark = LogMeta.get_or_none(LogMeta.key == "clock")
        self.mark: bytes | None = None if mark is None else mark.value.encode()
        self.log = Log(self._log_db)
        self._mending: Mending | None = None
        self._mend_again = 0.0
        """When the projections may be made anew, in seconds (monotonic), after that has failed."""
        self._projections = Projections(data_dir, self._log_db, self.log, self.epoch, self.gate, bounds)
        self.erasure = Erasure(self.log)
        self._compactor = Compactor[Host](Pass)
        self.load()

    # What the projections consist of is another once they were made anew.

    @property
    def projection(self) -> Projection:
        """See `Host`."""
        return self._projections.projection

    @property
    def folds(self) -> Folds:
        """See `Host`."""
        return self._projections.folds

    @property
    def checkpoints(self) -> Checkpoints:
        """See `Host`."""
        return self._projections.checkpoints

    @property
    def flusher(self) -> Flusher:
        """See `Host`."""
        return self._projections.flusher

    # Start.

    def load(self) -> None:
        """The state is what the log says: projections, and the log's tail replayed over them."""
        with self.gate:
            if self._projections.db.is_closed():
                self._projections.open()
            try:
                self._load()
            except ERRORS as error:
                if not is_damage(error) or time.monotonic() < self._mend_again:
                    raise
                logger.error("store: %s is damaged (%s); it is made again from the log", PROJECTION_FILE, error)
                self._stop_mending()
                self._projections.put_aside()
                self._load()
            self.gate.commit(self.last)
            self.gate.move()

    def _stop_mending(self) -> None:
        if self._mending is not None:
            self._mending.stop()
            self._mending = None

    def _load(self) -> None:
        self.flusher.abort()
        position = self._projections.begin()
        given, uploads = self._given, self._given.uploads
        uploads.rollback()
        self.state = state = ProjectedState(
            self.log, self.projection, given.has_account, self._taking_back.take_all, uploads.find, self.bounds
        )
        self._arriving = Arriving(state)
        self._batch = Batch(self.log, state, self.online, uploads, self.erasure.ask)
        self.rendering = Rendering(state, self.bounds.of)
        self.flusher.begin(state)
        state.live.last = position
        newest = self.log.get(position)
        if newest is not None:
            self.now = max(self.now, decode(newest).ts)  # the clock may be behind what was written before
        flusher = self.flusher
        with without_collecting():
            rows = replay(decoded(self.log.after(position)), self._take, flusher.overfull, flusher.set_aside, state.prefetch_next)
        self.last = state.live.last
        self._taking_back.undo(state)
        if self.cut_off is None:
            self.loaded_upto = self.last
            self.cut_off = state.exposed_devices()
        self._taking_back.begin(state, self.loaded_upto, self.cut_off)
        if rows:
            logger.info("store: replayed %d rows of the log", rows)

    def _take(self, lsn: int, record: AnyRecord, size: int) -> None:
        self.now = max(self.now, record.ts)
        self.state.replay(lsn, record, size)

    # A batch.

    @property
    def changing(self) -> Gate:
        """See `interface.Store`."""
        return self.gate

    @property
    def weight(self) -> int:
        """See `interface.Store`."""
        return self._batch.weight

    @property
    def crowded(self) -> bool:
        """See `interface.Store`."""
        return self._mending is None and self.flusher.crowded()

    def members_of(self, group: str) -> int:
        """See `interface.Store`."""
        return self.state.size_at_hand(group)

    def prefetch(self, batch: Sequence[Asking]) -> None:
        """See `interface.Store`."""
        self._arriving.begin()
        self.state.prefetch([asked for job in batch if (asked := job.asks()) is not None])

    def at_hand(self, user: str, group: str, names: Sequence[str] = (), brought: float = 0.0) -> None:
        """See `interface.Engine`."""
        conv = self.state.conv(group) if group[:1] == "#" else None
        if conv is not None and conv.size and conv.part(user) is None:
            conv = None
        at_once = brought >= enough(len(names) + (conv.size if conv is not None else 0))
        if conv is not None:
            self._arriving.members(conv, at_once)
        if names:
            self._arriving.users(names, at_once)

    def offered_upto(self, user: str, device: str) -> int:
        """See `interface.Engine`."""
        return self.loaded_upto if self.cut_off and (user, device) in self.cut_off else 0

    def delivers(self, user: str, device: str) -> bool:
        """See `interface.Engine`."""
        return self.state.device(user, device) is not None

    def left(self, user: str, device: str) -> None:
        """See `interface.Engine`: what was offered is known here."""

    def append(self, author: Author, record: AnyRecord) -> None:
        """See `interface.Engine`."""
        self.last += 1
        self.now = max(self.now, record.ts)
        rewritten = self._batch.append(author, self.last, record)
        if isinstance(record, AMENDMENTS):
            self._change(rewritten, [(record.conv, record.seq)])

    def append_soon(self, author: Author, record: AnyRecord) -> None:
        """See `interface.Engine`."""
        self.append(author, record)

    def commit(self) -> None:
        """Everything appended is on disk. Raises `sqlite3.Error`; then the state is stale and must be loaded anew."""
        if self._batch.commit():
            self._taking_back.keep()
            self.gate.commit(self.last)

    def keep_mark(self, mark: bytes) -> None:
        """See `interface.Store`."""
        self.log.note("clock", mark.decode())

    def probe(self) -> None:
        """The store can commit. Raises `sqlite3.Error` where it can't."""
        self.log.probe()

    # Beside the batches.

    def side_work(self, jobs: int, waiting: Callable[[], bool] = lambda: False) -> None:
        """See `interface.Store`."""
        if self._mending is None:
            try:
                self.flusher.keep_up(waiting)
                self._compactor.work(self, busy=jobs > 0)
            except ERRORS as error:
                if not self.mends(error):
                    raise
        elif self.flusher.heavy():
            self._mending.wait()  # who writes waits as well, since nothing of it can leave the memory before
        self.erasure.work()

    def mends(self, error: Exception) -> bool:
        """See `interface.Store`; the projections are made anew, unless that was tried, and the log itself can't be read."""
        if not is_damage(error):
            return False
        if self._mending is None and time.monotonic() >= self._mend_again:
            logger.error("store: %s is damaged (%s); it is made again from the log meanwhile", PROJECTION_FILE, error)
            self.abandon("the projections are made again from the log")
            self._mending = Mending(self._data_dir, self.epoch)
        return True

    @property
    def mended(self) -> bool:
        """See `interface.Store`."""
        return self._mending is not None and self._mending.over

    def replace(self) -> None:
        """See `interface.Store`."""
        mending = self._mending
        if mending is None:
            return
        mending.wait()
        self._mending = None
        if mending.problem is not None:
            self._mend_again = time.monotonic() + (_AGAIN_S if not mending.hopeless else float("inf"))
            advice = "the log is damaged too; restore a backup" if mending.hopeless else "it is tried again"
            logger.error("store: %s could not be made again (%s): %s", PROJECTION_FILE, mending.problem, advice)
            return
        with self.gate:
            self._projections.close()
            mending.put_in_place()
            self.load()
        logger.warning("store: %s was made again from the log", PROJECTION_FILE)

    def pause(self) -> float | None:
        """See `interface.Store`."""
        if self._mending is not None:
            return _MENDING_POLL_S
        waits = [pause for pause in (self.flusher.pause(), self._compactor.pause(), self.erasure.pause()) if pause is not None]
        return min(waits, default=None)

    def reading(self) -> Reading:
        """See `interface.Store`."""
        return Reading(self._data_dir, self.gate, lambda: self.state, self._given, self.bounds)

    @property
    def emptied(self) -> bool:
        """See `interface.Store`."""
        return self.erasure.due is None

    def retain(self, policy: Policy, now: int, ended: Ended) -> None:
        """See `interface.Store`."""
        self._compactor.ask(policy, now, ended)

    def abandon(self, reason: str) -> None:
        """See `interface.Store`."""
        self._compactor.fail(reason)

    def base(self) -> BaseState:
        """The base, for a pass of retention to move it on."""
        return BaseState(self.log, self._log_db, self.bounds.part(2))

    def forget(self, lsns: Sequence[int], messages: Sequence[tuple[int, int]], names: Mapping[int, str]) -> None:
        """Log rows were taken away or emptied, and the messages with these `(cid, seq)` are gone; `names` are conversations'."""
        with self.gate:
            self._change(lsns, [(names[cid], seq) for cid, seq in messages])
            self.state.forget(lsns, messages)

    def _change(self, lsns: Sequence[int], messages: Sequence[tuple[str, int]]) -> None:
        self.gate.change(lsns, messages)
        self.rendering.kept.forget(lsns, messages)

    def count_gone(self, name: str, gone: int, size: int) -> None:
        """So many of the user's messages, and of their bytes, are kept no more."""
        with self.gate:
            user = self.state.user(name)
            user.gone, user.gone_bytes = gone, size

    def raise_floor(self, name: str, floor: int) -> None:
        """A user's items up to this one are gone."""
        with self.gate:
            self.state.user(name).floor = floor

    def close(self) -> None:
        """Everything is flushed, as far as the disk lets it, and the files are closed."""
        self._compactor.stop()
        self._stop_mending()
        try:
            self.flusher.flush()
        except ERRORS as error:
            if is_damage(error):
                leave_unfinished(self._data_dir)
            logger.warning("store: the projections were not written (%s); they will be replayed at the next start", error)
        self._projections.close()
        self._log_db.close()
