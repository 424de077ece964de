"""Which node has a client: table `client`, in which the node that a client connects to writes itself before anything else.

Whoever has the client is asked to let go of it: to close the connection, finish what it had handed in, and write what it knows of
the session. Only then the table says that the client is another one's; so a node that asked and has died, or got no answer, has
changed nothing, and the next one asks again. A node that is dead needs not be asked, since it can write nothing any more. Where
two ask at once, or the client has come back meanwhile to the node that was asked, the one that is second to write has lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import peewee

from mqtt_im.cluster import Neighbours
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from mqtt_im.transport.embedded.sessions.session import Key
from mqtt_im.transport.embedded.sessions.shared import Holder, SharedPersistence


class Claim:
    """A claim on a client, from when it is made until the connection has its place."""

    __slots__ = ("decided", "gen", "lost", "moved", "over")

    def __init__(self) -> None:
        self.gen = 0
        """How often the client had changed hands when it became this node's; 0 as long as it is not."""
        self.lost = False
        """Another node may have the client since."""
        self.moved = False
        """Another node has had the client since this one, or before it."""
        self.decided = asyncio.Event()
        """The client is this node's, or will not be."""
        self.over = asyncio.Event()
        """The connection has its place, or was given up."""


class Claims:
    """Those of one node. Lives on the event loop."""

    def __init__(
        self,
        store: SharedPersistence,
        neighbours: Neighbours,
        release: Callable[[Key, bool, Callable[[], Awaitable[bool]]], Awaitable[None]],
        background: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        """`release` lets go of a client, if that is still wanted once nobody comes in with it.

        It is told whether the session begins anew elsewhere, and what says whether it is wanted.
        """
        self._store = store
        self._neighbours = neighbours
        self._release = release
        self._background = background
        self._pending: dict[Key, Claim] = {}
        neighbours.on("release", self._asked)

    async def claim(self, key: Key, *, clean: bool, gone: Callable[[], bool]) -> Claim:
        """The client is this node's, and no other node does anything for it any more, unless that is `lost`.

        `gone` says whether its connection has ended, for which nobody is asked any more. `settle` is to be called once the
        connection has its place, or is given up. Raises `StoreFailed`.
        """
        if self._neighbours.away:
            raise StoreFailed("the database does not answer")
        if self._neighbours.dead:
            raise StoreFailed("this node was declared dead, and is none yet")
        claim = self._pending[key] = Claim()
        try:
            await self._take(key, claim, clean, gone)
        except peewee.PeeweeException as error:
            raise StoreFailed(str(error)) from error
        finally:
            claim.decided.set()
        return claim

    async def _take(self, key: Key, claim: Claim, clean: bool, gone: Callable[[], bool]) -> None:
        mine = self._neighbours.incarnation
        taken, holder = await self._store.look(partial(self._store.claim, key, mine))
        if not taken and not gone():
            if not await self._lets_go(key, holder, clean):
                raise StoreFailed("the node that has the client does not let go of it")
            taken, holder = await self._store.look(partial(self._store.claim, key, mine, holder))
        if taken:
            claim.gen, claim.moved = holder.gen, holder.incarnation != mine
        else:
            claim.lost = True

    async def _lets_go(self, key: Key, holder: Holder, clean: bool) -> bool:
        is_dead = partial(self._store.bury, holder.incarnation)
        if await self._store.look(is_dead):
            return True
        answered = await self._neighbours.questions.ask("release", holder.incarnation, *key, holder.gen, clean)
        return answered or await self._store.look(is_dead)

    def settle(self, key: Key) -> None:
        """Nobody waits with this client any more."""
        if (claim := self._pending.pop(key, None)) is not None:
            claim.over.set()

    def give_up(self) -> None:
        """This node was declared dead: nobody who is about to come in has its client by that."""
        for claim in self._pending.values():
            claim.lost = True

    def _asked(self, sender: int, fields: list[Any]) -> None:
        number, user, name, gen, clean = fields
        self._background(self._let_go(sender, number, (user, name), gen, clean))

    async def _let_go(self, sender: int, number: int, key: Key, gen: int, clean: bool) -> None:
        pending = self._pending.get(key)
        if pending is not None:
            # It may be this claim's that the asking node has seen in the table, before this one knows.
            await pending.decided.wait()
            pending.lost |= pending.gen <= gen
            await pending.over.wait()
        await self._release(key, clean, partial(self._is_asked_for, key, gen))
        self._neighbours.questions.done(sender, number)

    async def _is_asked_for(self, key: Key, gen: int) -> bool:
        """Whether who asks can have the client; not where it has come back to this node since: both would have lost it."""
        try:
            return await self._store.look(partial(self._store.has, key, Holder(self._neighbours.incarnation, gen)))
        except StoreFailed:
            return True  # who asks may reach the database
