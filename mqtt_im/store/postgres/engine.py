"""The engine: PostgreSQL at work for the ledger. Lives in the ledger's thread; knows of no loop.

A batch is one transaction in two round trips. `prefetch` opens it, locks what the jobs will change and reads what they will
ask; rules and records work on that in memory; `commit` writes everything, asks whether this node is still one (the fence), and
commits. Nothing is kept in memory from one batch to the next, since other nodes write too.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, cast

import msgspec

from mqtt_im.clock import Mark
from mqtt_im.core.gone import without_content
from mqtt_im.core.model import FOREVER
from mqtt_im.core.records import Act, AnyRecord, Cursors, DeviceChange, Edited, Message, Recalled, encode
from mqtt_im.core.rules.files import files_of
from mqtt_im.postgres import meta
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.nodes import Me
from mqtt_im.store.commits import Author, Commit
from mqtt_im.store.common.rendering import Rendering, Showing
from mqtt_im.store.common.retaining import Compactor
from mqtt_im.store.common.scrubbing import scrubbed
from mqtt_im.store.given import Given
from mqtt_im.store.policy import Ended, Policy
from mqtt_im.store.wanted import Asking, Wanted

from . import schema, tables
from .addressing import Addressing, Wake
from .committing import Line, connect
from .errors import ERRORS, Lost
from .large import MEMBERS, SINCE
from .node import Inherited
from .reading import Changes, Reading
from .retention import ELSEWHERE_S, Host, Pass
from .state import Work
from .wire import Link, Step
from .writes import forgotten, steps

ABOUT_MS: Final = 1000
"""What is so little apart counts as the same time."""


class Engine(Showing):
    """Implements `interface.Store`."""

    errors = ERRORS
    alone = False
    emptied = True
    crowded = False
    gathers_s = 0.0005

    def members_of(self, group: str) -> int:
        """See `interface.Store`: nothing is kept in memory."""
        return 0

    def __init__(
        self,
        database: Database,
        me: Me,
        given: Given,
        wake: Wake,
        own_clock: bool,
        most_at_once: int = MEMBERS,
    ) -> None:
        """`me` is this node, which is registered or will be before the first batch.

        `wake` is told what other nodes and the loop are to know of each commit (`Addressing`). With `own_clock` time is what the
        ledger says, not the database's. A group with more than `most_at_once` members becomes large (`large`).
        """
        self.limits = given.limits
        self.online = given.online
        self.now = self.behind = self.ahead = 0
        self.last = 0
        self.changes = Changes()
        self._database = database
        self._given = given
        self._claim, self._unclaim = given.claim, given.unclaim
        self._uploads = given.uploads
        self._own_clock = own_clock
        self._taken: list[tuple[str, int]] = []
        """Items that the batch has taken back."""
        self._rewrites: dict[int, bytes] = {}
        self._addressing = Addressing(wake)
        self._began = False
        self._wanted: Wanted | None = None
        """What the batch has asked for, until it is committed or has failed."""
        self._wanted_size = 0
        self.weight = 0
        connection = connect(database)
        found = meta.prepare(database, connection, schema.DDL)
        me.epoch = found.epoch
        self._me = me
        me.schema = found.schema
        self._most_at_once = most_at_once
        self._line = Line(database, connection, me)
        self._compactor = Compactor[Host](Pass, ELSEWHERE_S)
        self.loaded_upto: int = self.link.one(tables.NEWEST)[0][0]
        self.cut_off = self._line.fence.cut_off(self.link)
        self._inherited = Inherited()
        self.mark = None if own_clock else self._mark()
        self._open()

    @property
    def epoch(self) -> str:
        """See `interface.Store`."""
        return self._me.epoch

    def _mark(self) -> bytes:
        """By which this node's steady time goes on from the database's clock, which is the steady time of all nodes."""
        began = time.time()
        now: int = self.link.one(tables.CLOCK)[0][0]
        return msgspec.json.encode(Mark(now, int((began + time.time()) * 500), 0, "", shared=True))

    def keep_mark(self, mark: bytes) -> None:
        """See `interface.Store`: the database's clock goes on by itself."""

    def _open(self) -> None:
        self.state = Work(
            self.link,
            self._line.fence,
            self._given.has_account,
            self._take_back,
            self._uploads.find,
            self.loaded_upto,
            self.cut_off,
            self._inherited,
            lambda: self._most_at_once if self._me.schema >= SINCE else FOREVER,
        )
        self.rendering = Rendering(self.state)

    def pull_all(self, user: str) -> None:
        """See `interface.Engine`."""
        self.state.telling.pull_all(user)

    def pulled(self, users: Iterable[str]) -> tuple[dict[str, list[tuple[int, int]]], list[str]]:
        """See `interface.Engine`."""
        came, short = self.state.telling.came, self.state.telling.short
        return {user: came[user] for user in users if user in came}, [user for user in users if user in short]

    def load(self) -> None:
        """See `interface.Store`."""
        self._end()
        if self.link.lost:
            self._line.renew()
            self._open()
        self.link.roll_back()
        self.state.forget()
        self.state.deciding = False
        for user, pos in self._taken:
            self._release(user, pos)
        self._taken.clear()

    def _end(self) -> None:
        """No batch is under way, and of the last one nothing is left."""
        self._over()
        self._uploads.rollback()

    def _send(self, found: list[Step]) -> None:
        """See `Line`."""
        try:
            self._line.send(found)
        finally:
            self.state.link = self.link

    def _over(self) -> None:
        self._began = False
        self._wanted = None
        self._rewrites.clear()
        self._addressing.forget()
        self.weight = 0

    # A batch.

    @property
    def changing(self) -> contextlib.AbstractContextManager[object]:
        """See `interface.Store`: nothing in memory is looked at by others."""
        return contextlib.nullcontext()

    def prefetch(self, batch: Sequence[Asking]) -> None:
        """See `interface.Store`."""
        wanted = self._wanted
        if wanted is None:
            wanted = Wanted()
            for job in batch:
                job.wants(wanted)
            size = 0
        else:
            size = self._wanted_size
        self._end()
        self._undo()
        self._line.fence.begin()
        self._wanted = wanted
        self._wanted_size = wanted.size
        assert size < self._wanted_size or not size, "a batch is decided anew, and nothing was missing"
        self._began = True
        if not (wanted.actors or wanted.users or wanted.groups or wanted.told):
            self.state.begin_nothing(wanted)
            return
        self._begin(wanted)

    def _begin(self, wanted: Wanted) -> None:
        try:
            self.state.begin(wanted)
        except Lost:
            # Nothing was done yet; where the database was only restarted, nobody has to know.
            self._line.renew()
            self._open()
            self.state.begin(wanted)
        state = self.state
        self.last = state.last
        self.rendering.forget()
        if self._own_clock:
            self.now = max(self.now, state.newest_time)
            return
        # Of all nodes' clocks none is better than another; the database's is one for all of them.
        self.now = max(state.clock, state.newest_time)
        behind = self.now - state.clock
        self.behind = behind if behind > ABOUT_MS else 0
        self.ahead = 0

    def offered_upto(self, user: str, device: str) -> int:
        """See `interface.Engine`."""
        if (user, device) in self.state.moved:
            return self.last  # the other server may have offered all that there is
        return self.loaded_upto if (user, device) in self.cut_off else 0

    def delivers(self, user: str, device: str) -> bool:
        """See `interface.Engine`."""
        return self.state.device(user, device) is not None and self.state.is_here(user, device)

    def left(self, user: str, device: str) -> None:
        """See `interface.Engine`."""
        self.state.left(user, device)

    def append(self, author: Author, record: AnyRecord) -> None:
        """See `interface.Engine`."""
        state = self.state
        if type(record) is Recalled or type(record) is Edited:
            self._scrub(record)
        elif type(record) is Message and record.extra is not None and "files" in record.extra:
            self._uploads.carry(files_of(record), record.conv, record.seq)
        self.last = lsn = state.next_lsn()
        self.now = max(self.now, record.ts)
        taken = state.take(lsn, record)
        commit = Commit(lsn, record)
        if taken is None:
            self.weight += 10
        else:
            act, (conv, names) = cast("Act", record), taken
            self.weight += 10 + len(names) + (len(getattr(record, "body", None) or b"") >> 10)
            self._addressing.note(commit, act, conv, names, self.online)
            commit.address(names, act.pos, self.online)
        if author.commits is None:
            author.commits = [commit]
        else:
            author.commits.append(commit)

    def append_soon(self, author: Author, record: DeviceChange | Cursors) -> None:
        """See `interface.Engine`."""
        self.append(author, record)

    def _scrub(self, act: Recalled | Edited) -> None:
        """The content of a recalled message is gone, from its row and from that of its last edit, with the same commit."""
        state = self.state
        for lsn, record in scrubbed(state, act, state.record, self._uploads):
            gone = without_content(record)
            if not state.replace_record(lsn, gone):
                self._rewrites[lsn] = encode(gone)

    def commit(self) -> None:
        """See `interface.Store`."""
        state = self.state
        if not self._began or not state.has_changes:
            self._end()
            state.committed()
            self.link.roll_back()
            return
        self._uploads.commit()
        self._send([*steps(state, self._rewrites), *forgotten(list(self._rewrites))])
        self.changes.note(state)
        state.committed()
        self._taken.clear()
        self._addressing.tell(list(state.telling.replaced))
        self._over()

    def _take_back(self, user: str, pos: int) -> bool:
        taken = self._claim(user, pos)
        if taken:
            self._taken.append((user, pos))
        return taken

    def _undo(self) -> None:
        """What was taken back by a batch that is decided anew may be offered again."""
        for user, pos in self._taken:
            self._unclaim(user, pos)
        self._taken.clear()

    def _release(self, user: str, pos: int) -> None:
        """What was taken back by a batch that has failed may be offered again, unless it was committed after all.

        What it had made itself may too: there is no such item, but another one will have its number.
        """
        found = self.state.items(self.state.user(user), pos - 1, 1)
        if not found or found[0][0] != pos or found[0][1] > 0:
            self._unclaim(user, pos)

    def probe(self) -> None:
        """See `interface.Engine`."""
        if self.link.lost:
            self.load()
        self._line.probe()

    # Beside the batches.

    def mends(self, error: Exception) -> bool:
        """See `interface.Store`: damage is for PostgreSQL's own tools."""
        return False

    @property
    def mended(self) -> bool:
        """See `interface.Store`."""
        return False

    def replace(self) -> None:
        """See `interface.Store`."""

    def side_work(self, jobs: int, waiting: Callable[[], bool] = lambda: False) -> None:
        """See `interface.Store`."""
        self._compactor.work(self, busy=jobs > 0)

    def pause(self) -> float | None:
        """See `interface.Store`."""
        return self._compactor.pause()

    @property
    def link(self) -> Link:
        """See `retention.Host`."""
        return self._line.link

    def lock(self, wanted: Wanted) -> None:
        """See `retention.Host`."""
        self._line.fence.begin()
        self.state.begin(wanted)
        self.state.deciding = False  # what is asked beyond that is not changed

    def write(self, more: list[Step]) -> None:
        """See `retention.Host`."""
        found = [*more, *steps(self.state, {})]
        if found:
            self._send(found)
            self.changes.note(self.state)
        else:
            self.link.roll_back()

    def reading(self) -> Reading:
        """See `interface.Store`."""
        return Reading(self._database, self.changes, self._given, self._own_clock)

    def retain(self, policy: Policy, now: int, ended: Ended) -> None:
        """See `interface.Store`."""
        self._compactor.ask(policy, now, ended)

    def abandon(self, reason: str) -> None:
        """See `interface.Store`."""
        self._compactor.fail(reason)

    def close(self) -> None:
        """See `interface.Store`."""
        self._compactor.stop()
        self.link.close()
