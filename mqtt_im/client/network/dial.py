"""Reaching a server: all its addresses are raced, each a little after the one before (RFC 8305), and the first to accept wins."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from .addresses import Address

HEAD_START_S: Final = 0.25
"""How long an address is tried before the next one joins in; one that fails is followed at once."""

Reached = tuple[Address, socket.socket]


async def reach(addresses: Sequence[Address]) -> Reached:
    """A connected TCP socket to the first of these that accepts. Raises `OSError` where none does."""
    return await _race([lambda address=address: _reach_host(address) for address in addresses])  # type: ignore[misc]


async def _reach_host(address: Address) -> Reached:
    infos = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return await _race([lambda info=info: _connect(address, info[0], info[4]) for info in infos])  # type: ignore[misc]


async def _connect(address: Address, family: int, where: Any) -> Reached:
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(raw, where)
    except BaseException:
        raw.close()
        raise
    return address, raw


async def _race(attempts: Sequence[Callable[[], Awaitable[Reached]]]) -> Reached:
    """The first that succeeds; the others are called off."""
    begun = [asyncio.Event() for _ in attempts]
    failed = [asyncio.Event() for _ in attempts]
    won: list[Reached] = []
    errors: list[OSError] = []

    async def run(index: int) -> None:
        if index:
            await begun[index - 1].wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEAD_START_S):
                    await failed[index - 1].wait()
        begun[index].set()
        try:
            reached = await attempts[index]()
        except OSError as error:
            errors.append(error)
            failed[index].set()
            return
        if won:
            reached[1].close()
        else:
            won.append(reached)

    tasks = {asyncio.ensure_future(run(index)) for index in range(len(attempts))}
    running = set(tasks)
    try:
        try:
            while running and not won:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    except BaseException:  # cancelled while the others are called off, too
        for _, raw in won:
            raw.close()
        raise
    if won:
        return won[0]
    raise errors[0] if errors else OSError("no address to connect to")
