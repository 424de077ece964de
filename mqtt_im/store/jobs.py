"""Jobs: what the event loop asks of the ledger's thread and of the reader's.

A job is handed in with `Ledger.submit` and comes back to the loop by its `done`; those of one user in the order in which they
were handed in. In between the ledger calls `prepare` before the commit, where a job may append records, and `finish` after it,
where it may read; `refusal` is set where it was refused or the commit failed. A job that only reads (`reads.py`) is done by the
reader's thread, after what its user had handed in before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core import rules
from mqtt_im.core.records import MESSAGES, Act, Cursors, DeviceChange, ReadMark
from mqtt_im.core.rules import Who
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.requests import (
    Ack,
    Edit,
    GroupAdd,
    GroupCreate,
    GroupLeave,
    GroupRemove,
    GroupRename,
    GroupRequest,
    GroupRole,
    Hello,
    React,
    Read,
    Recall,
    Request,
    Send,
)

from .commits import Commit, Receipt
from .wanted import Asked, Wanted

if TYPE_CHECKING:
    from .interface import Engine, Readable

T = TypeVar("T")

_NAMING: Final = (GroupCreate, GroupAdd, GroupRemove)
_TELLING: Final = (Send, Edit, Recall, React, GroupAdd, GroupRemove, GroupRole, GroupRename, GroupLeave)
"""What all members of a group get an item of."""
_STANDING: Final = (Hello, Ack)
"""Where a device says how far it has read: it can be served before that is committed."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Job:
    """The parent of all jobs."""

    __slots__ = ("brought", "commits", "receipts", "refusal", "seconds")

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.commits: list[Commit] | None = None
        self.receipts: list[Receipt] | None = None
        self.seconds = 0.0
        """Of its thread's time, so far."""
        self.brought = 0.0
        """What was done for it so far that it has to wait for; see `interface.Later`."""

    def refuse(self, refusal: Refusal) -> None:
        """It is refused.

        Without the traceback, whose frames hold the job and what its connection published before: a chain without an end.
        """
        self.refusal = refusal.with_traceback(None)

    reads: ClassVar[bool] = False
    """Whether it only reads, and so is done by the reader's thread."""

    exact: ClassVar[bool] = False
    """Of one that reads: whether nothing that is told before it may have changed the users it has looked at."""

    @property
    def lazy(self) -> bool:
        """Whether nobody waits for it; see `threads.behind`."""
        return False

    @property
    def passes(self) -> bool:
        """Whether it may be done before lazy jobs that were handed in before it."""
        return False

    @property
    def patient(self) -> bool:
        """Of one that changes something: whether it needs a commit for sure, and so is refused while nothing can be committed."""
        return True

    def line(self) -> str:
        """The user in whose turn it is done; `""` for the server itself, which comes first."""
        return ""

    def recipients(self, members_of: Callable[[str], int]) -> int:
        """About how many it makes an item for, where those are many; `members_of` tells how many a group has."""
        return 0

    def asks(self) -> Asked | None:
        """What `prepare` will look up; None where nothing."""
        return None

    def wants(self, wanted: Wanted) -> None:
        """Say what `prepare` will ask for, for a store that is shared."""

    def prepare(self, engine: Engine) -> None:
        """Append records. Raises `Refusal` before it has appended any."""

    def finish(self, engine: Engine) -> None:
        """Everything appended is on disk; read what is to be told. Raises `Refusal`."""

    def done(self) -> None:
        """On the event loop: it is over."""


