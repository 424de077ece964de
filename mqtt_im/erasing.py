"""A user whose account is gone, or is to be erased: everything that any part of the server keeps of the user.

What is in messages that others have stays with them: who has sent them, from which device and with which `id`, reactions and
reports; and so do the numbers of an inbox, which nobody else must get.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mqtt_im.accounts.table import Accounts
from mqtt_im.bridge.service import Bridge
from mqtt_im.files import Files
from mqtt_im.hooks import WebPush
from mqtt_im.protocol.errors import StoreError
from mqtt_im.store.policy import Policy
from mqtt_im.transport.embedded import EmbeddedTransport

log = logging.getLogger(__name__)

_BESIDE: Final = ("accounts.db", "broker.db", "files.db", "hooks.db", "webpush.db")
"""Files whose write-ahead files have what was deleted; the log's and the search index's are emptied by their owners."""


@dataclass
class Eraser:
    """Erases users, with the parts of a running server. What is asked for is kept in the accounts, so a crash only delays it."""

    data_dir: Path
    bridge: Bridge
    transport: EmbeddedTransport
    files: Files
    webpush: WebPush
    accounts: Accounts
    policy: Policy
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def removed(self, user: str) -> None:
        """The account is no more: its groups are others', and no browser is told anything. Raises `Refusal`, `StoreError`."""
        await self.unsubscribe(user)
        await self.bridge.hand_on(user)
        await asyncio.to_thread(self.accounts.was_handed_on, user)

    async def erase(self, user: str) -> bool:
        """Nothing of a user who is to be erased is left on disk but what is said above; False where that was done already.

        Raises `Refusal`, `StoreError`, `OSError`.
        """
        async with self._turn:
            if user not in await asyncio.to_thread(self.accounts.to_erase):
                return False
            await self.unsubscribe(user)
            await self.transport.forget_user(user)
            await self.bridge.erase(user)
            await self.files.forget_user(user)
            await asyncio.to_thread(self.accounts.was_erased, user)
            await asyncio.to_thread(_empty_write_ahead, self.data_dir)
            log.info("account erased", extra={"user": user})
        return True

    async def fold_away(self) -> None:
        """What is said of devices and settings that are no more leaves the log; nothing need wait for it."""
        try:
            await self.bridge.ledger.compact(self.policy)
        except StoreError as error:
            log.warning("what was erased is folded away later: %s", error.message)

    async def unsubscribe(self, user: str) -> None:
        """No browser of the user is told anything any more. Raises `StoreError`."""
        if self.webpush.subscriptions is not None:
            await asyncio.to_thread(self.webpush.subscriptions.remove_user, user)


def _empty_write_ahead(folder: Path) -> None:
    for name in _BESIDE:
        file = folder / name
        if not file.exists():
            continue
        try:
            with closing(sqlite3.connect(file, timeout=5)) as connection:
                (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            busy, reason = 1, str(error)
        else:
            reason = "somebody reads it"
        if busy:
            log.warning("what was erased still stands in %s-wal: %s; the next stop empties it", name, reason)


__all__ = ["Eraser"]
