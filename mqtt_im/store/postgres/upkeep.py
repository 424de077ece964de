"""When retention runs on PostgreSQL: every hour where it is configured, on one node at a time, and when `store compact` asks.

The command does the work itself, over a connection of its own, beside whatever servers there are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import psycopg

from mqtt_im.postgres.connecting import Database
from mqtt_im.postgres.errors import explained
from mqtt_im.postgres.meta import read
from mqtt_im.postgres.nodes import Me
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.ledger import Ledger
from mqtt_im.store.policy import Policy, Removed

from .opening import opener

FIRST_S: Final = 300.0
EVERY_S: Final = 3600.0
SHARE: Final = 20
"""A pass takes at most this part of the time: after a long one it is longer until the next."""
_POLL_S: Final = 1.0

logger = logging.getLogger(__name__)


class Upkeep:
    """The running server's part, on its event loop."""

    def __init__(self, ledger: Ledger, policy: Policy, note_connected: Callable[[], None] = lambda: None) -> None:
        """`note_connected` is called before each pass: devices that are connected are not to be taken for long unseen."""
        self._ledger = ledger
        self._policy = policy
        self._note_connected = note_connected

    async def run(self) -> None:
        """Never returns, where anything may ever go; to be cancelled before the ledger stops."""
        pause = FIRST_S
        while self._policy.removes:
            await asyncio.sleep(pause)
            began = time.monotonic()
            self._note_connected()
            try:
                removed = await self._ledger.compact(self._policy)
                logger.info("retention: %d messages are gone, and %d rows of the log", removed.messages, removed.rows)
            except StoreError as error:
                logger.error("retention: %s", error.message)
            pause = max(EVERY_S, SHARE * (time.monotonic() - began))


def compact(database: Database, policy: Policy) -> Removed:
    """Retention has run. Raises `StoreError`."""
    with database.connect("compact") as connection:
        if read(database, connection) is None:
            raise StoreError(f"{database.where}: there is no store yet")
    engine = opener(database, me=Me("compact"))()
    ended: list[Removed | StoreError] = []
    try:
        engine.retain(policy, int(time.time() * 1000), ended.append)
        while not ended:
            time.sleep(min(_POLL_S, engine.pause() or 0.0))
            engine.side_work(0)
    except psycopg.Error as error:
        raise explained(error, database.where) from error
    finally:
        engine.close()
    if isinstance(ended[0], StoreError):
        raise ended[0]
    return ended[0]
