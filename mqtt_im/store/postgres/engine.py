"""The engine: PostgreSQL at work for the ledger. Lives in the ledger's thread; knows of no loop.

A batch is one transaction in two round trips. `prefetch` opens it, locks what the jobs will change and reads what they will
ask; rules and records work on that in memory; `commit` writes everything, asks whether this node is still one (the fence), and
commits. Nothing is kept in memory from one batch to the next, since other nodes write too.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

import msgspec
import psycopg

from mqtt_im.clock import Mark
from mqtt_im.core.gone import without_content
from mqtt_im.core.model import FOREVER, former_readers
from mqtt_im.core.records import AMENDMENTS, Act, AnyRecord, Cursors, DeviceChange, Edited, GroupChange, Message, Recalled, encode
from mqtt_im.core.rules import Limits
from mqtt_im.core.rules.common import own_pos
from mqtt_im.core.rules.files import files_of
from mqtt_im.postgres import meta
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.nodes import Me
from mqtt_im.protocol.errors import InDoubt
from mqtt_im.store.commits import Author, Commit
from mqtt_im.store.interface import RECEIPT_MEMBERS
from mqtt_im.store.policy import Ended, Policy
from mqtt_im.store.rendering import Rendering, Showing
from mqtt_im.store.retaining import Compactor
from mqtt_im.store.uploads import Uploads
from mqtt_im.store.wanted import Asking, Wanted

from . import schema, tables
from .errors import ERRORS, Fenced, Lost
from .large import MEMBERS, SINCE
from .node import Fence, Inherited
from .reading import Changes, Reading
from .retention import ELSEWHERE_S, Host, Pass
from .state import Work
from .wire import BEGIN, COMMIT, PLANNING, ROLLBACK, Link, Statement, Step
from .writes import forgotten, steps

ABOUT_MS: Final = 1000
"""What is so little apart counts as the same time."""
MANY: Final = 100
"""A record with more recipients than that is shortened in memory once it is committed."""
ASK_S: Final = 5.0
"""So long it is tried to find out whether a batch was committed with which the connection was lost."""
AGAIN_S: Final = 0.2
PATIENCE_S: Final = 8.0
"""So long an answer may take. The locks of a node that stands still are taken back before."""
_PROBE: Final = Statement("UPDATE node SET batch = batch WHERE incarnation = $1 RETURNING 1", "i")

logger = logging.getLogger(__name__)

Wake = Callable[[list[str], list[str]], None]


class Engine(Showing):
    """Implements `interface.Store`."""

    errors = ERRORS
    alone = False
    crowded = False

    def members_of(self, group: str) -> int:
        """See `interface.Store`: nothing is kept in memory."""
        return 0

    def __init__(
        self,
        database: Database,
        me: Me,
        limits: Limits,
        has_account: Callable[[str], bool],
        claim: Callable[[str, int], bool],
        unclaim: Callable[[str, int], None],
        online: Container[str],
        uploads: Uploads,
        wake: Wake,
        own_clock: bool,
        most_at_once: int = MEMBERS,
    ) -> None:
        """`me` is this node, which is registered or will be before the first batch.

        `wake` is told, after each commit, the users and the groups of whom other nodes may have devices. With `own_clock` time is
        what the ledger says, not the database's. A group with more than `most_at_once` members becomes large (`large`).
        """
        self.limits = limits
        self.online = online
        self.now = self.behind = self.ahead = 0
        self.last = 0
        self.changes = Changes()
        self._database = database
        self._wake = wake
        self._has_account = has_account
        self._claim, self._unclaim = claim, unclaim
        self._uploads = uploads
        self._own_clock = own_clock
        self._taken: list[tuple[str, int]] = []
        """Items that the batch has taken back."""
        self._rewrites: dict[int, bytes] = {}
        self._large: list[Act] = []
        self._users: dict[str, None] = {}
        self._groups: dict[str, None] = {}
        """Who gets something with the batch; of large groups only their names."""
        self._began = False
        self._wanted: Wanted | None = None
        """What the batch has asked for, until it is committed or has failed."""
        self._wanted_size = 0
        self.weight = 0
        self._full = False
        """The database had no room for a batch."""
        connection = self._connect()
        found = meta.prepare(database, connection, schema.DDL)
        me.epoch = found.epoch
        self._me = me
        self._most_at_once = most_at_once if found.schema >= SINCE else FOREVER
        self._link = Link(connection)
        self._fence = Fence(me)
        self._compactor = Compactor[Host](Pass, ELSEWHERE_S)
        self.loaded_upto: int = self._link.one(tables.NEWEST)[0][0]
        self.cut_off = self._fence.cut_off(self._link)
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
        now: int = self._link.one(tables.CLOCK)[0][0]
        return msgspec.json.encode(Mark(now, int((began + time.time()) * 500), 0, ""))

    def keep_mark(self, mark: bytes) -> None:
        """See `interface.Store`: the database's clock goes on by itself."""

    def _connect(self) -> Connection:
        connection = self._database.connect("ledger", patience_s=PATIENCE_S)
        connection.execute(PLANNING)
        return connection

    def _open(self) -> None:
        self.state = Work(
            self._link,
            self._fence,
            self._has_account,
            self._take_back,
            self._uploads.find,
            self.loaded_upto,
            self.cut_off,
            self._inherited,
            self._most_at_once,
        )
        self.rendering = Rendering(self.state)

    def pull_all(self, user: str) -> None:
        """See `interface.Engine`."""
        self.state.pull_all(self.state.user(user))

    def pulled(self, users: Iterable[str]) -> tuple[dict[str, list[tuple[int, int]]], list[str]]:
        """See `interface.Engine`."""
        came, short = self.state.came, self.state.short
        return {user: came[user] for user in users if user in came}, [user for user in users if user in short]

    def load(self) -> None:
        """See `interface.Store`."""
        self._end()
        if self._link.lost:
            self._link = Link(self._connect())
            self._open()
        self._link.roll_back()
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
        """These are done and committed, if this node is still one. Raises `InDoubt` where that can't be found out."""
        try:
            self._link.run(*found, self._fence.next(), Step(COMMIT))
        except Lost as error:
            if not self._was_committed(error):
                raise
        except psycopg.errors.DivisionByZero as error:
            raise Fenced("this node was declared dead by another one") from error
        except psycopg.errors.DiskFull:
            self._full = True
            raise

    def _over(self) -> None:
        self._began = False
        self._wanted = None
        self._rewrites.clear()
        self._large.clear()
        self._users.clear()
        self._groups.clear()
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
        self._fence.begin()
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
            self._link = Link(self._connect())
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

    def append(self, author: Author, record: AnyRecord) -> None:
        """See `interface.Engine`."""
        state = self.state
        if type(record) is Recalled or type(record) is Edited:
            self._scrub(record)
        elif type(record) is Message and record.extra is not None and "files" in record.extra:
            self._uploads.carry(files_of(record), record.conv, record.seq)
        self.last = lsn = state.next_lsn()
        self.now = max(self.now, record.ts)
        names = state.take(lsn, record)
        self.weight += 10
        commit = Commit(lsn, record)
        if names is not None and isinstance(record, Act):
            self.weight += len(names) + (len(getattr(record, "body", None) or b"") >> 10)
            if len(names) > MANY:
                self._large.append(record)
            conv = state.conv_for(record.conv)
            if conv.large:
                commit.members = conv.size
                self._groups[record.conv] = None
            elif isinstance(record, AMENDMENTS):
                # They are told nothing, on no node, and may still have in hand what was before.
                former = former_readers(conv, record.seq)
                commit.former = [name for name in former if name in self.online]
                self._users.update(dict.fromkeys(former))
            if len(names) > RECEIPT_MEMBERS:
                self._groups[record.conv] = None
            else:
                self._users.update(dict.fromkeys(names))
            commit.address(names, record.pos, self.online)
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
        conv = state.conv_for(act.conv)
        amended = state.amended(conv, act.seq)
        lsns: list[int | None] = [] if amended is None else [amended.edited]
        if type(act) is Recalled:
            lsns.append(state.message_lsn(conv, act.seq))
        for lsn in lsns:
            record = state.record(lsn) if lsn is not None else None
            if lsn is None or not isinstance(record, Message | Edited) or record.body is None:
                continue
            if isinstance(record, Message):
                self._uploads.released(files_of(record))
            gone = without_content(record)
            if not state.replace_record(lsn, gone):
                self._rewrites[lsn] = encode(gone)

    def commit(self) -> None:
        """See `interface.Store`."""
        state = self.state
        if not self._began or not state.has_changes:
            self._end()
            state.committed()
            self._link.roll_back()
            return
        self._uploads.commit()
        self._send([*steps(state, self._rewrites), *forgotten(list(self._rewrites))])
        self.changes.note(state)
        state.committed()
        self._taken.clear()
        if self._users or self._groups:
            self._wake(list(self._users), list(self._groups))
        for record in self._large:
            shorten(record)
        self._over()

    def _was_committed(self, error: Lost) -> bool:
        """Whether the batch with which the connection was lost is there. The node's row, which it had locked, says so.

        Raises `InDoubt` where nobody could be asked, or the row is gone, since this node was declared dead meanwhile.
        """
        deadline = time.monotonic() + ASK_S
        while time.monotonic() < deadline:
            link = None
            try:
                link = Link(self._connect())
                there = self._fence.committed(link)
            except ERRORS as why:
                if link is not None:
                    link.close()
                if isinstance(why, Fenced):
                    raise InDoubt(f"{error}, and {why}; its last batch may be there or not") from why
                time.sleep(AGAIN_S)
                continue
            self._link = self.state.link = link
            logger.warning("store: %s; its last batch %s", error, "is there" if there else "is not there")
            return there
        raise InDoubt(f"{error}; its last batch may be there or not")

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
        """What was taken back by a batch that has failed may be offered again, unless it was committed after all."""
        found = self.state.items(self.state.user(user), pos - 1, 1)
        if found and found[0][0] == pos and found[0][1] > 0:
            self._unclaim(user, pos)

    def probe(self) -> None:
        """See `interface.Engine`."""
        if self._link.lost:
            self.load()
        self._link.roll_back()
        self._fence.begin()
        if not self._link.one(_PROBE, self._fence.server):
            raise Fenced("this node was declared dead by another one")
        if self._full:  # something small always fits in somewhere
            self._link.run(Step(BEGIN), Step(tables.ROOM), Step(ROLLBACK))
            self._full = False

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

    def side_work(self, jobs: int) -> None:
        """See `interface.Store`."""
        self._compactor.work(self, busy=jobs > 0)

    def pause(self) -> float | None:
        """See `interface.Store`."""
        return self._compactor.pause()

    @property
    def link(self) -> Link:
        """See `retention.Host`."""
        return self._link

    def lock(self, wanted: Wanted) -> None:
        """See `retention.Host`."""
        self._fence.begin()
        self.state.begin(wanted)
        self.state.deciding = False  # what is asked beyond that is not changed

    def write(self, more: list[Step]) -> None:
        """See `retention.Host`."""
        found = [*more, *steps(self.state, {})]
        if found:
            self._send(found)
            self.changes.note(self.state)
        else:
            self._link.roll_back()

    def reading(self) -> Reading:
        """See `interface.Store`."""
        return Reading(self._database, self.changes, self._has_account, self._uploads, self.limits, self.online, self._own_clock)

    def retain(self, policy: Policy, now: int, ended: Ended) -> None:
        """See `interface.Store`."""
        self._compactor.ask(policy, now, ended)

    def abandon(self, reason: str) -> None:
        """See `interface.Store`."""
        self._compactor.fail(reason)

    def close(self) -> None:
        """See `interface.Store`."""
        self._compactor.stop()
        self._link.close()


def shorten(record: Act) -> None:
    """Whoever is told of the record holds it for a while, and needs none of the numbers but its author's own."""
    record.pos = [own_pos(record, record.by)] if isinstance(record, Message) else []
    if isinstance(record, GroupChange):
        record.users = []
