"""Sockets that are being connected: one wins, and none is left open."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mqtt_im.client.network import dial
from mqtt_im.client.network.addresses import parsed


@pytest.mark.parametrize("turns", range(1, 6))
def test_a_socket_that_has_won_is_closed_where_the_client_is_called_off_before_it_has_it(turns: int) -> None:
    (address,) = parsed("mqtt://127.0.0.1:1")
    ours, theirs = socket.socketpair()

    async def first() -> dial.Reached:
        return address, ours

    async def second() -> dial.Reached:
        raise AssertionError("the first has won before")

    async def main() -> bool:
        race = asyncio.ensure_future(dial._race([first, second]))
        for _ in range(turns):
            await asyncio.sleep(0)
        race.cancel()
        try:
            await race
        except asyncio.CancelledError:
            return True
        return False

    called_off = asyncio.run(main())
    assert (ours.fileno() == -1) == called_off
    ours.close()
    theirs.close()
