"""Those who are there beside an attack: connected members of the large group, who watch one of them and answer what comes.

`python -m bench.crowd PORT COUNT`, in a process of its own, says `ready` when all are there, and stays until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys

from bench.alone import end_with_parent
from bench.attacks import MEMBERS, PASSWORD, STAR
from mqtt_im.load.broker import PREFIX, Broker
from mqtt_im.load.traffic import connect_idle


async def _stay(port: int, count: int) -> None:
    for member in await connect_idle(Broker(port=port, password=PASSWORD), MEMBERS[:count]):
        await member.subscribe(f"{PREFIX}/{STAR}/presence", 0)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    end_with_parent()
    os.nice(10)  # the pair is measured, not these
    asyncio.run(_stay(int(sys.argv[1]), int(sys.argv[2])))
