"""Jobs of deliveries: one begins, cursors have moved, and what large groups have told comes into inboxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mqtt_im.core.records import Cursors, DeviceChange
from mqtt_im.core.rules import Who
from mqtt_im.core.rules.own import grown, registration
from mqtt_im.store.commits import Commit
from mqtt_im.store.wanted import Wanted

from .devices import DeviceState
from .job import Job
from .telling import tell

if TYPE_CHECKING:
    from mqtt_im.store.interface import Engine


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

    `left`: user and device of those that have gone, and whether they had acknowledged all that they were offered. `lazy`: nothing
    that is handed in next hangs on it.
    """

    __slots__ = ("_lazy", "left", "moves", "notify")

    def __init__(
        self,
        moves: list[tuple[str, str, int, list[Any]]],
        notify: Callable[[CursorsJob], None],
        left: Sequence[tuple[str, str, bool]] = (),
        lazy: bool = False,
    ) -> None:
        super().__init__()
        self.moves = moves
        self.notify = notify
        self.left = left
        self._lazy = lazy

    @property
    def lazy(self) -> bool:
        """See `Job`."""
        return self._lazy

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
                if not settled:
                    engine.left(user, device)

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
