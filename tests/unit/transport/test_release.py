"""A client that another node has from now on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support import packets
from tests.unit.transport.harness import FakeHandler, Server, on_loop


class Slow(FakeHandler):
    """Lets go of a client when `let_go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def released(self, user: str, device: str) -> None:
        await super().released(user, device)
        await self.let_go.wait()
        self.note("let go")


async def _wanted() -> bool:
    return True


@on_loop
async def test_who_has_come_in_since_stays(tmp_path: Path) -> None:
    """While it comes in nobody else has the client; what was asked for by then is looked at anew."""
    handler = FakeHandler()
    async with Server(tmp_path, handler=handler) as server:
        asked: list[bool] = []

        async def wanted() -> bool:
            asked.append(bool(server.hub.live))
            return False

        async with server.hub.turn(("alice", "phone")):  # as somebody's who comes in
            release = asyncio.create_task(server.hub.release(("alice", "phone"), False, wanted))
            client = await server.open()
            client.send(packets.connect("phone", username="alice"))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not asked
        await release
        await handler.until(lambda: bool(handler.links))
        assert asked and not handler.links[0].closed


@on_loop
async def test_who_comes_back_while_it_is_let_go_of_waits(tmp_path: Path) -> None:
    """Else it would begin with what is known of it, and that would be forgotten before anything of it was sent."""
    handler = Slow()
    async with Server(tmp_path, handler=handler) as server:
        client = await server.open()
        client.send(packets.connect("phone", username="alice", clean=False))
        await handler.until(lambda: bool(handler.links))
        release = asyncio.create_task(server.hub.release(("alice", "phone"), False, _wanted))
        await handler.saw("released", "alice", "phone")
        back = await server.open()
        back.send(packets.connect("phone", username="alice", clean=False))
        await handler.until(lambda: handler.told()[0] == "login")
        handler.let_go.set()
        await release
        await handler.until(lambda: len(handler.links) == 2)
        what = [entry[0] for entry in handler.log]
        assert what[what.index("released") :] == ["released", "login", "let go", "quiesced", "attached"]
