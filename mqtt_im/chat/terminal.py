"""The chat in a terminal: joins the client, what is known, and the screen."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import time
from typing import Any, Final

from mqtt_im.chat.commands import MistakeError, Session, perform
from mqtt_im.chat.roster import Roster
from mqtt_im.chat.screen import Screen
from mqtt_im.client import Client, Refused

TYPING_EVERY_S: Final = 4.0
REFUSED_WITHIN_S: Final = 3.0
"""So long the start waits whether the server takes the user, before the screen shows itself."""


class Secret:
    """A password that is asked for when it turns out that one is needed."""

    def __init__(self, value: str | None = None) -> None:
        self.value = value

    def __call__(self) -> str | None:
        """What is known of it by now."""
        return self.value


class Terminal:
    """Implements `screen.Owner`."""

    def __init__(self, client: Client, **application: Any) -> None:
        self.client = client
        self.roster = Roster(client, self._changed, self._notice)
        self.screen = Screen(self.roster, self, **application)
        self._session = Session(self.roster, self.screen.say, self.screen.application.exit)
        self._told_typing = 0.0
        self._types = False

    async def run(self, to: str | None) -> None:
        """Until the user leaves; the client is connected before."""
        self.roster.start()
        if to is not None:
            self.roster.show(self.roster.timeline(to))
        try:
            await self.screen.application.run_async()
        finally:
            await self.roster.stop()

    def typed(self, text: str) -> None:
        """A line was entered."""
        if text.strip():
            self.roster.spawn(self._do(text))

    async def _do(self, text: str) -> None:
        try:
            if text.startswith("/") and not text.startswith("//"):
                before = self.roster.open
                await perform(self._session, text)
                if self.roster.open is not before:
                    self.screen.forget_notices()
            else:
                self._types = False
                await self.roster.send(self._session.here, text[1:] if text.startswith("//") else text)
        except (MistakeError, ValueError, TypeError) as error:
            self.screen.say(str(error))

    def typing(self, text: str) -> None:
        """The line has changed: the other side is told now and then."""
        here = self.roster.open
        if here is None or text.startswith("/") or self.roster.state != "online":
            return
        now = time.monotonic()
        if text and now - self._told_typing > TYPING_EVERY_S:
            self._told_typing, self._types = now, True
            self.roster.spawn(self.client.typing(here.to))
        elif not text and self._types:
            self._told_typing, self._types = 0.0, False
            self.roster.spawn(self.client.typing(here.to, on=False))

    def scrolled_to_top(self) -> None:
        """Older messages are fetched."""
        here = self.roster.open
        if here is not None and here.fetched and here.older:
            self.roster.spawn(self._older())

    async def _older(self) -> None:
        assert self.roster.open is not None
        await self.roster.fetch(self.roster.open)

    def _changed(self) -> None:
        self.screen.redraw()

    def _notice(self, text: str) -> None:
        self.screen.say(text)


def run(client: Client, to: str | None, secret: Secret) -> int:
    """The chat, until the user leaves; 0. Raises `Refused` and what else the client raises at its start."""
    return asyncio.run(_run(client, to, secret))


async def _run(client: Client, to: str | None, secret: Secret) -> int:
    async with client:
        try:
            await client.online(REFUSED_WITHIN_S)
        except TimeoutError:
            pass  # offline: what is typed waits
        except Refused:
            if secret.value is not None:
                raise
            secret.value = await asyncio.to_thread(getpass.getpass, f"Password of {client.user}: ")
            await client.connect()
            with contextlib.suppress(TimeoutError):
                await client.online(REFUSED_WITHIN_S)
        await Terminal(client).run(to)
    return 0
