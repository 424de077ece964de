"""What the parts of the bridge know of it, and of each other: `service.py` puts them together, and is imported by none.

Parts call each other in circles: an uplink searches, a search is told over the uplink, and whoever comes is told to others. So
each is given `Bridge`, and finds the others there by what is written here of them, which is what somebody else calls of each;
what a method does stands with the class that a protocol names. mypy compares the two where `service.Bridge` is handed on.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

from mqtt_im.core.flights import DeliveryMemory
from mqtt_im.core.rules import Who
from mqtt_im.protocol import requests as rq
from mqtt_im.protocol.errors import Refusal
from mqtt_im.protocol.topics import Topics
from mqtt_im.store.commits import Commit
from mqtt_im.store.jobs.delivering import AttachJob
from mqtt_im.store.jobs.job import Job
from mqtt_im.store.ledger import Ledger
from mqtt_im.transport.api import Transport

from .audience import Audience, Channels
from .channel import Channel
from .cursors import Cursors
from .pump import Pump
from .settings import BridgeSettings, Counters

Fields = dict[str, Any]


class Uplinks(Protocol):
    """See `uplink.Uplink`."""

    def ask(self, channel: Channel, request: rq.Request, token: int, packet_id: int, dup: bool) -> None:
        """See the class that this stands for."""

    def ask_again(self, channel: Channel, packet_id: int, request: rq.Request, correlation: bytes | None) -> None:
        """See the class that this stands for."""

    def searched(self, channel: Channel, token: int, request: rq.Search, outcome: Fields | Refusal) -> None:
        """See the class that this stands for."""

    def limits(self, window: int) -> dict[str, int]:
        """See the class that this stands for."""

    def page_bytes(self, channel: Channel) -> int:
        """See the class that this stands for."""


class Searches(Protocol):
    """See `searching.Searching`."""

    def take(self, channel: Channel, token: int, who: Who, request: rq.Search) -> None:
        """See the class that this stands for."""

    def recalled(self, conv: str, seq: int) -> None:
        """See the class that this stands for."""


class Tellings(Protocol):
    """See `telling.Telling`."""

    def tell(self, job: Job) -> None:
        """See the class that this stands for."""

    def live(self, commit: Commit) -> None:
        """See the class that this stands for."""

    def replaced(self, items: Sequence[Sequence[Any]]) -> None:
        """See the class that this stands for."""

    def channels_of(self, user: str) -> Sequence[Channel]:
        """See the class that this stands for."""

    def event(self, users: list[str], fields: Fields) -> None:
        """See the class that this stands for."""

    def event_here(self, users: list[str], fields: Fields) -> None:
        """See the class that this stands for."""


class Presences(Protocol):
    """See `presence.Presence`."""

    def came(self, user: str) -> None:
        """See the class that this stands for."""

    def went(self, user: str) -> None:
        """See the class that this stands for."""

    def changed(self, user: str, *, told: bool = False) -> None:
        """See the class that this stands for."""

    async def settle(self, user: str) -> None:
        """See the class that this stands for."""

    def is_online(self, user: str) -> bool:
        """See the class that this stands for."""

    def is_here(self, user: str) -> bool:
        """See the class that this stands for."""

    def came_elsewhere(self, user: str) -> None:
        """See the class that this stands for."""

    def went_elsewhere(self, user: str, seen: int) -> None:
        """See the class that this stands for."""


class Surroundings(Protocol):
    """See `neighbourhood.Neighbourhood`."""

    def event(self, users: list[str], fields: Fields) -> None:
        """See the class that this stands for."""

    def came(self, user: str) -> None:
        """See the class that this stands for."""

    def went(self, user: str, seen: int) -> None:
        """See the class that this stands for."""

    def shown(self, user: str) -> None:
        """See the class that this stands for."""

    def watches(self, user: str, *, on: bool) -> None:
        """See the class that this stands for."""

    async def devices_of(self, user: str) -> set[str]:
        """See the class that this stands for."""

    def grown_there(self, users: Iterable[str]) -> None:
        """See the class that this stands for."""


class Pulls(Protocol):
    """See `pulling.Pulling`."""

    def grown(self, group: str) -> None:
        """See the class that this stands for."""

    async def whole(self, user: str) -> None:
        """See the class that this stands for."""

    def before(self, user: str) -> None:
        """See the class that this stands for."""

    def attached(self, user: str, head: int, job: AttachJob) -> None:
        """See the class that this stands for."""

    def came(self, user: str, head: int) -> None:
        """See the class that this stands for."""

    async def sweep(self) -> None:
        """See the class that this stands for."""


class Callers(Protocol):
    """See `calls.Calls`."""

    async def make(self, user: str, request: rq.Request) -> Fields:
        """See the class that this stands for."""


class Bridge(Protocol):
    """See `service.Bridge`."""

    delivery_memory: DeliveryMemory
    ledger: Ledger
    topics: Topics
    settings: BridgeSettings
    metrics: Counters
    audience: Audience
    online: Channels
    cursors: Cursors
    pump: Pump
    transport: Transport | None

    @property
    def uplinks(self) -> Uplinks:
        """See the class that this stands for."""

    @property
    def searching(self) -> Searches | None:
        """See the class that this stands for."""

    @property
    def presence(self) -> Presences:
        """See the class that this stands for."""

    @property
    def neighbourhood(self) -> Surroundings | None:
        """See the class that this stands for."""

    @property
    def telling(self) -> Tellings:
        """See the class that this stands for."""

    @property
    def calls(self) -> Callers:
        """See the class that this stands for."""

    @property
    def alone(self) -> bool:
        """See the class that this stands for."""

    @property
    def pulling(self) -> Pulls:
        """See the class that this stands for."""

    def confirmed(self, user: str, device: str, pos: int) -> None:
        """See the class that this stands for."""

    def forget(self, user: str, device: str, *, told: bool = False) -> None:
        """See the class that this stands for."""

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """See the class that this stands for."""
