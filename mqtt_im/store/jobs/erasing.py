"""Erasing a user: jobs that are handed in one after the other, each a part of it that takes a few milliseconds.

What nobody else has, notes to oneself and groups that only the user was in, is taken back from disk first (`TakeBackJob`).
Then the conversations are told, some at a time, that whoever has the name next begins anew in them (`EraseJob`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from mqtt_im.core.model import Conv
from mqtt_im.core.records import Erased, Message, Recalled
from mqtt_im.core.usage import size_of
from mqtt_im.protocol.names import direct
from mqtt_im.store.interface import Later
from mqtt_im.store.wanted import Wanted

from .job import Job

if TYPE_CHECKING:
    from mqtt_im.store.interface import Engine, Readable

TAKEN_BACK: Final = 50
"""Messages of one job …"""
LOOKED_AT: Final = 200
"""… of so many that it looks at, since some were recalled before."""
CONVS: Final = 40
"""Conversations of one job."""


class Alone(NamedTuple):
    """A conversation that nobody else was ever in, and from which message to which the user may read it."""

    conv: str
    first: int
    last: int


def conversations(engine: Readable, user: str) -> tuple[list[str], list[Alone]]:
    """All that the user is or was in, and those of them that nobody else was."""
    state = engine.state
    names = state.conv_names(state.user(user))
    own = (state.conv(name) for name in names if name[0] == "#" or name == direct(user, user))
    return names, [Alone(conv.name, _first(conv, user), conv.head) for conv in own if conv is not None and _is_own(conv, user)]


def _is_own(conv: Conv, user: str) -> bool:
    return not conv.group or (conv.size == 0 and list(conv.members) == [user])


def _first(conv: Conv, user: str) -> int:
    return next((first for first, _ in conv.members[user].spans), conv.head + 1)


class TakeBackJob(Job):
    """Messages of a conversation that nobody else was ever in are gone from disk, the first of them and some after it.

    `following` is the one to go on with, behind the last where nothing is left, or somebody has made the group anew.
    """

    __slots__ = ("conv", "first", "following", "last", "notify", "user")

    def __init__(self, user: str, what: Alone, notify: Callable[[TakeBackJob], None]) -> None:
        super().__init__()
        self.user = user
        self.conv, self.first, self.last = what
        self.following = self.first
        self.notify = notify

    def line(self) -> str:
        """See `Job`."""
        return self.user

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        wanted.actors.add(self.user)
        wanted.conv(self.conv, told=True)

    def prepare(self, engine: Engine) -> None:
        """See `Job`."""
        state = engine.state
        conv = state.conv(self.conv)
        self.following, taken = self.first, 0
        for _ in range(LOOKED_AT):
            found = None if conv is None or conv.size else state.nearest_message(conv, self.following, self.last, True)
            if conv is None or found is None:
                self.following = self.last + 1
                return
            record, amended = state.message(conv, found), state.amended(conv, found)
            self.following = found + 1
            if not isinstance(record, Message) or (amended is not None and amended.recalled):
                continue
            freed = size_of(record) + (amended.size if amended is not None else 0)
            pos = [] if conv.group else [state.user(self.user).head + 1]
            engine.append(self, Recalled(engine.now, conv.name, found, self.user, "", None, 0, pos, of=self.user, freed=freed))
            taken += 1
            if taken == TAKEN_BACK:
                return

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)


class EraseJob(Job):
    """A user who has left every group, and has no device any more, has no setting, and begins anew in these conversations.

    But for those that are `left`: large groups come to memory first, one after the other.
    """

    __slots__ = ("convs", "left", "notify", "user")

    def __init__(self, user: str, convs: Sequence[str], notify: Callable[[EraseJob], None]) -> None:
        super().__init__()
        self.user = user
        self.convs = convs
        self.left: Sequence[str] = ()
        self.notify = notify

    def line(self) -> str:
        """See `Job`."""
        return self.user

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        wanted.actors.add(self.user)
        for name in self.convs:
            wanted.conv(name)

    def prepare(self, engine: Engine) -> None:
        """See `Job`."""
        state = engine.state
        self.left = ()
        convs: list[Conv] = []
        for count, name in enumerate(self.convs):
            if (conv := state.conv(name)) is None:
                continue
            try:
                engine.at_hand(self.user, name, brought=self.brought)
                conv.catch_up([self.user])  # whoever has the name next is told nothing of it
            except Later:
                if not convs:
                    raise
                self.left = self.convs[count:]
                break
            convs.append(conv)
        engine.append(self, Erased(engine.now, self.user, [[conv.name, conv.head] for conv in convs]))

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)
