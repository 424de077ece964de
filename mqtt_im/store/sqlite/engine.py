"""The engine: the ledger's state, and the batch it is working on. Lives in the ledger's thread; knows of no loop.

Numbers are given out inside the batch. A batch that fails leaves nothing, neither on disk nor in memory: then the state is read
anew from the disk (`Engine.load`). The projections are written in bulk, in slices between the batches (`keep_up`).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import peewee

from mqtt_im.core.apply import apply, recipients
from mqtt_im.core.entries import Entry, render, void_entry
from mqtt_im.core.gone import without_content
from mqtt_im.core.model import Conv, User
from mqtt_im.core.records import Act, AnyRecord, Edited, GroupChange, Message, Reacted, Recalled, decode, encode
from mqtt_im.core.rules import Limits
from mqtt_im.store.jobs import Commit, Job
from mqtt_im.store.sqlite.retention.base import BaseState, restore
from mqtt_im.store.sqlite.retention.folds import Folds

from .generation import slices
from .hot import Log, Projection
from .models import PROJECTION_MODELS, LogMeta, open_log, open_projection
from .state import ProjectedState

ERRORS = (sqlite3.Error, peewee.DatabaseError)
"""What a store that can't be read or written raises."""

logger = logging.getLogger(__name__)

FLUSH_ROWS = 20_000
FLUSH_BYTES = 32 << 20
"""The projections follow the log at the latest after so many rows, or so many bytes of them …"""
FLUSH_AFTER_S = 3.0
"""… or so many seconds."""
SLICE_ROWS = 500
MAX_ENTRIES = 8192
RECEIPT_MEMBERS = 200
"""In larger groups marks are not sent as events; `convs` tells them."""


