"""Which node has a client: table `client`, in which the node that a client connects to writes itself before anything else.

Whoever had the client before is asked to let go of it: to close the connection, finish what it had handed in, and write what it
knows of the session. A node that is dead needs not be asked, since it can write nothing any more. Two nodes that claim a client
at once are told apart by `gen`: the later one has it, and the other one's connection ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import peewee

from mqtt_im.cluster import Neighbours
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from mqtt_im.transport.embedded.sessions.session import Key
from mqtt_im.transport.embedded.sessions.shared import SharedPersistence


class Claim:
    """A claim on a client, from when it is made until the connection has its place."""

    __slots__ = ("gen", "lost", "moved")

    def __init__(self) -> None:
        self.gen = 0
        self.lost = False
        """Another node has claimed the client since."""
        self.moved = False
        """Another node has had the client since this one, or before it."""


class Claims:
    """Those of one node. Lives on the event loop."""

    def __init__(
        self,
        store: SharedPersistence,
        neighbours: Neighbours,
        release: Callable[[Key, bool], Awaitable[None]],
        background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """`release` lets go of a client; it is told whether its session begins anew elsewhere."""
        self._store = store
        self._neighbours = neighbours
        self._release = release
        self._background = background
        self._pending: dict[Key, Claim] = {}
        neighbours.on("release", self._asked)

    async def claim(self, key: Key, *, clean: bool) -> Claim:
        """The client is this node's, and no other node does anything for it any more. Raises `StoreFailed`.

        `settle` is to be called once the connection has its place, or is given up.
        """
        if self._neighbours.away:
            raise StoreFailed("the database does not answer")
        claim = self._pending[key] = Claim()
        try:
            before, claim.gen = await self._store.look(lambda: self._store.claim(key, self._neighbours.incarnation))
        except peewee.PeeweeException as error:
            raise StoreFailed(str(error)) from error
        claim.moved = before != self._neighbours.incarnation
        is_dead = partial(self._store.bury, before)
        if not before or before == self._neighbours.incarnation or await self._store.look(is_dead):
            return claim
        answered = await self._neighbours.ask("release", before, *key, claim.gen, clean)
        if not answered and not await self._store.look(is_dead):
            raise StoreFailed("the node that has the client does not let go of it")
        return claim

    def settle(self, key: Key) -> None:
        """Nobody waits with this client any more."""
        self._pending.pop(key, None)

    def _asked(self, sender: int, fields: list[Any]) -> None:
        number, user, name, gen, clean = fields
        key = (user, name)
        pending = self._pending.get(key)
        if pending is not None and pending.gen < gen:
            pending.lost = True
        self._background(self._let_go(sender, number, key, clean))

    async def _let_go(self, sender: int, number: int, key: Key, clean: bool) -> None:
        await self._release(key, clean)
        self._neighbours.done(sender, number)
