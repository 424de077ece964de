"""Pairs that exchange messages while something else goes on: in a process of their own, so that a busy generator delays none."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

import uvloop

from bench.servers import Server
from mqtt_im.load.traffic import Traffic, connect_pairs, finish, pace


class Beside:
    """The pairs, seen from the generator."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def latencies(self) -> Sequence[float]:
        """Seconds from the write of a message to its arrival, ordered, of those that arrived since the last call."""
        self._connection.send(True)
        found: Sequence[float] = self._connection.recv()
        return found


@contextmanager
def exchanging(server: Server, names: Sequence[tuple[str, str]], password: str, per_second: float) -> Iterator[Beside]:
    """The pairs are connected, and exchange so many messages a second until the end; every message is checked."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(there, server, names, password, per_second))
    process.start()
    there.close()
    try:
        here.recv()
        yield Beside(here)
        here.send(False)
        here.recv()
    finally:
        here.close()
        process.join()


def _run(there: Connection, server: Server, names: Sequence[tuple[str, str]], password: str, per_second: float) -> None:
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    uvloop.run(_exchange(there, server, names, password, per_second))


async def _exchange(
    there: Connection, server: Server, names: Sequence[tuple[str, str]], password: str, per_second: float
) -> None:
    traffic = Traffic()
    pairs = await connect_pairs(server, traffic, names, password)
    senders = [sender for sender, _ in pairs]
    traffic.sending = traffic.measuring = True
    stopped = asyncio.Event()

    def asked() -> None:
        try:
            if there.recv():
                there.send(sorted(traffic.latencies))
                traffic.latencies.clear()
            else:
                stopped.set()
        except EOFError:  # the generator has failed
            os._exit(1)

    asyncio.get_running_loop().add_reader(there.fileno(), asked)
    there.send(True)
    pacer = asyncio.ensure_future(pace(traffic, senders, per_second))
    await stopped.wait()
    traffic.sending = False
    await pacer
    await finish(traffic, senders, [peer for pair in pairs for peer in pair])
    there.send(True)
