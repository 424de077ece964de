"""Which node has a client, on a real database: it changes hands when the one that has it has let go, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mqtt_im.cluster import Neighbours
from mqtt_im.postgres import nodes
from mqtt_im.postgres.connecting import Database
from mqtt_im.transport.embedded.sessions.claiming import Claims
from mqtt_im.transport.embedded.sessions.ground import log
from mqtt_im.transport.embedded.sessions.persistence import StoreFailed
from mqtt_im.transport.embedded.sessions.session import Key
from mqtt_im.transport.embedded.sessions.shared import SharedPersistence
from tests.support.postgres import enter

KEY: Key = ("bob", "phone")
PATIENCE_S = 60.0


class Node(Neighbours):
    """One of some in one process; what it tells another one comes at once, unless that one is `deaf`."""

    def __init__(self, world: World, incarnation: int) -> None:
        self.handlers: dict[str, Any] = {}
        super().__init__(f"n{incarnation}")
        self.questions: Any = self
        self.incarnation = incarnation
        self.world = world
        self.deaf = False
        self.asked: list[int] = []
        """Who was asked by this one."""
        self.released: list[Key] = []
        self.answers: dict[int, asyncio.Event] = {}
        self.claims = Claims(world.store, self, self._release, world.background)

    async def _release(self, key: Key, clean: bool, wanted: Callable[[], Awaitable[bool]]) -> None:
        if await wanted():
            self.released.append(key)

    def on(self, kind: str, handler: Any) -> None:
        self.handlers[kind] = handler

    async def ask(self, kind: str, to: int, *fields: Any) -> bool:
        self.asked.append(to)
        other = self.world.nodes[to]
        if other.deaf:
            return False
        number = len(self.answers)
        self.answers[number] = asyncio.Event()
        other.handlers[kind](self.incarnation, [number, *fields])
        await self.answers[number].wait()
        return True

    def done(self, to: int, number: int) -> None:
        self.world.nodes[to].answers[number].set()

    async def takes(self) -> bool:
        """Whether the client is let in here."""
        try:
            claim = await self.claims.claim(KEY, clean=False, gone=lambda: False)
        except StoreFailed:
            return False
        finally:
            self.claims.settle(KEY)
        return not claim.lost


class World:
    def __init__(self, url: str, folder: Path) -> None:
        self.database = Database(url)
        self.store = SharedPersistence(SharedPersistence.tables(self.database), lambda *_, **__: None, log)
        self.tasks: list[asyncio.Task[None]] = []
        self.nodes: dict[int, Node] = {}
        self.holding = []
        for name in "abc":
            connection = self.database.connect("test")
            me = enter(self.database, connection, name, folder / name)
            assert nodes.hold(connection, me)
            self.holding.append(connection)
            self.nodes[me.incarnation] = Node(self, me.incarnation)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def close(self) -> None:
        await asyncio.gather(*self.tasks)
        await self.store.close()
        for connection in self.holding:
            connection.close()


def on_nodes(test: Callable[[Node, Node, Node], Awaitable[None]]) -> Callable[[str, Path], None]:
    def run(database: str, tmp_path: Path) -> None:
        async def play() -> None:
            world = World(database, tmp_path)
            async with asyncio.timeout(PATIENCE_S):
                await test(*world.nodes.values())
                await world.close()

        asyncio.run(play())

    run.__doc__ = test.__doc__
    return run


@on_nodes
async def test_who_has_the_client_is_asked(a: Node, b: Node, c: Node) -> None:
    assert await a.takes() and await a.takes() and not a.asked
    assert await b.takes() and b.asked == [a.incarnation] and a.released == [KEY]
    assert await a.takes() and a.asked == [b.incarnation]
    assert not c.released


@on_nodes
async def test_who_has_not_let_go_is_asked_again(a: Node, b: Node, c: Node) -> None:
    """By whoever comes next: that one node has asked in vain changes nothing."""
    assert await a.takes()
    a.deaf = True
    assert not await b.takes() and not await b.takes() and not await c.takes()
    assert b.asked == [a.incarnation] * 2 and c.asked == [a.incarnation]
    a.deaf = False
    assert await c.takes() and a.released == [KEY] and not b.released


@on_nodes
async def test_of_two_who_come_at_once_one_has_lost(a: Node, b: Node, c: Node) -> None:
    """And neither sends the other one away again."""
    assert await a.takes()
    assert sorted(await asyncio.gather(b.takes(), c.takes())) == [False, True]
    assert b.asked == c.asked == [a.incarnation]


@on_nodes
async def test_who_was_overtaken_by_a_client_that_has_come_back_has_lost(a: Node, b: Node, c: Node) -> None:
    assert await a.takes()

    async def comes_back(key: Key, clean: bool, wanted: Callable[[], Awaitable[bool]]) -> None:
        assert await a.takes()
        assert not await wanted(), "else nobody would be left"

    a.claims._release = comes_back
    assert not await b.takes() and b.asked == [a.incarnation]
    assert await a.takes() and not a.asked


@on_nodes
async def test_one_of_two_stays_where_the_client_has_come_back_before_the_question(a: Node, b: Node, c: Node) -> None:
    assert await a.takes()
    asked = a.handlers["release"]

    async def comes_back(sender: int, fields: list[Any]) -> None:
        assert await a.takes()
        asked(sender, fields)

    a.handlers["release"] = lambda sender, fields: a.world.background(comes_back(sender, fields))
    assert not await b.takes() and b.asked == [a.incarnation]
    assert not a.released


@on_nodes
async def test_for_a_client_that_has_gone_nobody_is_asked(a: Node, b: Node, c: Node) -> None:
    assert await a.takes()
    claim = await b.claims.claim(KEY, clean=False, gone=lambda: True)
    b.claims.settle(KEY)
    assert claim.lost and not b.asked


@on_nodes
async def test_one_who_is_coming_in_is_lost_before_that_is_answered(a: Node, b: Node, c: Node) -> None:
    """The table may say so to another node before this one has heard it."""
    claim = await a.claims.claim(KEY, clean=False, gone=lambda: False)
    other = asyncio.create_task(b.takes())
    while not claim.lost:  # noqa: ASYNC110 - what it waits for tells nobody
        await asyncio.sleep(0.01)
    assert b.asked == [a.incarnation]
    assert not other.done() and not a.released
    a.claims.settle(KEY)
    assert await other and a.released == [KEY]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_nobody_comes_in_at_a_node_that_was_declared_dead(database: str, tmp_path: Path, when: str) -> None:
    async def play() -> None:
        world = World(database, tmp_path)
        a = next(iter(world.nodes.values()))
        if when == "before":
            a.dead = True
            assert not await a.takes()
        else:
            claim = await a.claims.claim(KEY, clean=False, gone=lambda: False)
            a.claims.give_up()
            assert claim.lost
        await world.close()

    asyncio.run(play())
