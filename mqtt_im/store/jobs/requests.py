"""Jobs of requests that may change something."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mqtt_im.compiling import mypyc_attr
from mqtt_im.core import rules
from mqtt_im.core.rules import Who
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
from mqtt_im.store.wanted import Asked, Wanted

from .devices import DeviceState
from .job import Job
from .telling import tell

if TYPE_CHECKING:
    from mqtt_im.store.interface import Engine

_NAMING: Final = (GroupCreate, GroupAdd, GroupRemove)
_TELLING: Final = (Send, Edit, Recall, React, GroupAdd, GroupRemove, GroupRole, GroupRename, GroupLeave)
"""What all members of a group get an item of."""
_STANDING: Final = (Hello, Ack)
"""Where a device says how far it has read: it can be served before that is committed."""


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
