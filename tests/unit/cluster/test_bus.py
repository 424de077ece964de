"""A node among others, on a real database: what it does when it was declared dead, and with more than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mqtt_im.cluster import bus as bus_module
from mqtt_im.cluster.bus import Bus
from mqtt_im.cluster.outbox import MAX_TOLD
from mqtt_im.postgres import nodes
from mqtt_im.postgres.connecting import Connection, Database
from mqtt_im.postgres.errors import Unreachable
from tests.support.postgres import enter

PATIENCE_S = 60.0


@contextmanager
def entered(url: str, folder: Path) -> Iterator[tuple[Connection, nodes.Me, Bus]]:
    """A node that is registered, on an event loop, and a connection beside it."""
    there = Database(url)
    with there.connect("test") as connection:
        me = enter(there, connection, "one", folder)
        yield connection, me, Bus(there, me, folder)


def test_a_node_is_none_again_before_it_has_let_go_of_everything(database: str, tmp_path: Path) -> None:
    """What its clients have sent meanwhile can't be written under its new incarnation."""

    async def play() -> None:
        with entered(database, tmp_path) as (connection, me, bus):
            before = me.incarnation
            began, gone = asyncio.Event(), asyncio.Event()

            async def lost() -> None:
                began.set()
                await gone.wait()

            bus.on_lost.append(lost)
            await bus.start()
            nodes.leave(connection, me)
            async with asyncio.timeout(PATIENCE_S):
                await began.wait()
                for _ in range(5):
                    assert bus.dead and bus.incarnation == before and not nodes.living(connection)
                    await asyncio.sleep(0.1)
                gone.set()
                while bus.dead:  # noqa: ASYNC110 - what it waits for tells nobody
                    await asyncio.sleep(0.01)
            assert bus.incarnation != before
            assert list(nodes.living(connection).values()) == [(bus.incarnation, "one")]
            await bus.stop()

    asyncio.run(play())


def test_a_node_that_stops_meanwhile_waits_for_nobody(database: str, tmp_path: Path) -> None:
    async def play() -> None:
        with entered(database, tmp_path) as (connection, me, bus):
            began = asyncio.Event()

            async def lost() -> None:
                began.set()
                await asyncio.Event().wait()

            bus.on_lost.append(lost)
            await bus.start()
            nodes.leave(connection, me)
            async with asyncio.timeout(PATIENCE_S):
                await began.wait()
                bus.quiet()
                await bus.stop()
            assert not nodes.living(connection)

    asyncio.run(play())


class _Away(Database):
    """Refuses at once."""

    tries = 0

    def connect(self, purpose: str, *, patience_s: float = PATIENCE_S) -> Connection:
        self.tries += 1
        raise Unreachable(f"{self.where}: it is away")


def test_what_is_to_be_told_meanwhile_makes_nobody_try_the_database_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One word to tell, and the node tried as often as it could, with half a core, until the database was back."""
    monkeypatch.setattr(bus_module, "RETRY_S", 3_600.0)

    async def play() -> None:
        there = _Away("postgresql://im@127.0.0.1:1/im")
        bus = Bus(there, nodes.Me("one"), tmp_path)
        starting = asyncio.create_task(bus.start())
        async with asyncio.timeout(PATIENCE_S):
            while not there.tries:  # noqa: ASYNC110 - what it waits for tells nobody
                await asyncio.sleep(0.01)
            for _ in range(20):
                bus.tell("wake", ["somebody"], [], to=2)
                await asyncio.sleep(0.01)
            assert there.tries == 1
            await bus.stop()
            await starting

    asyncio.run(play())


def test_what_waits_to_be_told_is_bounded_by_its_bytes_and_told_anew(database: str, tmp_path: Path) -> None:
    """Twenty thousand messages of a hundred names each were what one node kept while the database was away."""

    async def play() -> None:
        there = Database(database)
        with there.connect("test") as connection:
            one, two = (enter(there, connection, name, tmp_path) for name in ("one", "two"))
        bus, other = Bus(there, one, tmp_path), Bus(there, two, tmp_path)
        bus.others[2] = "another"
        names = ["x" * 64] * 100
        for _ in range(5_000):
            bus.tell("wake", names, [])
        kept = len(bus.outbox)
        assert kept * 6_400 < MAX_TOLD < (kept + 1) * 12_000 and bus.outbox.dropped
        bus.tell("wake", names, [])
        assert len(bus.outbox) == kept
        del bus.others[2]
        told = asyncio.Event()
        await other.start()
        await bus.start()
        bus.on_joined.append(lambda _: told.set() if not bus.outbox.dropped else None)
        async with asyncio.timeout(PATIENCE_S):
            await told.wait()
        assert bus.outbox.told == 0
        await bus.stop()
        await other.stop()

    asyncio.run(play())


def test_what_has_come_is_worked_off_in_its_order_and_in_turns(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqtt_im.cluster.bus._TURN_S", 0.0)

    async def play() -> None:
        bus, heard = Bus(Database(database), nodes.Me("one"), tmp_path), list[int]()

        def hear(_: int, fields: list[int]) -> None:
            heard.append(fields[0])
            if fields[0] == 1:
                raise ValueError

        bus.on("number", hear)
        barrier = asyncio.get_running_loop().create_future()
        bus._arrived([(bus._heed, (2, 0, "number", number)) for number in range(3)])
        bus._arrived([(barrier.set_result, (None,)), (bus._heed, (2, 0, "number", 3))])
        assert heard == [0]
        await barrier
        assert heard[:3] == [0, 1, 2]
        while bus._in:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        assert heard == [0, 1, 2, 3]
        await bus.stop()

    asyncio.run(play())
