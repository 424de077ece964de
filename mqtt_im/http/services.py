"""What the HTTP API works with. It is there when everything has started, and gone when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mqtt_im.accounts.table import Accounts
from mqtt_im.bridge.logins.auth import Authenticator
from mqtt_im.bridge.service import Bridge
from mqtt_im.config import Config
from mqtt_im.files import Files
from mqtt_im.hooks import WebPush
from mqtt_im.http.errors import unavailable
from mqtt_im.http.nodes import Nodes
from mqtt_im.metrics import Metrics
from mqtt_im.store.policy import Policy, Removed
from mqtt_im.store.queries import belongings
from mqtt_im.transport.embedded import EmbeddedTransport
from mqtt_im.transport.guest import Guest


class Erasing(Protocol):
    """Takes users from disk."""

    async def unsubscribe(self, user: str) -> None:
        """No browser of the user is told anything any more. Raises `StoreError`."""

    async def erase(self, user: str) -> bool:
        """Nothing that only the user had is left; False where that was so. Raises `Refusal`, `StoreError`, `OSError`."""

    async def fold_away(self) -> None:
        """What is said of what is no more leaves the log."""


@dataclass
class Services:
    """The parts of a running server."""

    config: Config
    bridge: Bridge
    transport: EmbeddedTransport
    auth: Authenticator
    accounts: Accounts
    files: Files
    metrics: Metrics
    policy: Policy
    webpush: WebPush
    eraser: Erasing
    act: Callable[[], None]
    """What has changed in the accounts is acted on at once, so that nothing of it meets who logs in after the answer."""
    websocket: Callable[[], asyncio.Protocol]
    """Makes what talks MQTT on a WebSocket."""
    nodes: Nodes
    ticket_key: bytes
    """What tickets are signed with."""
    streams: set[Guest] = field(default_factory=set)
    """The event streams that are open."""
    watchers: set[asyncio.Future[None]] = field(default_factory=set)
    """What the streams of figures wait for: that their client has gone."""

    async def has_inbox(self, user: str) -> bool:
        """Whether the user has left, or was left, anything in the store. Raises `Refusal`."""
        return bool(await self.bridge.ledger.call(lambda engine: belongings.has_inbox(engine, user)))

    async def compact(self) -> Removed:
        """What retention lets go is gone. Raises `StoreError`."""
        self.bridge.note_connected()
        return await self.bridge.ledger.compact(self.policy)


@dataclass
class Desk:
    """Hands out the services, while there are any, and counts the requests that use them."""

    services: Services | None = None
    draining: bool = False
    busy: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> Services:
        """The services. Raises `Problem` `unavailable` while the server starts or stops."""
        if self.services is None or self.draining:
            raise unavailable("the server is stopping" if self.draining else "the server is starting")
        return self.services

    def __enter__(self) -> None:
        """Begin to use the services. Raises `Problem` `unavailable` where the server has begun to stop meanwhile."""
        self.open()
        self.busy += 1

    def __exit__(self, *_: object) -> None:
        self.busy -= 1
        if not self.busy:
            self._idle.set()

    async def drain(self, grace_s: float) -> None:
        """Take no more requests; returns when those under way are answered, or after `grace_s` seconds."""
        self.draining = True
        if self.services is not None:
            for stream in list(self.services.streams):
                stream.end("stopping")
            for gone in list(self.services.watchers):
                gone.cancel()
        try:
            async with asyncio.timeout(grace_s):
                while self.busy:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return

    def websocket(self) -> asyncio.Protocol | None:
        """What talks MQTT on a new WebSocket; None while nothing does."""
        return None if self.services is None or self.draining else self.services.websocket()
