"""What the hub knows of those that it joins: open sockets, who is logged in, and what the connections of one user share."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from mqtt_im.transport.api import Link
from mqtt_im.transport.embedded.buckets import Bucket
from mqtt_im.transport.embedded.sessions.session import Key


class Socket(Protocol):
    """What the hub knows of each open socket."""

    address: str
    network: str
    """What it counts as, once it is counted for its address."""

    def flush(self) -> bool:
        """Hand what was gathered to the socket."""

    def end(self, reason: str, *, abort: bool = False) -> None:
        """End the connection."""

    def cut(self) -> None:
        """The socket goes now."""

    def settle(self) -> None:
        """What its end means for others was done, once."""


class Holding(Socket, Protocol):
    """An open socket for which something is held."""

    held: int

    @property
    def party(self) -> str:
        """Whose it is: the user's, or the address's where that is not known."""

    def give_way(self) -> None:
        """Nothing is held for it from now on, and it ends."""


class Member(Link, Protocol):
    """Who is logged in, over MQTT or not."""

    bucket: Any
    """A `Bucket`: how fast its user may be."""
    key: Key | None

    def end(self, reason: str, *, abort: bool = False) -> None:
        """End the connection."""

    @property
    def answered(self) -> bool:
        """Everything that it handed in has its acknowledgement."""

    def stop(self) -> None:
        """Handle nothing more."""


class User:
    """What the connections of one user share."""

    __slots__ = ("bucket", "connections", "door", "logins", "watched")

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.logins = 0
        """Those that are about to come in."""
        self.door: asyncio.Lock | None = None
        """Where one after the other does, once they have to wait."""
        self.watched = False
        """Whether a timer runs until its debts are paid: one, however often it comes and goes meanwhile."""
        self.connections: list[Member] = []


class Turn:
    """A context in which its key belongs to whoever has entered it."""

    __slots__ = ("_key", "_lock", "_turns", "_waiting")

    def __init__(self, turns: dict[Key, tuple[asyncio.Lock, list[None]]], key: Key) -> None:
        self._turns = turns
        self._key = key
        self._lock, self._waiting = turns.setdefault(key, (asyncio.Lock(), []))

    async def __aenter__(self) -> None:
        self._waiting.append(None)
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self._waiting.pop()
        if not self._waiting:
            del self._turns[self._key]
