"""`python -m tests.soak`: churn on a real server, a table of what it uses, exit code 1 where that grows."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from random import Random, SystemRandom
from typing import Final

from mqtt_im.testing import ServerProcess, Value
from tests.soak import churn, churn5, samples
from tests.soak.churn import PLAIN_TOPICS, USERS, Churn
from tests.soak.samples import Sample

CONFIG: Final[dict[str, Value]] = {
    "mqtt.plain_topics": list(PLAIN_TOPICS),
    "limits.connect_timeout_s": 1,
    "limits.max_write_buffer_bytes": 65_536,
    "limits.max_queued_messages": 100,
    "limits.requests_per_second": 100_000,
    "log.level": "warning",
}
SETTLE_S: Final = 15.0


def main() -> int:
    """Exit code 0 where nothing has grown, nothing was left behind, and the server has stopped cleanly."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the churn lasts, the warm-up included")
    parser.add_argument("--warm-up", type=float, default=0.3, metavar="PART", help="part of it that is not judged")
    parser.add_argument("--fill", type=int, default=60_000, help="messages to begin with, so that the store's caches are full")
    parser.add_argument("--clients", type=int, default=40, help="clients at a time")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="time between two samples")
    parser.add_argument("--version", choices=("3.1.1", "5", "both"), default="both", help="of MQTT, that clients speak")
    parser.add_argument("--seed", type=int, help="drawn and printed where it is not given")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else SystemRandom().randrange(10**6)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # clients that write to closed sockets are what this is about
    print(f"soak: seed {seed}, {options.minutes:g} minutes, {options.clients} clients at a time", flush=True)
    with ServerProcess(CONFIG) as server:
        faults = asyncio.run(soak(server, options, seed))
        if (code := server.stop()) != 0:
            faults.append(f"the server stopped with exit code {code}")
        if "Traceback" in server.log():
            faults.append(f"a traceback in the log:\n{server.log()}")
    for fault in faults:
        print(f"FAILED: {fault}")
    print("flat" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


async def soak(server: ServerProcess, options: argparse.Namespace, seed: int) -> list[str]:
    """Churn for so long; what was wrong, in a line each."""
    random, counts, stopping = Random(seed), Counter[str](), asyncio.Event()
    ports = {"mqtt": server.mqtt_port, "websocket": server.websocket_port}
    lives = {"3.1.1": churn.LIVES, "5": churn5.LIVES, "both": {**churn.LIVES, **churn5.LIVES}}[options.version]
    churns = [Churn(server.host, ports, Random(random.random()), counts, lives) for _ in range(options.clients)]
    first = await asyncio.to_thread(Sample.take, server, 0.0)
    print(f"{samples.HEAD}\n{first.row()}  at its start", flush=True)
    await asyncio.gather(*(churns[0].fill(user, options.fill // len(USERS)) for user in USERS))
    started, end = time.monotonic(), options.minutes * 60
    print(f"{(await asyncio.to_thread(Sample.take, server, 0.0)).row()}  filled", flush=True)
    running = [asyncio.create_task(one.run(stopping)) for one in churns]
    taken: list[Sample] = []
    while (now := time.monotonic() - started) < end:
        await asyncio.sleep(min(options.every, end - now))
        taken.append(await asyncio.to_thread(Sample.take, server, time.monotonic() - started))
        print(taken[-1].row(), flush=True)
    stopping.set()
    await asyncio.gather(*running)
    print(", ".join(f"{number} {name}" for name, number in counts.most_common()))
    judged = [sample for sample in taken if sample.at_s > options.warm_up * end]
    return samples.grown(judged) + await _left(server, first, started)


async def _left(server: ServerProcess, first: Sample, started: float) -> list[str]:
    """What clients that are gone have left behind, when the server has had some time."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        last = await asyncio.to_thread(Sample.take, server, time.monotonic() - started)
        # Threads may have opened database connections of their own meanwhile.
        faults = [
            f"{what} went from {before} to {after} with everybody gone"
            for what, before, after, slack in (
                ("connected", first.connected, last.connected, 0),
                ("tasks", first.tasks, last.tasks, 2),
                ("fds", first.fds, last.fds, 12),
            )
            if after > before + slack
        ]
        if not faults or time.monotonic() > deadline:
            print(f"{last.row()}  with everybody gone", flush=True)
            return faults
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