class Engine:
    """The ledger's state and the batch it is working on. Lives in the ledger's thread."""

    def __init__(
        self,
        data_dir: Path,
        synchronous: str,
        limits: Limits,
        has_account: Callable[[str], bool],
        claim: Callable[[str, int], bool],
        unclaim: Callable[[str, int], None],
        online: Container[str],
    ) -> None:
        self.limits = limits
        self.online = online
        self.loaded_upto = 0
        """The newest log row when the server started."""
        self.cut_off: set[tuple[str, str]] | None = None
        """User and device of all to which a former server may have offered what they have not acknowledged."""
        self._cut_off_users: set[str] = set()
        self.now = 0
        """ms since 1970 of the batch; never goes back."""
        self._has_account = has_account
        self._claim = claim
        self._unclaim = unclaim
        self._claimed: list[tuple[str, int]] = []
        """Items that the batch has taken back."""
        self._log_db = open_log(data_dir, synchronous)
        self._projection_db = open_projection(data_dir)
        with self._log_db.bind_ctx([LogMeta]):
            self.epoch: str = LogMeta.get_by_id("epoch").value
        self.log = Log(self._log_db)
        self.projection = Projection(self._projection_db)
        self.folds = Folds(self._log_db, self._projection_db)
        self._bulk: Iterator[tuple[str, list[tuple[Any, ...]]]] | None = None
        self._bulk_last = 0
        self._bulk_rows = 0
        self._flushed_at = time.monotonic()
        self._rows: list[tuple[int, bytes]] = []
        self._rewrites: list[tuple[bytes, int]] = []
        self._entries: dict[int, Entry] = {}
        self._forget = False
        self.load()

    # Start.

    def load(self) -> None:
        """The state is what the log says: projections, and the log's tail replayed over them."""
        self.projection.rollback()
        self._bulk = None
        self._rows.clear()
        self._rewrites.clear()
        self._entries.clear()
        self.folds.finish()
        epoch, position = self.projection.position()
        if epoch and (epoch != self.epoch or not self._follows(position) or not self.folds.catch_up()):
            logger.warning("store: the projections belong to another log, and are rebuilt from this one")
            epoch = ""
        if not epoch:
            position = self._restore()
        self.state = ProjectedState(self.log, self.projection, self._has_account, self._take_back)
        self.state.live.last = position
        newest = self.log.get(position)
        if newest is not None:
            self.now = max(self.now, decode(newest).ts)  # the clock may be behind what was written before
        rows = 0
        for lsn, data in self.log.after(position):
            self._take(lsn, decode(data), len(data))
            rows += 1
            if self._full():
                self.flush()
        self.last = self.state.live.last
        self._give_back()
        if self.cut_off is None:
            self.loaded_upto = self.last
            self.cut_off = self.state.exposed_devices()
            self._cut_off_users = {user for user, _ in self.cut_off}
        if rows:
            logger.info("store: replayed %d rows of the log", rows)

    def _follows(self, position: int) -> bool:
        """The log goes on without a gap after this row: up to the base some are gone, and a power cut takes back projections."""
        return self.folds.position().base <= position <= self.log.last()

    def _take_back(self, user: str, pos: int) -> bool:
        if user in self._cut_off_users:
            found = self.state.items(self.state.user(user), pos - 1, 1)
            if found and abs(found[0][1]) <= self.loaded_upto:
                return False  # the former server may have offered it
        taken = self._claim(user, pos)
        if taken:
            self._claimed.append((user, pos))
        return taken

    def _give_back(self) -> None:
        """What a failed batch has taken back may be offered again, unless the batch was kept after all."""
        for name, pos in self._claimed:
            found = self.state.items(self.state.user(name), pos - 1, 1)
            if found and found[0][1] > 0:
                self._unclaim(name, pos)
        self._claimed.clear()

    def _restore(self) -> int:
        """The projections have what the base has, and nothing else; up to which log row that is."""
        with self._projection_db.atomic("IMMEDIATE"), self._projection_db.bind_ctx(PROJECTION_MODELS):
            for model in PROJECTION_MODELS:
                model.delete().execute()
        return restore(self.log, self._log_db, self._projection_db, self.epoch)

    def _take(self, lsn: int, record: AnyRecord, size: int) -> None:
        live = self.state.live
        live.records[lsn] = record
        live.size += size
        live.last = lsn
        self.now = max(self.now, record.ts)
        apply(self.state, lsn, record)

    # A batch.

    def append(self, job: Job, record: AnyRecord) -> None:
        """The record is part of the batch and of the state."""
        self.last = lsn = self.last + 1
        if type(record) is Recalled:
            self._scrub(record)
        data = encode(record)
        self._rows.append((lsn, data))
        self._take(lsn, record, len(data))
        commit = Commit(lsn, record)
        if isinstance(record, Act):
            # Now, since the next record of the batch may change who is a member.
            self._address(commit, record)
        if job.commits is None:
            job.commits = [commit]
        else:
            job.commits.append(commit)

    def _address(self, commit: Commit, record: Act) -> None:
        online = self.online
        names = recipients(self.state.conv_for(record.conv), record)
        for index, name in enumerate(names):
            if name in online:
                commit.to.append((name, record.pos[index]))
            else:
                commit.away.append(name)
        if isinstance(record, Edited | Recalled | Reacted):
            self._entries.clear()  # what is cached of this message is no longer how it is

    def _scrub(self, recalled: Recalled) -> None:
        """The content of a recalled message is gone, from its row and from those of its edits, with the same commit."""
        state = self.state
        conv = state.conv_for(recalled.conv)
        lsns = [state.message_lsn(conv, recalled.seq)]
        amended = state.amended(conv, recalled.seq)
        if amended is not None:
            lsns += amended.edits
        for lsn in lsns:
            record = state.record(lsn) if lsn is not None else None
            if lsn is None or not isinstance(record, Message | Edited) or record.body is None:
                continue
            gone = without_content(record)
            state.replace_record(lsn, gone)
            data = encode(gone)
            for index, (row, _) in enumerate(self._rows):
                if row == lsn:  # sent and recalled within one batch
                    self._rows[index] = (lsn, data)
                    break
            else:
                self._rewrites.append((data, lsn))
        self._forget = True

    def commit(self) -> None:
        """Everything appended is on disk. Raises `sqlite3.Error`; then the state is stale and must be loaded anew."""
        if not self._rows:
            return
        self.log.append(self._rows, self._rewrites)
        self._rows.clear()
        self._rewrites.clear()
        self._claimed.clear()
        if self._forget:
            self._forget = False
            self.log.checkpoint()

    def probe(self) -> None:
        """The store can commit. Raises `sqlite3.Error` where it can't."""
        self.log.probe()

    # Projections.

    def flush_step(self, hurry: bool = False) -> bool:
        """Write one slice of the projections, where one is due; False where there is nothing to do now."""
        if self._bulk is None:
            count = len(self.state.live.records)
            due = time.monotonic() - self._flushed_at >= FLUSH_AFTER_S
            if not count or not (hurry or due or self._full()):
                return False
            self._bulk_rows = self.state.live.rows
            self._bulk = slices(self.state.freeze(), SLICE_ROWS)
            assert self.state.frozen is not None
            self._bulk_last = self.state.frozen.last
            self.projection.begin()
        bulk = next(self._bulk, None)
        if bulk is not None:
            self.projection.write(*bulk)
            return True
        self.projection.commit(self.epoch, self._bulk_last)
        self._bulk = None
        self._flushed_at = time.monotonic()
        self.state.thaw()
        return False

    def keep_up(self, jobs: int) -> None:
        """Write so much of the projections that a generation is written before the next one is full."""
        if self._bulk is None:
            self.flush_step()
            return
        slices_due = 1 + self._bulk_rows * jobs // (FLUSH_ROWS * SLICE_ROWS)
        if self._full():
            slices_due = self._bulk_rows
        while slices_due > 0 and self.flush_step():
            slices_due -= 1

    def flush(self) -> None:
        """The projections hold everything that is committed."""
        while self.flush_step() or self._bulk is not None:
            pass
        while self.flush_step(hurry=True):
            pass

    def _full(self) -> bool:
        """Whether the live generation has as much as is to be kept in memory."""
        live = self.state.live
        return len(live.records) >= FLUSH_ROWS or live.size >= FLUSH_BYTES

    def until_flush(self) -> float | None:
        """Seconds until `flush_step` has something to do; None where nothing waits."""
        if self._bulk is not None:
            return 0.0
        if not self.state.live.records:
            return None
        return max(0.0, FLUSH_AFTER_S - (time.monotonic() - self._flushed_at))

    @property
    def writing(self) -> bool:
        """Whether a bulk write of the projections is under way."""
        return self._bulk is not None

    # Retention.

    def base(self) -> BaseState:
        """The base, for a pass of retention to move it on."""
        return BaseState(self.log, self._log_db)

    def forget(self, lsns: Iterable[int], messages: Iterable[tuple[int, int]]) -> None:
        """Log rows were taken away or emptied, and the messages with these `(cid, seq)` are gone."""
        self._entries.clear()
        self.state.forget(lsns, messages)

    # Reading.

    def fresh_entry(self, record: Message | GroupChange) -> Entry:
        """A record of this batch as devices see it now."""
        # Nothing on disk can be about a message that has only just been numbered.
        amended = self.state.amended_in_memory(self.state.conv_for(record.conv), record.seq)
        return render(record, amended, self.state.record)

    def entry(self, record: AnyRecord) -> Entry:
        """The record as devices see it now."""
        amended = None
        if isinstance(record, Act):
            amended = self.state.amended(self.state.conv_for(record.conv), record.seq)
        return render(record, amended, self.state.record)

    def entries(self, owner: User, after: int, limit: int, max_bytes: int) -> list[tuple[int, Entry]]:
        """See `interface.Engine`."""
        found = self.state.items(owner, after, limit)
        cache = self._entries
        if len(cache) + len(found) > MAX_ENTRIES:
            cache.clear()  # now, since what is looked up below must stay until it is used
        missing = [abs(lsn) for _, lsn in found if abs(lsn) not in cache]
        records = self.state.records(missing) if missing else {}
        amended = self.state.amended_of(records)
        result: list[tuple[int, Entry]] = []
        expected = after + 1
        for pos, lsn in found:
            if pos > expected:
                result.append((pos - 1, void_entry("retention", expected)))
            expected = pos + 1
            if lsn < 0:
                entry = void_entry("replaced")
            elif lsn in cache:
                entry = cache[lsn]
            else:
                record = records.get(lsn)
                if record is None:
                    entry = void_entry("retention")
                else:
                    entry = render(record, amended.get(lsn), self.state.record)
                    if entry.size < 2048:
                        cache[lsn] = entry
            result.append((pos, entry))
            max_bytes -= entry.size
            if max_bytes < 0:
                break
        else:
            if len(found) < limit and expected <= owner.head:
                result.append((owner.head, void_entry("retention", expected)))
        return result[:limit]

    def connected(self, conv: Conv) -> list[str]:
        """The present members with a connected device; of large groups nobody."""
        if len(conv.members) > RECEIPT_MEMBERS:
            return []
        online = self.online
        return [name for name, member in conv.members.items() if member.active and name in online]

    def close(self) -> None:
        """Everything is flushed, as far as the disk lets it, and the files are closed."""
        try:
            self.flush()
        except ERRORS as error:
            logger.warning("store: the projections were not written (%s); they will be replayed at the next start", error)
        self._log_db.close()
        self._projection_db.close()
