"""An app on the client library that kills itself with SIGKILL at a given step, for tests of what survives that.

    python -m tests.support.client_app send|receive|both URL USER PEER STORE COUNT KILL_AT STEP

KILL_AT is what is counted, STEP when it strikes (0: never): `before-write` and `after-write` of the store's transactions,
`out` (before bytes leave), `sent` (after they left), `in` (before bytes that came are looked at). What the app saw is written
to stdout without a buffer, so it is there whatever comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from mqtt_im.client import Client
from mqtt_im.client.network.stream import Stream
from mqtt_im.client.store.sqlite import SqliteStore

IDLE_S = 3.0


def tell(*what: object) -> None:
    os.write(1, (" ".join(map(str, what)) + "\n").encode())


class Killer:
    """Counts the steps of one kind."""

    def __init__(self, kind: str, step: int) -> None:
        self.kind, self.left = kind, step

    def at(self, kind: str) -> None:
        if kind == self.kind and self.left:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def arm(killer: Killer) -> None:
    transaction, write, received = SqliteStore.transaction, Stream._write, Stream.data_received

    @contextlib.contextmanager
    def dangerous_transaction(self: SqliteStore) -> Iterator[None]:
        with transaction(self):
            yield
            killer.at("before-write")
        killer.at("after-write")

    def dangerous_write(self: Stream, data: bytes) -> None:
        killer.at("out")
        write(self, data)
        killer.at("sent")

    def dangerous_received(self: Stream, data: bytes) -> None:
        killer.at("in")
        received(self, data)

    patched: Any = SqliteStore
    patched.transaction = dangerous_transaction
    patched = Stream
    patched._write, patched.data_received = dangerous_write, dangerous_received


async def send(im: Client, peer: str, count: int) -> None:
    sent = []
    for number in range(count):
        sent.append(await im.send(peer, number, id=f"{im.user}-{number}"))
        tell("accepted", number)
    for outgoing in sent:
        await outgoing.sent()
    tell("sent", count)


async def receive(im: Client) -> None:
    """Until nothing comes any more."""
    messages = im.messages()
    await im.online()
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(IDLE_S):
                message = await anext(messages)
            tell("got", message.pos, int(message.again), message.sender, message.body)


async def main() -> None:
    mode, url, user, peer, store, count, kind, step = sys.argv[1:]
    arm(Killer(kind, int(step)))
    async with Client(url, user=user, device="app", store=store) as im:
        if mode in ("send", "both"):
            await send(im, peer, int(count))
        if mode in ("receive", "both"):
            await receive(im)


if __name__ == "__main__":
    asyncio.run(main())
