"""A pass of retention beside traffic: what a commit waits, what is written; on the ledger itself, without broker and sockets."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Raw

from bench.filling import Filler
from bench.meter import written_bytes
from bench.report import Row, Target, tell
from bench.servers import OURS
from mqtt_im.core.rules import Who
from mqtt_im.process import collect_seldom
from mqtt_im.protocol import requests as rq
from mqtt_im.store.jobs.requests import RequestJob
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.policy import Policy
from mqtt_im.store.sqlite.opening import open_ledger, opener

QUIET = "no pass"
_USERS: Final = 5_000
_EVERY_S: Final = 0.002
_QUIET_S: Final = 10.0
_TELL: Final = 10_000
_LONG_AGO: Final = 1_700_000_000_000
_OLD: Final = Policy(retention_days=30)


class _Traffic:
    """A message of one user to another of all, again and again; how long each has waited for its commit, in seconds."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._name = secrets.token_hex(4)
        self.waits: list[float] = []

    def figure(self, part: float) -> float:
        """So much of the messages have not waited longer, in ms."""
        waits = sorted(self.waits)
        return waits[min(len(waits) - 1, int(len(waits) * part))] * 1000

    async def run(self) -> None:
        """Never returns; to be cancelled."""
        begin, count = time.perf_counter(), 0
        while True:
            count += 1
            self._say(count)
            if not count % _TELL:
                tell(f"{count:,} messages were handed in beside it")
            await asyncio.sleep(max(0.0, begin + count * _EVERY_S - time.perf_counter()))

    def _say(self, count: int) -> None:
        handed_in = time.perf_counter()
        send = rq.Send(id=f"{self._name}{count}", to=f"user{count % _USERS}", body=Raw(b'"still here"'))
        who = Who("user0", "pc", 0)
        self._ledger.submit(RequestJob(who, send, lambda _: self.waits.append(time.perf_counter() - handed_in)))


@asynccontextmanager
async def _beside(ledger: Ledger) -> AsyncIterator[_Traffic]:
    traffic = _Traffic(ledger)
    task = asyncio.ensure_future(traffic.run())
    try:
        yield traffic
    finally:
        task.cancel()


async def compare(messages: int) -> list[Row]:
    """So many messages, all of them old and acknowledged, are taken by one pass."""
    collect_seldom()  # as in the server
    with tempfile.TemporaryDirectory(prefix="mqtt-im-bench-") as folder:
        data_dir = Path(folder)
        _fill(data_dir, messages)
        os.sync()
        ledger = open_ledger(data_dir)
        await ledger.start()
        try:
            tell(f"traffic alone, for {_QUIET_S:g} s")
            async with _beside(ledger) as quiet:
                await asyncio.sleep(_QUIET_S)
            tell("a pass beside it")
            written, begin = written_bytes(os.getpid()), time.perf_counter()
            async with _beside(ledger) as busy:
                await ledger.compact(_OLD)
            took, written = time.perf_counter() - begin, written_bytes(os.getpid()) - written
        finally:
            await ledger.stop()
    rows = [
        Row(
            f"{messages:,} messages taken: {name} of a commit beside it",
            "ms",
            {QUIET: quiet.figure(part), OURS: busy.figure(part)},
            targets,
        )
        for name, part, targets in (("p50", 0.5, ()), ("p99", 0.99, (Target(20),)), ("longest", 1.0, ()))
    ]
    rows.append(Row(f"{messages:,} messages taken: the whole pass", "s", {OURS: took}))
    rows.append(Row(f"{messages:,} messages taken: written, traffic included", "GB", {OURS: written / 1e9}, (Target(3),)))
    return rows


def _fill(data_dir: Path, messages: int) -> None:
    engine = opener(data_dir, synchronous="off")()
    dice = random.Random(1)
    filler = Filler(engine, _LONG_AGO)
    filler.say([(f"user{dice.randrange(_USERS)}", f"user{dice.randrange(_USERS)}") for _ in range(messages)])
    engine.close()
