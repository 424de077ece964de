"""What the jobs of a batch will ask for, told before it begins: so that a store that is shared can lock and read it at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.names import direct, members_of_direct

Asked = tuple[str, str | None, str | None, Sequence[str]]
"""Who asks, the request's `id`, to whom it writes, and others whom it names, where they are many."""


class Asking(Protocol):
    """A job before it is prepared."""

    def asks(self) -> Asked | None:
        """See `jobs.job.Job`."""

    def wants(self, wanted: Wanted) -> None:
        """See `jobs.job.Job`."""


class Wanted:
    """By name. What is missing here is found out later, at the price of beginning the batch anew (`interface.Anew`)."""

    def __init__(self) -> None:
        self.actors: set[str] = set()
        """Users who do something; they are made where they have left no trace yet."""
        self.users: set[str] = set()
        """Others who may be changed, as far as they have an account."""
        self.directs: set[tuple[str, str]] = set()
        """Direct conversations, by their two users in the order of its name."""
        self.groups: set[str] = set()
        """Groups of which something is asked."""
        self.told: set[str] = set()
        """Groups of which every member is to get something."""
        self.made: set[str] = set()
        """Groups that may be made."""
        self.whole: set[str] = set()
        """Users whose inboxes are to have what large groups have told."""
        self.devices: set[str] = set()
        """Users whose devices are asked for."""
        self.ids: set[tuple[str, str]] = set()
        """Users and the `id` of a request of theirs."""

    @property
    def size(self) -> int:
        """How much is wanted."""
        names = self.actors, self.users, self.groups, self.told, self.made, self.devices, self.whole
        return len(self.directs) + len(self.ids) + sum(len(some) for some in names)

    def conv(self, name: str, told: bool = False) -> None:
        """A conversation; `told` where its members get something."""
        if name[:1] == "#":
            (self.told if told else self.groups).add(name)
            return
        pair = members_of_direct(name)
        if pair is not None:
            self.pair(*pair)

    def pair(self, a: str, b: str) -> None:
        """The direct conversation of two users."""
        self.users.update((a, b))
        self.directs.add((a, b) if a <= b else (b, a))

    def request(self, who: Who, request: rq.Request) -> None:
        """What a request asks for."""
        user = who.user
        self.actors.add(user)
        if request.id is not None:
            self.ids.add((user, request.id))
        if isinstance(request, rq.Counted) and request.n is not None:
            self.devices.add(user)
        match request:
            case rq.Send():
                if request.to[0] == "#":
                    self.told.add(request.to)
                else:
                    self.pair(user, request.to)
                if request.key is not None:
                    self.devices.update((user, request.to))
            case rq.Edit() | rq.Recall() | rq.React():
                self._own(user, request.conv, told=True)
            case rq.Report() | rq.Read() | rq.Mute():
                self._own(user, request.conv)
            case rq.GroupCreate():
                name = request.group or f"#{who.token}"
                self.made.add(name)
                self.told.add(name)
                self.users.update(request.members)
            case rq.GroupAdd() | rq.GroupRemove():
                self.told.add(request.group)
                self.users.update(request.members)
            case rq.GroupRequest():
                self.told.add(request.group)
            case rq.Hello():
                self.devices.add(user)
                self.whole.add(user)
            case rq.Ack() | rq.DeviceForget():
                self.devices.add(user)

    def _own(self, user: str, name: str, told: bool = False) -> None:
        """One of the user's conversations; where it is another's the request is refused whatever is in it."""
        if name[:1] == "#" or name in (direct(user, other) for other in name.split(":", 1)):
            self.conv(name, told)
