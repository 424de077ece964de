"""What a change of an account means for a running server: connections are closed, and who is gone is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from mqtt_im import logs
from mqtt_im.accounts.models import ERASED, PASSWORD, REMOVED, REVOKED, Change
from mqtt_im.accounts.table import Accounts
from mqtt_im.erasing import Eraser
from mqtt_im.protocol.errors import Refusal, StoreError
from mqtt_im.transport.embedded import EmbeddedTransport

POLL_S: Final = 0.25
AGAIN_S: Final = 30.0
"""Between two attempts to erase a user."""
_CLOSES: Final = {REMOVED: "account_removed", PASSWORD: "password_changed", REVOKED: "token_revoked"}
"""Why a change of an account closes connections."""

log = logging.getLogger(__name__)


class AccountChanges:
    """Follows the accounts of one server, whoever changes them."""

    def __init__(self, accounts: Accounts, eraser: Eraser, transport: EmbeddedTransport, suppressed: Callable[[], None]) -> None:
        """`suppressed` is called where the same line was logged a moment before, and is not logged again."""
        self._accounts = accounts
        self._eraser = eraser
        self._transport = transport
        self._log = logs.RateLimited(log, 1, suppressed)

    async def work_off(self) -> None:
        """What was asked for while no server ran, or failed then, is done."""
        for name in await asyncio.to_thread(self._accounts.to_hand_on):
            await self._removed(name)
        for name in await asyncio.to_thread(self._accounts.to_erase):
            if not await self._erase(name):
                self._eraser.bridge.background(self._erase_at_last(name))

    async def watch(self) -> None:
        """Act on each change a moment after it was made; ends when it is cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                if self._accounts.shared:
                    await asyncio.to_thread(self._accounts.catch_up)
            except StoreError as error:
                self._log.error("the accounts can't be read", reason=error.message)
                continue
            self.act()

    def act(self) -> None:
        """What has changed in the accounts since the last time is acted on."""
        try:
            changes = self._accounts.take_changes()
        except StoreError as error:
            self._log.error("the accounts can't be read", reason=error.message)
            return
        for change in changes:
            try:
                self._act_on(change)
            except Exception:
                log.exception("a change of an account met a mistake", extra={"user": change.name})

    def _act_on(self, change: Change) -> None:
        self._close(change)
        if change.what == ERASED:
            self._eraser.bridge.background(self._erase_at_last(change.name))
        elif change.what == REMOVED:
            self._eraser.bridge.background(self._removed(change.name))

    async def _removed(self, name: str) -> None:
        """An account was removed: see `Eraser`; where that fails now, the next start does it."""
        try:
            await self._eraser.removed(name)
        except (Refusal, StoreError) as error:
            log.error("groups of a removed account were not handed on: %s", error.message, extra={"user": name})

    async def _erase_at_last(self, name: str) -> None:
        """Erase a user, as somebody has asked: again and again where that fails, since a part of it may be done; see `_erase`."""
        done = await self._erase(name)
        while not done:
            await asyncio.sleep(AGAIN_S)
            done = await self._erase(name, again=True)

    async def _erase(self, name: str, again: bool = False) -> bool:
        """Whether the user is erased; where this server does not get to it any more, the next start does it."""
        try:
            if await self._eraser.erase(name):
                await self._eraser.fold_away()
        except (Refusal, StoreError, OSError) as error:
            if self._accounts.shared and not again:  # every node is at it, and finds the user half gone
                log.info("a user is not erased yet: %s", error, extra={"user": name})
            else:
                log.error("a user could not be erased: %s", error, extra={"user": name})
            return False
        return True

    def _close(self, change: Change) -> None:
        reason = _CLOSES.get(change.what)
        if reason is None:
            return
        for link in self._transport.links(change.name):
            if change.what != REVOKED or (link.lease is not None and link.lease.token == change.token):
                link.close(reason)
        log.info("account changed", extra={"user": change.name, "change": change.what})
