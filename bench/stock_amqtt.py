"""Stock amqtt as a program: `python -m bench.stock_amqtt PORT`, anonymous, on uvloop, as it comes from its wheel."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop
from amqtt.broker import Broker


async def main(port: int) -> None:
    """Serve until SIGTERM."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    uvloop.run(main(int(sys.argv[1])))
