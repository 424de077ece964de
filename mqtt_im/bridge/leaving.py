"""Connections that are gone, and whose requests are still on their way: a device's next one begins behind them."""

from __future__ import annotations

import asyncio

from .channel import Channel


class Leaving:
    """Counts, by `Channel.waiting`, what has no answer yet."""

    def __init__(self) -> None:
        self._leaving: dict[tuple[str, str], list[Channel]] = {}
        """Channels that are closed, with requests that have no answer yet, by device."""
        self._quiet: dict[tuple[str, str], list[asyncio.Future[None]]] = {}

    async def quiesced(self, user: str, device: str) -> None:
        """Returns when every request of the device has its answer."""
        key = (user, device)
        if key in self._leaving:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._quiet.setdefault(key, []).append(future)
            await future

    def left(self, channel: Channel) -> None:
        """The channel's connection is gone; what it handed in is still answered."""
        if channel.waiting:
            self._leaving.setdefault((channel.user, channel.device), []).append(channel)

    def answered(self, channel: Channel) -> None:
        """A request of the channel has its answer."""
        channel.waiting -= 1
        if channel.waiting or not self._leaving:
            return
        key = (channel.user, channel.device)
        leaving = self._leaving.get(key)
        if leaving is None or channel not in leaving:
            return
        leaving.remove(channel)
        if not leaving:
            del self._leaving[key]
            for future in self._quiet.pop(key, ()):
                if not future.done():
                    future.set_result(None)