@mypyc_attr(allow_interpreted_subclasses=True)
class RequestJob(Job):
    """An uplink request that may change something."""

    __slots__ = ("decision", "device_state", "notify", "request", "who")

    def __init__(self, who: Who, request: Request, notify: Callable[[RequestJob], None]) -> None:
        self.refusal = None
        self.commits = None
        self.receipts = None
        self.seconds = 0.0
        self.brought = 0.0
        self.who = who
        self.request = request
        self.notify = notify
        self.decision: rules.Decision | None = None
        self.device_state: DeviceState | None = None

    @property
    def patient(self) -> bool:
        """See `Job`."""
        return type(self.request) not in _STANDING

    @property
    def passes(self) -> bool:
        """See `Job`."""
        return type(self.request) not in _STANDING

    def line(self) -> str:
        """See `Job`."""
        return self.who.user

    def recipients(self, members_of: Callable[[str], int]) -> int:
        """See `Job`."""
        request = self.request
        named = len(request.members) if isinstance(request, _NAMING) else 0
        if not isinstance(request, _TELLING):
            return named
        name = request.to if isinstance(request, Send) else request.group if isinstance(request, GroupRequest) else request.conv
        return max(named, members_of(name)) if name.startswith("#") else named

    def asks(self) -> Asked | None:
        """See `Job`."""
        request = self.request
        if type(request) is Send:
            return self.who.user, request.id, request.to, ()
        return self.who.user, request.id, None, request.members if isinstance(request, _NAMING) else ()

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        wanted.request(self.who, self.request)

    def prepare(self, engine: Engine) -> None:
        """See `Job`."""
        who = self.who
        who.now, who.behind = engine.now, engine.behind
        if type(self.request) is Hello and engine.state.device(who.user, who.device) is None:
            engine.pull_all(who.user)  # it begins at the head
        if type(self.request) is not Send or self.request.to[0] == "#":
            self._bring(engine)
        self.decision = decision = rules.decide(engine.state, engine.limits, who, self.request)
        records = decision.records
        if type(self.request) in _STANDING:
            for record in records:
                engine.append_soon(self, record)  # type: ignore[arg-type]
            if type(self.request) is Hello:
                # Now, since what else is in the batch comes after it.
                self.device_state = DeviceState.read(engine, who.user, who.device)
            return
        for record in records:
            engine.append(self, record)

    def _bring(self, engine: Engine) -> None:
        """Whom it is about is in memory. Raises `Later`."""
        request, group = self.request, ""
        if isinstance(request, Send):
            group = request.to
        elif isinstance(request, GroupRequest | GroupCreate):
            group = request.group or ""
        elif isinstance(request, Edit | Recall | React) or (isinstance(request, Read) and self._grows(engine, request)):
            group = request.conv
        names = request.members if isinstance(request, _NAMING) else ()
        if group or names:
            engine.at_hand(self.who.user, group, names, self.brought)

    def _grows(self, engine: Engine, request: Read) -> bool:
        """Whether it moves a mark in a group; else nothing is asked of the others."""
        conv = engine.state.conv(request.conv) if request.conv[0] == "#" else None
        part = None if conv is None else conv.part(self.who.user)
        return conv is not None and part is not None and part.read < request.seq <= conv.head

    def finish(self, engine: Engine) -> None:
        """See `Job`."""
        if self.commits is not None:
            tell(engine, self)

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)


class DeviceState:
    """A registered device and its inbox, as of one moment."""

    __slots__ = ("app", "cursor", "floor", "head", "n", "registered")

    def __init__(self, cursor: int, head: int, floor: int, n: int, app: bool, registered: bool) -> None:
        self.cursor = cursor
        self.head = head
        self.floor = floor
        self.n = n
        self.app = app
        self.registered = registered

    @classmethod
    def read(cls, engine: Readable, user: str, device: str) -> DeviceState:
        """The state now."""
        owner = engine.state.user(user)
        found = engine.state.device(user, device)
        if found is None:
            return cls(owner.head, owner.head, owner.lowest, 0, False, False)
        return cls(found.cursor, owner.head, owner.lowest, found.n, found.app, True)


def tell(engine: Engine, job: Job) -> None:
    """Fill in what connected devices are to learn of a job's records: entries, and the receipts that follow from them."""
    for commit in job.commits or ():
        record = commit.record
        if isinstance(record, Act):
            if commit.to:
                if isinstance(record, MESSAGES):
                    commit.entry = engine.fresh_entry(record)
                else:
                    commit.entry = engine.entry(record)
        elif isinstance(record, Cursors):
            for user, _, _, delivered in record.moves:
                _delivered(engine, job, user, delivered)
        elif isinstance(record, DeviceChange):
            _delivered(engine, job, record.user, record.delivered or ())
        elif isinstance(record, ReadMark):
            conv = engine.state.conv_for(record.conv)
            reader = engine.state.user(record.user)
            shown = engine.connected(conv) if reader.read_receipts else [record.user]
            to = [name for name in shown if name not in reader.blocks]
            implied = record.seq if record.seq > conv.members[record.user].delivered else 0  # what was read was delivered
            _add(job, Receipt(record.conv, record.user, implied, record.seq, to))


def _delivered(engine: Engine, job: Job, user: str, pairs: Any) -> None:
    for index in range(0, len(pairs), 2):
        conv = engine.state.conv_for(pairs[index])
        blocks = engine.state.user(user).blocks
        to = [name for name in engine.connected(conv) if name != user and name not in blocks]
        if to:
            _add(job, Receipt(conv.name, user, pairs[index + 1], 0, to))


def _add(job: Job, receipt: Receipt) -> None:
    if job.receipts is None:
        job.receipts = []
    job.receipts.append(receipt)
