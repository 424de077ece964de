"""Erasing a user: a job that is handed in until nothing is left of what nobody else has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mqtt_im.core.model import Conv
from mqtt_im.core.records import Erased, Message, Recalled
from mqtt_im.core.usage import size_of
from mqtt_im.protocol.names import direct

from .jobs import Job
from .wanted import Wanted

if TYPE_CHECKING:
    from .interface import Engine


class EraseJob(Job):
    """A user who has left every group, and has no device any more, is erased: a part of it; `again` says that there is more.

    What nobody else has, notes to oneself and groups that only the user was in, is taken back from disk first, some at a time.
    """

    __slots__ = ("again", "notify", "user")

    PART = 100

    def __init__(self, user: str, notify: Callable[[EraseJob], None]) -> None:
        super().__init__()
        self.user = user
        self.notify = notify
        self.again = False

    def line(self) -> str:
        """See `Job`."""
        return self.user

    def wants(self, wanted: Wanted) -> None:
        """See `Job`."""
        wanted.actors.add(self.user)
        wanted.pair(self.user, self.user)

    def prepare(self, engine: Engine) -> None:
        """See `Job`."""
        state = engine.state
        convs = [conv for name in state.conv_names(state.user(self.user)) if (conv := state.conv(name)) is not None]
        for conv in convs:
            conv.catch_up([self.user])  # whoever has the name next is told nothing of it
        for conv in convs:
            if self._is_own(conv) and self._take_back(engine, conv):
                self.again = True
                return
        engine.append(self, Erased(engine.now, self.user, [[conv.name, conv.head] for conv in convs]))

    def _is_own(self, conv: Conv) -> bool:
        if conv.group:
            return conv.size == 0 and list(conv.members) == [self.user]
        return conv.name == direct(self.user, self.user)

    def _take_back(self, engine: Engine, conv: Conv) -> bool:
        """Whether this part is full."""
        state = engine.state
        seq = next((first for first, _ in conv.members[self.user].spans), conv.head + 1)
        while (found := state.nearest_message(conv, seq, conv.head, True)) is not None:
            record, amended = state.message(conv, found), state.amended(conv, found)
            if isinstance(record, Message) and not (amended is not None and amended.recalled):
                freed = size_of(record) + (amended.size if amended is not None else 0)
                pos = [] if conv.group else [state.user(self.user).head + 1]
                recalled = Recalled(engine.now, conv.name, found, self.user, "", None, 0, pos, of=self.user, freed=freed)
                engine.append(self, recalled)
                if self.commits is not None and len(self.commits) >= self.PART:
                    return True
            seq = found + 1
        return False

    def done(self) -> None:
        """See `Job`."""
        self.notify(self)
