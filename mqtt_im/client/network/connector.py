"""From addresses to a connection that the server has accepted, over whatever version of MQTT it speaks."""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from .addresses import Address
from .dial import reach
from .link import UNSUPPORTED_VERSION, Accepted, Link, Version
from .stream import connected

_log = logging.getLogger(__name__)

Password = str | Callable[[], str | Awaitable[str | None] | None] | None

REMEMBER_S: Final = 7 * 86_400
"""How long a server that does not speak MQTT 5 is not asked again."""
REFUSALS: Final = frozenset({0x85, 0x86, 0x87, 0x8A, 0x8C})
"""CONNACK codes that trying again does not change: client id, name or password, not authorized, banned, method."""


class NotAccepted(Exception):
    """CONNACK said no; `code` is the reason code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Connector:
    """Makes one connection at a time. `notes` is what was learnt about versions, by address: when it was last refused."""

    def __init__(
        self,
        addresses: Sequence[Address],
        user: str,
        device: str,
        password: Password,
        tls: ssl.SSLContext | None,
        keepalive: int,
        notes: dict[str, float],
    ) -> None:
        self._addresses = list(addresses)
        self._user = user
        self._device = device
        self._password = password
        self._tls = tls
        self._keepalive = keepalive
        self._old = notes
        self._suspects: set[str] = set()
        """Addresses that ended a connection of MQTT 5 without a CONNACK: the next one is tried with 3.1.1."""
        self.on_learnt: Callable[[dict[str, float]], None] = lambda _notes: None

    async def connect(
        self,
        prepare: Callable[[Link, Address], None],
        started: Callable[[Link], None],
        accepted: Callable[[Link, Address, Accepted], None],
    ) -> tuple[Link, Address]:
        """A connection; `prepare` sets its callbacks.

        `started` is called when CONNECT leaves, for what goes with it, `accepted` when CONNACK comes, before what is behind it.
        Raises `NotAccepted`, `OSError`, or what the password function raised. Where it is cancelled nothing stays open.
        """
        password = await ask_password(self._password)
        while True:
            address, raw = await reach(self._addresses)
            version = self._version(address)
            try:
                stream = await connected(address, raw, self._tls)
                link = Link(stream, version, self._device, self._user, password, self._keepalive)
                answer: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
                link.on_accepted = lambda found, link=link, address=address, answer=answer: _accept(  # type: ignore[misc]
                    found, answer, lambda: accepted(link, address, found)
                )
                prepare(link, address)
                outer = link.on_lost

                def lost(why: str, code: int, answer: asyncio.Future[Accepted] = answer, outer: Any = outer) -> None:
                    if not answer.done():
                        answer.set_exception(ConnectionError(why))
                        answer.exception()
                    else:
                        outer(why, code)

                link.on_lost = lost
                try:
                    link.start()
                    started(link)
                    found = await answer
                except BaseException:
                    link.abort("called off")
                    raise
            except OSError:
                self._to_the_end(address)
                if version == 5:
                    self._suspects.add(str(address))
                else:
                    self._suspects.discard(str(address))
                raise
            if found.code == 0:
                if version == 3 and str(address) in self._suspects:
                    self._learn(address)
                self._suspects.discard(str(address))
                return link, address
            link.abort("refused")
            if version == 5 and found.code == UNSUPPORTED_VERSION:
                _log.info("%s does not speak MQTT 5, going on with 3.1.1", address)
                self._learn(address)
                continue
            self._to_the_end(address)
            raise NotAccepted(found.code, found.reason)

    def _version(self, address: Address) -> Version:
        name = str(address)
        refused = self._old.get(name)
        if name in self._suspects or (refused is not None and 0 <= time.time() - refused < REMEMBER_S):
            return 3
        return 5

    def _learn(self, address: Address) -> None:
        self._old[str(address)] = time.time()
        self.on_learnt(dict(self._old))

    def _to_the_end(self, address: Address) -> None:
        """It failed behind its open port: the others go first the next time."""
        self._addresses.remove(address)
        self._addresses.append(address)


def _accept(found: Accepted, answer: asyncio.Future[Accepted], accepted: Callable[[], None]) -> None:
    if not answer.done():
        answer.set_result(found)
        if found.code == 0:
            accepted()


async def ask_password(password: Password) -> str | None:
    """The password, which a function may have to be asked for. Raises what that raises, and `TypeError` for no text."""
    if password is None or isinstance(password, str):
        return password
    if inspect.iscoroutinefunction(password):
        given = await password()
    else:
        given = await asyncio.to_thread(password)  # it may ask a keyring, or a file
        if inspect.isawaitable(given):
            given = await given
    if given is not None and not isinstance(given, str):
        raise TypeError(f"the password function returned {type(given).__name__}, not str")
    return given
