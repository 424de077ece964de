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


@on_loop
async def test_who_comes_back_while_it_is_let_go_of_waits(tmp_path: Path) -> None:
    """Else it would begin with what is known of it, and that would be forgotten before anything of it was sent."""
    handler = Slow()
    async with Server(tmp_path, handler=handler) as server:
        client = await server.open()
        client.send(packets.connect("phone", username="alice", clean=False))
        await handler.until(lambda: bool(handler.links))
        release = asyncio.create_task(server.hub.release(("alice", "phone"), False))
        await handler.saw("released", "alice", "phone")
        back = await server.open()
        back.send(packets.connect("phone", username="alice", clean=False))
        await handler.until(lambda: handler.told()[0] == "login")
        handler.let_go.set()
        await release
        await handler.until(lambda: len(handler.links) == 2)
        what = [entry[0] for entry in handler.log]
        assert what[what.index("released") :] == ["released", "login", "let go", "quiesced", "attached"]
