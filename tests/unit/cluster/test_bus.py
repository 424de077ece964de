"""A node among others, on a real database: what it does when it was declared dead."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mqtt_im.cluster.bus import Bus
from mqtt_im.postgres import nodes
from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.meta import prepare

PATIENCE_S = 60.0


def test_a_node_is_none_again_before_it_has_let_go_of_everything(database: str, tmp_path: Path) -> None:
    """What its clients have sent meanwhile can't be written under its new incarnation."""

    async def play() -> None:
        there, me = Database(database), nodes.Me("one")
        with there.connect("test") as connection:
            prepare(there, connection, nodes.DDL)
            nodes.register(there, connection, me, tmp_path)
            bus, before = Bus(there, me, tmp_path), me.incarnation
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
        there, me = Database(database), nodes.Me("one")
        with there.connect("test") as connection:
            prepare(there, connection, nodes.DDL)
            nodes.register(there, connection, me, tmp_path)
            bus, began = Bus(there, me, tmp_path), asyncio.Event()

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
