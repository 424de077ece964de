"""Jobs: what the event loop asks of the ledger's thread and of the reader's.

A job is handed in with `Ledger.submit` and comes back to the loop by its `done`; those of one user in the order in which they
were handed in. In between the ledger calls `prepare` before the commit, where a job may append records, and `finish` after it,
where it may read; `refusal` is set where it was refused or the commit failed. A job that only reads (`reads.py`) is done by the
reader's thread, after what its user had handed in before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core import rules
from mqtt_im.core.records import MESSAGES, Act, Cursors, DeviceChange, ReadMark
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.own import grown, registration
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

    __slots__ = ("commits", "receipts", "refusal", "seconds")

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.commits: list[Commit] | None = None
        self.receipts: list[Receipt] | None = None
        self.seconds = 0.0
        """Of its thread's time, so far."""

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
        self.who = who
        self.request = request
        self.notify = notify
        self.decision: rules.Decision | None = None
        self.device_state: DeviceState | None = None

    @property
    def patient(self) -> bool:
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
            engine.at_hand(self.who.user, group, names)

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


class AttachJob(Job):
    """A device begins its delivery; it is registered where it was not.

    `blind`: its session is resumed, and this server does not know what was in flight. Then, where a former server had left
    something unacknowledged, `sent_upto` is the last item committed before this one started, which may have been sent
    (MQTT-3.3.1-1); else 0.
    """

    __slots__ = ("blind", "more", "notify", "pulled", "sent_upto", "state", "was_exposed", "who")

    def __init__(self, who: Who, notify: Callable[[AttachJob], None], blind: bool = False) -> None:
        super().__init__()
        self.who = who
        self.notify = notify
        self.blind = blind
        self.sent_upto = 0
        self.was_exposed = True
        """Whether something was in flight before this delivery began (`core.model.Device.exposed`), or that is not known."""
        self.state: DeviceState | None = None
        self.pulled = self.more = False
        """Whether something of large groups has come to the inbox with it, and whether there is more to come."""

    @property
    def patient(self) -> bool:
        """See `Job`."""
        return False

    def line(self) -> str:
        """See `Job`."""
        return self.who.user

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        wanted.actors.add(self.who.user)
        wanted.devices.add(self.who.user)
        wanted.whole.add(self.who.user)

    def prepare(self, engine: Engine) -> None:
        """See `Job`."""
        self.who.now, self.who.behind = engine.now, engine.behind
        device = engine.state.device(self.who.user, self.who.device)
        if device is None:
            self.was_exposed = False
            engine.pull_all(self.who.user)  # it begins at the head
            record = registration(engine.state, engine.limits, self.who)
            record.exposed = True
        else:
            self.was_exposed = device.exposed
            record = DeviceChange(engine.now, device.user, device.device, exposed=True, behind=engine.behind)
        # On disk before anything is offered, so that a server that is started later knows that something may have been; or where
        # nothing can be committed, before anything that was offered could be replaced.
        engine.append_soon(self, record)

    def finish(self, engine: Engine) -> None:
        """See `Job`."""
        state = DeviceState.read(engine, self.who.user, self.who.device)
        came, more = engine.pulled([self.who.user])
        self.pulled, self.more = bool(came), bool(more)
        if self.blind and (upto := engine.offered_upto(self.who.user, self.who.device)):
            self.sent_upto = _newest_upto(engine, self.who.user, state, upto)
        self.state = state  # last: where something of that could not be read, nothing is known

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)


def _newest_upto(engine: Engine, user: str, state: DeviceState, upto: int) -> int:
    """The last item of an inbox that is no later than this log row."""
    owner = engine.state.user(user)
    low, high = state.cursor, state.head
    if not engine.state.in_log_order(owner):
        found = engine.state.items(owner, low, high - low)
        return max((pos for pos, lsn in found if abs(lsn) <= upto), default=low)
    while low < high:
        middle = (low + high + 1) // 2
        found = engine.state.items(owner, middle - 1, 1)
        if found and found[0][0] == middle and abs(found[0][1]) > upto:
            high = middle - 1
        else:
            low = middle
    return low


class CursorsJob(Job):
    """Cursors that PUBACKs have moved: `[user, device, pos, [conv, seq, …]]` each. Nobody waits for them.

    `left`: user and device of those that have gone, and whether they had acknowledged all that they were offered.
    """

    __slots__ = ("left", "moves", "notify")

    def __init__(
        self,
        moves: list[tuple[str, str, int, list[Any]]],
        notify: Callable[[CursorsJob], None],
        left: Sequence[tuple[str, str, bool]] = (),
    ) -> None:
        super().__init__()
        self.moves = moves
        self.notify = notify
        self.left = left

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        users = [*(user for user, _, _, _ in self.moves), *(user for user, _, _ in self.left)]
        wanted.actors.update(users)
        wanted.devices.update(users)
        for _, _, _, marks in self.moves:
            for name in marks[::2]:
                wanted.conv(name)

    def prepare(self, engine: Engine) -> None:
        """See `Job`."""
        state = engine.state
        moves = [
            (user, device, cursor, grown(state, user, marks) if marks else marks)
            for user, device, cursor, marks in self.moves
            if engine.delivers(user, device)  # one that was forgotten meanwhile stays forgotten
        ]
        if moves:
            engine.append(self, Cursors(engine.now, moves, engine.behind))
        for user, device, settled in self.left:
            if engine.delivers(user, device):
                exposed = False if settled else None
                engine.append(self, DeviceChange(engine.now, user, device, exposed=exposed, behind=engine.behind))

    def finish(self, engine: Engine) -> None:
        """See `Job`."""
        tell(engine, self)

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)


class PullJob(Job):
    """These users' inboxes have what large groups have told their members, or a page of it."""

    __slots__ = ("more", "notify", "told", "turn", "users")

    TOLD = 4
    """Of what has come to one inbox so many items are told as they are; the rest is looked up by who delivers it."""

    def __init__(self, users: Sequence[str], turn: str, notify: Callable[[PullJob], None]) -> None:
        """It is done in the turn of whatever `turn` names."""
        super().__init__()
        self.users = users
        self.turn = turn
        self.notify = notify
        self.told: list[Commit] = []
        """What has come, and to whom; `entry` is None where that is to be looked up."""
        self.more: list[str] = []
        """Who of them has more to take."""

    def line(self) -> str:
        """See `Job`."""
        return self.turn

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        wanted.users.update(self.users)
        wanted.whole.update(self.users)

    def finish(self, engine: Engine) -> None:
        """See `Job`."""
        came, self.more = engine.pulled(self.users)
        to: dict[int, list[tuple[str, int]]] = {}
        for user, items in came.items():
            for pos, lsn in items[-self.TOLD :]:
                if lsn > 0:  # else a later one has replaced it, which is behind it
                    to.setdefault(lsn, []).append((user, pos))
        records = engine.state.records(list(to)) if to else {}
        for lsn in sorted(to):
            if (record := records.get(lsn)) is not None:
                commit = Commit(lsn, record)
                commit.to, commit.entry = to[lsn], engine.entry(record)
                self.told.append(commit)

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)


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
